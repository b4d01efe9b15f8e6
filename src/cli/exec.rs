//! `fullgate exec`: starts an unmodified ipvsadm, keepalived or ldirectord that manages this gateway instead of the
//! kernel's IPVS.
//!
//! The program is started with a library of ours loaded into it (crates/ipvs-preload), which is all that happens here.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, ValueHint};
use elf::ElfStream;
use elf::abi::PT_INTERP;
use elf::endian::AnyEndian;
use elf::file::Class;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::CliError;
use crate::config::{DEFAULT_SOCKET, ipvs_socket_beside};

/// The library's file.
const LIBRARY: &str = "libfullgate_ipvs.so";

/// What this program is, and so the library.
const OWN_CLASS: Class = if cfg!(target_pointer_width = "64") { Class::ELF64 } else { Class::ELF32 };

/// Run an unmodified ipvsadm, keepalived or ldirectord against this gateway
#[derive(Debug, Args)]
#[command(after_help = "\
The program sees the gateway where it expects the kernel's IPVS. What it starts does so too, as ldirectord
starts ipvsadm. Programs that are setuid, have file capabilities, are linked statically or are written in Go
are refused: they would reach the kernel's IPVS.

Examples:
  fullgate exec -- ipvsadm -A -t 10.0.0.100:80 -s wlc
  fullgate exec -- ipvsadm -L -n
  fullgate exec -- keepalived -n -l
  fullgate exec -- ldirectord -d /etc/ha.d/ldirectord.cf start")]
pub(super) struct Exec {
    /// Control socket of the daemon; the one for IPVS's tools is beside it
    #[arg(long, env = "FULLGATE_SOCKET", value_name = "PATH", default_value = DEFAULT_SOCKET, value_hint = ValueHint::FilePath)]
    socket: PathBuf,

    /// The library to load [default: libfullgate_ipvs.so beside this program or in ../lib/fullgate]
    #[arg(long, env = "FULLGATE_IPVS_LIBRARY", value_name = "PATH", value_hint = ValueHint::FilePath)]
    library: Option<PathBuf>,

    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Exec {
    /// Becomes the program; returns only where that fails.
    pub(super) fn execute(self) -> Result<(), CliError> {
        let library = match self.library {
            Some(library) if library.is_file() => library,
            Some(library) => return failed(format!("--library {}: there is no such file", library.display())),
            None => installed_library()?,
        };
        let Some((program, arguments)) = self.command.split_first() else {
            return failed("no program is given".to_owned());
        };
        refuse_without_library(program)?;
        let socket = ipvs_socket_beside(&self.socket);
        if let Some(reason) = why_out_of_reach(&socket) {
            eprintln!(
                "fullgate: {}: {reason}: what {} asks for is refused meanwhile",
                socket.display(),
                program.display()
            );
        }
        let error = Command::new(program)
            .args(arguments)
            .env("LD_PRELOAD", preload(&library, std::env::var_os("LD_PRELOAD")))
            .env("FULLGATE_IPVS_SOCKET", socket)
            .exec();
        failed(format!("cannot run {}: {error}", program.display()))
    }
}

/// Why the daemon cannot be asked anything at the moment. The program is started all the same: keepalived outlives that.
fn why_out_of_reach(socket: &Path) -> Option<String> {
    let ours = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).ok()?;
    match connect(&ours, &SocketAddrUnix::new(socket).ok()?) {
        Ok(()) => None,
        Err(Errno::ACCESS) => {
            Some("no permission: allowed are root and members of the group of [control] group".to_owned())
        }
        Err(errno) => Some(format!("no daemon listens ({errno})")),
    }
}

fn failed<T>(message: String) -> Result<T, CliError> {
    Err(CliError::Failed(message))
}

/// The library of this installation, or of this build.
fn installed_library() -> Result<PathBuf, CliError> {
    let program = std::env::current_exe()?;
    let directory = program.parent().unwrap_or(Path::new("/"));
    let places = [directory.join(LIBRARY), directory.join("../lib/fullgate").join(LIBRARY)];
    if let Some(found) = places.iter().find(|place| place.is_file()) {
        return Ok(found.clone());
    }
    let places = places.map(|place| place.display().to_string()).join(" or ");
    failed(format!("there is no {places}: name it with --library, or build it with `make build`"))
}

/// The library in front of those that are loaded already.
fn preload(library: &Path, others: Option<OsString>) -> OsString {
    let mut all = library.as_os_str().to_owned();
    if let Some(others) = others.filter(|others| !others.is_empty()) {
        all.push(":");
        all.push(others);
    }
    all
}

/// A program that does not call the library would manage the kernel's IPVS, and nobody would notice.
fn refuse_without_library(program: &OsStr) -> Result<(), CliError> {
    let Some(path) = find(program) else { return Ok(()) };
    let Some(reason) = why_without_library(&path) else { return Ok(()) };
    failed(format!("{} {reason}: it would ignore the library and reach the kernel's IPVS", path.display()))
}

/// Why a program would not call the library. Not of a script: what it starts does, or does not.
fn why_without_library(path: &Path) -> Option<&'static str> {
    const SET_USER_OR_GROUP: u32 = 0o6000;
    let has_capabilities = rustix::fs::getxattr(path, "security.capability", &mut [0_u8; 64]).is_ok();
    if path.metadata().ok()?.permissions().mode() & SET_USER_OR_GROUP != 0 || has_capabilities {
        return Some("is setuid or has file capabilities");
    }
    let mut program = ElfStream::<AnyEndian, _>::open_stream(File::open(path).ok()?).ok()?;
    if !program.segments().iter().any(|segment| segment.p_type == PT_INTERP) {
        return Some("is linked statically");
    }
    if program.ehdr.class != OWN_CLASS {
        return Some("is not for this machine's word size");
    }
    let is_of_go = program.section_header_by_name(".go.buildinfo").is_ok_and(|section| section.is_some());
    is_of_go.then_some("is written in Go, which does without the C library")
}

/// Where a program is that is to be run by this name.
fn find(program: &OsStr) -> Option<PathBuf> {
    let path = Path::new(program);
    if path.components().count() > 1 {
        return Some(path.to_owned());
    }
    let directories = std::env::var_os("PATH")?;
    std::env::split_paths(&directories).map(|directory| directory.join(path)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_is_away_is_told_of() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.ipvs.sock");
        let reason = why_out_of_reach(&path).unwrap();
        assert!(reason.starts_with("no daemon listens (No such file"), "{reason}");
        let daemon = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&daemon, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&daemon, 1).unwrap();
        assert_eq!(why_out_of_reach(&path), None);
    }

    #[test]
    fn other_libraries_stay() {
        let library = Path::new("/lib/ours.so");
        assert_eq!(preload(library, None), "/lib/ours.so");
        assert_eq!(preload(library, Some(OsString::new())), "/lib/ours.so");
        assert_eq!(preload(library, Some("/lib/a.so".into())), "/lib/ours.so:/lib/a.so");
    }

    #[test]
    fn programs_are_found_as_the_shell_finds_them() {
        assert_eq!(find(OsStr::new("/bin/../bin/sh")), Some(PathBuf::from("/bin/../bin/sh")));
        assert!(find(OsStr::new("sh")).is_some_and(|path| path.ends_with("sh") && path.is_absolute()));
        assert_eq!(find(OsStr::new("no-such-program-anywhere")), None);
    }

    /// Whether a program with these bytes and this mode is run, or why not.
    fn judge(bytes: &[u8], mode: u32) -> Option<&'static str> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let reason = why_without_library(&path);
        let told = refuse_without_library(path.as_os_str()).err().map(|error| error.to_string());
        assert_eq!(told.is_some(), reason.is_some());
        let refused = |told: String| told.contains("reach the kernel's IPVS") && told.contains(reason.unwrap_or("?"));
        assert!(told.is_none_or(refused));
        reason
    }

    #[test]
    fn programs_that_would_reach_the_kernel_are_refused() {
        let shell = std::fs::read("/bin/sh").unwrap();
        assert_eq!(judge(&shell, 0o755), None);
        assert_eq!(judge(b"#!/bin/sh\n", 0o755), None);
        assert_eq!(judge(b"", 0o755), None, "the kernel says what is wrong with it");
        for mode in [0o4755, 0o2755] {
            assert_eq!(judge(&shell, mode), Some("is setuid or has file capabilities"));
        }
        // The header alone, with no word of segments and sections.
        let mut alone = shell[..64].to_vec();
        alone[32..48].fill(0);
        alone[54..].fill(0);
        assert_eq!(judge(&alone, 0o755), Some("is linked statically"));
        let mut of_go = shell.clone();
        let name = of_go.windows(14).rposition(|bytes| bytes == b".gnu.version_r").unwrap();
        of_go[name..][..14].copy_from_slice(b".go.buildinfo\0");
        assert_eq!(judge(&of_go, 0o755), Some("is written in Go, which does without the C library"));
    }
}
