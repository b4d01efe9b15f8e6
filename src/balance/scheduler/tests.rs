//! Sequences computed by hand from the kernel's definitions, and properties.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use proptest::prelude::*;

use super::*;
use crate::balance::{ForwardingMode, Protocol, ServiceKey, Weight};

#[derive(Default)]
struct Fixed {
    loads: HashMap<u32, Load>,
    overloaded: Vec<u32>,
}

impl Loads for Fixed {
    fn load(&self, slot: RealServerSlot) -> Load {
        self.loads.get(&slot.0).copied().unwrap_or_default()
    }

    fn is_overloaded(&self, real_server: &RealServer) -> bool {
        self.overloaded.contains(&real_server.slot.0)
    }
}

impl Fixed {
    /// Active and inactive connections by slot.
    fn of(loads: &[(u32, u64, u64)]) -> Self {
        let loads = loads.iter().map(|&(slot, active, inactive)| (slot, Load { active, inactive }));
        Self { loads: loads.collect(), overloaded: Vec::new() }
    }
}

/// Real servers by slot and weight, in the data path's order (newest first); slot N has the address 10.1.0.0 + N.
fn servers(servers: &[(u32, u32)]) -> Vec<RealServer> {
    let server = |&(slot, weight): &(u32, u32)| RealServer {
        mode: ForwardingMode::Fullnat,
        slot: RealServerSlot(slot),
        address: Ipv4Addr::from_bits(0x0a01_0000 + slot).into(),
        port: 80,
        weight: Weight(weight),
        upper_threshold: 0,
        lower_threshold: 0,
    };
    servers.iter().map(server).collect()
}

fn flags(names: &str) -> SchedulerFlags {
    names.split_whitespace().map(|name| name.parse::<SchedulerFlag>().unwrap()).collect()
}

fn service_with(kind: SchedulerKind, flags: SchedulerFlags, real_servers: Vec<RealServer>) -> Service {
    let candidates: Vec<_> = real_servers.iter().map(Candidate::from).collect();
    let scheduler = Scheduler::new(kind, flags, &SchedulerSettings::default(), &candidates);
    let key = ServiceKey::new(Protocol::Tcp, SocketAddr::from(([10, 0, 0, 100], 80)).into());
    Service {
        key,
        scheduler,
        persistence: None,
        one_packet: false,
        max_connections: 0,
        pool: None,
        owned_by_client: false,
        cursor: 0,
        real_servers,
    }
}

fn service(kind: SchedulerKind, list: &[(u32, u32)]) -> Service {
    service_with(kind, SchedulerFlags::default(), servers(list))
}

/// A client with a number.
fn from(client: u32) -> Arrival {
    let address = Ipv4Addr::from_bits(0xc612_0000 + client);
    Arrival { client: (address.into(), 40_000), destination: Ipv4Addr::new(10, 0, 0, 100).into(), now: Tick(0) }
}

fn pick(service: &Service, arrival: &Arrival, loads: &Fixed) -> Option<u32> {
    let index = Cursor::default().schedule(service, 1, arrival, loads);
    index.map(|index| service.real_servers[index].slot.0)
}

fn picks(cursor: &mut Cursor, service: &Service, generation: u64, loads: &Fixed, count: usize) -> Vec<u32> {
    (0..count)
        .filter_map(|_| cursor.schedule(service, generation, &from(0), loads))
        .map(|index| service.real_servers[index].slot.0)
        .collect()
}

#[test]
fn rr_starts_with_the_newest_and_skips_who_takes_none() {
    let service = service(SchedulerKind::Rr, &[(3, 1), (2, 0), (1, 5), (0, 1)]);
    let mut loads = Fixed::default();
    let mut cursor = Cursor::default();
    assert_eq!(picks(&mut cursor, &service, 1, &loads, 5), [3, 1, 0, 3, 1]);
    loads.overloaded = vec![0, 3];
    assert_eq!(picks(&mut cursor, &service, 1, &loads, 3), [1, 1, 1]);
    loads.overloaded.push(1);
    assert_eq!(picks(&mut cursor, &service, 1, &loads, 1), [0u32; 0]);
}

#[test]
fn rr_goes_on_where_it_was_in_a_changed_list() {
    let loads = Fixed::default();
    let mut cursor = Cursor::default();
    assert_eq!(picks(&mut cursor, &service(SchedulerKind::Rr, &[(2, 1), (1, 1), (0, 1)]), 1, &loads, 2), [2, 1]);
    let grown = service(SchedulerKind::Rr, &[(3, 1), (2, 1), (1, 1), (0, 1)]);
    assert_eq!(picks(&mut cursor, &grown, 2, &loads, 3), [0, 3, 2]);
    let shrunk = service(SchedulerKind::Rr, &[(3, 1), (1, 1), (0, 1)]);
    assert_eq!(picks(&mut cursor, &shrunk, 3, &loads, 3), [1, 0, 3]);
}

#[test]
fn wrr_takes_the_kernels_order() {
    let loads = Fixed::default();
    let service = service(SchedulerKind::Wrr, &[(2, 1), (1, 3)]);
    assert_eq!(picks(&mut Cursor::default(), &service, 1, &loads, 8), [2, 1, 1, 1, 2, 1, 1, 1]);
}

#[test]
fn a_service_that_goes_over_to_wrr_begins_with_the_greatest_weight() {
    let loads = Fixed::default();
    for kind in [SchedulerKind::Rr, SchedulerKind::Lc] {
        let mut cursor = Cursor::default();
        assert_eq!(picks(&mut cursor, &service(kind, &[(2, 1), (1, 3)]), 1, &loads, 1), [2]);
        assert_eq!(picks(&mut cursor, &service(SchedulerKind::Wrr, &[(2, 1), (1, 3)]), 2, &loads, 5), [1, 1, 2, 1, 1]);
    }
}

#[test]
fn wrr_goes_on_where_the_kernel_does_after_nobody_took_a_session() {
    let service = service(SchedulerKind::Wrr, &[(1, 1), (2, 3)]);
    let open = Fixed::default();
    let full = Fixed { overloaded: vec![1, 2], ..Fixed::default() };
    // In the lowest pass it stays, in others it begins anew at the top.
    for (before, after) in [(1, [2, 2, 2, 1]), (2, [2, 2, 1, 2]), (3, [2, 2, 1, 2])] {
        let mut cursor = Cursor::default();
        picks(&mut cursor, &service, 1, &open, before);
        assert_eq!(picks(&mut cursor, &service, 1, &full, 3), [0u32; 0]);
        assert_eq!(picks(&mut cursor, &service, 1, &open, 4), after, "after {before}");
    }
}

#[test]
fn wrr_gives_each_its_exact_share_in_each_round() {
    let loads = Fixed::default();
    let service = service(SchedulerKind::Wrr, &[(0, 10), (1, 4), (2, 0), (3, 6), (4, 2)]);
    let mut cursor = Cursor::default();
    for _round in 0..5 {
        let mut shares = [0; 5];
        picks(&mut cursor, &service, 1, &loads, 11).iter().for_each(|&slot| shares[slot as usize] += 1);
        assert_eq!(shares, [5, 2, 0, 3, 1]);
    }
}

#[test]
fn wrr_ends_when_nobody_takes_sessions() {
    let mut loads = Fixed::default();
    let mut cursor = Cursor::default();
    assert_eq!(picks(&mut cursor, &service(SchedulerKind::Wrr, &[]), 1, &loads, 1), [0u32; 0]);
    assert_eq!(picks(&mut cursor, &service(SchedulerKind::Wrr, &[(1, 0)]), 2, &loads, 1), [0u32; 0]);
    let service = service(SchedulerKind::Wrr, &[(1, 3), (2, 2)]);
    assert_eq!(picks(&mut cursor, &service, 3, &loads, 3).len(), 3);
    loads.overloaded = vec![1];
    assert_eq!(picks(&mut cursor, &service, 3, &loads, 3), [2, 2, 2]);
    loads.overloaded = vec![1, 2];
    for _ in 0..4 {
        assert_eq!(picks(&mut cursor, &service, 3, &loads, 1), [0u32; 0]);
    }
    loads.overloaded = vec![2];
    assert_eq!(picks(&mut cursor, &service, 3, &loads, 2), [1, 1]);
}

#[test]
fn a_cursor_follows_a_changed_scheduler() {
    let loads = Fixed::default();
    let servers = [(2, 1), (1, 3)];
    let mut cursor = Cursor::default();
    let mut generation = 0;
    for (scheduler, expected) in [
        (SchedulerKind::Rr, [2, 1, 2, 1]),
        (SchedulerKind::Wrr, [1, 1, 2, 1]),
        (SchedulerKind::Lc, [2, 2, 2, 2]),
        (SchedulerKind::Wrr, [1, 1, 2, 1]),
        (SchedulerKind::Rr, [2, 1, 2, 1]),
    ] {
        generation += 1;
        assert_eq!(picks(&mut cursor, &service(scheduler, &servers), generation, &loads, 4), expected, "{scheduler}");
    }
}

#[test]
fn lc_and_wlc_weigh_active_connections_257_times() {
    let mut loads = Fixed::default();
    loads.loads.insert(1, Load { active: 1, inactive: 0 });
    loads.loads.insert(2, Load { active: 0, inactive: 255 });
    let mut cursor = Cursor::default();
    assert_eq!(picks(&mut cursor, &service(SchedulerKind::Lc, &[(1, 9), (2, 1)]), 1, &loads, 1), [2]);
    assert_eq!(picks(&mut cursor, &service(SchedulerKind::Wlc, &[(1, 9), (2, 1)]), 1, &loads, 1), [1]);
    loads.loads.insert(2, Load { active: 0, inactive: 257 });
    assert_eq!(
        picks(&mut cursor, &service(SchedulerKind::Lc, &[(1, 1), (2, 1)]), 1, &loads, 1),
        [1],
        "first of equals"
    );
    assert_eq!(picks(&mut cursor, &service(SchedulerKind::Wlc, &[(1, 1), (2, 2)]), 1, &loads, 1), [2]);
    assert_eq!(picks(&mut cursor, &service(SchedulerKind::Wlc, &[(1, 0), (2, 0)]), 1, &loads, 1), [0u32; 0]);
}

/// Two workers, each with a few sessions, do not both begin with the same real servers, and each worker's share is exact.
#[test]
fn workers_begin_one_turn_apart() {
    let loads = Fixed::default();
    let list = [(0, 10), (1, 4), (2, 0), (3, 6), (4, 2)];
    for (kind, order) in
        [(SchedulerKind::Rr, vec![0, 1, 3, 4]), (SchedulerKind::Wrr, vec![0, 1, 3, 4, 0, 0, 0, 3, 0, 1, 3])]
    {
        let service = service(kind, &list);
        let alone = picks(&mut Cursor::new(WorkerId(0), 0), &service, 1, &loads, order.len());
        assert_eq!(alone, order, "{kind}: the kernel's");
        for worker in 1..3 {
            let mut cursor = Cursor::new(WorkerId(worker), 0);
            let mut expected = order.clone();
            expected.rotate_left(worker.into());
            if kind == SchedulerKind::Rr && worker == 2 {
                // A cursor counts places; that of weight 0 is passed over.
                expected = vec![3, 4, 0, 1];
            }
            assert_eq!(picks(&mut cursor, &service, 1, &loads, order.len()), expected, "{kind}, worker {worker}");
        }
    }
}

#[test]
fn sed_counts_the_new_connection_and_no_inactive_ones() {
    let sed = service(SchedulerKind::Sed, &[(1, 1), (2, 3), (3, 0)]);
    // (1+0)/1 against (1+0)/3.
    assert_eq!(pick(&sed, &from(0), &Fixed::default()), Some(2));
    // (1+0)/1 against (2+1)/3: equal, the first.
    assert_eq!(pick(&sed, &from(0), &Fixed::of(&[(1, 0, 9), (2, 2, 0)])), Some(1));
    assert_eq!(pick(&sed, &from(0), &Fixed::of(&[(1, 0, 0), (2, 1, 900)])), Some(2));
    let full = Fixed { overloaded: vec![1, 2], ..Fixed::default() };
    assert_eq!(pick(&sed, &from(0), &full), None);
}

#[test]
fn nq_prefers_who_is_idle() {
    let nq = service(SchedulerKind::Nq, &[(1, 9), (2, 1), (3, 0)]);
    assert_eq!(pick(&nq, &from(0), &Fixed::of(&[(1, 1, 0), (2, 0, 77)])), Some(2), "sed would choose 1");
    assert_eq!(pick(&nq, &from(0), &Fixed::of(&[(1, 1, 0), (2, 1, 0)])), Some(1));
    assert_eq!(pick(&nq, &from(0), &Fixed::of(&[(1, 18, 0), (2, 1, 0)])), Some(2), "19/9 against 2/1");
    let full = Fixed { overloaded: vec![1, 2], ..Fixed::default() };
    assert_eq!(pick(&nq, &from(0), &full), None);
}

#[test]
fn fo_and_ovf_take_the_greatest_weight() {
    let list = [(1, 2), (2, 5), (3, 5), (4, 0)];
    let (fo, ovf) = (service(SchedulerKind::Fo, &list), service(SchedulerKind::Ovf, &list));
    let busy = Fixed::of(&[(2, 5, 100), (3, 6, 0)]);
    assert_eq!([pick(&fo, &from(0), &busy), pick(&ovf, &from(0), &busy)], [Some(2), Some(2)]);
    let over = Fixed::of(&[(2, 6, 0), (3, 6, 0)]);
    assert_eq!([pick(&fo, &from(0), &over), pick(&ovf, &from(0), &over)], [Some(2), Some(1)]);
    let held = Fixed { overloaded: vec![2], ..Fixed::default() };
    assert_eq!([pick(&fo, &from(0), &held), pick(&ovf, &from(0), &held)], [Some(3), Some(3)]);
    let full = Fixed::of(&[(1, 3, 0), (2, 6, 0), (3, 6, 0)]);
    assert_eq!([pick(&fo, &from(0), &full), pick(&ovf, &from(0), &full)], [Some(2), None]);
}

#[test]
fn twos_is_random_by_weight_and_takes_the_lesser_load() {
    let twos = service(SchedulerKind::Twos, &[(1, 1), (2, 3), (3, 0)]);
    let mut cursor = Cursor::new(WorkerId(0), 77);
    // With equal loads for their weights the first of two choices counts: the weights' chances.
    let counted = picks(&mut cursor, &twos, 1, &Fixed::default(), 40_000).iter().filter(|&&slot| slot == 2).count();
    assert!((29_000..31_000).contains(&counted), "{counted}");
    // Slot 1 only where both choices are it: a sixteenth.
    let loaded = Fixed::of(&[(1, 10, 0)]);
    let counted = picks(&mut cursor, &twos, 1, &loaded, 40_000).iter().filter(|&&slot| slot == 1).count();
    assert!((2_200..2_800).contains(&counted), "{counted}");
    let held = Fixed { overloaded: vec![2], ..Fixed::default() };
    assert_eq!(picks(&mut cursor, &twos, 1, &held, 3), [1, 1, 1]);
    let full = Fixed { overloaded: vec![1, 2], ..Fixed::default() };
    assert_eq!(picks(&mut cursor, &twos, 1, &full, 1), [0u32; 0]);
}

#[test]
fn dh_goes_by_the_destination_whatever_the_weights() {
    let dh = service(SchedulerKind::Dh, &[(0, 1), (1, 100), (2, 0)]);
    let to = |n: u32| Arrival { destination: Ipv4Addr::from_bits(n).into(), ..from(n) };
    let mut shares = [0; 4];
    for n in 0..3000 {
        let chosen = pick(&dh, &to(n), &Fixed::default());
        assert_eq!(chosen, pick(&dh, &Arrival { client: from(n + 1).client, ..to(n) }, &Fixed::default()));
        shares[chosen.unwrap_or(3) as usize] += 1;
    }
    assert!(shares[2] == 0 && [0, 1, 3].iter().all(|&n: &usize| (900..1100).contains(&shares[n])), "{shares:?}");
}

#[test]
fn sh_fills_buckets_by_weight_in_the_order_of_the_list() {
    let candidates = |list: &[(u32, u32)]| servers(list).iter().map(Candidate::from).collect::<Vec<_>>();
    let buckets = sh::buckets(&candidates(&[(7, 3), (8, 0), (9, 2)]));
    assert_eq!((buckets.len(), &buckets[..13]), (256, &[0, 0, 0, 1, 2, 2, 0, 0, 0, 1, 2, 2, 0][..]));
    assert_eq!(sh::buckets(&candidates(&[(1, 300), (2, 1)])), [0; 256]);
    assert_eq!(sh::buckets(&[]), [0u32; 0]);
}

#[test]
fn a_client_sticks_with_sh_and_mh_and_falls_back_where_it_may() {
    for (kind, name) in [(SchedulerKind::Sh, "sh"), (SchedulerKind::Mh, "mh")] {
        let list = servers(&[(0, 1), (1, 1), (2, 1)]);
        let plain = service_with(kind, SchedulerFlags::default(), list.clone());
        let fallback = service_with(kind, flags(&format!("{name}-fallback")), list.clone());
        let port = service_with(kind, flags(&format!("{name}-port")), list);
        let held = Fixed { overloaded: vec![1], ..Fixed::default() };
        let (mut moved, mut by_port) = ([0; 3], 0);
        for client in 0..900 {
            let chosen = pick(&plain, &from(client), &Fixed::default()).unwrap();
            assert_eq!(Some(chosen), pick(&fallback, &from(client), &Fixed::default()));
            let other_port = Arrival { client: (from(client).client.0, 50_000), ..from(client) };
            assert_eq!(Some(chosen), pick(&plain, &other_port, &Fixed::default()));
            by_port +=
                u32::from(pick(&port, &other_port, &Fixed::default()) != pick(&port, &from(client), &Fixed::default()));
            let stays = (chosen != 1).then_some(chosen);
            assert_eq!(pick(&plain, &from(client), &held), stays);
            let fallen = pick(&fallback, &from(client), &held).unwrap();
            assert!(stays.is_none_or(|stays| stays == fallen) && fallen != 1);
            moved[fallen as usize] += u32::from(stays.is_none());
        }
        assert!(moved[0] > 100 && moved[2] > 100, "{kind}: those of one fall on all others: {moved:?}");
        assert!((500..700).contains(&by_port), "{kind}: {by_port}");
        let full = Fixed { overloaded: vec![0, 1, 2], ..Fixed::default() };
        assert_eq!(pick(&fallback, &from(1), &full), None);
        assert_eq!(pick(&service_with(kind, flags(""), Vec::new()), &from(1), &full), None);
    }
}

#[test]
fn another_secret_leads_elsewhere() {
    let list = servers(&[(0, 1), (1, 1), (2, 1), (3, 1)]);
    for kind in [SchedulerKind::Sh, SchedulerKind::Mh, SchedulerKind::Dh] {
        let mut service = service_with(kind, SchedulerFlags::default(), list.clone());
        let before: Vec<_> = (0..400).map(|n| pick(&service, &from(n), &Fixed::default())).collect();
        let settings = SchedulerSettings { hash_secret: HashSecret([9; 16]), ..SchedulerSettings::default() };
        let candidates: Vec<_> = list.iter().map(Candidate::from).collect();
        service.scheduler = Scheduler::new(kind, SchedulerFlags::default(), &settings, &candidates);
        let same = (0..400).filter(|&n| pick(&service, &from(n), &Fixed::default()) == before[n as usize]).count();
        assert!(kind == SchedulerKind::Dh || (60..140).contains(&same), "{kind}: {same}");
    }
}

#[test]
fn lblc_keeps_a_destination_until_it_is_crowded() {
    let lblc = service(SchedulerKind::Lblc, &[(1, 2), (2, 2)]);
    let at = |now, client| Arrival { now: Tick(now), ..from(client) };
    assert_eq!(pick(&lblc, &at(0, 0), &Fixed::default()), Some(1));
    assert_eq!(pick(&lblc, &at(1, 1), &Fixed::of(&[(1, 2, 50)])), Some(1), "2 active are its weight");
    assert_eq!(pick(&lblc, &at(1, 1), &Fixed::of(&[(1, 3, 0), (2, 1, 0)])), Some(1), "nobody has less than half");
    assert_eq!(pick(&lblc, &at(1, 1), &Fixed::of(&[(1, 3, 0)])), Some(2));
    assert_eq!(pick(&lblc, &at(1, 1), &Fixed::of(&[(2, 1, 0)])), Some(2), "it stays there");
    let held = Fixed { overloaded: vec![2], ..Fixed::default() };
    assert_eq!(pick(&lblc, &at(1, 1), &held), Some(2), "an upper threshold ends nothing");
    let drained = Service { real_servers: servers(&[(1, 2), (2, 0)]), ..lblc.clone() };
    assert_eq!(pick(&drained, &at(1, 1), &Fixed::of(&[(1, 9, 0)])), Some(1), "weight 0 does");
    let removed = Service { real_servers: servers(&[(3, 2), (2, 2)]), ..lblc.clone() };
    assert_eq!(pick(&removed, &at(1, 1), &Fixed::default()), Some(3), "and removal");
    let day = 86_400 * Tick::PER_SECOND;
    assert_eq!(pick(&removed, &at(day, 1), &Fixed::of(&[(3, 1, 0)])), Some(3), "just not forgotten");
    assert_eq!(pick(&removed, &at(2 * day, 1), &Fixed::of(&[(3, 1, 0)])), Some(2), "forgotten");
}

#[test]
fn lblcr_replicates_what_is_crowded_and_shrinks() {
    let lblcr = service(SchedulerKind::Lblcr, &[(1, 2), (2, 2), (3, 2)]);
    let at = |now, client| Arrival { now: Tick(now), ..from(client) };
    let day = 86_400 * Tick::PER_SECOND;
    assert_eq!(pick(&lblcr, &at(0, 0), &Fixed::default()), Some(1));
    assert_eq!(pick(&lblcr, &at(0, 0), &Fixed::of(&[(1, 3, 0)])), Some(2), "the set is 2, 1");
    assert_eq!(
        pick(&lblcr, &at(1, 0), &Fixed::of(&[(1, 1, 0), (2, 2, 0)])),
        Some(1),
        "the least of the set, 3 is none"
    );
    assert_eq!(pick(&lblcr, &at(1, 0), &Fixed::of(&[(1, 2, 0), (2, 2, 0)])), Some(2), "the newest of equals");
    let held = Fixed { overloaded: vec![1, 2], ..Fixed::default() };
    assert_eq!(pick(&lblcr, &at(2, 0), &held), Some(3), "nobody of the set takes any: it gets one more");
    // A day after the last change the most loaded one goes, after this choice.
    assert_eq!(pick(&lblcr, &at(day, 0), &Fixed::of(&[(2, 1, 0)])), Some(3));
    assert_eq!(pick(&lblcr, &at(day + 3, 0), &Fixed::of(&[(2, 1, 0), (3, 0, 1)])), Some(1));
    assert_eq!(pick(&lblcr, &at(day + 3, 0), &Fixed::of(&[(1, 1, 0), (3, 1, 1)])), Some(1), "2 is out of it");
}

/// Slots by slot number of the real server.
fn maglev(list: &[(u32, u32)], table_index: u8) -> Vec<u32> {
    let list = servers(list);
    let candidates: Vec<_> = list.iter().map(Candidate::from).collect();
    let slots = mh::buckets(&candidates, HashSecret::default(), table_index);
    slots.into_iter().map(|index| list[index as usize].slot.0).collect()
}

#[test]
fn mh_has_the_kernels_sizes_and_more_slots_than_real_servers() {
    let sizes: Vec<_> = (8..=17).map(|index| maglev(&[(0, 1)], index).len()).collect();
    assert_eq!(sizes, [251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071]);
    let many: Vec<_> = (0..600).map(|slot| (slot, 1)).collect();
    let table = maglev(&many, 8);
    assert_eq!(table.len(), 1021);
    assert!(many.iter().all(|(slot, _)| table.contains(slot)));
    assert_eq!(maglev(&[(0, 0), (1, 0)], 12), [0u32; 0]);
}

/// Not to be changed: gateways of different versions beside each other must agree.
#[test]
fn mh_makes_the_table_that_it_has_always_made() {
    let table = maglev(&[(1, 1), (2, 2), (3, 1)], 8);
    assert_eq!(table[..32], MAGLEV_BEGINS);
    let count = |slot| table.iter().filter(|&&of| of == slot).count();
    // 62 rounds of four slots, and three more.
    assert_eq!([count(1), count(2), count(3)], [63, 126, 62]);
}

/// By another program, written from the description of the hash and of the table.
const MAGLEV_BEGINS: [u32; 32] =
    [2, 2, 2, 3, 2, 3, 2, 2, 2, 2, 1, 1, 3, 2, 2, 2, 1, 3, 2, 3, 2, 2, 1, 1, 3, 2, 3, 2, 1, 3, 2, 3];

/// Draining keeps the table; only who was drained takes nobody, and its clients fall back.
#[test]
fn mh_keeps_its_table_while_one_is_drained() {
    let mut candidates: Vec<_> = servers(&[(1, 3), (2, 5), (3, 4)]).iter().map(Candidate::from).collect();
    let before = mh::buckets(&candidates, HashSecret::default(), 12);
    candidates[1].weight = Weight(0);
    assert_eq!(mh::buckets(&candidates, HashSecret::default(), 12), before);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Each has its weight's share of the slots, whatever the order of the list.
    #[test]
    fn mh_shares_by_weight_in_any_order(weights in proptest::collection::vec(1u32..50, 1..40), rotate in 0usize..40) {
        let mut list: Vec<(u32, u32)> = (0..).zip(weights).collect();
        let table = maglev(&list, 12);
        let total: f64 = list.iter().map(|&(_, weight)| f64::from(weight)).sum();
        for &(slot, weight) in &list {
            let share = table.iter().filter(|&&of| of == slot).count() as f64;
            let due = 4093.0 * f64::from(weight) / total;
            prop_assert!((share - due).abs() <= f64::from(weight) + 1.0, "slot {slot} of {list:?}: {share} for {due}");
        }
        let places = list.len();
        list.rotate_left(rotate % places);
        prop_assert_eq!(maglev(&list, 12), table);
    }

    /// A removed real server's slots go to the others, and few of theirs change.
    #[test]
    fn mh_moves_little_but_the_share_of_who_is_removed(
        weights in proptest::collection::vec(1u32..4, 3..30),
        removed in 0usize..30,
    ) {
        let mut list: Vec<(u32, u32)> = (0..).zip(weights).collect();
        let before = maglev(&list, 12);
        let removed = list.remove(removed % list.len()).0;
        let after = maglev(&list, 12);
        let moved = before.iter().zip(&after).filter(|(before, after)| **before != removed && before != after).count();
        prop_assert!(after.iter().all(|&slot| slot != removed));
        prop_assert!(moved * 100 < 5 * before.len(), "{moved} slots of others moved");
    }

    /// Whatever the list and the loads, a scheduler chooses somebody who takes sessions, if anybody (ovf, dh, sh and mh
    /// may choose nobody).
    #[test]
    fn whoever_is_chosen_takes_sessions(
        weights in proptest::collection::vec(0u32..5, 0..12),
        loads in proptest::collection::vec((0u64..20, 0u64..600), 12),
        overloaded in proptest::collection::vec(0u32..12, 0..6),
    ) {
        let list: Vec<(u32, u32)> = (0..).zip(weights).collect();
        let loads: Vec<_> = (0..).zip(loads).map(|(slot, (active, inactive))| (slot, active, inactive)).collect();
        let loads = Fixed { overloaded, ..Fixed::of(&loads) };
        for kind in SchedulerKind::ALL {
            let service = service(kind, &list);
            let anybody = service.real_servers.iter().any(|server| loads.is_eligible(server));
            let mut cursor = Cursor::new(WorkerId(1), 5);
            for client in 0..20 {
                let chosen = cursor.schedule(&service, 1, &from(client), &loads);
                let may_refuse = kind.is_hashing() || kind == SchedulerKind::Ovf;
                prop_assert!(chosen.is_some() == anybody || (may_refuse && chosen.is_none()), "{}", kind);
                prop_assert!(chosen.is_none_or(|chosen| loads.is_eligible(&service.real_servers[chosen])), "{}", kind);
            }
        }
    }

    /// With sessions that stay, connections come to be shared by weight.
    #[test]
    fn the_least_loaded_share_by_weight(weights in proptest::collection::vec(1u32..10, 2..8)) {
        let list: Vec<(u32, u32)> = (0..).zip(weights).collect();
        let total: u32 = list.iter().map(|(_, weight)| weight).sum();
        for kind in [SchedulerKind::Wrr, SchedulerKind::Wlc, SchedulerKind::Sed, SchedulerKind::Nq] {
            let service = service(kind, &list);
            let (mut cursor, mut loads) = (Cursor::default(), Fixed::default());
            for client in 0..total * 20 {
                let chosen = cursor.schedule(&service, 1, &from(client), &loads).unwrap();
                loads.loads.entry(service.real_servers[chosen].slot.0).or_default().active += 1;
            }
            for &(slot, weight) in &list {
                let active = loads.load(RealServerSlot(slot)).active;
                prop_assert!(active.abs_diff(u64::from(weight) * 20) <= 2, "{kind}: {active} for {weight} of {list:?}");
            }
        }
    }
}
