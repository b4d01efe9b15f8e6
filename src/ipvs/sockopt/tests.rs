//! Options written out byte by byte, at the offsets that the kernel's header gives its structures.

use proptest::prelude::*;

use super::*;
use crate::ipvs::{Forwarding, Service, Stats, TunnelKind};

fn question(option: i32, buffer: &[u8]) -> Result<Question, Errno> {
    Question::parse(option, buffer, buffer.len())
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn service_user() -> Vec<u8> {
    let mut bytes = vec![0; 44];
    put(&mut bytes, 0, &6_u16.to_ne_bytes());
    put(&mut bytes, 4, &[10, 0, 0, 100]);
    put(&mut bytes, 8, &80_u16.to_be_bytes());
    put(&mut bytes, 16, b"wrr\0");
    put(&mut bytes, 32, &1_u32.to_ne_bytes());
    put(&mut bytes, 36, &360_u32.to_ne_bytes());
    put(&mut bytes, 40, &[255, 255, 0, 0]);
    bytes
}

fn destination_user() -> Vec<u8> {
    let mut bytes = vec![0; 24];
    put(&mut bytes, 0, &[10, 1, 0, 11]);
    put(&mut bytes, 4, &8080_u16.to_be_bytes());
    put(&mut bytes, 8, &3_u32.to_ne_bytes());
    put(&mut bytes, 12, &5_u32.to_ne_bytes());
    put(&mut bytes, 16, &20_u32.to_ne_bytes());
    put(&mut bytes, 20, &10_u32.to_ne_bytes());
    bytes
}

fn vip() -> ServiceId {
    ServiceId::Address { protocol: 6, address: "10.0.0.100".parse().unwrap(), port: 80 }
}

fn service() -> Service {
    Service {
        id: vip(),
        scheduler: "wrr".to_owned(),
        flags: 1,
        flags_mask: u32::MAX,
        timeout: 360,
        netmask: 0xffff_0000,
        persistence_engine: None,
    }
}

fn destination() -> Destination {
    Destination {
        address: "10.1.0.11".parse().unwrap(),
        port: 8080,
        forwarding: Forwarding::Direct,
        tunnel: TunnelKind::default(),
        weight: 5,
        upper_threshold: 20,
        lower_threshold: 10,
    }
}

#[test]
fn options_that_change_something() {
    assert_eq!(set(1154, &service_user()), Ok(Command::AddService(service())));
    assert_eq!(set(1155, &service_user()), Ok(Command::EditService(service())));
    assert_eq!(set(1156, &service_user()), Ok(Command::DeleteService(vip())));
    assert_eq!(set(1157, &[]), Ok(Command::Flush));
    let both = [service_user(), destination_user()].concat();
    assert_eq!(set(1159, &both), Ok(Command::AddDestination(vip(), destination())));
    assert_eq!(set(1160, &both), Ok(Command::DeleteDestination(vip(), ("10.1.0.11".parse().unwrap(), 8080))));
    assert_eq!(set(1161, &both), Ok(Command::EditDestination(vip(), destination())));
    let timeouts = [900_u32, 0, 300].map(u32::to_ne_bytes).concat();
    assert_eq!(set(1162, &timeouts), Ok(Command::SetTimeouts(Timeouts { tcp: 900, tcp_fin: 0, udp: 300 })));
    let mut daemon = vec![0; 24];
    put(&mut daemon, 0, &1_u32.to_ne_bytes());
    put(&mut daemon, 4, b"eth0\0");
    put(&mut daemon, 20, &9_u32.to_ne_bytes());
    let expected = Daemon { state: 1, interface: "eth0".to_owned(), sync_id: 9, ..Daemon::default() };
    assert_eq!(set(1163, &daemon), Ok(Command::StartDaemon(expected.clone())));
    assert_eq!(set(1164, &daemon), Ok(Command::StopDaemon(expected)));
    assert_eq!(set(1167, &service_user()), Ok(Command::Zero(Some(vip()))));
    assert_eq!(set(1167, &[0; 44]), Ok(Command::Zero(None)));
}

#[test]
fn a_buffer_for_one_service_may_be_longer_than_its_record() {
    for length in [104, 144] {
        let mut buffer = vec![0; length];
        buffer[..44].copy_from_slice(&service_user());
        assert!(matches!(question(1155, &buffer), Ok(Question::Service(_))), "{length}");
    }
    assert_eq!(question(1155, &[0; 103]), Err(Errno::Invalid));
}

#[test]
fn options_of_another_length_or_number_are_refused() {
    for option in [1154, 1159, 1160, 1162, 1163, 1167] {
        assert_eq!(set(option, &[0; 43]), Err(Errno::Invalid), "{option}");
    }
    assert_eq!(set(1157, &[0]), Err(Errno::Invalid));
    assert_eq!(set(1158, &[0; 44]), Err(Errno::Invalid));
    let mut endless = service_user();
    put(&mut endless, 16, &[b'x'; 16]);
    assert_eq!(set(1154, &endless), Err(Errno::Invalid), "the scheduler's name has no end");
    assert_eq!(question(1154, &[0; 16]), Err(Errno::Invalid), "room for 0 services is 8 bytes");
    assert_eq!(question(1157, &[0; 100]), Err(Errno::Invalid));
    assert_eq!(question(1156, &[0; 23]), Err(Errno::Invalid));
}

fn entry(services: u32) -> ServiceEntry {
    let stats = Stats { connections: 4, out_packets: 5, in_bytes: 6, out_byte_rate: 7, ..Stats::default() };
    ServiceEntry { service: service(), destinations: services, stats }
}

#[test]
fn services_and_real_servers_are_listed_into_the_callers_buffer() {
    let mut buffer = vec![0; 8 + 2 * 104];
    put(&mut buffer, 0, &2_u32.to_ne_bytes());
    let asked = question(1154, &buffer).unwrap();
    assert_eq!(asked, Question::Services { room: 2 });
    let reply = asked.reply(&buffer, &Answer::Services(vec![entry(3); 5]), 4096).unwrap();
    assert_eq!((reply.len(), &reply[..4]), (8 + 2 * 104, &2_u32.to_ne_bytes()[..]));
    assert_eq!(reply[8..8 + 44], service_user()[..]);
    assert_eq!(reply[8 + 44..8 + 48], 3_u32.to_ne_bytes());
    // conns, outpkts, inbytes, outbps of the counters at 48.
    assert_eq!(reply[8 + 48..8 + 52], 4_u32.to_ne_bytes());
    assert_eq!(reply[8 + 56..8 + 60], 5_u32.to_ne_bytes());
    assert_eq!(reply[8 + 64..8 + 72], 6_u64.to_ne_bytes());
    assert_eq!(reply[8 + 96..8 + 100], 7_u32.to_ne_bytes());

    let mut buffer = vec![0; 24 + 96];
    put(&mut buffer, 0, &6_u16.to_ne_bytes());
    put(&mut buffer, 4, &[10, 0, 0, 100]);
    put(&mut buffer, 8, &80_u16.to_be_bytes());
    put(&mut buffer, 16, &1_u32.to_ne_bytes());
    let asked = question(1156, &buffer).unwrap();
    assert_eq!(asked, Question::Destinations { of: vip(), room: 1 });
    let listed =
        DestinationEntry { destination: destination(), active: 1, inactive: 2, persistent: 3, stats: Stats::default() };
    let reply = asked.reply(&buffer, &Answer::Destinations(vec![listed]), 4096).unwrap();
    assert_eq!((reply.len(), &reply[..12]), (24 + 96, &buffer[..12]));
    assert_eq!(reply[24..48], destination_user()[..]);
    assert_eq!(reply[48..60], [1_u32, 2, 3].map(u32::to_ne_bytes).concat());
}

#[test]
fn versions_sizes_timeouts_and_daemons() {
    let asked = question(1152, &[0; 64]).unwrap();
    let text = asked.reply(&[0; 64], &Answer::Services(Vec::new()), 4096).unwrap();
    assert_eq!(text, b"IP Virtual Server version 1.2.1 (size=4096)\0");
    let asked = question(1153, &[0; 12]).unwrap();
    let reply = asked.reply(&[0; 12], &Answer::Services(vec![entry(0); 3]), 4096).unwrap();
    assert_eq!(reply, [0x01_02_01_u32, 4096, 3].map(u32::to_ne_bytes).concat());
    let asked = question(1158, &[0; 12]).unwrap();
    let reply = asked.reply(&[0; 12], &Answer::Timeouts(Timeouts { tcp: 900, tcp_fin: 120, udp: 300 }), 0).unwrap();
    assert_eq!(reply, [900_u32, 120, 300].map(u32::to_ne_bytes).concat());
    let asked = question(1159, &[0; 48]).unwrap();
    let backup = Daemon { state: 2, interface: "eth1".to_owned(), sync_id: 3, ..Daemon::default() };
    let reply = asked.reply(&[0; 48], &Answer::Daemons(vec![backup]), 0).unwrap();
    assert_eq!((reply.len(), &reply[..24]), (48, &[0; 24][..]));
    assert_eq!(reply[24..33], [&2_u32.to_ne_bytes()[..], b"eth1\0"].concat());
}

proptest! {
    #[test]
    fn no_option_is_too_strange(option in BASE - 1..=LAST + 1, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = set(option, &bytes);
        if let Ok(asked) = Question::parse(option, &bytes, bytes.len()) {
            let _ = asked.reply(&bytes, &Answer::Services(vec![entry(0)]), 1);
            let _ = asked.command();
        }
    }
}
