//! What a bucket promises, in paused time. The invariant itself is in [`vendor`].

mod clients;
mod refusals;
mod vendor;

use std::future::Future;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::task::Context;

use futures_util::FutureExt as _;
use futures_util::task::noop_waker;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, advance, sleep_until};

use super::ledger::ON_THE_WAY;
use super::seat_queue::JUDGED_EVERY;
use super::*;
use crate::kernel::clock::Clock;
use crate::kernel::names::ClientName;
use crate::kernel::testing::pass;
use crate::vendor::order::{Payer, Sharer};

const W: Duration = Duration::from_secs(1);
/// No deadline to speak of.
const LONG: Duration = Duration::from_secs(100_000);
/// A window with all that is added to it, rounded up to the timer's grain.
const TURN: Duration = Duration::from_millis(1003);
/// Timers' grain, with what those who are not first in line add to it.
const GRACE: Duration = Duration::from_millis(5);

fn limit(requests: u32, per: Duration) -> Limit {
    Limit { requests: NonZeroU32::new(requests).unwrap(), per }
}

fn bucket(requests: u32, begin: Begin) -> Arc<Bucket> {
    Bucket::new(limit(requests, W), begin, Clock::system())
}

fn payer(name: &str, weight: u32) -> Payer {
    Payer { client: ClientName::parse(name).unwrap(), weight }
}

fn within(wait: Duration) -> Instant {
    Instant::now() + wait
}

async fn seat(bucket: &Arc<Bucket>, wait: Duration) -> Result<Seat, NoSeat> {
    bucket.seat(&payer("a", 1), within(wait)).await
}

fn use_up(mut seat: Seat) {
    seat.sending();
    seat.answered();
}

/// Uses all free seats now.
async fn exhaust(bucket: &Arc<Bucket>) {
    while bucket.snapshot().free > 0 {
        use_up(seat(bucket, Duration::ZERO).await.unwrap());
    }
}

fn sum(look: Snapshot) -> u32 {
    look.free + look.in_flight + look.cooling + look.retired
}

/// Who was served, its number in its client's line, and when.
type Served = Arc<Mutex<Vec<(&'static str, usize, Instant)>>>;

/// `count` orders of a client that come now, in order, and use their seats at once.
fn queue_up(
    tasks: &mut JoinSet<()>,
    bucket: &Arc<Bucket>,
    served: &Served,
    (name, weight, count): (&'static str, u32, usize),
) {
    for number in 0..count {
        let (bucket, served) = (bucket.clone(), served.clone());
        tasks.spawn(async move {
            let seat = bucket.seat(&payer(name, weight), within(LONG)).await.unwrap();
            served.lock().unwrap().push((name, number, Instant::now()));
            use_up(seat);
        });
    }
}

fn sharer(name: &str) -> Sharer {
    Sharer { payer: payer(name, 1), callers: 1 }
}

/// A bucket of one seat, which is used, and for which so many orders of client `a` wait.
async fn contended(count: usize) -> (Arc<Bucket>, Served, JoinSet<()>) {
    let (bucket, served, mut tasks) = (bucket(1, Begin::Full), Served::default(), JoinSet::new());
    exhaust(&bucket).await;
    queue_up(&mut tasks, &bucket, &served, ("a", 1, count));
    settle().await;
    (bucket, served, tasks)
}

async fn settle() {
    pass(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_seat_comes_free_one_window_after_its_answer_and_at_once_if_nothing_was_sent() {
    let bucket = bucket(1, Begin::Full);
    let mut first = seat(&bucket, Duration::ZERO).await.unwrap();
    first.sending();
    pass(Duration::from_secs(7)).await;
    first.answered();
    let answered = Instant::now();
    let mut second = seat(&bucket, LONG).await.unwrap();
    assert!(answered.elapsed() > W && answered.elapsed() <= TURN, "{:?}", answered.elapsed());
    second.sending();
    drop(second);
    let lost = Instant::now();
    let third = seat(&bucket, LONG).await.unwrap();
    assert!(lost.elapsed() > W);
    drop(third);
    assert_eq!(bucket.snapshot().free, 1);
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_begins_empty_fills_after_one_window() {
    let bucket = bucket(5, Begin::Empty);
    let began = Instant::now();
    let look = bucket.snapshot();
    assert_eq!((look.free, look.cooling, sum(look)), (0, 5, 5));
    // Beside the window: what an earlier run has sent may still be on its way.
    let (soonest, latest) = (W + ON_THE_WAY, TURN + ON_THE_WAY);
    let Err(NoSeat::Spent { retry_after }) = seat(&bucket, W).await else { panic!() };
    assert!(retry_after > soonest && retry_after <= latest);
    let mut seats = Vec::new();
    for _ in 0..5 {
        seats.push(seat(&bucket, LONG).await.unwrap());
        assert!(began.elapsed() > soonest && began.elapsed() <= latest);
    }
    assert_eq!(bucket.snapshot().free, 0);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_of_one_client_delay_another_by_at_most_one_turn_and_stay_in_order() {
    for seats in [1, 10] {
        let (bucket, served, mut tasks) = (bucket(seats, Begin::Full), Served::default(), JoinSet::new());
        queue_up(&mut tasks, &bucket, &served, ("a", 1, 1000));
        pass(Duration::from_millis(2500)).await;
        let asked = Instant::now();
        queue_up(&mut tasks, &bucket, &served, ("b", 1, 1));
        tasks.join_all().await;
        let mut served = served.lock().unwrap().clone();
        let (_, _, when) = *served.iter().find(|(name, ..)| *name == "b").unwrap();
        let turns = served.iter().filter(|(_, _, at)| *at > asked && *at < when).count();
        assert!(turns <= 1, "{turns} turns with {seats} seats");
        served.sort_unstable();
        assert!(served.is_sorted_by_key(|(name, _, at)| (*name, *at)), "first come, first served");
    }
}

#[tokio::test(start_paused = true)]
async fn weights_share_an_overloaded_bucket() {
    let (bucket, served, mut tasks) = (bucket(10, Begin::Empty), Served::default(), JoinSet::new());
    queue_up(&mut tasks, &bucket, &served, ("a", 1, 400));
    queue_up(&mut tasks, &bucket, &served, ("b", 3, 400));
    pass(ON_THE_WAY + TURN * 40 + W / 2).await;
    let served = served.lock().unwrap();
    let of_a = served.iter().filter(|(name, ..)| *name == "a").count();
    assert_eq!(served.len(), 400);
    assert!(of_a.abs_diff(100) <= 1, "{of_a}");
}

#[tokio::test(start_paused = true)]
async fn overload_uses_nearly_all_of_what_the_round_trip_leaves() {
    for rtt in [0, 20, 100] {
        let (bucket, rtt) = (bucket(10, Begin::Empty), Duration::from_millis(rtt));
        let (served, mut tasks) = (Served::default(), JoinSet::new());
        for _ in 0..50 {
            let (bucket, served) = (bucket.clone(), served.clone());
            tasks.spawn(async move {
                loop {
                    let mut seat = bucket.seat(&payer("a", 1), within(LONG)).await.unwrap();
                    seat.sending();
                    served.lock().unwrap().push(("a", 0, Instant::now()));
                    pass(rtt).await;
                    seat.answered();
                }
            });
        }
        pass(TURN + W * 100).await;
        let best = 10.0 * 100.0 * W.as_secs_f64() / (W + rtt).as_secs_f64();
        let used = served.lock().unwrap().len();
        assert!(used as f64 >= 0.95 * best, "{used} of {best} with {rtt:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_comes_at_once_and_only_when_no_seat_can_come_in_time() {
    let (bucket, served, mut tasks) = (bucket(2, Begin::Full), Served::default(), JoinSet::new());
    exhaust(&bucket).await;
    queue_up(&mut tasks, &bucket, &served, ("a", 1, 4));
    settle().await;
    // Four wait before it: two go in the next window, two in the one after, so it is in the third.
    let asked = Instant::now();
    let Err(NoSeat::Spent { retry_after }) = seat(&bucket, TURN * 2).await else { panic!() };
    assert_eq!(asked.elapsed(), Duration::ZERO);
    assert!(retry_after > TURN * 2 && retry_after <= TURN * 3, "{retry_after:?}");
    // Fair order puts another client's first.
    use_up(bucket.seat(&payer("b", 1), within(TURN)).await.unwrap());
    assert!(seat(&bucket, retry_after).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_is_overtaken_is_refused_by_its_deadline() {
    let bucket = bucket(1, Begin::Full);
    exhaust(&bucket).await;
    let (served, mut tasks) = (Served::default(), JoinSet::new());
    let slow = bucket.clone();
    let overtaken = tasks.spawn(async move {
        queue_behind(&slow, "slow").await;
    });
    settle().await;
    queue_up(&mut tasks, &bucket, &served, ("quick", 1000, 5));
    let began = Instant::now();
    while !overtaken.is_finished() {
        pass(Duration::from_millis(1)).await;
    }
    assert!(began.elapsed() <= TURN * 2 + GRACE, "{:?}", began.elapsed());

    /// Waits with a line of its own before it that others may pass.
    async fn queue_behind(bucket: &Arc<Bucket>, name: &'static str) {
        let payer = payer(name, 1);
        let first = bucket.seat(&payer, within(LONG));
        let second = bucket.seat(&payer, within(TURN * 2));
        let (first, second) = tokio::join!(first.map(|seat| seat.map(use_up)), second);
        assert!(first.is_ok());
        assert!(matches!(second, Err(NoSeat::Spent { .. })), "{second:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_overtaken_for_good_learns_it_then_however_long_it_would_wait() {
    // Many wait, so that they are not looked at for each who comes; and few.
    for (seats, each) in [(10, 95), (200, 1900)] {
        let (bucket, mut tasks) = (bucket(seats, Begin::Full), JoinSet::new());
        exhaust(&bucket).await;
        let began = Instant::now();
        let mut come = |name: &'static str, at: Duration, refused_at: &Arc<Mutex<Vec<Duration>>>| {
            for _ in 0..each {
                let (bucket, refused_at) = (bucket.clone(), refused_at.clone());
                tasks.spawn(async move {
                    sleep_until(began + at).await;
                    match bucket.seat(&payer(name, 1), began + W * 10).await {
                        Ok(seat) => use_up(seat),
                        Err(_) => refused_at.lock().unwrap().push(began.elapsed()),
                    }
                });
            }
        };
        let (first, second) = <[Arc<Mutex<Vec<Duration>>>; 2]>::default().into();
        come("a", Duration::ZERO, &first);
        come("b", W / 2, &second);
        tasks.join_all().await;
        let (first, second) = (first.lock().unwrap().clone(), second.lock().unwrap().clone());
        assert!(first.len() + second.len() >= each * 2 - seats as usize * 10, "{} {}", first.len(), second.len());
        assert!(first.len() > each / 3, "{} of a were refused", first.len());
        let late: Vec<_> = first.iter().chain(&second).filter(|at| **at > W / 2 + JUDGED_EVERY + GRACE).collect();
        // What turns out on the way is no more than the round trips and the grain of timers that nobody foresees.
        assert!(late.len() <= seats as usize, "{} of {each}: {:?}", late.len(), late.first());
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_costs_nothing_and_loses_no_seat() {
    let (bucket, served, mut tasks) = (bucket(1, Begin::Full), Served::default(), JoinSet::new());
    let holder = seat(&bucket, Duration::ZERO).await.unwrap();
    let mut leaving = JoinSet::new();
    queue_up(&mut leaving, &bucket, &served, ("a", 1, 500));
    settle().await;
    queue_up(&mut tasks, &bucket, &served, ("a", 1, 1));
    settle().await;
    assert_eq!(bucket.snapshot().waiting, 501);
    // The first of those that leave is given the seat and dropped before it could take it.
    drop(holder);
    leaving.abort_all();
    while leaving.join_next().await.is_some() {}
    tasks.join_next().await.unwrap().unwrap();
    assert_eq!(served.lock().unwrap().len(), 1);
    let look = bucket.snapshot();
    assert_eq!((look.waiting, look.in_flight, look.cooling), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_seat_given_to_a_future_that_is_dropped_goes_to_the_next() {
    let bucket = bucket(1, Begin::Full);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let holder = seat(&bucket, Duration::ZERO).await.unwrap();
    let mut first = Box::pin(seat(&bucket, LONG));
    let mut second = Box::pin(seat(&bucket, LONG));
    assert!(first.as_mut().poll(&mut cx).is_pending());
    assert!(second.as_mut().poll(&mut cx).is_pending());
    drop(holder);
    assert_eq!(bucket.snapshot().waiting, 1);
    assert!(second.as_mut().poll(&mut cx).is_pending());
    drop(first);
    assert!(second.now_or_never().unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_first_in_line_that_is_never_polled_does_not_stop_the_others() {
    let bucket = bucket(2, Begin::Full);
    exhaust(&bucket).await;
    let mut stuck = Box::pin(seat(&bucket, W * 10));
    assert!(stuck.as_mut().poll(&mut Context::from_waker(&noop_waker())).is_pending());
    let began = Instant::now();
    for turn in 1..5 {
        use_up(bucket.seat(&payer("b", 1), within(LONG)).await.unwrap());
        assert!(began.elapsed() <= (TURN + GRACE) * turn, "{:?}", began.elapsed());
    }
    drop(stuck);
    assert_eq!(bucket.snapshot().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_the_vendor_pauses_halves_once_and_grows_back_one_for_each_clean_window() {
    let bucket = bucket(8, Begin::Full);
    let mut seats = Vec::new();
    for _ in 0..3 {
        let mut seat = seat(&bucket, Duration::ZERO).await.unwrap();
        seat.sending();
        seats.push(seat);
    }
    let refused = Instant::now();
    for seat in seats {
        seat.refused(Some(Duration::from_secs(5)));
    }
    let look = bucket.snapshot();
    assert_eq!((look.in_force, look.free, look.retired, sum(look)), (4, 0, 4, 8));
    assert!(look.next > Duration::from_secs(5) && look.next < Duration::from_secs(6));
    use_up(seat(&bucket, LONG).await.unwrap());
    assert!(refused.elapsed() > Duration::from_secs(5) && refused.elapsed() < Duration::from_secs(6));
    for (second, in_force) in [(5, 4), (6, 5), (7, 6), (8, 7), (9, 8), (10, 8), (100, 8)] {
        sleep_until(refused + Duration::from_secs(second) + Duration::from_millis(20)).await;
        let look = bucket.snapshot();
        assert_eq!((look.in_force, sum(look)), (in_force, 8), "after {second} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_without_a_hint_pauses_one_window_and_one_seat_always_remains() {
    let bucket = bucket(2, Begin::Full);
    for _ in 0..3 {
        let mut seat = seat(&bucket, LONG).await.unwrap();
        seat.sending();
        seat.refused(None);
        let look = bucket.snapshot();
        assert_eq!((look.in_force, look.free), (1, 0));
        assert!(look.next > W && look.next <= TURN, "{:?}", look.next);
    }
    let mut seat = seat(&bucket, LONG).await.unwrap();
    seat.sending();
    seat.refused(Some(Duration::MAX));
    assert!(bucket.snapshot().next < Duration::from_secs(61), "a stranger's number is not believed without end");
}

#[tokio::test(start_paused = true)]
async fn a_shorter_wish_takes_back_no_longer_one_and_prolongs_none_beyond_its_bound() {
    let second = Duration::from_secs(1);
    for (wish, left) in [(50, 20), (3600, 30)] {
        let bucket = bucket(2, Begin::Full);
        let (mut one, mut other) = (seat(&bucket, LONG).await.unwrap(), seat(&bucket, LONG).await.unwrap());
        one.sending();
        other.sending();
        one.refused(Some(second * wish));
        pass(second * 30).await;
        other.refused(Some(second));
        let next = bucket.snapshot().next;
        assert!(next >= second * left && next < second * (left + 1), "{wish}: {next:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn those_whom_the_vendors_pause_outlasts_are_refused_then_and_the_others_wait_on() {
    let bucket = bucket(2, Begin::Full);
    let mut bad = seat(&bucket, Duration::ZERO).await.unwrap();
    bad.sending();
    exhaust(&bucket).await;
    let (mut short, mut long) = (Box::pin(seat(&bucket, W * 3)), Box::pin(seat(&bucket, W * 30)));
    assert!((&mut short).now_or_never().is_none());
    assert!((&mut long).now_or_never().is_none());
    bad.refused(Some(W * 10));
    let began = Instant::now();
    assert!(matches!(short.await, Err(NoSeat::Spent { retry_after }) if retry_after > W * 9));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(long.await.is_ok());
    assert!(began.elapsed() > W * 10 && began.elapsed() < W * 11, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_raised_limit_serves_those_who_wait_and_a_lowered_one_waits_for_the_surplus() {
    let (bucket, served, mut tasks) = (bucket(2, Begin::Full), Served::default(), JoinSet::new());
    exhaust(&bucket).await;
    queue_up(&mut tasks, &bucket, &served, ("a", 1, 3));
    settle().await;
    bucket.reconfigure(limit(4, W));
    settle().await;
    assert_eq!(served.lock().unwrap().len(), 2);
    bucket.reconfigure(limit(1, W));
    let look = bucket.snapshot();
    assert_eq!((look.in_force, look.free, look.cooling), (1, 0, 4));
    let began = Instant::now();
    tasks.join_all().await;
    assert!(began.elapsed() > W - Duration::from_millis(5) && began.elapsed() <= TURN);
    pass(TURN).await;
    assert_eq!(sum(bucket.snapshot()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_window_wakes_those_who_wait_for_the_longer_one() {
    let bucket = Bucket::new(limit(1, W * 60), Begin::Full, Clock::system());
    let mut held = seat(&bucket, Duration::ZERO).await.unwrap();
    held.sending();
    let mut tasks = JoinSet::new();
    queue_up(&mut tasks, &bucket, &Served::default(), ("a", 1, 1));
    settle().await;
    bucket.reconfigure(limit(1, W));
    held.answered();
    let answered = Instant::now();
    tasks.join_all().await;
    assert!(answered.elapsed() > W && answered.elapsed() <= TURN, "{:?}", answered.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_longer_window_waits_until_the_last_request_is_that_old() {
    let bucket = bucket(2, Begin::Full);
    exhaust(&bucket).await;
    pass(W * 4).await;
    assert_eq!(bucket.snapshot().free, 2);
    bucket.reconfigure(limit(2, W * 10));
    let look = bucket.snapshot();
    assert_eq!((look.free, sum(look)), (0, 2));
    assert!(look.next > W * 6 && look.next < W * 7, "{:?}", look.next);
}

#[tokio::test(start_paused = true)]
async fn a_clients_line_has_an_end_and_leaves_room_for_others() {
    let bucket = bucket(1000, Begin::Empty);
    let mut waiting = Vec::new();
    let mut refused = None;
    while refused.is_none() {
        let mut one = Box::pin(seat(&bucket, LONG));
        refused = (&mut one).now_or_never();
        waiting.push(one);
    }
    assert!(matches!(refused, Some(Err(NoSeat::Crowded))));
    assert!(waiting.len() > 5000);
    assert!(bucket.seat(&payer("b", 1), within(LONG)).now_or_never().is_none());
    drop(waiting);
    assert_eq!(bucket.snapshot().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_bucket_without_a_runtime_can_still_take_seats_back() {
    let bucket = bucket(1, Begin::Full);
    let held = seat(&bucket, Duration::ZERO).await.unwrap();
    let waits = Box::pin(seat(&bucket, LONG));
    std::thread::scope(|scope| scope.spawn(|| drop(held)).join().unwrap());
    drop(waits);
    advance(W).await;
    assert_eq!(bucket.snapshot().free, 1);
}

#[tokio::test(start_paused = true)]
async fn what_several_wait_for_gets_its_seat_in_the_first_of_their_lines() {
    let (bucket, served, tasks) = contended(20).await;
    let sharers = watch::Sender::new(vec![sharer("a")]);
    let (waits, shared, began) = (sharers.subscribe(), bucket.clone(), Instant::now());
    let mut waiting = JoinSet::new();
    waiting.spawn(async move {
        let seat = seat_of_any(&shared, &payer("a", 1), waits, within(LONG)).await.unwrap();
        use_up(seat);
        Instant::now()
    });
    pass(TURN * 3).await;
    assert!(waiting.try_join_next().is_none(), "it stands behind its client's others");
    sharers.send_modify(|sharers| sharers.push(sharer("b")));
    let came = waiting.join_next().await.unwrap().unwrap();
    assert!(came - began <= (TURN + GRACE) * 5, "{:?}", came - began);
    // It has left both lines, and taken no more than one seat.
    tasks.join_all().await;
    assert_eq!((served.lock().unwrap().len(), bucket.snapshot().waiting), (20, 0));
    let last = served.lock().unwrap().last().unwrap().2;
    assert!(last - began <= (TURN + GRACE) * 22, "{:?}", last - began);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_what_several_wait_for_takes_its_line_along_and_no_seat() {
    let (bucket, served, tasks) = contended(5).await;
    let sharers = watch::Sender::new(vec![sharer("a"), sharer("b")]);
    let (waits, shared) = (sharers.subscribe(), bucket.clone());
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { seat_of_any(&shared, &payer("a", 1), waits, within(LONG)).await.map(use_up) });
    settle().await;
    assert_eq!(bucket.snapshot().waiting, 7);
    sharers.send_modify(|sharers| sharers.retain(|sharer| sharer.payer.client.as_str() == "a"));
    settle().await;
    assert_eq!(bucket.snapshot().waiting, 6);
    // Nobody is left but those who are owed the answer: it waits for them where it began.
    sharers.send_modify(Vec::clear);
    drop(sharers);
    settle().await;
    assert_eq!(bucket.snapshot().waiting, 6);
    waiting.join_next().await.unwrap().unwrap().unwrap();
    tasks.join_all().await;
    assert_eq!((served.lock().unwrap().len(), bucket.snapshot().waiting), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn what_several_wait_for_is_refused_when_none_of_their_lines_has_a_seat_in_time() {
    let (bucket, _, mut tasks) = contended(20).await;
    let ask = async |names: &[&'static str]| {
        let sharers = watch::Sender::new(names.iter().map(|name| sharer(name)).collect::<Vec<_>>());
        seat_of_any(&bucket, &payer("a", 1), sharers.subscribe(), within(TURN * 5)).await.map(use_up)
    };
    assert!(matches!(ask(&["a"]).await, Err(NoSeat::Spent { .. })));
    assert_eq!(ask(&["a", "b"]).await, Ok(()));
    assert!(matches!(ask(&["a"]).await, Err(NoSeat::Spent { .. })));
    tasks.abort_all();
}
