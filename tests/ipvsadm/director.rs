//! A director made of a table in memory, which answers IPVS's tools as the daemon does and remembers what it was asked.

use std::fs::File;
use std::io::{IoSlice, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use fullgate::ipvs::netlink::{self, Asked};
use fullgate::ipvs::{Answer, Command, Connection, Daemon, DestinationEntry, Errno, ServiceEntry, Timeouts, proc_net};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, accept, bind, listen, recv, sendmsg, socket_with,
};
use tempfile::TempDir;

/// What a director has to tell.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub services: Vec<(ServiceEntry, Vec<DestinationEntry>)>,
    pub daemons: Vec<Daemon>,
    pub timeouts: Timeouts,
    pub connections: Vec<Connection>,
    /// Lines of the file of connections behind these.
    pub connection_lines: String,
    /// The error that every command is refused with.
    pub refusal: Option<Errno>,
}

/// A director that listens.
pub struct Director {
    directory: TempDir,
    asked: Arc<Mutex<Vec<Command>>>,
}

const FILE: &[u8] = b"FGFILE01";

impl Director {
    pub fn start(table: Table) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        bind(&socket, &SocketAddrUnix::new(directory.path().join("control.ipvs.sock")).unwrap()).unwrap();
        listen(&socket, 16).unwrap();
        let (remembered, table) = (Arc::clone(&asked), Arc::new(table));
        // It ends with the test's process, which has one of them a command.
        std::thread::spawn(move || {
            while let Ok(connection) = accept(&socket) {
                let (table, asked) = (Arc::clone(&table), Arc::clone(&remembered));
                std::thread::spawn(move || converse(&connection, &table, &asked));
            }
        });
        Self { directory, asked }
    }

    /// Where the daemon's control socket would be.
    pub fn control_socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    /// Where IPVS's tools are listened to.
    pub fn ipvs_socket(&self) -> PathBuf {
        self.directory.path().join("control.ipvs.sock")
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What it was asked, questions about itself left out.
    pub fn asked(&self) -> Vec<Command> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|command| **command != Command::GetInfo).cloned().collect()
    }
}

fn converse(connection: &OwnedFd, table: &Table, asked: &Mutex<Vec<Command>>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok((length, _)) = recv(connection, &mut *buffer, RecvFlags::empty()) {
        let Some(datagram) = buffer.get(..length).filter(|datagram| !datagram.is_empty()) else { return };
        if let Some(path) = datagram.strip_prefix(FILE) {
            send_file(connection, path, table);
            continue;
        }
        for request in netlink::requests(datagram) {
            let answers = match &request.asked {
                Ok(Asked::Nothing) => request.acknowledgement().into_iter().collect(),
                Ok(Asked::Family) => request.family(),
                Ok(Asked::Command(command)) => {
                    asked.lock().unwrap().push(command.clone());
                    request.answers(answer(table, command))
                }
                Err(errno) => vec![request.error(*errno)],
            };
            for answer in answers {
                // The tool may be gone already.
                let _ = rustix::net::send(connection, &answer, SendFlags::NOSIGNAL);
            }
        }
    }
}

fn answer(table: &Table, command: &Command) -> Result<Answer, Errno> {
    let find = |id| table.services.iter().find(|(service, _)| service.service.id == id).ok_or(Errno::NoService);
    match (command, table.refusal) {
        (Command::GetInfo, _) => Ok(Answer::Info { connection_table_size: 4096 }),
        (_, Some(errno)) => Err(errno),
        (Command::ListServices, None) => {
            Ok(Answer::Services(table.services.iter().map(|(service, _)| service.clone()).collect()))
        }
        (Command::GetService(id), None) => find(*id).map(|(service, _)| Answer::Service(service.clone())),
        (Command::ListDestinations(id), None) => {
            Ok(Answer::Destinations(find(*id).map(|(_, real_servers)| real_servers.clone()).unwrap_or_default()))
        }
        (Command::ListDaemons, None) => Ok(Answer::Daemons(table.daemons.clone())),
        (Command::GetTimeouts, None) => Ok(Answer::Timeouts(table.timeouts)),
        (_, None) => Ok(Answer::Done),
    }
}

fn send_file(connection: &OwnedFd, path: &[u8], table: &Table) {
    if path != b"/proc/net/ip_vs_conn" || table.refusal.is_some() {
        let number = table.refusal.unwrap_or(Errno::NoEntry).number();
        let head = [number.to_ne_bytes(), [0; 4]].concat();
        let _ = rustix::net::send(connection, &head, SendFlags::NOSIGNAL);
        return;
    }
    let mut file: File = tempfile::tempfile().unwrap();
    file.write_all(proc_net::CONNECTIONS_HEAD.as_bytes()).unwrap();
    for connection in &table.connections {
        file.write_all(proc_net::connection(connection).as_bytes()).unwrap();
    }
    file.write_all(table.connection_lines.as_bytes()).unwrap();
    file.rewind().unwrap();
    let files = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
    let _ = sendmsg(connection, &[IoSlice::new(&[0; 8])], &mut ancillary, SendFlags::NOSIGNAL);
}
