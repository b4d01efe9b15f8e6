//! BIRD: the routing daemon of a gateway or of a router beside it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use super::Namespace;

/// A BIRD in the foreground of a namespace; ended when dropped, its routes with it.
pub struct Bird {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Bird {
    /// Starts one with this configuration, whose files go under `name` into `directory`.
    pub fn start(namespace: &Namespace, directory: &Path, name: &str, text: &str) -> Self {
        let file = |kind: &str| directory.join(format!("{name}.{kind}"));
        std::fs::write(file("conf"), text).unwrap();
        let log = std::fs::File::create(file("log")).unwrap();
        let mut command = namespace.command("bird");
        command.arg("-f").arg("-c").arg(file("conf")).arg("-s").arg(file("ctl")).arg("-P").arg(file("pid"));
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Self { child, socket: file("ctl"), log: file("log") }
    }

    /// What it answers to a command of birdc's.
    pub fn ask(&self, words: &str) -> String {
        let output = Command::new("birdc").arg("-s").arg(&self.socket).args(words.split_whitespace()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), std::fs::read_to_string(&self.log).unwrap_or_default());
        }
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
