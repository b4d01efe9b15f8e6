//! The little of netlink that is needed here: knowing the question for IPVS's family, and making an error.

/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_NAME`.
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_NAME: u16 = 2;

/// Bytes of a message's header, and of the one of generic families behind it.
const HEADER_LEN: usize = 16;
const GENERIC_HEADER_LEN: usize = 4;

/// Linux's ENOENT: there is no such family.
pub(crate) const ENOENT: i32 = 2;
/// Linux's EBUSY.
pub(crate) const EBUSY: i32 = 16;

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Whether a message asks the kernel for the family "IPVS".
pub(crate) fn asks_for_ipvs(message: &[u8]) -> bool {
    if u16_at(message, 4) != Some(CONTROLLER) || message.get(HEADER_LEN) != Some(&GET_FAMILY) {
        return false;
    }
    let mut attributes = message.get(HEADER_LEN + GENERIC_HEADER_LEN..).unwrap_or_default();
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        let length = usize::from(length);
        let Some(value) = attributes.get(4..length) else { return false };
        if kind == FAMILY_NAME {
            return value == b"IPVS\0" || value == b"IPVS";
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

/// The answer to a message that is not the daemon's: an error number, with the message's header.
pub(crate) fn error(message: &[u8], number: i32) -> Vec<u8> {
    let mut header = [0; HEADER_LEN];
    let length = message.len().min(HEADER_LEN);
    header[..length].copy_from_slice(&message[..length]);
    let whole = (HEADER_LEN + 4 + HEADER_LEN) as u32;
    // Length, type and flags of its own; the sequence number and the port are the message's.
    let mut error = whole.to_ne_bytes().to_vec();
    error.extend(ERROR.to_ne_bytes());
    error.extend(0_u16.to_ne_bytes());
    error.extend(&header[8..16]);
    error.extend((-number).to_ne_bytes());
    error.extend(header);
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&CONTROLLER.to_ne_bytes());
        bytes[8..12].copy_from_slice(&5_u32.to_ne_bytes());
        bytes.extend([3, 1, 0, 0]);
        // Another attribute first, of three bytes and one that fills up.
        bytes.extend([7, 0, 9, 0, 1, 2, 3, 0]);
        bytes.extend(u16::try_from(4 + name.len()).expect("short").to_ne_bytes());
        bytes.extend([2, 0]);
        bytes.extend(name);
        bytes
    }

    #[test]
    fn only_the_question_for_ipvs_is_one() {
        assert!(asks_for_ipvs(&question(b"IPVS\0")));
        assert!(!asks_for_ipvs(&question(b"IPVSX\0")));
        assert!(!asks_for_ipvs(&question(b"nlctrl\0")));
        assert!(!asks_for_ipvs(&question(b"IPVS\0")[..30]));
        assert!(!asks_for_ipvs(&[]));
        let mut other = question(b"IPVS\0");
        other[16] = 1;
        assert!(!asks_for_ipvs(&other));
    }

    #[test]
    fn an_error_answers_its_message() {
        let error = error(&question(b"IPVS\0"), EBUSY);
        assert_eq!(error.len(), 36);
        assert_eq!(error[..4], 36_u32.to_ne_bytes());
        assert_eq!(error[8..12], 5_u32.to_ne_bytes());
        assert_eq!(error[16..20], (-16_i32).to_ne_bytes());
        assert_eq!(super::error(&[], EBUSY).len(), 36);
    }
}
