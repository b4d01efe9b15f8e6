//! Finds libdpdk with pkg-config, compiles the shim and makes the bindings.
//!
//! Metadata for the crates above: `DEP_DPDK_LIBDIR`, the directory that libdpdk was found in, and
//! `DEP_DPDK_VERSION`.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

/// What the gateway uses, as regular expressions over names. Everything else of DPDK stays out, so that a release
/// that changes it still builds.
const FUNCTIONS: [&str; 14] = [
    "rte_eal_(init|cleanup|get_runtime_dir)",
    "rte_dev_(name|probe|remove)",
    "rte_eth_find_next",
    "rte_eth_dev_(info_get|configure|adjust_nb_rx_tx_desc|start|stop|close|get_mtu|set_mtu|rss_reta_(update|query)|rss_hash_conf_get)",
    "rte_eth_(rx|tx)_queue_setup",
    "rte_eth_(macaddr|stats|xstats)_get(_names)?",
    "rte_eth_(promiscuous|allmulticast)_enable",
    "rte_eth_dev_(default_mac_addr_set|mac_addr_add|mac_addr_remove)",
    "rte_mempool_(avail_count|free|create_empty|set_ops_byname|get_page_size|populate_virt|obj_iter)",
    "rte_(mbuf_best_mempool_ops|pktmbuf_pool_create|pktmbuf_pool_init|pktmbuf_init|pktmbuf_free_bulk)",
    "rte_(malloc_socket|free)",
    "rte_thread_(register|unregister)",
    "rte_(version|get_tsc_hz)",
    "dpdk_shim_.*",
];

/// Structures that are only ever pointed to: their fields are moved about between releases.
const OPAQUE: [&str; 4] = ["rte_mbuf", "rte_mempool", "rte_device", "rte_eth_dev"];

fn main() -> Result<(), Box<dyn Error>> {
    for file in ["src/shim.h", "src/shim.c", "build.rs"] {
        println!("cargo::rerun-if-changed={file}");
    }
    let library = pkg_config::Config::new().atleast_version("22.11").probe("libdpdk").map_err(|error| {
        format!("libdpdk was not found (Debian: apt-get install libdpdk-dev; elsewhere set PKG_CONFIG_PATH): {error}")
    })?;
    let flags = compiler_flags()?;
    println!("cargo::metadata=version={}", library.version);
    println!("cargo::metadata=libdir={}", pkg_config::get_variable("libdpdk", "libdir")?);

    let mut shim = cc::Build::new();
    shim.file("src/shim.c").warnings(true);
    for flag in &flags {
        shim.flag(flag);
    }
    shim.try_compile("dpdk_shim")?;
    bindings(&flags)
}

/// The flags that DPDK's headers must be read with. The pkg-config crate keeps only `-I` and `-D`, but without
/// `-include rte_config.h` and `-march=` the headers do not compile.
fn compiler_flags() -> Result<Vec<String>, Box<dyn Error>> {
    let program = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let output = Command::new(program).args(["--cflags", "libdpdk"]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?.split_whitespace().map(str::to_owned).collect())
}

fn bindings(flags: &[String]) -> Result<(), Box<dyn Error>> {
    let mut builder = bindgen::Builder::default()
        .header("src/shim.h")
        .clang_args(flags)
        .allowlist_var("DPDK_SHIM_.*")
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_default(true)
        .generate_comments(false);
    for name in FUNCTIONS {
        builder = builder.allowlist_function(name);
    }
    for name in OPAQUE {
        builder = builder.opaque_type(name);
    }
    let file = PathBuf::from(env::var("OUT_DIR")?).join("bindings.rs");
    builder.generate()?.write_to_file(file)?;
    Ok(())
}
