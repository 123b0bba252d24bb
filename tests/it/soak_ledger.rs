//! The soak's ledger finds what it is there to find.

#[path = "../../benches/soak/ledger.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "a part of the soak; what it prints is of no concern here")]
mod ledger;

use std::collections::HashMap;
use std::time::Duration;

use ledger::{Book, Delivery, Entry, LogBook, Read, Run, Use, check};
use tokio::time::Instant;

/// Two runs of which the first was killed; three answers in the first, the third lost by the kill; one in the second.
struct Story {
    log: LogBook,
    runs: Vec<Run>,
    book: Book,
}

fn entry(sequence: u64, event: Option<u32>) -> Entry {
    let reason = if event.is_none() { "unclean_stop" } else { "" };
    Entry { sequence, region: "here".into(), event, reason: reason.into() }
}

fn story() -> Story {
    let t0 = Instant::now();
    let at = |ms| t0 + Duration::from_millis(ms);
    let read = |received, events: std::ops::Range<u32>| Read {
        received: at(received),
        events: events.collect(),
        whole: Some(at(received + 1)),
    };
    let reads = vec![read(10, 0..3), read(20, 3..5), read(30, 5..8), read(110, 8..10)];
    let mut entries: Vec<Entry> = (0..5).map(|n| entry(u64::from(n) + 1, Some(n))).collect();
    entries.push(entry(6, None));
    entries.extend([entry(7, Some(8)), entry(8, Some(9))]);
    let log = LogBook { name: "log".into(), entries, feeds: vec![("here".into(), reads)] };
    let cursors = HashMap::from([((0, "s".to_owned()), 3)]);
    let runs = vec![
        Run { began: at(0), killed: true, cursors: Some(HashMap::new()) },
        Run { began: at(100), killed: false, cursors: Some(cursors) },
    ];
    let delivery = |run, events: &[u32]| Delivery { run, events: events.to_vec(), left: None };
    let deliveries = vec![delivery(0, &[0, 1, 2]), delivery(0, &[3]), delivery(1, &[3, 4, 8]), delivery(1, &[9])];
    Story { log, runs, book: Book { log: 0, subscription: "s".into(), how: Use::Whole, deliveries } }
}

impl Story {
    fn broken(self) -> Vec<String> {
        check(&[self.log], &self.runs, &[self.book], Duration::from_secs(3)).broken
    }

    fn finds(self, what: &str) {
        let broken = self.broken();
        assert!(broken.iter().any(|line| line.contains(what)), "{what}: {broken:?}");
    }
}

#[tokio::test]
async fn what_may_happen_is_no_breach() {
    let Story { log, runs, book } = story();
    let verdict = check(&[log], &runs, &[book], Duration::from_secs(3));
    assert_eq!(verdict.broken, Vec::<String>::new());
    assert_eq!((verdict.in_doubt, verdict.marked, verdict.repeats), (3, 3, 1));
    let mut shared = story();
    shared.book.how = Use::Shared;
    shared.book.deliveries.swap(0, 1);
    assert_eq!(shared.broken(), Vec::<String>::new());
}

#[tokio::test]
async fn every_breach_of_the_log_finds() {
    let mut lost = story();
    lost.log.feeds[0].1[2].received += Duration::from_millis(80);
    lost.log.feeds[0].1[2].whole = lost.log.feeds[0].1[2].whole.map(|w| w + Duration::from_millis(80));
    lost.finds("was handed over whole and is not in the log");
    let mut in_order = story();
    in_order.runs[0].killed = false;
    in_order.finds("was handed over whole and is not in the log");
    let mut unmarked = story();
    unmarked.log.entries[5].region = "elsewhere".into();
    unmarked.finds("without a marker");
    let mut misplaced = story();
    misplaced.log.entries.swap(5, 7);
    misplaced.log.entries[5].sequence = 6;
    misplaced.log.entries[7].sequence = 8;
    misplaced.finds("without a marker");
    let mut twice = story();
    twice.log.entries[7].event = Some(8);
    twice.finds("in the log twice");
    let mut invented = story();
    invented.log.entries[7].event = Some(77);
    invented.finds("no read took it");
    let mut swapped = story();
    swapped.log.entries[0].event = Some(1);
    swapped.log.entries[1].event = Some(0);
    swapped.finds("out of order in the log");
    let mut hole = story();
    hole.log.entries[7].sequence = 9;
    hole.finds("stands at place");
    let mut part = story();
    part.log.entries[4].event = Some(5);
    part.finds("only a part");
}

#[tokio::test]
async fn every_breach_towards_a_subscriber_finds() {
    let with = |change: &dyn Fn(&mut Story)| {
        let mut story = story();
        change(&mut story);
        story
    };
    with(&|s| drop(s.book.deliveries.pop())).finds("stands at");
    with(&|s| s.book.deliveries[3].events = vec![8, 9]).finds("got again");
    with(&|s| s.book.deliveries[1].events = vec![4]).finds("misses");
    with(&|s| s.book.deliveries[0].events = vec![0, 2]).finds("gap");
    with(&|s| s.book.deliveries[0].events = vec![0, 1, 7]).finds("not in the log");
    with(&|s| s.runs[1].cursors = Some(HashMap::from([((0, "s".into()), 5)]))).finds("ahead");
    with(&|s| s.runs[0].killed = false).finds("after a stop in order");
    with(&|s| s.runs[1].cursors = Some(HashMap::new())).finds("does not know it");
    let shared = |change: &dyn Fn(&mut Story)| {
        let mut story = story();
        story.book.how = Use::Shared;
        change(&mut story);
        story
    };
    shared(&|s| drop(s.book.deliveries.remove(0))).finds("never got 3 events");
    shared(&|s| s.book.deliveries[1].events = vec![0]).finds("again in run");
    shared(&|s| s.book.deliveries[2].events = vec![2, 3, 4, 8]).finds("again in run");
    let mut left = shared(&|s| s.book.deliveries[0].events.clear());
    left.book.deliveries[0].left = Some(3);
    assert_eq!(left.broken(), Vec::<String>::new());
}
