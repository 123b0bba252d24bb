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
    Entry { sequence, region: "here".into(), event, reason: reason.into(), count: 1, reasons: Vec::new() }
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
    // Of one that broke off what came is there, and no more.
    let broken_off = |lost: u32| {
        let mut story = story();
        story.log.feeds[0].1[1].whole = None;
        story.log.entries[4] = entry(5, None);
        story.log.entries[3].event = Some(7 - lost);
        story.book.deliveries.clear();
        story.broken().into_iter().filter(|line| line.contains("only a part")).count()
    };
    assert_eq!((broken_off(4), broken_off(3)), (0, 1));
}

/// One run that was not killed. The reads as they took; the log as a line of words: an event's number, or why a marker
/// stands there.
fn one_run(reads: &[(u32, Option<u64>)], log: &[&str]) -> Vec<String> {
    let t0 = Instant::now();
    let at = |ms| t0 + Duration::from_millis(ms);
    let reads = reads.iter().zip(1..).map(|((event, took), n)| Read {
        received: at(n * 10),
        events: vec![*event],
        whole: took.map(|took| at(n * 10 + took)),
    });
    let entries = log.iter().zip(1..).map(|(word, sequence)| {
        let event = word.parse().ok();
        let reason = if event.is_none() { word } else { "" };
        Entry { sequence, region: "here".into(), event, reason: reason.into(), count: 1, reasons: Vec::new() }
    });
    let log = LogBook { name: "log".into(), entries: entries.collect(), feeds: vec![("here".into(), reads.collect())] };
    let run = Run { began: t0, killed: false, cursors: None };
    check(&[log], &[run], &[], Duration::from_secs(3)).broken
}

const SPOILT: Option<u64> = None;
const SOON: Option<u64> = Some(1);
const SLOWLY: Option<u64> = Some(7000);

#[tokio::test]
async fn each_lost_answer_has_a_marker_of_its_own() {
    let reads = [(1, SOON), (2, SPOILT), (3, SPOILT), (4, SOON)];
    assert_eq!(one_run(&reads, &["1", "reset", "cut_body", "4"]), Vec::<String>::new());
    for log in [
        &["1", "reset", "4"][..],
        &["1", "4", "reset", "reset"],
        &["1", "4"],
        &["1", "reset", "overflow", "4"],
        &["1", "reset", "retention", "4"],
    ] {
        let broken = one_run(&reads, log);
        assert!(broken.iter().any(|line| line.contains("is lost without a marker")), "{log:?}: {broken:?}");
    }
}

#[tokio::test]
async fn a_read_that_came_late_to_the_vendor_is_known_by_the_marker_of_its_giving_up() {
    let sound = Vec::<String>::new();
    // 9 was given up before 1 was read, and came to the vendor after it: lost, or closed before its answer was read.
    for took in [SPOILT, SOON] {
        assert_eq!(one_run(&[(1, SOON), (9, took), (2, SOON)], &["timeout", "1", "2"]), sound);
    }
    // 9 came to the vendor after 2, whose answer is lost: the marker of 2 stands behind what 9 brought.
    assert_eq!(one_run(&[(1, SOON), (2, SPOILT), (9, SOON)], &["timeout", "1", "9", "reset"]), sound);
    // It came in its place, and when nobody waited for it any more.
    assert_eq!(one_run(&[(9, SOON), (1, SOON)], &["timeout", "1"]), sound);
    // What came after it can have another marker than that of its giving up.
    assert_eq!(one_run(&[(1, SPOILT), (9, SOON), (2, SOON)], &["timeout", "reset", "2"]), sound);
    // 9 was answered at once, as the vendor sees it, and only after the poller had gone on.
    assert_eq!(one_run(&[(9, SOON), (1, SOON), (2, SOON)], &["timeout", "1", "9", "2"]), sound);
}

#[tokio::test]
async fn being_late_excuses_no_missing_marker() {
    let finds = |reads: &[(u32, Option<u64>)], log: &[&str], what: &str| {
        let broken = one_run(reads, log);
        assert!(broken.iter().any(|line| line.contains(what)), "{what}: {log:?}: {broken:?}");
    };
    let (unmarked, unkept) = ("is lost without a marker", "was handed over whole and is not in the log");
    finds(&[(1, SOON), (9, SPOILT), (2, SOON)], &["1", "2"], unmarked);
    // Nothing was given up: a reset is marked in its place.
    finds(&[(1, SOON), (9, SPOILT), (2, SOON)], &["reset", "1", "2"], unmarked);
    finds(&[(1, SOON), (2, SPOILT), (9, SOON)], &["1", "9", "reset"], unmarked);
    finds(&[(9, SOON), (1, SOON)], &["1", "9"], "answer 0 stands behind a later one");
    finds(&[(9, SOON), (1, SOON)], &["reset", "1", "9"], "answer 0 stands behind a later one");
    finds(&[(1, SOON), (9, SOON), (2, SOON)], &["1", "2", "timeout"], unkept);
    // The marker is another's: of one that took long, or that hung and had nothing to lose.
    finds(&[(8, SLOWLY), (1, SOON), (9, SPOILT), (2, SOON)], &["timeout", "1", "2", "8"], unmarked);
    finds(&[(8, SLOWLY), (1, SOON), (9, SOON), (2, SOON)], &["timeout", "1", "2", "8"], unkept);
    // The vendor was slow, and the gateway there to read it.
    finds(&[(8, SLOWLY), (1, SOON)], &["timeout", "1"], unkept);
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
