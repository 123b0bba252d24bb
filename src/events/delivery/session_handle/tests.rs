//! Several streams of one caller, opened from one place: the later ends the earlier, in order, and nothing is lost or
//! comes twice by that.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::events::tests::{Rig, STREAM, app, by, numbers, texts};
use crate::events::{Cursor, CursorPair, Delivery, ReadRequest, StartAt, StreamNumber};
use crate::kernel::names::{ClientName, Streams, SubscriptionName};
use crate::kernel::testing::pass;
use crate::store::Sequence;

/// A subscription's streams.
struct House {
    rig: Rig,
    sessions: Arc<StreamSessions>,
}

impl House {
    async fn with(entries: u64) -> Self {
        let rig = Rig::quiet().await;
        rig.append(0..entries).await;
        Self { rig, sessions: Arc::default() }
    }

    async fn open(&self, last: Option<CursorPair>) -> SessionHandle {
        self.open_of(Streams::One(STREAM), last).await
    }

    async fn open_of(&self, streams: Streams, last: Option<CursorPair>) -> SessionHandle {
        let (client, name) = (ClientName::parse("reader").unwrap(), SubscriptionName::parse("a").unwrap());
        let request = SessionRequest { app: &app(), streams, client: &client, subscription: &name, last };
        SessionHandle::open(&self.sessions, &self.rig.events, request).await.unwrap()
    }

    async fn place(&self) -> Cursor {
        self.rig.events.place(&app(), STREAM, StartAt::Earliest).await.unwrap()
    }

    /// Says that the caller has all up to this entry; the first is 1.
    async fn last(&self, at: u64) -> Option<CursorPair> {
        let mut marks = CursorPair::default();
        marks.give(STREAM, Cursor { at: Sequence(at), ..self.place().await });
        Some(marks)
    }

    async fn read(&self, number: Option<StreamNumber>, limit: usize) -> Delivery {
        let read = ReadRequest { markers: true, ..by("a", limit) };
        self.rig.events.read_in_stream(&app(), STREAM, read, number).await.unwrap()
    }

    /// Gives a stream entries: says which. They are on their way.
    async fn give(&self, open: &SessionHandle, limit: usize) -> (Vec<String>, Box<dyn Ending>) {
        let delivery = self.read(Some(open.number()), limit).await;
        let texts = texts(&delivery);
        let first = delivery.runs.first().map_or(0, |run| run.batch.first.0 + run.entries.start as u64);
        open.hold(STREAM, first..delivery.next.at.0 + 1, delivery.receipt);
        (texts, open.written(STREAM))
    }

    /// Gives it entries, which arrive.
    async fn hand_over(&self, open: &SessionHandle, limit: usize) -> Vec<String> {
        let (texts, ending) = self.give(open, limit).await;
        ending.flushed().unwrap().acknowledged();
        texts
    }

    /// All that a stream is given until nothing comes.
    async fn rest(&self, open: &SessionHandle) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let some = self.hand_over(open, 7).await;
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    }
}

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// One and the other, the other first whenever both can go on.
async fn both<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> (A, B) {
    let (other, one) = futures_util::future::join(other, one).await;
    (one, other)
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_a_later_one_has_ended_gives_nothing_again() {
    let house = House::with(30).await;
    let first = house.open(None).await;
    assert_eq!(house.hand_over(&first, 10).await, numbers(0..10));
    let last = house.last(5).await;
    // It is taking something: whoever comes has to wait.
    let turn = first.turn().unwrap();
    let second = async { house.open(last).await };
    let third = async {
        let third = house.open(last).await;
        let all = house.rest(&third).await;
        (third, all)
    };
    let let_go = async {
        pass(Duration::from_millis(100)).await;
        drop(turn);
    };
    let mut second = pin!(second);
    assert!(futures_util::poll!(second.as_mut()).is_pending());
    let ((second, (third, all)), ()) = both(both(second, third), let_go).await;
    assert!(first.is_over() && second.is_over() && !third.is_over());
    assert_eq!(all, numbers(5..30));
    assert_eq!(house.rest(&third).await, numbers(0..0), "nothing comes twice");
}

#[tokio::test(start_paused = true)]
async fn a_place_in_one_log_that_a_stream_of_both_does_not_say_again_outlives_a_kill() {
    let house = House::with(30).await;
    let first = house.open_of(Streams::All, None).await;
    assert_eq!(house.hand_over(&first, 10).await, numbers(0..10));
    let second = house.open_of(Streams::All, house.last(10).await).await;
    // It is given something of the other log: its place says only that nothing after this was given of this one.
    let mut place = CursorPair::default();
    place.begin(STREAM, Cursor { at: Sequence(10), ..house.place().await });
    drop((first, second));
    let house = House { rig: house.rig.kill().await, sessions: Arc::default() };
    let third = house.open_of(Streams::All, Some(place)).await;
    assert_eq!(house.rest(&third).await, numbers(10..30));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_over_before_its_turn_to_take_over_takes_nothing_over() {
    let house = House::with(30).await;
    let first = house.open(None).await;
    assert_eq!(house.hand_over(&first, 10).await, numbers(0..10));
    let last = house.last(5).await;
    let name = SubscriptionName::parse("a").unwrap();
    let streams = Streams::One(STREAM);
    let request = SessionRequest { app: &app(), streams, client: &first.client, subscription: &name, last };
    let (second, earlier) = SessionHandle::begin(&house.sessions, &request);
    let third = house.open(last).await;
    assert_eq!(house.rest(&third).await, numbers(5..30));
    take_over(&house.sessions, &second, earlier, &house.rig.events, streams, last.unwrap()).await.unwrap();
    assert!(second.is_over() && second.turn().is_none() && !third.is_over());
    assert_eq!(house.rest(&third).await, numbers(0..0), "nothing comes twice");
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_it_is_opened_takes_nothing_along() {
    let house = House::with(30).await;
    let first = house.open(None).await;
    assert_eq!(house.hand_over(&first, 10).await, numbers(0..10));
    // Another reader had these, and its response has failed.
    let failed = house.read(None, 10).await;
    assert_eq!(house.hand_over(&first, 5).await, numbers(20..25));
    drop(failed);
    assert_eq!(house.hand_over(&first, 10).await, numbers(10..20));
    // Of the last ten the caller has nothing.
    let last = house.last(25).await;
    let turn = first.turn().unwrap();
    let left = tokio::time::timeout(Duration::from_millis(100), house.open(last)).await;
    assert!(left.is_err());
    drop(turn);
    let second = house.open(last).await;
    assert_eq!(house.rest(&second).await, numbers(10..20).into_iter().chain(numbers(25..30)).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_a_stream_that_is_gone_was_given_out_of_order_comes_again() {
    let house = House::with(30).await;
    let first = house.open(None).await;
    assert_eq!(house.hand_over(&first, 10).await, numbers(0..10));
    let failed = house.read(None, 10).await;
    assert_eq!(house.hand_over(&first, 5).await, numbers(20..25));
    drop(failed);
    assert_eq!(house.hand_over(&first, 10).await, numbers(10..20));
    drop(first);
    let second = house.open(house.last(25).await).await;
    let expected: Vec<_> = numbers(10..20).into_iter().chain(numbers(25..30)).collect();
    assert_eq!(house.rest(&second).await, expected);
    // It has all of that by now.
    let third = house.open(house.last(30).await).await;
    assert_eq!(house.rest(&third).await, numbers(0..0));
}

/// Waits until both threads are here.
fn meet(started: &AtomicU64) {
    started.fetch_add(1, Ordering::SeqCst);
    while started.load(Ordering::SeqCst) < 2 {
        std::hint::spin_loop();
    }
}

fn pause(round: u64) {
    for _ in 0..round * 7 % 4096 {
        std::hint::spin_loop();
    }
}

#[test]
fn what_a_stream_was_given_comes_again_though_it_goes_while_its_caller_comes_again() {
    for round in 0..ROUNDS {
        let runtime = paused();
        let (house, first, last) = runtime.block_on(async {
            let house = House::with(30).await;
            let first = house.open(None).await;
            let failed = house.read(None, 10).await;
            assert_eq!(house.hand_over(&first, 5).await, numbers(10..15));
            drop(failed);
            assert_eq!(house.hand_over(&first, 10).await, numbers(0..10));
            let last = house.last(15).await;
            (house, first, last)
        });
        let started = AtomicU64::new(0);
        let second = std::thread::scope(|scope| {
            scope.spawn(|| {
                meet(&started);
                pause(round);
                drop(first);
            });
            let open = async {
                meet(&started);
                house.open(last).await
            };
            runtime.block_on(open)
        });
        runtime.block_on(async {
            let expected: Vec<_> = numbers(0..10).into_iter().chain(numbers(15..30)).collect();
            assert_eq!(house.rest(&second).await, expected, "round {round}");
        });
    }
}

/// A read that arrives, or is given up, at the very instant at which its caller comes again.
#[test]
fn what_is_settled_or_given_back_while_its_caller_comes_again_comes_once() {
    for round in 0..ROUNDS {
        let runtime = paused();
        let (house, first, last, ending) = runtime.block_on(async {
            let house = House::with(20).await;
            let first = house.open(None).await;
            house.hand_over(&first, 5).await;
            let (texts, ending) = house.give(&first, 10).await;
            assert_eq!(texts, numbers(5..15));
            let last = house.last(8).await;
            (house, first, last, ending)
        });
        let (delivered, started) = (ending.flushed().unwrap(), AtomicU64::new(0));
        let second = std::thread::scope(|scope| {
            scope.spawn(|| {
                meet(&started);
                pause(round);
                if round % 2 == 0 { delivered.acknowledged() } else { drop(delivered) }
            });
            let open = async {
                meet(&started);
                house.open(last).await
            };
            runtime.block_on(open)
        });
        runtime.block_on(async {
            assert_eq!(house.rest(&second).await, numbers(8..20), "round {round}");
        });
        drop(first);
    }
}

const ROUNDS: u64 = 1000;
