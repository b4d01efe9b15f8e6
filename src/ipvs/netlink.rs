//! The generic netlink family "IPVS": datagrams to commands, answers to datagrams.
//!
//! One datagram here is what one call of `sendmsg` or `recvmsg` on a netlink socket carries. Requests are answered as
//! the kernel would (net/netlink/af_netlink.c, genetlink.c): a reply, then an acknowledgement of its own if one was
//! asked for; a dump in datagrams of several messages and a last one that says so; an error with its request.

mod read;
mod tool;
mod write;

use std::num::NonZeroI32;

use netlink_packet_core::{ErrorMessage, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload};

pub use self::tool::{Heard, Hearing, NotUnderstood, question};
use self::write::{Generic, datagrams};
use super::attributes::{Attributes, Builder};
use super::command::{Answer, Command, Errno};

/// The number that the family has here, like those that the kernel hands out.
pub const FAMILY: u16 = 0x3f0;
/// The family's name.
pub const FAMILY_NAME: &str = "IPVS";
/// The family's version.
const FAMILY_VERSION: u8 = 1;
/// The highest attribute of its messages.
const MAX_ATTRIBUTE: u32 = 6;

/// `GENL_ID_CTRL`: the family that tells of families.
const CONTROLLER: u16 = 0x10;
const CONTROLLER_VERSION: u8 = 2;
const CTRL_CMD_NEWFAMILY: u8 = 1;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_VERSION: u16 = 3;
const CTRL_ATTR_HDRSIZE: u16 = 4;
const CTRL_ATTR_MAXATTR: u16 = 5;
/// Longest name of a family, its NUL left out (`GENL_NAMSIZ`).
const LONGEST_FAMILY_NAME: usize = 15;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
/// Messages of lower types are netlink's own.
const FIRST_TYPE: u16 = 0x10;
/// Bytes of a message's own header, and of the one that all generic families have.
const HEADER_LEN: usize = 16;
const GENERIC_HEADER_LEN: usize = 4;

/// A message from a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    header: NetlinkHeader,
    /// The whole of it, which an error sends back.
    bytes: Vec<u8>,
    /// What is asked for.
    pub asked: Result<Asked, Errno>,
}

/// What a message asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nothing but perhaps an acknowledgement.
    Nothing,
    /// The family's number.
    Family,
    /// Something of IPVS.
    Command(Command),
}

/// The messages of a datagram. What is cut off at its end is ignored, as the kernel ignores it.
pub fn requests(datagram: &[u8]) -> Vec<Request> {
    let mut requests = Vec::new();
    let mut rest = datagram;
    while let Ok(message) = NetlinkBuffer::new_checked(rest) {
        let length = message.length() as usize;
        let mut header = NetlinkHeader::default();
        header.message_type = message.message_type();
        header.flags = message.flags();
        header.sequence_number = message.sequence_number();
        header.port_number = message.port_number();
        requests.push(Request { header, bytes: rest[..length].to_vec(), asked: asked(&header, message.payload()) });
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    requests
}

fn asked(header: &NetlinkHeader, payload: &[u8]) -> Result<Asked, Errno> {
    if header.flags & NLM_F_REQUEST == 0 || header.message_type < FIRST_TYPE {
        return Ok(Asked::Nothing);
    }
    let Some((&[command, ..], attributes)) = payload.split_first_chunk::<GENERIC_HEADER_LEN>() else {
        return Err(Errno::Invalid);
    };
    match header.message_type {
        CONTROLLER if command == CTRL_CMD_GETFAMILY => asked_family(&Attributes::parse(attributes)?),
        CONTROLLER => Err(Errno::NotSupported),
        FAMILY => {
            let is_dump = header.flags & NLM_F_DUMP == NLM_F_DUMP;
            read::command(command, is_dump, &Attributes::parse(attributes)?).map(Asked::Command)
        }
        _ => Err(Errno::NoEntry),
    }
}

fn asked_family(attributes: &Attributes<'_>) -> Result<Asked, Errno> {
    let name = attributes.text(CTRL_ATTR_FAMILY_NAME, LONGEST_FAMILY_NAME)?;
    let number = attributes.u16(CTRL_ATTR_FAMILY_ID)?;
    if name.is_none() && number.is_none() {
        return Err(Errno::Invalid);
    }
    if name.is_none_or(|name| name == FAMILY_NAME) && number.is_none_or(|number| number == FAMILY) {
        Ok(Asked::Family)
    } else {
        Err(Errno::NoEntry)
    }
}

impl Request {
    /// The datagrams that answer it.
    pub fn answers(&self, outcome: Result<Answer, Errno>) -> Vec<Vec<u8>> {
        let messages = match outcome {
            Err(errno) => return vec![self.error(errno)],
            Ok(Answer::Done) => Vec::new(),
            Ok(answer) => write::messages(&answer),
        };
        if self.header.flags & NLM_F_DUMP == NLM_F_DUMP && self.header.message_type == FAMILY {
            return datagrams(&self.header, &messages);
        }
        let mut answers: Vec<_> = messages.into_iter().map(|message| self.reply(message)).collect();
        answers.extend(self.acknowledgement());
        answers
    }

    /// The datagrams that answer a question for the family.
    pub fn family(&self) -> Vec<Vec<u8>> {
        let attributes = Builder::default()
            .text(CTRL_ATTR_FAMILY_NAME, FAMILY_NAME)
            .u16(CTRL_ATTR_FAMILY_ID, FAMILY)
            .u32(CTRL_ATTR_VERSION, u32::from(FAMILY_VERSION))
            .u32(CTRL_ATTR_HDRSIZE, 0)
            .u32(CTRL_ATTR_MAXATTR, MAX_ATTRIBUTE);
        let message =
            Generic { family: CONTROLLER, command: CTRL_CMD_NEWFAMILY, version: CONTROLLER_VERSION, attributes };
        let mut answers = vec![self.reply(message)];
        answers.extend(self.acknowledgement());
        answers
    }

    /// The acknowledgement, if one is asked for.
    pub fn acknowledgement(&self) -> Option<Vec<u8>> {
        let header = self.bytes.get(..HEADER_LEN)?.to_vec();
        (self.header.flags & NLM_F_ACK != 0).then(|| self.error_message(None, header))
    }

    /// The datagram that refuses it.
    pub fn error(&self, errno: Errno) -> Vec<u8> {
        self.error_message(NonZeroI32::new(-errno.number()), self.bytes.clone())
    }

    fn error_message(&self, code: Option<NonZeroI32>, quoted: Vec<u8>) -> Vec<u8> {
        let mut error = ErrorMessage::default();
        error.code = code;
        error.header = quoted;
        write::message(&self.header, 0, NetlinkPayload::Error(error))
    }

    fn reply(&self, message: Generic) -> Vec<u8> {
        write::message(&self.header, 0, NetlinkPayload::InnerMessage(message))
    }
}

/// A netlink message of this family.
type Message = NetlinkMessage<Generic>;

#[cfg(test)]
mod tests;
