use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::history::job::{ClientHandle, JobKey, Product, Question};
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::AppId;
use crate::upstream::egress::WorkCosts;
use crate::vendor::history::Filter;
use crate::vendor::order::Sent;

const MOST: usize = 100_000;

fn client(name: &str) -> ClientName {
    ClientName::parse(name).unwrap()
}

/// A job that has ended with so many bytes, all told.
fn job(number: u64, bytes: usize) -> Arc<Job> {
    let filter = Filter { source: None, destination: None, start: 1, end: 2 };
    let product = Product { member: Bytes::from(vec![b'x'; bytes - OVERHEAD]) };
    let now = Instant::now();
    Arc::new(Job {
        number,
        key: JobKey { app: AppId::parse("a1").unwrap(), question: Question::Count(filter) },
        began: UnixMillis(0),
        is_past: true,
        costs: WorkCosts::default(),
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
    let (mut lru, small, large) = (FairLru::new(MOST), client("small"), client("large"));
    lru.put(&job(1, 1000), &small);
    for n in 2..1000 {
        lru.put(&job(n, 30_000), &large);
        assert!(lru.peek(1).is_some(), "promised to another");
        assert!(lru.peek(n).is_some(), "the newest is kept");
    }
    assert_eq!(lru.kept.len(), 4);
    // Who comes new may have as much as the others.
    lru.put(&job(1000, 45_000), &client("new"));
    assert!(lru.peek(1).is_some() && lru.peek(1000).is_some() && lru.peek(999).is_some());
    lru.put(&job(1001, MOST + 1), &client("new"));
    assert!(lru.peek(1001).is_none() && lru.peek(1000).is_some(), "what cannot be kept takes no room");
}

#[test]
fn the_least_recently_used_of_a_client_goes_first() {
    let (mut lru, one) = (FairLru::new(MOST), client("one"));
    (1..=4).for_each(|n| lru.put(&job(n, 25_000), &one));
    assert!(lru.get(1).is_some());
    lru.put(&job(5, 25_000), &one);
    let kept: Vec<u64> = (1..=5).filter(|n| lru.peek(*n).is_some()).collect();
    assert_eq!(kept, [1, 3, 4, 5]);
    lru.retain(|job| job.number > 4);
    assert_eq!(lru.held.taken(), 25_000);
    lru.retain(|_| false);
    assert!(lru.is_empty() && lru.order.is_empty());
    assert_eq!(lru.held, Holdings::default());
}

#[test]
fn what_another_has_a_handle_to_is_that_ones_when_its_beginner_must_make_room() {
    let (mut lru, one, other) = (FairLru::new(MOST), client("one"), client("other"));
    let shared = job(1, 10_000);
    let handle = |client: &ClientName| ClientHandle { client: client.clone(), text: "h".into(), is_owed: false };
    shared.handles.lock().unwrap().extend([handle(&one), handle(&other)]);
    lru.put(&shared, &one);
    (2..100).for_each(|n| lru.put(&job(n, 20_000), &one));
    assert!(lru.peek(1).is_some());
    assert_eq!(lru.held.of(&other), 10_000);
    // And it goes when that one holds most.
    (100..200).for_each(|n| lru.put(&job(n, 20_000), &other));
    assert!(lru.peek(1).is_none());
}

properties! {
    #[test]
    fn nobody_who_holds_no_more_than_its_part_loses_anything(
        steps in prop::collection::vec((0..3_usize, 1000..40_000_usize, any::<bool>()), 1..200),
    ) {
        let (mut lru, clients) = (FairLru::new(MOST), ["modest", "greedy", "other"].map(client));
        let (mut modest, mut held) = (Vec::new(), 0);
        for (n, (of, bytes, uses)) in (1..).zip(steps) {
            if of == 0 && held + bytes > MOST / clients.len() {
                continue;
            }
            if of == 0 {
                modest.push(n);
                held += bytes;
            }
            lru.put(&job(n, bytes), &clients[of]);
            if uses {
                lru.get(n / 2);
            }
            let sum: usize = lru.kept.values().map(|kept| kept.bytes).sum();
            prop_assert!(sum <= MOST && sum == lru.held.taken() && lru.order.len() == lru.kept.len());
            prop_assert!(modest.iter().all(|n| lru.peek(*n).is_some()), "{modest:?}");
        }
    }
}
