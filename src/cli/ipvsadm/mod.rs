//! `fullgate ipvsadm`: ipvsadm 1.31's command line, and the options of Alibaba's fork, for this gateway.
//!
//! What is typed and read is ipvsadm's to the letter: [`options`] and [`popt`] read words, [`arguments`] and [`validity`]
//! make commands of them, [`list`] and [`connections`] print. Commands go to the daemon over the socket for IPVS's
//! tools ([`director`]), so that this and the unmodified ipvsadm are told the same; what only the fork has goes over the
//! control socket ([`local`]). Called by the name `ipvsadm`, the program is this.

mod address;
mod arguments;
mod connections;
mod director;
mod help;
mod list;
mod local;
mod names;
mod options;
mod page;
mod popt;
mod refusal;
mod sort;
mod validity;

use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use self::arguments::{Asked, Wrong};
use self::director::{Director, DirectorError};
use self::list::Format;
use self::names::SystemNames;
use self::validity::{Action, Said};
use super::client::ClientError;
use super::output::complain;
use crate::config::{DEFAULT_SOCKET, ipvs_socket_beside};
use crate::ipvs::{Answer, Command, DestinationEntry, ServiceEntry};

pub(super) use self::page::Ipvsadm;

/// The name by which the program is ipvsadm.
const NAME: &str = "ipvsadm";
/// What the word is at the beginning of a line that is restored, and elsewhere in it.
const IGNORED: &str = "ipvsadm";

const WRONG_USAGE: u8 = 2;
const NOT_UNDERSTOOD: u8 = 255;
const REFUSED: u8 = 255;
const FAILED: u8 = 1;

/// The command line of this process without its beginning, if it is one of ipvsadm's: `fullgate ipvsadm ...`, or the
/// program by the name of `ipvsadm`. With what the program calls itself then.
pub(super) fn command_line() -> Option<(String, Vec<String>)> {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let program = words.next()?;
    let name = PathBuf::from(&program).file_name().map(|name| name.to_string_lossy().into_owned());
    if name.as_deref() == Some(NAME) {
        return Some((program, words.collect()));
    }
    (words.next()? == NAME).then(|| (format!("{program} {NAME}"), words.collect()))
}

/// Does what the words say, and says what came of it.
pub(super) fn main(program: &str, words: &[String]) -> ExitCode {
    let socket = std::env::var_os("FULLGATE_SOCKET").filter(|path| !path.is_empty());
    let socket = socket.map_or_else(|| PathBuf::from(DEFAULT_SOCKET), PathBuf::from);
    let director = Director::new(ipvs_socket_beside(&socket));
    let names = SystemNames::default();
    let mut run = Run { program, socket, director, names, out: BufWriter::new(io::stdout().lock()), line: None };
    // Without any word ipvsadm lists.
    let list = ["-L".to_owned()];
    let status = run.words(if words.is_empty() { &list } else { words });
    match run.out.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("{program}: cannot write the output: {error}"));
            ExitCode::from(FAILED)
        }
        _ => status.unwrap_or_else(|ended| ended).into(),
    }
}

/// One run of the program.
struct Run<'a> {
    program: &'a str,
    /// The control socket.
    socket: PathBuf,
    director: Director,
    names: SystemNames,
    out: BufWriter<io::StdoutLock<'a>>,
    /// The number of the line that is restored.
    line: Option<usize>,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Director(#[from] DirectorError),
    #[error("{0}")]
    Client(#[from] ClientError),
    #[error("{0}")]
    Fork(String),
    #[error("cannot open file {0}")]
    File(&'static str),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl Run<'_> {
    /// Carries out one command line. Its exit status; an error where the whole run ends with it.
    fn words(&mut self, words: &[String]) -> Result<u8, u8> {
        let asked = match Asked::parse(words, &self.names) {
            Ok(asked) => asked,
            Err(wrong) => return Err(self.wrong(&wrong)),
        };
        match asked.action {
            Action::Help => {
                let text = help::help(self.program);
                return Err(self.print(&text).map_or(FAILED, |()| 0));
            }
            Action::Version => return Err(self.print(&help::version()).map_or(FAILED, |()| 0)),
            // A line that is restored cannot restore.
            Action::Restore if self.line.is_some() => return Err(self.wrong(&Wrong::NoCommand)),
            Action::Restore => return self.restore(),
            _ => {}
        }
        match self.carry_out(&asked) {
            Ok(()) => Ok(0),
            Err(failure) => self.failed(&asked, &failure),
        }
    }

    fn print(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())
    }

    /// Says something on standard error, with the line that it is about.
    fn complain(&mut self, text: &str) {
        // What was printed before comes before.
        let _ = self.out.flush();
        match self.line {
            Some(line) => complain(&format!("line {line}: {text}")),
            None => complain(text),
        }
    }

    fn wrong(&mut self, wrong: &Wrong) -> u8 {
        match wrong {
            Wrong::Usage(message) => {
                self.complain(message);
                WRONG_USAGE
            }
            Wrong::Word(error) => {
                self.complain(&error.to_string());
                NOT_UNDERSTOOD
            }
            Wrong::NoCommand => {
                self.complain(help::hint(self.program).trim_end());
                NOT_UNDERSTOOD
            }
        }
    }

    fn failed(&mut self, asked: &Asked, failure: &Failure) -> Result<u8, u8> {
        match failure {
            Failure::Output(_) => return Err(0),
            // ipvsadm says nothing of these.
            Failure::Director(DirectorError::Refused(_)) if asked.options.has_any(&[Said::Timeout, Said::Daemon]) => {}
            Failure::Director(DirectorError::Refused(number)) => {
                let of_service = asked.options.has(Said::Service);
                self.complain(&refusal::text(asked.action, of_service, *number));
            }
            Failure::File(_) => self.complain(&failure.to_string()),
            Failure::Director(error @ DirectorError::Away { .. }) => {
                self.complain(&format!("Can't initialize ipvs: {error}"));
                return Err(WRONG_USAGE);
            }
            _ => self.complain(&format!("{}: {failure}", self.program)),
        }
        // What is refused to one line of several is no reason to stop, as long as it only changes something.
        match asked.action {
            Action::List | Action::Save | Action::GetLocal => Err(FAILED),
            _ => Ok(REFUSED),
        }
    }

    /// Commands from standard input, one a line.
    fn restore(&mut self) -> Result<u8, u8> {
        let mut status = 0;
        let mut input = io::stdin().lock();
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            match input.read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    self.complain(&format!("standard input cannot be read: {error}"));
                    return Ok(FAILED);
                }
            }
            let text = String::from_utf8_lossy(&line);
            let words = text
                .split([' ', '\t', '\r', '\n'])
                .filter(|word| !word.is_empty())
                .filter(|word| *word != IGNORED)
                .map(str::to_owned);
            let words = words.collect::<Vec<_>>();
            if !words.is_empty() {
                self.line = Some(number);
                status = self.words(&words)?;
            }
        }
        Ok(status)
    }

    fn carry_out(&mut self, asked: &Asked) -> Result<(), Failure> {
        let id = asked.service_id();
        let (service, destination) = (|| asked.service.clone(), asked.destination);
        let command = match asked.action {
            Action::AddService => Command::AddService(service()),
            Action::EditService => Command::EditService(service()),
            Action::DeleteService => Command::DeleteService(id),
            Action::Clear => Command::Flush,
            Action::AddServer | Action::EditServer if asked.is_fullnat => return local::fullnat(&self.socket, asked),
            Action::AddServer => Command::AddDestination(id, destination),
            Action::EditServer => Command::EditDestination(id, destination),
            Action::DeleteServer => Command::DeleteDestination(id, (destination.address, destination.port)),
            Action::Set => Command::SetTimeouts(asked.timeouts),
            Action::StartDaemon => Command::StartDaemon(asked.daemon.clone()),
            Action::StopDaemon => Command::StopDaemon(asked.daemon.clone()),
            Action::Zero => Command::Zero(asked.options.has(Said::Service).then_some(id)),
            Action::List => return self.list(asked),
            Action::Save => return self.services(&Format::of_commands(asked.options, &SystemNames::default()), true),
            Action::AddLocal | Action::DeleteLocal => return local::change(&self.socket, asked),
            Action::GetLocal => {
                let text = local::list(&self.socket, asked)?;
                return Ok(self.print(&text)?);
            }
            Action::Restore | Action::Help | Action::Version => return Ok(()),
        };
        self.director.ask(&command)?;
        Ok(())
    }

    fn list(&mut self, asked: &Asked) -> Result<(), Failure> {
        let options = asked.options;
        let names = std::mem::take(&mut self.names);
        let format = Format::of_listing(options, &names);
        let listed = if options.has(Said::Connection) {
            self.connections(&format)
        } else if options.has(Said::Service) {
            self.one_service(asked, &format)
        } else if options.has(Said::Timeout) {
            self.timeouts()
        } else if options.has(Said::Daemon) {
            self.daemons()
        } else {
            self.services(&format, !options.has(Said::NoSort))
        };
        self.names = names;
        listed
    }

    fn connections(&mut self, format: &Format<'_>) -> Result<(), Failure> {
        let path = connections::CONNECTIONS;
        match self.director.file(path) {
            Ok(file) => Ok(connections::print(BufReader::new(file), &mut self.out, format)?),
            Err(DirectorError::Refused(_)) => Err(Failure::File(path)),
            Err(error) => Err(error.into()),
        }
    }

    fn timeouts(&mut self) -> Result<(), Failure> {
        if let Answer::Timeouts(timeouts) = self.director.ask(&Command::GetTimeouts)? {
            writeln!(
                self.out,
                "Timeout (tcp tcpfin udp): {} {} {}",
                timeouts.tcp.cast_signed(),
                timeouts.tcp_fin.cast_signed(),
                timeouts.udp.cast_signed()
            )?;
        }
        Ok(())
    }

    fn daemons(&mut self) -> Result<(), Failure> {
        if let Answer::Daemons(daemons) = self.director.ask(&Command::ListDaemons)? {
            for daemon in daemons {
                self.print(&list::daemon(&daemon))?;
            }
        }
        Ok(())
    }

    /// The size that IPVS gives for its table of connections.
    fn table_size(&mut self) -> Result<u32, Failure> {
        match self.director.ask(&Command::GetInfo)? {
            Answer::Info { connection_table_size } => Ok(connection_table_size),
            _ => Ok(0),
        }
    }

    fn one_service(&mut self, asked: &Asked, format: &Format<'_>) -> Result<(), Failure> {
        let is_sorted = !asked.options.has(Said::NoSort);
        let Answer::Service(entry) = self.director.ask(&Command::GetService(asked.service_id()))? else {
            return Ok(());
        };
        self.print(&format.columns())?;
        self.service(&entry, format, is_sorted)
    }

    fn services(&mut self, format: &Format<'_>, is_sorted: bool) -> Result<(), Failure> {
        let size = self.table_size()?;
        self.print(&format.version(size))?;
        let Answer::Services(mut entries) = self.director.ask(&Command::ListServices)? else { return Ok(()) };
        if is_sorted {
            sort::merge_sort(&mut entries, &sort::services);
        }
        self.print(&format.columns())?;
        for entry in &entries {
            self.service(entry, format, is_sorted)?;
        }
        Ok(())
    }

    fn service(&mut self, entry: &ServiceEntry, format: &Format<'_>, is_sorted: bool) -> Result<(), Failure> {
        let destinations = self.director.ask(&Command::ListDestinations(entry.service.id))?;
        let mut destinations: Vec<DestinationEntry> = match destinations {
            Answer::Destinations(destinations) => destinations,
            _ => Vec::new(),
        };
        if is_sorted {
            sort::merge_sort(&mut destinations, &sort::destinations);
        }
        let mut text = String::new();
        format.service(&mut text, entry, &destinations);
        Ok(self.print(&text)?)
    }
}
