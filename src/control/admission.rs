//! Who may use the gateway's sockets: root, the daemon's own user, and members of `[control] group`.
//!
//! The sockets' modes say the same. This is asked of each connection besides, by what the kernel noted of who made it, and so
//! holds where somebody has made a mode laxer or has the socket passed on through a directory of other rights.

use std::fmt;
use std::os::fd::AsFd;

use peer_credentials::Credentials;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub user: u32,
    /// 0: one of another PID namespace.
    pub process: i32,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}, pid {}", self.user, self.process)
    }
}

/// Who may.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    own_user: u32,
    /// Its name and number.
    group: Option<(String, u32)>,
}

impl Admission {
    /// Root, the user that this process is, and members of this group.
    pub fn new(group: Option<(String, u32)>) -> Self {
        Self { own_user: rustix::process::geteuid().as_raw(), group }
    }

    /// Who made a connection, if he may; else what to tell him, which says who he is and who may.
    pub fn admit(&self, connection: impl AsFd) -> Result<Peer, String> {
        let found = Credentials::of_peer(connection);
        let found = found.map_err(|error| format!("who you are cannot be found out ({error}): {}", self.allowed()))?;
        let peer = Peer { user: found.user, process: found.process };
        if self.allows(&found) {
            Ok(peer)
        } else {
            Err(format!("{peer}, may not use this gateway: {}", self.allowed()))
        }
    }

    fn allows(&self, found: &Credentials) -> bool {
        let is_member = |group: u32| found.group == group || found.groups.contains(&group);
        [0, self.own_user].contains(&found.user) || self.group.as_ref().is_some_and(|&(_, number)| is_member(number))
    }

    fn allowed(&self) -> String {
        let own = if self.own_user == 0 { String::new() } else { format!(", the daemon's own user {}", self.own_user) };
        match &self.group {
            Some((name, _)) => format!("allowed: root{own}, and members of group {name:?} ([control] group)"),
            None => format!("allowed: root{own}; [control] group would name a group whose members may"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(user: u32, group: u32, groups: &[u32]) -> Credentials {
        Credentials { process: 1, user, group, groups: groups.to_vec() }
    }

    #[test]
    fn root_the_own_user_and_members_may() {
        let admission = Admission { own_user: 5, group: Some(("fullgate".to_owned(), 998)) };
        assert!(admission.allows(&found(0, 1, &[])) && admission.allows(&found(5, 1, &[])));
        assert!(admission.allows(&found(7, 998, &[])) && admission.allows(&found(7, 7, &[1, 998])));
        assert!(!admission.allows(&found(7, 0, &[0, 5, 7])));
        let nobody_else = Admission { own_user: 0, group: None };
        assert!(nobody_else.allows(&found(0, 9, &[])) && !nobody_else.allows(&found(5, 0, &[0])));
    }

    #[test]
    fn who_made_a_connection_is_known() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let admission = Admission::new(None);
        let peer = admission.admit(&one).unwrap();
        assert_eq!(peer.process.cast_unsigned(), std::process::id());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(admission.admit(&file).unwrap_err().contains("allowed: root"));
    }
}
