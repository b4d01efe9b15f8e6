//! The control socket in the file system: bound so that it is never reachable with other rights than it shall have.
//!
//! It is bound inside a private directory beside its place, given mode 0660 and its group there, and then renamed to
//! its place, which also replaces the socket of a daemon that died. A daemon that lives answers a connection and is
//! left alone. The socket is removed when this is dropped, unless another took its place.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::admission::Admission;

/// Clients that wait to be accepted.
const BACKLOG: i32 = 128;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the messages say")]
pub enum SocketError {
    #[error("[control] socket {}: a running fullgate{} answers there: stop it, or choose another socket", .path.display(), .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse { path: PathBuf, pid: Option<i32> },
    #[error("[control] socket {}: there is a file that is no socket: remove it, or choose another path", .path.display())]
    NotASocket { path: PathBuf },
    #[error("[control] socket {}: it is no absolute path of a file", .path.display())]
    BadPath { path: PathBuf },
    #[error("[control] group {group:?}: /etc/group names no such group")]
    UnknownGroup { group: String },
    #[error("[control] socket {}: {action}: {source}", .path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error },
}

/// A listening control socket.
#[derive(Debug)]
pub struct ControlSocket {
    listener: OwnedFd,
    path: PathBuf,
    /// Device and inode, to know it again.
    identity: (u64, u64),
    admission: Admission,
}

impl ControlSocket {
    /// Binds the socket of the control protocol, mode 0660, with this group if one is given. Its directory is made if it
    /// is missing.
    pub fn bind(path: &Path, group: Option<&str>) -> Result<Self, SocketError> {
        Self::bind_of(SocketType::STREAM, path, group)
    }

    /// Binds a socket that keeps datagrams apart, in the same way.
    pub fn bind_for_datagrams(path: &Path, group: Option<&str>) -> Result<Self, SocketError> {
        Self::bind_of(SocketType::SEQPACKET, path, group)
    }

    fn bind_of(kind: SocketType, path: &Path, group: Option<&str>) -> Result<Self, SocketError> {
        let group = group.map(|name| Ok((name.to_owned(), group_id(name)?))).transpose()?;
        let (true, Some(directory)) = (path.is_absolute() && path.file_name().is_some(), path.parent()) else {
            return Err(SocketError::BadPath { path: path.to_owned() });
        };
        let io_error = |action| move |source| SocketError::Io { path: path.to_owned(), action, source };
        let make = DirBuilder::new().recursive(true).mode(0o755).create(directory);
        make.map_err(io_error("its directory cannot be made"))?;
        refuse_living(kind, path)?;
        let private = directory.join(format!(".fullgate-{}", std::process::id()));
        let _ = fs::remove_dir_all(&private);
        DirBuilder::new().mode(0o700).create(&private).map_err(io_error("its directory cannot be written"))?;
        let bound = bind_in(kind, &private, path, group.as_ref().map(|(_, number)| *number))
            .map_err(io_error("cannot be bound"));
        let _ = fs::remove_dir_all(&private);
        let (listener, identity) = bound?;
        Ok(Self { listener, path: path.to_owned(), identity, admission: Admission::new(group) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who may use it.
    pub(super) fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Another handle of the listening socket, not blocking, for an event loop.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.listener.try_clone()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(socket = %self.path.display(), %error, "the control socket cannot be removed");
        }
    }
}

fn bind_in(kind: SocketType, private: &Path, path: &Path, group: Option<u32>) -> io::Result<(OwnedFd, (u64, u64))> {
    let temporary = private.join("s");
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let listener = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
    rustix::net::bind(&listener, &SocketAddrUnix::new(&temporary)?)?;
    if group.is_some() {
        chown(&temporary, None, group)?;
    }
    fs::set_permissions(&temporary, Permissions::from_mode(0o660))?;
    rustix::net::listen(&listener, BACKLOG)?;
    let metadata = fs::symlink_metadata(&temporary)?;
    fs::rename(&temporary, path)?;
    Ok((listener, (metadata.dev(), metadata.ino())))
}

/// An error if someone answers at `path`, or if what is there is no socket.
fn refuse_living(kind: SocketType, path: &Path) -> Result<(), SocketError> {
    let path_buf = || path.to_owned();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(SocketError::Io { path: path_buf(), action: "cannot be looked at", source }),
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket { path: path_buf() }),
        Ok(_) => {}
    }
    match connect(kind, path) {
        Ok(stream) => {
            let peer = rustix::net::sockopt::socket_peercred(&stream).ok();
            Err(SocketError::InUse { path: path_buf(), pid: peer.map(|peer| peer.pid.as_raw_pid()) })
        }
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(()),
        // Its queue of connections is full: someone is there, only busy.
        Err(Errno::AGAIN) => Err(SocketError::InUse { path: path_buf(), pid: None }),
        Err(errno) => Err(SocketError::Io { path: path_buf(), action: "cannot be tried", source: errno.into() }),
    }
}

/// Connects without waiting: what listens there may be stuck.
fn connect(kind: SocketType, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// The number of a group, from /etc/group: groups known only elsewhere (LDAP, systemd-userdb) are not found.
fn group_id(group: &str) -> Result<u32, SocketError> {
    let path = PathBuf::from("/etc/group");
    let text =
        fs::read_to_string(&path).map_err(|source| SocketError::Io { path, action: "cannot be read", source })?;
    find_group(&text, group).ok_or_else(|| SocketError::UnknownGroup { group: group.to_owned() })
}

/// group(5): `name:password:number:members`.
fn find_group(text: &str, group: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn groups_are_found_by_their_whole_name() {
        let text = "root:x:0:\nfull:x:7:\nfullgate:x:998:ann,bob\nbad\n";
        assert_eq!(find_group(text, "fullgate"), Some(998));
        assert_eq!((find_group(text, "gate"), find_group(text, "bad")), (None, None));
    }

    #[test]
    fn the_socket_has_its_rights_replaces_a_dead_one_and_goes_with_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/control.sock");
        let first = ControlSocket::bind(&path, Some("root")).unwrap();
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.gid()), (0o660, 0));
        let error = ControlSocket::bind(&path, None).unwrap_err().to_string();
        assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
        // What a killed daemon leaves: the file, but nobody who listens.
        let listener = &first.listener;
        rustix::net::shutdown(listener, rustix::net::Shutdown::Both).unwrap();
        let second = ControlSocket::bind(&path, None).unwrap();
        drop(first);
        UnixStream::connect(&path).expect("the first one's end leaves the second one alone");
        drop(second);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let error = ControlSocket::bind(&path, Some("no-such-group")).unwrap_err().to_string();
        assert!(error.contains("\"no-such-group\""), "{error}");
        fs::write(&path, "precious").unwrap();
        let error = ControlSocket::bind(&path, None).unwrap_err().to_string();
        assert!(error.contains("no socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        assert!(matches!(ControlSocket::bind(Path::new("x.sock"), None), Err(SocketError::BadPath { .. })));
    }
}
