//! What ipvsadm says of an error number: words of its own where the command gives it a meaning, else the system's.

use std::io;

use super::validity::Action;

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const ENOMEM: i32 = 12;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;
const EAFNOSUPPORT: i32 = 97;

/// The text of an error number after this command, of one service or of none in particular.
pub(super) fn text(action: Action, of_service: bool, number: i32) -> String {
    let known = match (action, number) {
        (Action::AddService, EEXIST) => "Service already exists",
        (Action::AddService | Action::EditService, ENOENT) => "Scheduler or persistence engine not found",
        (Action::AddServer | Action::EditServer | Action::DeleteServer, ESRCH) => "Service not defined",
        (Action::AddServer, EEXIST) => "Destination already exists",
        (Action::EditServer | Action::DeleteServer, ENOENT) => "No such destination",
        (Action::StartDaemon, EEXIST) => "Daemon has already run",
        (Action::StopDaemon, ESRCH) => "No daemon is running",
        (Action::EditService | Action::DeleteService | Action::Zero, ESRCH) => "No such service",
        (Action::List, ESRCH) if of_service => "No such service",
        (_, EPERM) => "Permission denied (you must be root)",
        (_, EINVAL) => "Invalid operation.  Possibly wrong module version, address not unicast, ...",
        (_, ENOMEM) => "Memory allocation problem",
        (_, EOPNOTSUPP) => "Operation not supported with IPv6",
        (_, EAFNOSUPPORT) => "Operation not supported with specified address family",
        _ => return system(number),
    };
    known.to_owned()
}

/// The system's text, without the number that the standard library puts behind it.
fn system(number: i32) -> String {
    let text = io::Error::from_raw_os_error(number).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_means_what_its_command_makes_of_it() {
        assert_eq!(text(Action::AddService, true, ENOENT), "Scheduler or persistence engine not found");
        assert_eq!(text(Action::DeleteServer, true, ENOENT), "No such destination");
        assert_eq!(text(Action::Clear, false, ENOENT), "No such file or directory");
        assert_eq!(text(Action::Zero, false, 16), "Device or resource busy");
    }
}
