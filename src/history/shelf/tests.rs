use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::history::job::{Handle, Key, Product};
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::AppId;
use crate::upstream::egress::Costs;
use crate::vendor::history::Filter;
use crate::vendor::order::Sent;

const MOST: usize = 100_000;

fn client(name: &str) -> ClientName {
    ClientName::parse(name).unwrap()
}

/// A job that has ended with so many bytes, all told.
fn job(number: u64, bytes: usize) -> Arc<Job> {
    let filter = Filter { source: None, destination: None, start: 1, end: 2 };
    let product = Product { member: Bytes::from(vec![b'x'; bytes - OVERHEAD]), costs: Costs::default() };
    let now = Instant::now();
    Arc::new(Job {
        number,
        key: Key { app: AppId::parse("a1").unwrap(), ask: Ask::Count(filter) },
        began: UnixMillis(0),
        is_past: true,
        sent: Sent::default(),
        end: now + Duration::from_secs(60),
        deadline: watch::Sender::new(now),
        sharers: watch::Sender::default(),
        outcome: watch::Sender::new(Some((now, Ok(Arc::new(product))))),
        stuck: watch::Sender::new(None),
        abandoned: CancellationToken::new(),
        handles: Mutex::default(),
    })
}

#[test]
fn who_fetches_large_lists_makes_room_of_its_own() {
    let (mut shelf, small, large) = (Shelf::new(MOST), client("small"), client("large"));
    shelf.put(&job(1, 1000), &small);
    for n in 2..1000 {
        shelf.put(&job(n, 30_000), &large);
        assert!(shelf.peek(1).is_some(), "promised to another");
        assert!(shelf.peek(n).is_some(), "the newest is kept");
    }
    assert_eq!(shelf.kept.len(), 4);
    // Who comes new may have as much as the others.
    shelf.put(&job(1000, 45_000), &client("new"));
    assert!(shelf.peek(1).is_some() && shelf.peek(1000).is_some() && shelf.peek(999).is_some());
    shelf.put(&job(1001, MOST + 1), &client("new"));
    assert!(shelf.peek(1001).is_none() && shelf.peek(1000).is_some(), "what cannot be kept takes no room");
}

#[test]
fn the_least_recently_used_of_a_client_goes_first() {
    let (mut shelf, one) = (Shelf::new(MOST), client("one"));
    (1..=4).for_each(|n| shelf.put(&job(n, 25_000), &one));
    assert!(shelf.get(1).is_some());
    shelf.put(&job(5, 25_000), &one);
    let kept: Vec<u64> = (1..=5).filter(|n| shelf.peek(*n).is_some()).collect();
    assert_eq!(kept, [1, 3, 4, 5]);
    shelf.retain(|job| job.number > 4);
    assert_eq!(shelf.held.taken(), 25_000);
    shelf.retain(|_| false);
    assert!(shelf.is_empty() && shelf.order.is_empty());
    assert_eq!(shelf.held, Holdings::default());
}

#[test]
fn what_another_has_a_handle_to_is_that_ones_when_its_beginner_must_make_room() {
    let (mut shelf, one, other) = (Shelf::new(MOST), client("one"), client("other"));
    let shared = job(1, 10_000);
    let handle = |client: &ClientName| Handle { client: client.clone(), text: "h".into(), is_owed: false };
    shared.handles.lock().unwrap().extend([handle(&one), handle(&other)]);
    shelf.put(&shared, &one);
    (2..100).for_each(|n| shelf.put(&job(n, 20_000), &one));
    assert!(shelf.peek(1).is_some());
    assert_eq!(shelf.held.of(&other), 10_000);
    // And it goes when that one holds most.
    (100..200).for_each(|n| shelf.put(&job(n, 20_000), &other));
    assert!(shelf.peek(1).is_none());
}

properties! {
    #[test]
    fn nobody_who_holds_no_more_than_its_part_loses_anything(
        steps in prop::collection::vec((0..3_usize, 1000..40_000_usize, any::<bool>()), 1..200),
    ) {
        let (mut shelf, clients) = (Shelf::new(MOST), ["modest", "greedy", "other"].map(client));
        let (mut modest, mut held) = (Vec::new(), 0);
        for (n, (of, bytes, uses)) in (1..).zip(steps) {
            if of == 0 && held + bytes > MOST / clients.len() {
                continue;
            }
            if of == 0 {
                modest.push(n);
                held += bytes;
            }
            shelf.put(&job(n, bytes), &clients[of]);
            if uses {
                shelf.get(n / 2);
            }
            let sum: usize = shelf.kept.values().map(|kept| kept.bytes).sum();
            prop_assert!(sum <= MOST && sum == shelf.held.taken() && shelf.order.len() == shelf.kept.len());
            prop_assert!(modest.iter().all(|n| shelf.peek(*n).is_some()), "{modest:?}");
        }
    }
}
