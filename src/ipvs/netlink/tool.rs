//! The other end: what a tool says to IPVS, and what it hears.
//!
//! A command is one datagram; its answer is one or more, which [`Hearing`] puts together until it is complete. Answers
//! come from the gateway's own daemon; what is not understood is an error all the same, never a panic.

use netlink_packet_core::{NetlinkBuffer, NetlinkHeader, NetlinkPayload};

use super::read::{self, commands, top};
use super::write::{self, Generic};
use super::{FAMILY, FAMILY_VERSION, GENERIC_HEADER_LEN, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use crate::ipvs::attributes::{Attributes, Builder};
use crate::ipvs::command::{
    Answer, Command, Daemon, DestinationEntry, Errno, ServiceEntry, ServiceId, Timeouts, VERSION,
};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// The datagram that asks for a command.
pub fn question(command: &Command, sequence_number: u32) -> Vec<u8> {
    let (number, attributes) = message_of(command);
    let is_dump = matches!(command, Command::ListServices | Command::ListDestinations(_) | Command::ListDaemons);
    let mut header = NetlinkHeader::default();
    header.sequence_number = sequence_number;
    let flags = NLM_F_REQUEST | if is_dump { NLM_F_DUMP } else { NLM_F_ACK };
    let generic = Generic { family: FAMILY, command: number, version: FAMILY_VERSION, attributes };
    write::message(&header, flags, NetlinkPayload::InnerMessage(generic))
}

fn message_of(command: &Command) -> (u8, Builder) {
    let nested = |kind, nest: &Builder| Builder::default().nest(kind, nest);
    let service = |id: &ServiceId| nested(top::SERVICE, &write::service_name(id));
    match command {
        Command::AddService(new) => (commands::NEW_SERVICE, nested(top::SERVICE, &write::service_settings(new))),
        Command::EditService(new) => (commands::SET_SERVICE, nested(top::SERVICE, &write::service_settings(new))),
        Command::DeleteService(id) => (commands::DEL_SERVICE, service(id)),
        Command::ListServices => (commands::GET_SERVICE, Builder::default()),
        Command::GetService(id) => (commands::GET_SERVICE, service(id)),
        Command::AddDestination(id, new) => {
            (commands::NEW_DEST, service(id).nest(top::DEST, &write::destination_settings(new)))
        }
        Command::EditDestination(id, new) => {
            (commands::SET_DEST, service(id).nest(top::DEST, &write::destination_settings(new)))
        }
        Command::DeleteDestination(id, (address, port)) => {
            (commands::DEL_DEST, service(id).nest(top::DEST, &write::destination_name(*address, *port)))
        }
        Command::ListDestinations(id) => (commands::GET_DEST, service(id)),
        Command::StartDaemon(daemon) => (commands::NEW_DAEMON, nested(top::DAEMON, &write::daemon_nest(daemon))),
        Command::StopDaemon(daemon) => (commands::DEL_DAEMON, nested(top::DAEMON, &write::daemon_nest(daemon))),
        Command::ListDaemons => (commands::GET_DAEMON, Builder::default()),
        Command::SetTimeouts(timeouts) => (commands::SET_CONFIG, write::timeout_attributes(timeouts)),
        Command::GetTimeouts => (commands::GET_CONFIG, Builder::default()),
        Command::GetInfo => (commands::GET_INFO, Builder::default()),
        Command::Zero(Some(id)) => (commands::ZERO, service(id)),
        Command::Zero(None) => (commands::ZERO, Builder::default()),
        Command::Flush => (commands::FLUSH, Builder::default()),
    }
}

/// An answer that does not say what was asked, or says it otherwise than IPVS does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not one of IPVS's")]
pub struct NotUnderstood;

impl From<Errno> for NotUnderstood {
    fn from(_: Errno) -> Self {
        Self
    }
}

/// What a datagram brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// There is more to come.
    Part,
    /// That was all: the answer, or Linux's number of the error.
    All(Result<Answer, i32>),
}

/// What has been heard so far of the answer to a command.
#[derive(Clone, Debug)]
pub struct Hearing {
    wanted: Wanted,
    services: Vec<ServiceEntry>,
    destinations: Vec<DestinationEntry>,
    daemons: Vec<Daemon>,
    timeouts: Option<Timeouts>,
    table_size: Option<u32>,
}

/// What kind of answer there has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Done,
    Service,
    Services,
    Destinations,
    Daemons,
    Timeouts,
    Info,
}

impl Hearing {
    /// Nothing yet, of the answer to this.
    pub fn new(command: &Command) -> Self {
        let wanted = match command {
            Command::ListServices => Wanted::Services,
            Command::GetService(_) => Wanted::Service,
            Command::ListDestinations(_) => Wanted::Destinations,
            Command::ListDaemons => Wanted::Daemons,
            Command::GetTimeouts => Wanted::Timeouts,
            Command::GetInfo => Wanted::Info,
            _ => Wanted::Done,
        };
        let (services, destinations, daemons) = (Vec::new(), Vec::new(), Vec::new());
        Self { wanted, services, destinations, daemons, timeouts: None, table_size: None }
    }

    /// Takes in the next datagram.
    ///
    /// # Errors
    /// [`NotUnderstood`]: the connection is of no more use.
    pub fn take(&mut self, datagram: &[u8]) -> Result<Heard, NotUnderstood> {
        let mut rest = datagram;
        while let Ok(message) = NetlinkBuffer::new_checked(rest) {
            let payload = message.payload();
            match message.message_type() {
                NLMSG_DONE => return self.answer().map(|answer| Heard::All(Ok(answer))),
                NLMSG_ERROR => {
                    let code = payload.first_chunk().copied().ok_or(NotUnderstood)?;
                    return match i32::from_ne_bytes(code) {
                        0 => self.answer().map(|answer| Heard::All(Ok(answer))),
                        code => Ok(Heard::All(Err(code.saturating_abs()))),
                    };
                }
                FAMILY => self.take_entry(payload)?,
                _ => return Err(NotUnderstood),
            }
            rest = rest.get((message.length() as usize).next_multiple_of(4)..).unwrap_or_default();
        }
        if rest.is_empty() { Ok(Heard::Part) } else { Err(NotUnderstood) }
    }

    fn take_entry(&mut self, payload: &[u8]) -> Result<(), NotUnderstood> {
        let (&[command, ..], attributes) = payload.split_first_chunk::<GENERIC_HEADER_LEN>().ok_or(NotUnderstood)?;
        let attributes = Attributes::parse(attributes)?;
        match command {
            commands::NEW_SERVICE => self.services.push(read::service_entry(&attributes)?),
            commands::NEW_DEST => self.destinations.push(read::destination_entry(&attributes)?),
            commands::NEW_DAEMON => self.daemons.push(read::daemon_of(&attributes, true)?),
            commands::SET_CONFIG => self.timeouts = Some(read::timeouts(&attributes)?),
            commands::SET_INFO if attributes.u32(write::INFO_VERSION)? == Some(VERSION) => {
                self.table_size = attributes.u32(write::INFO_CONN_TAB_SIZE)?;
            }
            _ => return Err(NotUnderstood),
        }
        Ok(())
    }

    fn answer(&mut self) -> Result<Answer, NotUnderstood> {
        Ok(match self.wanted {
            Wanted::Done => Answer::Done,
            Wanted::Service => Answer::Service(self.services.pop().ok_or(NotUnderstood)?),
            Wanted::Services => Answer::Services(std::mem::take(&mut self.services)),
            Wanted::Destinations => Answer::Destinations(std::mem::take(&mut self.destinations)),
            Wanted::Daemons => Answer::Daemons(std::mem::take(&mut self.daemons)),
            Wanted::Timeouts => Answer::Timeouts(self.timeouts.take().ok_or(NotUnderstood)?),
            Wanted::Info => Answer::Info { connection_table_size: self.table_size.take().ok_or(NotUnderstood)? },
        })
    }
}
