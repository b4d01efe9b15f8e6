use std::net::{IpAddr, Ipv4Addr};
use std::sync::Barrier;
use std::thread;

use hashbrown::HashMap;

use super::*;
use crate::balance::{Protocol, ServiceKey, TemplateTarget};

const SEED: HashSeed = HashSeed([5, 6]);
const START: Tick = Tick(100);

fn key(client: u32) -> TemplateKey {
    let address = IpAddr::from([10, 0, 0, 100]);
    let service = ServiceKey { protocol: Protocol::Tcp, address, ports: 80.into(), mark: None };
    TemplateKey::new(Ipv4Addr::from_bits(0x0a01_0000 + client).into(), TemplateTarget::Virtual(service))
}

fn table(capacity: u32) -> Templates {
    Templates::new(capacity, 16, SEED)
}

fn sweep(table: &Templates, now: Tick) {
    (0..table.buckets()).for_each(|bucket| table.sweep(bucket, now));
}

fn views(table: &Templates, now: Tick) -> Vec<TemplateView> {
    let mut views = Vec::new();
    (0..table.buckets()).for_each(|bucket| table.views(bucket, now, &mut views));
    views
}

const SERVER: RealServerSlot = RealServerSlot(3);

#[test]
fn a_bucket_is_a_line_and_its_entries_lines() {
    assert_eq!((size_of::<Entry>(), size_of::<Bucket>()), (64, 64 + PLACES * 64));
    assert_eq!(std::mem::offset_of!(Bucket, entries), 64);
    assert!(Templates::memory_bytes(1 << 20) <= 133 << 20);
}

#[test]
fn a_template_lasts_from_its_last_use_on_and_as_long_as_it_has_sessions() {
    let table = table(100);
    assert_eq!(table.find(&key(1), 10, START), Ok(None));
    let entered = table.enter(&key(1), (SERVER, 7), 10, START).unwrap();
    assert_eq!((entered.server, entered.position, table.len(), table.of_real_server(SERVER)), (SERVER, 7, 1, 1));
    table.set_position(entered.index, 8);
    let later = START.plus_seconds(9);
    let found = table.find(&key(1), 10, later).unwrap().unwrap();
    assert_eq!(found, Template { position: 8, ..entered });
    assert_eq!(views(&table, later)[0].connections, 2);
    table.release(entered.index);
    sweep(&table, START.plus_seconds(19));
    let [view] = views(&table, START.plus_seconds(19))[..] else { panic!("it has a session") };
    assert_eq!((view.expires, view.key), (START.plus_seconds(79), key(1)), "a minute more");
    table.release(found.index);
    sweep(&table, START.plus_seconds(78));
    assert_eq!(table.len(), 1);
    assert_eq!(views(&table, START.plus_seconds(79)), [], "not shown");
    sweep(&table, START.plus_seconds(79));
    assert_eq!((table.len(), table.of_real_server(SERVER)), (0, 0));
}

#[test]
fn one_whose_time_is_over_is_not_found_although_it_was_not_swept() {
    let table = table(100);
    let first = table.enter(&key(1), (SERVER, 0), 10, START).unwrap();
    table.release(first.index);
    assert_eq!(table.find(&key(1), 10, START.plus_seconds(10)), Ok(None));
    let second = table.enter(&key(1), (RealServerSlot(4), 0), 10, START.plus_seconds(10)).unwrap();
    assert_eq!((second.server, table.of_real_server(SERVER), table.len()), (RealServerSlot(4), 0, 1));
    table.release(second.index);
    let third = table.enter(&key(1), (SERVER, 0), 10, START.plus_seconds(30)).unwrap();
    assert_eq!((third.server, table.len()), (SERVER, 1));
}

#[test]
fn the_first_of_two_that_enter_counts() {
    let table = table(100);
    let first = table.enter(&key(1), (SERVER, 1), 10, START).unwrap();
    let second = table.enter(&key(1), (RealServerSlot(4), 2), 20, START).unwrap();
    assert_eq!(second, first);
    assert_eq!((views(&table, START)[0].connections, table.len()), (2, 1));
    assert_eq!(views(&table, START)[0].expires, START.plus_seconds(20));
}

#[test]
fn a_retired_one_is_found_no_more_and_free_with_its_last_session() {
    let table = table(1);
    let old = table.enter(&key(1), (SERVER, 0), 1000, START).unwrap();
    let last = table.find(&key(1), 1000, START).unwrap().unwrap();
    table.retire(last.index);
    assert_eq!((table.len(), table.of_real_server(SERVER)), (0, 0));
    assert_eq!(views(&table, START), []);
    assert_eq!(table.find(&key(1), 1000, START), Ok(None));
    let new = table.enter(&key(1), (RealServerSlot(4), 0), 1000, START).unwrap();
    assert_ne!(new.index, old.index, "the old one has a session");
    sweep(&table, START.plus_seconds(1));
    assert_ne!(table.buckets[0].tag(split(old.index).1), FREE);
    table.release(old.index);
    sweep(&table, START.plus_seconds(3));
    assert_eq!(table.buckets[0].tag(split(old.index).1), FREE);
    assert_eq!(table.find(&key(1), 1000, START).unwrap().map(|found| found.server), Some(RealServerSlot(4)));
}

#[test]
fn a_full_bucket_takes_a_new_one_in_place_of_one_whose_time_is_over() {
    let table = table(LOAD);
    let places = u32::try_from(PLACES).unwrap();
    for client in 0..places {
        table.release(table.enter(&key(client), (SERVER, 0), 10 + client, START).unwrap().index);
    }
    assert_eq!(table.enter(&key(100), (SERVER, 0), 10, START), Err(TemplateError::Full));
    table.enter(&key(100), (SERVER, 0), 10, START.plus_seconds(10)).unwrap();
    assert_eq!((table.len(), table.of_real_server(SERVER)), (places, places));
    assert_eq!(Templates::default().enter(&key(1), (SERVER, 0), 10, START), Err(TemplateError::Full));
    assert_eq!(Templates::default().find(&key(1), 10, START), Ok(None));
}

#[test]
fn nobody_waits_for_a_worker_that_does_not_come_back() {
    let table = table(LOAD);
    let entered = table.enter(&key(1), (SERVER, 0), 10, START).unwrap();
    let claim = table.buckets[0].claim();
    assert!(claim.is_some());
    assert_eq!(table.find(&key(1), 10, START), Err(TemplateError::Busy));
    assert_eq!(table.enter(&key(2), (SERVER, 0), 10, START), Err(TemplateError::Busy));
    table.retire(entered.index);
    sweep(&table, START.plus_seconds(100));
    assert_eq!(views(&table, START), [], "nor does a listing");
    drop(claim);
    assert_eq!(views(&table, START).len(), 1);
    sweep(&table, START.plus_seconds(100));
    assert_eq!(table.len(), 0);
}

/// Clients come, and their sessions end, in an order drawn by lot, as a plain map would have it.
#[test]
fn it_is_as_a_map_would_be() {
    let table = table(1000);
    let mut map: HashMap<u32, (Template, Tick, u32)> = HashMap::new();
    let (mut state, mut now) = (1_u64, START);
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        u32::try_from((state >> 33) % below).unwrap()
    };
    for step in 0..100_000_u32 {
        let client = draw(500);
        if step % 7 == 0 {
            now = now.plus(draw(20));
            sweep(&table, now);
            map.values_mut().filter(|(_, end, sessions)| *end <= now && *sessions > 0).for_each(|(_, end, _)| {
                *end = now.plus_seconds(60);
            });
            map.retain(|_, (_, end, sessions)| *end > now || *sessions > 0);
        }
        let end = now.plus_seconds(5);
        match (draw(2), map.get_mut(&client)) {
            (0, Some((template, _, sessions))) if *sessions > 0 => {
                table.release(template.index);
                *sessions -= 1;
            }
            (_, Some((template, until, sessions))) => {
                assert_eq!(table.find(&key(client), 5, now), Ok(Some(*template)));
                (*until, *sessions) = (end, *sessions + 1);
            }
            (_, None) => {
                assert_eq!(table.find(&key(client), 5, now), Ok(None));
                let server = RealServerSlot(draw(16));
                let template = table.enter(&key(client), (server, 0), 5, now).unwrap();
                assert_eq!(template.server, server);
                map.insert(client, (template, end, 1));
            }
        }
        assert_eq!(table.len() as usize, map.len());
    }
    let mut counts = [0; 16];
    map.values().for_each(|(template, ..)| counts[template.server.0 as usize] += 1);
    assert_eq!(counts, std::array::from_fn(|slot| table.of_real_server(RealServerSlot(u32::try_from(slot).unwrap()))));
}

/// Workers want templates for the same new clients at the same moment, each with another real server in mind, while
/// sessions end, buckets are swept and a listing looks on.
#[test]
fn workers_agree_on_one_real_server_for_each_client() {
    const WORKERS: u32 = 4;
    const CLIENTS: u32 = 64;
    const ROUNDS: u32 = 200;
    let table = table(CLIENTS * ROUNDS);
    let (barrier, done) = (Barrier::new(WORKERS as usize), AtomicU32::new(0));
    let work = |worker: u32| {
        let mut chosen: Vec<(u32, Template)> = Vec::new();
        for round in 0..ROUNDS {
            barrier.wait();
            let now = START.plus_seconds(round);
            for client in (0..CLIENTS).map(|client| round * CLIENTS + client) {
                let wanted = (RealServerSlot((client + worker) % 16), worker);
                // A machine with fewer processors than workers interrupts one that has a claim.
                let template = loop {
                    let found = table.find(&key(client), 1, now);
                    match found.and_then(|found| found.map_or_else(|| table.enter(&key(client), wanted, 1, now), Ok)) {
                        Ok(template) => break template,
                        Err(error) => assert_eq!(error, TemplateError::Busy),
                    }
                    thread::yield_now();
                };
                chosen.push((client, template));
            }
            let long_ago =
                round.checked_sub(4).map(|round| (round * CLIENTS) as usize..((round + 1) * CLIENTS) as usize);
            chosen.get(long_ago.unwrap_or(0..0)).into_iter().flatten().for_each(|(_, template)| {
                table.release(template.index);
            });
            sweep(&table, now);
        }
        done.fetch_add(1, Ordering::Relaxed);
        chosen
    };
    let listing = || {
        while done.load(Ordering::Relaxed) < WORKERS {
            for view in views(&table, START) {
                assert!(view.server.0 < 16 && view.key.target().is_some(), "{view:?}");
                let IpAddr::V4(client) = view.key.network() else { panic!("{view:?}") };
                assert_eq!(key(client.to_bits() - 0x0a01_0000), view.key, "a copy of two halves");
            }
            thread::yield_now();
        }
    };
    thread::scope(|scope| {
        scope.spawn(listing);
        let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || work(worker))).collect();
        let chosen: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        for worker in &chosen[1..] {
            let servers = |chosen: &[(u32, Template)]| -> Vec<_> {
                chosen.iter().map(|(client, template)| (*client, template.server)).collect()
            };
            assert_eq!(servers(worker), servers(&chosen[0]));
        }
        let held = ((ROUNDS - 4) * CLIENTS) as usize;
        chosen.iter().flat_map(|chosen| &chosen[held..]).for_each(|(_, template)| table.release(template.index));
    });
    sweep(&table, START.plus_seconds(1_000_000));
    assert!(table.is_empty() && table.persistent.iter().all(|count| count.load(Ordering::Relaxed) == 0));
    let is_free = |bucket: &Bucket| (0..PLACES).all(|place| bucket.tag(place) == FREE);
    assert!(table.buckets.iter().all(is_free));
}

#[test]
fn a_template_is_assured_once_and_a_later_one_is_another() {
    let table = table(100);
    let entered = table.enter(&key(1), (SERVER, 0), 10, START).unwrap();
    let is_assured = |now| views(&table, now).iter().map(|view| view.is_assured).collect::<Vec<_>>();
    assert_eq!(is_assured(START), [false]);
    table.assure(entered.index);
    table.release(entered.index);
    let found = table.find(&key(1), 10, START).unwrap().unwrap();
    assert_eq!(is_assured(START), [true], "for all that it is used");
    table.release(found.index);
    let later = START.plus_seconds(11);
    sweep(&table, later);
    table.enter(&key(1), (SERVER, 0), 10, later).unwrap();
    assert_eq!(is_assured(later), [false]);
}
