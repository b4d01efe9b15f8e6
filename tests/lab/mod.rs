//! A laboratory in network namespaces: clients, real servers, switches and routers around a real `fullgate` daemon.
//!
//! Each test builds a lab of its own under names of its own, waits on conditions with a deadline (never for a fixed
//! time), and everything it made goes away when it is dropped: processes by pid, namespaces by name. Needs root.

pub mod bird;
pub mod client;
pub mod frames;
pub mod gateway;
pub mod ipvs;
pub mod namespace;
pub mod preload;
pub mod servers;
pub mod trunk;

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

pub use client::{Load, get};
pub use gateway::{Configuration, Gateway};
pub use namespace::{Namespace, cable, run};
#[allow(unused_imports, reason = "not every test has SCTP")]
pub use servers::{Nginx, SctpEcho, UdpEcho};
pub use trunk::TrunkSwitch;

/// How long a condition may take that should hold at once, on a machine that does other things too.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` gives a value; panics, naming `what`, when it has not within `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The namespaces around a gateway.
///
/// Two-arm: client 10.0.0.10 (and up to .29) - veth-wan 10.0.0.1 - gateway - veth-lan 10.1.0.1 - switch - real servers
/// 10.1.0.11 and on. One-arm: all of them on the switch in 10.0.0.0/24.
pub struct Lab {
    pub client: Namespace,
    pub gateway: Namespace,
    pub switch: Namespace,
    pub reals: Vec<Namespace>,
    pub directory: tempfile::TempDir,
}

/// The service's address in every lab.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);

impl Lab {
    /// Clients on one side, `reals` real servers on the other; the gateway's cables have `queues` queues.
    pub fn two_arm(reals: usize, queues: usize) -> Self {
        let lab = Self::without_cables(reals);
        cable(&lab.client, "eth0", &lab.gateway, "veth-wan", queues);
        lab.plug("gateway", &lab.gateway, "veth-lan", queues);
        lab.add_addresses();
        for index in 0..lab.reals.len() {
            lab.plug_real(index);
        }
        lab
    }

    /// Everybody on one switch.
    pub fn one_arm(reals: usize) -> Self {
        Self::one_arm_with_queues(reals, 1)
    }

    /// The same with so many queues of the gateway's cable.
    pub fn one_arm_with_queues(reals: usize, queues: usize) -> Self {
        let lab = Self::without_cables(reals);
        lab.plug("gateway", &lab.gateway, "veth-lan", queues);
        lab.plug("client", &lab.client, "eth0", 1);
        lab.client.ip("addr add 10.0.0.10/24 dev eth0");
        for (index, real) in lab.reals.iter().enumerate() {
            lab.plug(&format!("rs{index}"), real, "eth0", 1);
            real.ip(&format!("addr add 10.0.0.{}/24 dev eth0", 11 + index));
        }
        lab
    }

    /// One cable, `veth-trunk`, for all: clients in VLAN 100, real servers in VLAN 200, and without a tag the switch
    /// itself, 10.9.0.2.
    pub fn trunk(reals: usize, queues: usize) -> (Self, TrunkSwitch) {
        let lab = Self::without_cables(reals);
        let trunk = TrunkSwitch::start(&lab.switch, "tap-trunk", &[("tap-100", 100), ("tap-200", 200)]);
        cable(&lab.switch, "cable", &lab.gateway, "veth-trunk", queues);
        for (namespace, interface) in [(&lab.switch, "cable"), (&lab.gateway, "veth-trunk")] {
            // Tags in the frame, as on a wire, and not beside it.
            for feature in ["txvlan", "rxvlan", "tx-vlan-stag-hw-insert", "rx-vlan-stag-hw-parse"] {
                run(namespace.command("ethtool").args(["-K", interface, feature, "off"]));
            }
        }
        for bridge in ["trunk", "clients"] {
            lab.switch.ip(&format!("link add {bridge} type bridge"));
            lab.switch.ip(&format!("link set {bridge} up"));
        }
        lab.switch.ip("addr add 10.9.0.2/24 dev trunk");
        for (socket, bridge) in
            [("cable", "trunk"), ("tap-trunk", "trunk"), ("tap-100", "clients"), ("tap-200", "switch")]
        {
            lab.switch.ip(&format!("link set {socket} master {bridge} up"));
        }
        cable(&lab.switch, "client", &lab.client, "eth0", 1);
        lab.switch.ip("link set client master clients");
        lab.add_addresses();
        for index in 0..lab.reals.len() {
            lab.plug_real(index);
        }
        (lab, trunk)
    }

    fn without_cables(reals: usize) -> Self {
        let switch = Namespace::new("switch");
        switch.ip("link add switch type bridge");
        switch.ip("link set switch up");
        Self {
            client: Namespace::new("client"),
            gateway: Namespace::new("gateway"),
            switch,
            reals: (0..reals).map(|index| Namespace::new(&format!("rs{index}"))).collect(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// The clients', where they are alone.
    fn add_addresses(&self) {
        for host in 10..30 {
            self.client.ip(&format!("addr add 10.0.0.{host}/24 dev eth0"));
        }
    }

    /// A real server of its number in 10.1.0.0/24.
    fn plug_real(&self, index: usize) {
        self.plug(&format!("rs{index}"), &self.reals[index], "eth0", 1);
        self.reals[index].ip(&format!("addr add 10.1.0.{}/24 dev eth0", 11 + index));
    }

    /// A cable from the switch's new port `socket` to `interface` of `namespace`.
    pub fn plug(&self, socket: &str, namespace: &Namespace, interface: &str, queues: usize) {
        cable(&self.switch, socket, namespace, interface, queues);
        self.switch.ip(&format!("link set {socket} master switch"));
    }

    /// Where the lab's files are.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}
