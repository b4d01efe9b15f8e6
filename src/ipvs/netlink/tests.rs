//! Messages written out byte by byte, as ipvsadm 1.31 sends them and as the kernel answers.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::ipvs::{
    Daemon, Destination, DestinationEntry, Forwarding, Service, ServiceEntry, ServiceId, Stats, Timeouts, TunnelKind,
};

/// An attribute with its padding.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(value.len() + 4).unwrap().to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn datagram(family: u16, flags: u16, command: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
    let attributes = attributes.concat();
    let length = u32::try_from(20 + attributes.len()).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&family.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&7_u32.to_ne_bytes());
    bytes.extend_from_slice(&99_u32.to_ne_bytes());
    bytes.extend_from_slice(&[command, 1, 0, 0]);
    bytes.extend_from_slice(&attributes);
    bytes
}

const REQUEST: u16 = NLM_F_REQUEST | NLM_F_ACK;

fn only(datagram: &[u8]) -> Request {
    let mut requests = requests(datagram);
    assert_eq!(requests.len(), 1);
    requests.remove(0)
}

fn service_nest(extra: &[Vec<u8>]) -> Vec<u8> {
    let mut address = [0; 16];
    address[..4].copy_from_slice(&[10, 0, 0, 100]);
    let mut nest = attribute(1, &2_u16.to_ne_bytes());
    nest.extend(attribute(2, &6_u16.to_ne_bytes()));
    nest.extend(attribute(3, &address));
    nest.extend(attribute(4, &80_u16.to_be_bytes()));
    nest.extend(extra.concat());
    attribute(1, &nest)
}

fn vip() -> ServiceId {
    ServiceId::Address { protocol: 6, address: "10.0.0.100".parse().unwrap(), port: 80 }
}

fn error_code(datagram: &[u8]) -> i32 {
    assert_eq!(datagram[4..6], 2_u16.to_ne_bytes(), "an NLMSG_ERROR");
    i32::from_ne_bytes(datagram[16..20].try_into().unwrap())
}

#[test]
fn the_family_is_found_by_its_name_and_only_by_it() {
    let request = only(&datagram(0x10, REQUEST, 3, &[attribute(2, b"IPVS\0")]));
    assert_eq!(request.asked, Ok(Asked::Family));
    let answers = request.family();
    assert_eq!(answers.len(), 2);
    // Type of the controller, our sequence number and port, command 1, the family's name and number.
    assert_eq!(answers[0][4..6], 0x10_u16.to_ne_bytes());
    assert_eq!(answers[0][8..12], 7_u32.to_ne_bytes());
    assert_eq!(answers[0][12..16], 99_u32.to_ne_bytes());
    assert_eq!(answers[0][16], 1);
    let expected = [attribute(2, b"IPVS\0"), attribute(1, &FAMILY.to_ne_bytes())].concat();
    assert_eq!(answers[0][20..20 + expected.len()], expected[..]);
    assert_eq!(error_code(&answers[1]), 0);
    assert_eq!(answers[1].len(), 36, "an acknowledgement quotes the header only");

    let other = only(&datagram(0x10, REQUEST, 3, &[attribute(2, b"nl80211\0")]));
    assert_eq!(other.asked, Err(Errno::NoEntry));
    let refusal = other.error(Errno::NoEntry);
    assert_eq!(error_code(&refusal), -2);
    assert_eq!(refusal.len(), 20 + 20 + 12, "an error quotes the request");
}

#[test]
fn a_new_service_is_read() {
    let flags = [5_u32.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat();
    let nest = service_nest(&[
        attribute(6, b"wlc\0"),
        attribute(7, &flags),
        attribute(8, &300_u32.to_ne_bytes()),
        attribute(9, &[255, 255, 255, 0]),
        attribute(11, b"sip\0"),
    ]);
    let request = only(&datagram(FAMILY, REQUEST, 1, &[nest]));
    let expected = Service {
        id: vip(),
        scheduler: "wlc".to_owned(),
        flags: 5,
        flags_mask: u32::MAX,
        timeout: 300,
        netmask: 0xffff_ff00,
        persistence_engine: Some("sip".to_owned()),
    };
    assert_eq!(request.asked, Ok(Asked::Command(Command::AddService(expected))));
    // Without the parts that a new one must have.
    assert_eq!(only(&datagram(FAMILY, REQUEST, 1, &[service_nest(&[])])).asked, Err(Errno::Invalid));
    // Which one that goes need not.
    let delete = only(&datagram(FAMILY, REQUEST, 3, &[service_nest(&[])]));
    assert_eq!(delete.asked, Ok(Asked::Command(Command::DeleteService(vip()))));
}

#[test]
fn a_new_real_server_is_read_also_of_another_family() {
    let number = |kind, value: u32| attribute(kind, &value.to_ne_bytes());
    let mut nest = attribute(1, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11]);
    nest.extend(attribute(2, &8080_u16.to_be_bytes()));
    nest.extend([number(3, 2), number(4, 100), number(5, 20), number(6, 10)].concat());
    nest.extend(attribute(11, &10_u16.to_ne_bytes()));
    nest.extend(
        [attribute(13, &[1]), attribute(14, &6080_u16.to_be_bytes()), attribute(15, &1_u16.to_ne_bytes())].concat(),
    );
    let request = only(&datagram(FAMILY, REQUEST, 5, &[service_nest(&[]), attribute(2, &nest)]));
    let expected = Destination {
        address: "2001:db8::11".parse().unwrap(),
        port: 8080,
        forwarding: Forwarding::Tunnel,
        tunnel: TunnelKind { kind: 1, port: 6080, flags: 1 },
        weight: 100,
        upper_threshold: 20,
        lower_threshold: 10,
    };
    assert_eq!(request.asked, Ok(Asked::Command(Command::AddDestination(vip(), expected))));
}

#[test]
fn what_is_not_a_request_is_only_acknowledged_and_nonsense_is_refused() {
    assert_eq!(only(&datagram(FAMILY, NLM_F_ACK, 17, &[])).asked, Ok(Asked::Nothing));
    assert_eq!(only(&datagram(2, REQUEST, 17, &[])).asked, Ok(Asked::Nothing));
    assert_eq!(only(&datagram(FAMILY, REQUEST, 18, &[])).asked, Err(Errno::NotSupported));
    assert_eq!(only(&datagram(FAMILY, REQUEST, 8, &[service_nest(&[])])).asked, Err(Errno::NotSupported));
    assert_eq!(only(&datagram(FAMILY + 1, REQUEST, 4, &[])).asked, Err(Errno::NoEntry));
    // An attribute that is longer than its nest, one that is too short, a family that there is not.
    assert_eq!(only(&datagram(FAMILY, REQUEST, 3, &[attribute(1, &[12, 0, 1, 0, 2, 0])])).asked, Err(Errno::Invalid));
    assert_eq!(only(&datagram(FAMILY, REQUEST, 3, &[attribute(1, &attribute(1, &[2]))])).asked, Err(Errno::Invalid));
    let appletalk = attribute(1, &attribute(1, &5_u16.to_ne_bytes()));
    assert_eq!(only(&datagram(FAMILY, REQUEST, 3, &[appletalk])).asked, Err(Errno::FamilyNotSupported));
    // Cut off, and shorter than a header.
    let whole = datagram(FAMILY, REQUEST, 17, &[]);
    assert_eq!(requests(&whole[..19]), []);
    assert_eq!(requests(&[]), []);
    let bare = [&16_u32.to_ne_bytes()[..], &whole[4..16]].concat();
    assert_eq!(only(&bare).asked, Err(Errno::Invalid));
    // Two in one datagram.
    assert_eq!(requests(&[whole.clone(), whole].concat()).len(), 2);
}

#[test]
fn dumps_are_packed_and_end() {
    let entry = ServiceEntry {
        service: Service {
            id: vip(),
            scheduler: "rr".to_owned(),
            flags: 2,
            flags_mask: u32::MAX,
            timeout: 0,
            netmask: u32::MAX,
            persistence_engine: None,
        },
        destinations: 0,
        stats: Stats { in_bytes: 1 << 40, in_packets: 3, ..Stats::default() },
    };
    let request = only(&datagram(FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 4, &[]));
    assert_eq!(request.asked, Ok(Asked::Command(Command::ListServices)));
    let empty = request.answers(Ok(Answer::Services(Vec::new())));
    assert_eq!(empty.len(), 1);
    assert_eq!((empty[0].len(), &empty[0][4..6]), (20, &3_u16.to_ne_bytes()[..]), "an NLMSG_DONE with its status");

    let answers = request.answers(Ok(Answer::Services(vec![entry; 200])));
    let messages: usize = answers.iter().map(|answer| requests(answer).len()).sum();
    assert_eq!(messages, 201);
    assert!(answers.iter().all(|answer| answer.len() <= 16 << 10));
    assert!(answers.len() > 2);
    // All are of several, and the first is a service of IPv4.
    assert_eq!(answers[0][6..8], 2_u16.to_ne_bytes());
    assert_eq!(answers[0][16], 1);
    assert_eq!(answers[0][24..32], attribute(1, &2_u16.to_ne_bytes())[..]);
}

#[test]
fn what_is_written_is_read_again() {
    let daemon = Daemon {
        state: 2,
        interface: "eth0".to_owned(),
        sync_id: 7,
        max_len: 1400,
        group: Some(IpAddr::from([224, 0, 0, 81])),
        port: 8848,
        ttl: 3,
    };
    let timeouts = Timeouts { tcp: 1, tcp_fin: 2, udp: 3 };
    for (answer, command, expected) in [
        (Answer::Daemons(vec![daemon.clone()]), 9, Command::StartDaemon(daemon)),
        (Answer::Timeouts(timeouts), 12, Command::SetTimeouts(timeouts)),
    ] {
        let message = write::messages(&answer).remove(0);
        let mut attributes = vec![0; message.attributes.len()];
        message.attributes.emit(&mut attributes);
        assert_eq!(only(&datagram(FAMILY, REQUEST, command, &[attributes])).asked, Ok(Asked::Command(expected)));
    }
}

/// What a tool hears where it asks for this and is answered so.
fn heard(command: &Command, outcome: Result<Answer, Errno>) -> Result<Answer, i32> {
    let request = only(&question(command, 7));
    assert_eq!(request.asked, Ok(Asked::Command(command.clone())), "what is asked is understood");
    let mut hearing = Hearing::new(command);
    let mut datagrams = request.answers(outcome).into_iter();
    loop {
        match hearing.take(&datagrams.next().expect("the answer ends")).unwrap() {
            Heard::Part => {}
            Heard::All(answer) => {
                assert_eq!(datagrams.next(), None, "nothing comes behind the end");
                return answer;
            }
        }
    }
}

#[test]
fn a_tool_hears_what_it_asked_for() {
    let service = Service {
        id: vip(),
        scheduler: "sh".to_owned(),
        flags: 0x13,
        flags_mask: u32::MAX,
        timeout: 300,
        netmask: 0xffff_ff00,
        persistence_engine: Some("sip".to_owned()),
    };
    let mark = Service { id: ServiceId::Mark { is_ipv6: true, mark: 7 }, netmask: 64, ..service.clone() };
    let destination = Destination {
        address: "2001:db8::11".parse().unwrap(),
        port: 8080,
        forwarding: Forwarding::Tunnel,
        tunnel: TunnelKind { kind: 1, port: 6080, flags: 1 },
        weight: 100,
        upper_threshold: 20,
        lower_threshold: 10,
    };
    let daemon = Daemon { state: 1, interface: "eth0".to_owned(), sync_id: 7, ttl: 3, ..Daemon::default() };
    let timeouts = Timeouts { tcp: 1, tcp_fin: 2, udp: 3 };
    let key = (destination.address, destination.port);
    for command in [
        Command::AddService(service.clone()),
        Command::EditService(mark.clone()),
        Command::DeleteService(vip()),
        Command::AddDestination(vip(), destination),
        Command::EditDestination(mark.id, destination),
        Command::DeleteDestination(vip(), key),
        Command::StartDaemon(daemon.clone()),
        Command::StopDaemon(daemon.clone()),
        Command::SetTimeouts(timeouts),
        Command::Zero(Some(vip())),
        Command::Zero(None),
        Command::Flush,
    ] {
        assert_eq!(heard(&command, Ok(Answer::Done)), Ok(Answer::Done), "{command:?}");
        assert_eq!(heard(&command, Err(Errno::NoEntry)), Err(2), "{command:?}");
    }
    let stats = Stats { connections: 1 << 40, out_byte_rate: 5, ..Stats::default() };
    let entry = ServiceEntry { service, destinations: 0, stats };
    let other = ServiceEntry { service: mark, destinations: 0, stats: Stats::default() };
    let real_server = DestinationEntry { destination, active: 1, inactive: 2, persistent: 3, stats };
    for (command, answer) in [
        (Command::ListServices, Answer::Services([vec![entry.clone(); 100], vec![other]].concat())),
        (Command::ListServices, Answer::Services(Vec::new())),
        (Command::GetService(vip()), Answer::Service(entry)),
        (Command::ListDestinations(vip()), Answer::Destinations(vec![real_server; 100])),
        (Command::ListDaemons, Answer::Daemons(vec![daemon])),
        (Command::GetTimeouts, Answer::Timeouts(timeouts)),
        (Command::GetInfo, Answer::Info { connection_table_size: 4096 }),
    ] {
        assert_eq!(heard(&command, Ok(answer.clone())), Ok(answer));
    }
}

fn ids() -> impl Strategy<Value = ServiceId> {
    prop_oneof![
        (any::<u16>(), any::<IpAddr>(), any::<u16>()).prop_map(|(protocol, address, port)| ServiceId::Address {
            protocol,
            address,
            port
        }),
        (any::<bool>(), 1..=u32::MAX).prop_map(|(is_ipv6, mark)| ServiceId::Mark { is_ipv6, mark }),
    ]
}

proptest! {
    #[test]
    fn services_go_there_and_back(
        (id, scheduler, flags) in (ids(), "[a-z]{1,15}", any::<u32>()),
        (timeout, netmask, engine) in (any::<u32>(), any::<u32>(), proptest::option::of("[a-z]{1,15}"))
    ) {
        let service = Service { id, scheduler, flags, flags_mask: u32::MAX, timeout, netmask, persistence_engine: engine };
        let entry = ServiceEntry { service: service.clone(), destinations: 0, stats: Stats::default() };
        let message = write::messages(&Answer::Service(entry)).remove(0);
        let mut attributes = vec![0; message.attributes.len()];
        message.attributes.emit(&mut attributes);
        let request = only(&datagram(FAMILY, REQUEST, 1, &[attributes]));
        prop_assert_eq!(request.asked, Ok(Asked::Command(Command::AddService(service))));
    }

    #[test]
    fn real_servers_go_there_and_back(
        (address, port, method) in (any::<IpAddr>(), any::<u16>(), 0_u32..5),
        (kind, tunnel_port, flags) in (any::<u8>(), any::<u16>(), any::<u16>()),
        (weight, upper, lower) in (any::<i32>(), any::<u32>(), any::<u32>())
    ) {
        let destination = Destination {
            address,
            port,
            forwarding: Forwarding::from_flags(method).unwrap(),
            tunnel: TunnelKind { kind, port: tunnel_port, flags },
            weight,
            upper_threshold: upper,
            lower_threshold: lower,
        };
        let entry = DestinationEntry { destination, active: 1, inactive: 2, persistent: 3, stats: Stats::default() };
        let message = write::messages(&Answer::Destinations(vec![entry])).remove(0);
        let mut attributes = vec![0; message.attributes.len()];
        message.attributes.emit(&mut attributes);
        let request = only(&datagram(FAMILY, REQUEST, 5, &[service_nest(&[]), attributes]));
        prop_assert_eq!(request.asked, Ok(Asked::Command(Command::AddDestination(vip(), destination))));
    }

    #[test]
    fn no_answer_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..300), command in 0_u8..20) {
        for wanted in [Command::ListServices, Command::GetInfo, Command::Flush] {
            let _ = Hearing::new(&wanted).take(&bytes);
            let _ = Hearing::new(&wanted).take(&datagram(FAMILY, 0, command, std::slice::from_ref(&bytes)));
        }
    }

    #[test]
    fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..300), command in 0_u8..20, dump in any::<bool>()) {
        for request in requests(&bytes) {
            let _ = request.error(Errno::Invalid);
        }
        let flags = if dump { REQUEST | NLM_F_DUMP } else { REQUEST };
        for request in requests(&datagram(FAMILY, flags, command, &[bytes])) {
            let _ = request.acknowledgement();
        }
    }
}
