//! Who is at the other end of a connected Unix socket, as the kernel noted it when the connection was made: what the peer
//! does with its identity afterwards changes nothing.
//!
//! In a crate of its own because it needs `unsafe`: no safe binding has `SO_PEERGROUPS`, and those of `SO_PEERCRED` that do
//! not wait for a stream take a process number for one that cannot be 0, which it is for one of another PID namespace.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Groups that there is room for at first; the kernel says how many there are.
const GROUPS: usize = 32;

/// Who connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Process number; 0: one of another PID namespace, which has no number here.
    pub process: i32,
    /// Effective user.
    pub user: u32,
    /// Effective group.
    pub group: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl Credentials {
    /// Those of the other end of a connected Unix socket (unix(7), socket(7)).
    ///
    /// # Errors
    /// The kernel's: what is asked is no Unix socket, or has no other end.
    pub fn of_peer(socket: impl AsFd) -> io::Result<Self> {
        let socket = socket.as_fd();
        let mut noted = [0_u32; 3];
        if option(socket, libc::SO_PEERCRED, &mut noted)? != size_of::<libc::ucred>() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let [process, user, group] = noted;
        Ok(Self { process: process.cast_signed(), user, group, groups: groups(socket)? })
    }
}

fn groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0; GROUPS];
    loop {
        match option(socket, libc::SO_PEERGROUPS, &mut groups) {
            Ok(length) => {
                groups.truncate(length / size_of::<u32>());
                return Ok(groups);
            }
            // There are more. A peer's never change, so that this ends; NGROUPS_MAX is 65536.
            Err(error) if error.raw_os_error() == Some(libc::ERANGE) && groups.len() < 1 << 17 => {
                groups.resize(groups.len() * 4, 0);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Fills `words` with the value of an option of the socket's own; the bytes that the kernel wrote.
fn option(socket: BorrowedFd<'_>, name: libc::c_int, words: &mut [u32]) -> io::Result<usize> {
    let room = std::mem::size_of_val(words);
    let mut length = libc::socklen_t::try_from(room).map_err(io::Error::other)?;
    let descriptor = socket.as_raw_fd();
    // SAFETY: the descriptor is open as long as `socket` lives; the kernel writes at most `length` bytes behind the pointer,
    // which are `words`, and any bytes are valid there.
    let result =
        unsafe { libc::getsockopt(descriptor, libc::SOL_SOCKET, name, words.as_mut_ptr().cast(), &mut length) };
    if result == 0 { Ok(length as usize) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_peer_is_who_made_the_connection() {
        let (one, _other) = UnixStream::pair().expect("a pair");
        let found = Credentials::of_peer(&one).expect("credentials");
        assert_eq!(found.process.cast_unsigned(), std::process::id());
        let status = std::fs::read_to_string("/proc/self/status").expect("status");
        let numbers = |key: &str| -> Vec<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a line");
            line.split_whitespace().map(|number| number.parse().expect("a number")).collect()
        };
        assert_eq!((found.user, found.group), (numbers("Uid:")[1], numbers("Gid:")[1]));
        assert_eq!(found.groups, numbers("Groups:"));
    }

    #[test]
    fn what_is_no_socket_has_no_peer() {
        assert!(Credentials::of_peer(File::open("/dev/null").expect("a file")).is_err());
    }
}
