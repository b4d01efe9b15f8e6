//! The table of templates in every order of what two threads do to it, stale reads included (loom): `make interleave`.
//!
//! A bucket has two places here and a claim two looks, so that Busy is common; what it leaves undone may be undone, but
//! nothing may be counted wrong, found torn, or lost.

use std::net::{IpAddr, Ipv4Addr};

use loom::sync::Arc;
use loom::thread;

use super::*;
use crate::balance::{Protocol, ServiceKey, TemplateTarget};

const START: Tick = Tick(100);
const SECONDS: u32 = 10;

fn key(client: u32) -> TemplateKey {
    let address = IpAddr::from([10, 0, 0, 100]);
    let service = ServiceKey { protocol: Protocol::Tcp, address, ports: 80.into(), mark: None };
    TemplateKey::new(Ipv4Addr::from_bits(0x0a01_0000 + client).into(), TemplateTarget::Virtual(service))
}

fn server(number: u32) -> RealServerSlot {
    RealServerSlot(number)
}

/// Runs both threads' work on one table, which has one bucket, in every order; then `after` with what came of it.
fn every_order<A: 'static, B: 'static>(
    before: fn(&Templates),
    one: fn(&Templates) -> A,
    other: fn(&Templates) -> B,
    after: fn(&Templates, A, B),
) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let table = Arc::new(Templates::new(LOAD, 4, HashSeed([5, 6])));
        assert_eq!(table.buckets(), 1);
        before(&table);
        let shared = Arc::clone(&table);
        let one = thread::spawn(move || one(&shared));
        let other = other(&table);
        let one = one.join().unwrap();
        after(&table, one, other);
    });
}

/// The counts are those of the entries.
fn check_counts(table: &Templates) {
    let bucket = &table.buckets[0];
    assert_eq!(bucket.sequence.load(Ordering::Relaxed) & 1, 0, "nobody has it");
    let found: Vec<_> = (0..PLACES).filter(|&place| bucket.tag(place) > RETIRED).collect();
    assert_eq!(table.len() as usize, found.len());
    for slot in 0..4 {
        let named = found.iter().filter(|&&place| bucket.entries[place].server.load(Ordering::Relaxed) == slot);
        assert_eq!(table.of_real_server(server(slot)) as usize, named.count());
    }
}

fn connections(table: &Templates) -> u32 {
    table.buckets[0].entries.iter().map(|entry| entry.connections.load(Ordering::Relaxed)).sum()
}

#[test]
fn of_two_that_enter_a_client_both_get_the_same() {
    every_order(
        |_| {},
        |table| table.enter(&key(1), (server(1), 0), SECONDS, START),
        |table| table.enter(&key(1), (server(2), 0), SECONDS, START),
        |table, one, other| {
            check_counts(table);
            let got = [one, other].into_iter().flatten().collect::<Vec<_>>();
            assert!(!got.is_empty() && got.iter().all(|template| template == &got[0]));
            assert_eq!((table.len(), connections(table) as usize), (1, got.len()));
        },
    );
}

#[test]
fn one_that_is_found_while_another_retires_it_is_nobodys_twice() {
    every_order(
        |table| _ = table.enter(&key(1), (server(1), 0), SECONDS, START).unwrap(),
        |table| table.retire(TemplateIndex(1)),
        |table| table.find(&key(1), SECONDS, START),
        |table, (), found| {
            check_counts(table);
            let has = matches!(found, Ok(Some(_)));
            assert_eq!(connections(table), u32::from(has));
            if has {
                table.release(TemplateIndex(1));
            }
            table.sweep(0, START.plus_seconds(SECONDS));
            check_counts(table);
            assert!(table.is_empty(), "nothing keeps it");
        },
    );
}

#[test]
fn one_whose_time_is_over_is_found_or_freed() {
    every_order(
        |table| {
            let template = table.enter(&key(1), (server(1), 0), SECONDS, START).unwrap();
            table.release(template.index);
        },
        |table| table.sweep(0, START.plus_seconds(SECONDS)),
        |table| table.find(&key(1), SECONDS, START.plus_seconds(SECONDS - 1)),
        |table, (), found| {
            check_counts(table);
            match found {
                Ok(Some(template)) => {
                    assert_eq!((template.server, table.len(), connections(table)), (server(1), 1, 1));
                }
                Ok(None) => assert!(table.is_empty()),
                Err(error) => assert_eq!(error, TemplateError::Busy),
            }
        },
    );
}

#[test]
fn the_last_session_ends_while_the_table_is_swept() {
    every_order(
        |table| _ = table.enter(&key(1), (server(1), 0), SECONDS, START).unwrap(),
        |table| table.release(TemplateIndex(1)),
        |table| table.sweep(0, START.plus_seconds(SECONDS)),
        |table, (), ()| {
            check_counts(table);
            assert_eq!(connections(table), 0);
            // It was freed, or has a minute more, and is looked for then.
            table.sweep(0, START.plus_seconds(SECONDS + EXTENSION_SECONDS));
            assert!(table.is_empty());
        },
    );
}

#[test]
fn a_copy_is_never_of_two_templates() {
    every_order(
        |table| {
            let template = table.enter(&key(1), (server(1), 0), SECONDS, START).unwrap();
            table.release(template.index);
        },
        // In the place of the first one, whose time is over.
        |table| {
            table.sweep(0, START.plus_seconds(SECONDS));
            table.enter(&key(2), (server(2), 0), SECONDS, START.plus_seconds(SECONDS))
        },
        |table| {
            let mut views = Vec::new();
            table.views(0, START, &mut views);
            views
        },
        |table, entered, views| {
            check_counts(table);
            assert!(entered.is_ok(), "a listing claims nothing");
            assert!(views.len() <= 1, "{views:?}");
            for view in views {
                let is = [
                    (key(1), server(1), START.plus_seconds(SECONDS)),
                    (key(2), server(2), START.plus_seconds(2 * SECONDS)),
                ];
                assert!(is.contains(&(view.key, view.server, view.expires)), "{view:?}");
            }
        },
    );
}
