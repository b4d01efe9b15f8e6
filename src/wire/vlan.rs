//! VLAN tags (IEEE 802.1Q, 9.3): four bytes between an Ethernet frame's source address and its EtherType.
//!
//! A tag is taken off and put on in place: the two addresses move by its length, nothing else does.

use super::be16;
use super::ethernet;

/// Bytes of a tag.
pub const LEN: usize = 4;
/// EtherType in front of a customer's tag (C-TAG).
pub const CUSTOMER_TAG: u16 = 0x8100;
/// EtherType in front of a service provider's tag (S-TAG), as stacks of tags begin with (QinQ).
pub const SERVICE_TAG: u16 = 0x88a8;
/// Bytes of the two addresses, in front of the tag.
const ADDRESSES: usize = 12;

/// Whether an EtherType says that a tag follows.
pub fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, CUSTOMER_TAG | SERVICE_TAG)
}

/// The number of the VLAN in a tag's control information; 0: none, the tag is for priority only (IEEE 802.1Q, 9.6).
pub fn number(control: u16) -> u16 {
    control & 0x0fff
}

/// The front of a tagged frame.
pub type Front = [u8; ethernet::LEN + LEN];

/// Moves the addresses of a tagged frame over its tag, and gives the tag's control information: the frame begins
/// [`LEN`] bytes later from here on.
pub fn take_off(front: &mut Front) -> u16 {
    let control = be16!(front, 14);
    front.copy_within(..ADDRESSES, LEN);
    control
}

/// Moves the addresses to the beginning, [`LEN`] bytes in front of which room was made, and puts a tag behind them.
pub fn put_on(front: &mut Front, number: u16) {
    front.copy_within(LEN..LEN + ADDRESSES, 0);
    let [high, low] = number.to_be_bytes();
    let [tag_high, tag_low] = CUSTOMER_TAG.to_be_bytes();
    front[ADDRESSES..ADDRESSES + LEN].copy_from_slice(&[tag_high, tag_low, high, low]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_is_put_on_comes_off_again() {
        let plain: [u8; 14] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 8, 0];
        let mut front: Front = [0; 18];
        front[4..].copy_from_slice(&plain);
        put_on(&mut front, 0x123);
        assert_eq!(front, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x81, 0, 0x01, 0x23, 8, 0]);
        assert_eq!(take_off(&mut front), 0x123);
        assert_eq!(front[4..], plain);
    }

    #[test]
    fn priority_is_no_part_of_the_number() {
        assert_eq!((number(0xe064), number(0xf000)), (100, 0));
    }
}
