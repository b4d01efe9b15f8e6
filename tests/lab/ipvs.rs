//! IPVS's own tools, started against the gateway under test as a user starts them: `fullgate exec`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::gateway::{FULLGATE, Gateway};
use super::namespace::Namespace;
use super::preload::library;
use super::{PATIENCE, wait_for};

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

/// A keepalived or an ldirectord, in the foreground; ended when dropped.
pub struct Director {
    child: Child,
    name: &'static str,
    configuration: PathBuf,
    log: PathBuf,
}

#[allow(dead_code, reason = "not every test has one")]
impl Director {
    /// keepalived with this configuration; its files are in `directory`, where only one can be.
    pub fn keepalived(gateway: &Gateway, namespace: &Namespace, directory: &Path, configuration: &str) -> Self {
        let files = directory.join("keepalived");
        std::fs::create_dir_all(&files).unwrap();
        let (file, files) = (files.join("keepalived.conf"), files.display());
        std::fs::write(&file, configuration).unwrap();
        let pids = format!("-p {files}/parent.pid -r {files}/vrrp.pid -c {files}/checkers.pid -b {files}/bfd.pid");
        let command = gateway.exec(namespace, &format!("keepalived -n -l -D -G {pids} -f {files}/keepalived.conf"));
        Self::start("keepalived", command, file)
    }

    /// ldirectord with this configuration.
    pub fn ldirectord(gateway: &Gateway, namespace: &Namespace, directory: &Path, configuration: &str) -> Self {
        // Its pid file is called after it, and in a directory that all share.
        let file = directory.join(format!("ldirectord-{}.cf", namespace.name()));
        std::fs::write(&file, configuration).unwrap();
        let command = gateway.exec(namespace, &format!("ldirectord {} start", file.display()));
        Self::start("ldirectord", command, file)
    }

    fn start(name: &'static str, mut command: Command, configuration: PathBuf) -> Self {
        let log = configuration.with_extension("log");
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Self { child, name, configuration, log }
    }

    /// Another configuration, which a SIGHUP has it take.
    pub fn reload(&self, configuration: &str) {
        std::fs::write(&self.configuration, configuration).unwrap();
        self.signal(Signal::HUP);
    }

    /// Sends its first process a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().cast_signed()).unwrap(), signal).unwrap();
    }

    /// Ends it as `systemctl stop` does; it takes its services away.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        wait_for(&format!("{} to end", self.name), PATIENCE, || self.child.try_wait().unwrap());
    }

    /// Ends it and its children without a word, as a machine that loses power does.
    pub fn kill(mut self) {
        let children = self.children();
        self.child.kill().unwrap();
        for child in children {
            // It may have gone with its parent.
            let _ = kill_process(child, Signal::KILL);
        }
        self.child.wait().unwrap();
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its first process's children.
    pub fn children(&self) -> Vec<Pid> {
        let pid = self.child.id();
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
    }

    /// CPU time that it and its children have used so far.
    pub fn cpu_time(&self) -> Duration {
        let own = Pid::from_raw(self.child.id().cast_signed());
        let nanoseconds = self.children().into_iter().chain(own).filter_map(|pid| {
            let text = std::fs::read_to_string(format!("/proc/{}/schedstat", pid.as_raw_pid())).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanoseconds.sum())
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}'s log\n{}", self.name, self.log());
        }
        if !self.is_running() {
            return;
        }
        self.signal(Signal::TERM);
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while self.is_running() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
