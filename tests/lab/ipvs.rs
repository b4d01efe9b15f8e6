//! IPVS's own tools, started against the gateway under test as a user starts them: `fullgate exec`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use super::gateway::{FULLGATE, Gateway};
use super::namespace::Namespace;

/// The library that is loaded into them, built once.
pub fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let directory = Path::new(FULLGATE).parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--locked", "--package", "ipvs-preload"]);
        if directory.ends_with("release") {
            build.arg("--release");
        }
        let output = build.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let library = directory.join("libfullgate_ipvs.so");
        assert!(library.is_file(), "{} was built", library.display());
        library
    })
}

impl Gateway {
    /// `fullgate exec -- PROGRAM ARGUMENTS`, in a namespace where the kernel has no IPVS of its own.
    pub fn exec(&self, namespace: &Namespace, command: &str) -> Command {
        library();
        let mut exec = namespace.command(FULLGATE);
        exec.arg("exec").arg("--socket").arg(self.socket()).arg("--").args(command.split_whitespace());
        exec
    }

    /// What `ipvsadm ARGUMENTS` does and says.
    pub fn try_ipvsadm(&self, namespace: &Namespace, arguments: &str) -> Output {
        self.exec(namespace, &format!("ipvsadm {arguments}")).output().unwrap()
    }

    /// What `ipvsadm ARGUMENTS` says; it must succeed.
    pub fn ipvsadm(&self, namespace: &Namespace, arguments: &str) -> String {
        let output = self.try_ipvsadm(namespace, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ipvsadm {arguments}: {}: {said}\n{}", output.status, self.log());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `ipvsadm -R` with this input; it must succeed.
    pub fn ipvsadm_restore(&self, namespace: &Namespace, rules: &str) {
        let mut restore = self.exec(namespace, "ipvsadm -R");
        let mut child = restore.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), rules.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "ipvsadm -R: {}", String::from_utf8_lossy(&output.stderr));
    }
}
