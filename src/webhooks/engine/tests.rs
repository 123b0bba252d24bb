use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const RETRY: Retry = Retry { initial: Duration::from_secs(5), max: Duration::from_secs(3600) };

fn engine(max_in_flight: usize, max_attempts: u32, lanes: usize) -> Engine<u64> {
    Engine::new(Rules { max_in_flight, max_attempts, retry: RETRY }, lanes)
}

fn add(engine: &mut Engine<u64>, lane: usize, first: u64, key: u64, now: Instant) {
    engine.add(Which { lane, first }, first, vec![key], (0, now), first);
}

fn all_started(engine: &mut Engine<u64>, now: Instant) -> Vec<u64> {
    std::iter::from_fn(|| engine.start(now)).map(|which| which.first).collect()
}

fn record(engine: &mut Engine<u64>, lane: usize, now: Instant) -> Vec<u64> {
    let (_, done) = engine.snapshot(lane, (now, UnixMillis(0)));
    engine.recorded(&done)
}

const LANE: usize = 0;

fn which(first: u64) -> Which {
    Which { lane: LANE, first }
}

#[tokio::test(start_paused = true)]
async fn with_one_in_flight_a_stream_is_in_order_and_the_next_waits_for_the_record() {
    let (mut engine, now) = (engine(1, 3, 1), Instant::now());
    for n in 1..4 {
        add(&mut engine, LANE, n, n, now);
    }
    assert_eq!(all_started(&mut engine, now), [1]);
    assert_eq!(engine.finished(which(1), Verdict::Failed, now, 0.0), Next::Again);
    assert_eq!((all_started(&mut engine, now), engine.wake()), (vec![], Some(now + RETRY.initial)));
    let later = now + RETRY.initial;
    assert_eq!(all_started(&mut engine, later), [1]);
    assert_eq!(engine.finished(which(1), Verdict::Delivered, later, 0.0), Next::Done);
    assert_eq!(all_started(&mut engine, later), [0; 0], "not before it is on record");
    assert_eq!(record(&mut engine, LANE, later), [1]);
    assert_eq!(all_started(&mut engine, later), [2]);
}

#[tokio::test(start_paused = true)]
async fn with_more_in_flight_other_keys_go_on_while_one_is_tried_again() {
    let (mut engine, now) = (engine(4, 3, 1), Instant::now());
    for (n, key) in [(1, 7), (2, 7), (3, 8), (4, 8), (5, 9)] {
        add(&mut engine, LANE, n, key, now);
    }
    assert_eq!(all_started(&mut engine, now), [1, 3, 5]);
    engine.finished(which(1), Verdict::Failed, now, 0.0);
    engine.finished(which(3), Verdict::Delivered, now, 0.0);
    assert_eq!(all_started(&mut engine, now), [4]);
    engine.finished(which(5), Verdict::Delivered, now, 0.0);
    engine.finished(which(4), Verdict::Delivered, now, 0.0);
    assert_eq!(record(&mut engine, LANE, now), [3, 4, 5]);
    assert_eq!((all_started(&mut engine, now), engine.held(LANE)), (vec![], 2));
}

#[tokio::test(start_paused = true)]
async fn what_was_tried_often_enough_is_buried_and_the_next_goes_on() {
    let (mut engine, mut now) = (engine(1, 3, 1), Instant::now());
    add(&mut engine, LANE, 1, 7, now);
    add(&mut engine, LANE, 2, 7, now);
    for next in [Next::Again, Next::Again, Next::Bury] {
        now = engine.wake().unwrap();
        assert_eq!(engine.start(now), Some(which(1)));
        assert_eq!(engine.finished(which(1), Verdict::Failed, now, 0.0), next);
    }
    assert_eq!((engine.start(now), engine.wake()), (None, None));
    engine.buried(which(1));
    assert_eq!(record(&mut engine, LANE, now), [1]);
    assert_eq!(engine.start(now), Some(which(2)));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_with_too_much_to_do_is_left_alone_and_then_asked_one_at_a_time() {
    let (mut engine, now) = (engine(3, 10, 2), Instant::now());
    for n in 1..5 {
        add(&mut engine, 0, n, n, now);
        add(&mut engine, 1, n, n, now);
    }
    assert_eq!(all_started(&mut engine, now), [1, 1, 2], "both streams have their turns");
    engine.finished(which(1), Verdict::SlowDown(Some(Duration::from_secs(30))), now, 0.0);
    engine.finished(which(2), Verdict::SlowDown(None), now, 0.0);
    let named = now + Duration::from_secs(30);
    assert_eq!(all_started(&mut engine, now + RETRY.initial * 2), [0; 0]);
    engine.finished(Which { lane: 1, first: 1 }, Verdict::Failed, now, 0.0);
    assert_eq!((engine.wake(), engine.is_careful()), (Some(named), true));
    let started = engine.start(named).unwrap();
    assert_eq!(engine.start(named), None);
    engine.finished(started, Verdict::Delivered, named, 0.0);
    record(&mut engine, started.lane, named);
    assert_eq!(all_started(&mut engine, named).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_longer_of_what_is_asked_for_and_the_schedule_holds_whoever_succeeds_meanwhile() {
    let (mut engine, now) = (engine(3, 10, 1), Instant::now());
    for n in 1..5 {
        add(&mut engine, LANE, n, n, now);
    }
    assert_eq!(all_started(&mut engine, now), [1, 2, 3]);
    engine.finished(which(1), Verdict::SlowDown(Some(Duration::from_secs(1))), now, 0.0);
    assert_eq!(engine.quiet_until(), Some(now + RETRY.initial), "a short word spends no tries");
    // They were sent before.
    engine.finished(which(2), Verdict::Delivered, now, 0.0);
    engine.finished(which(3), Verdict::SlowDown(Some(Duration::from_secs(30))), now, 0.0);
    record(&mut engine, LANE, now);
    let named = now + Duration::from_secs(30);
    assert_eq!((all_started(&mut engine, named - Duration::from_millis(1)), engine.wake()), (vec![], Some(named)));
    assert_eq!(all_started(&mut engine, named), [1]);
    engine.finished(which(1), Verdict::Delivered, named, 0.0);
    assert!(!engine.is_careful());
}

#[tokio::test(start_paused = true)]
async fn of_a_lane_that_is_closed_what_is_under_way_ends_and_nothing_else_is_sent_or_recorded() {
    let (mut engine, now) = (engine(2, 1, 1), Instant::now());
    for n in 1..5 {
        add(&mut engine, LANE, n, n, now);
    }
    assert_eq!(all_started(&mut engine, now), [1, 2]);
    engine.close_lane(LANE);
    let next = engine.open_lane();
    add(&mut engine, next, 1, 1, now);
    add(&mut engine, next, 2, 2, now);
    assert_eq!((all_started(&mut engine, now), engine.is_at_rest()), (vec![], false));
    assert_eq!(engine.finished(which(1), Verdict::Failed, now, 0.0), Next::Again, "and not to be buried");
    assert_eq!(engine.finished(which(2), Verdict::Delivered, now, 0.0), Next::Done);
    assert_eq!((engine.held(LANE), engine.has_changed(LANE)), (0, false));
    assert_eq!(all_started(&mut engine, now), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn what_was_cut_short_is_not_counted_and_stays_due() {
    let (mut engine, now) = (engine(1, 1, 1), Instant::now());
    add(&mut engine, LANE, 1, 7, now);
    assert_eq!(engine.start(now), Some(which(1)));
    assert_eq!(engine.finished(which(1), Verdict::NotCounted, now, 0.0), Next::Again);
    let (held, done) = engine.snapshot(LANE, (now, UnixMillis(9)));
    assert_eq!((held, done), (vec![Held { first: 1, last: 1, attempts: 0, due: 9 }], vec![]));
    assert_eq!(engine.start(now), Some(which(1)));
}

/// What the endpoint does, in any order: `(which of those under way, what comes of it)`.
fn happenings() -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec((0usize..8, 0u8..10), 0..300)
}

proptest! {
    /// Whatever comes of the tries: order by key, bounds, nobody is forgotten, nobody is done twice.
    #[test]
    fn every_unit_is_done_once_in_its_keys_order_within_the_bounds(
        max_in_flight in 1usize..5,
        max_attempts in 1u32..4,
        keys in prop::collection::vec((0usize..2, 0u64..4), 1..30),
        happenings in happenings(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _entered = runtime.enter();
        let mut now = Instant::now();
        let mut engine = engine(max_in_flight, max_attempts, 2);
        let mut key_of = HashMap::new();
        for (n, (lane, key)) in keys.iter().enumerate() {
            let which = Which { lane: *lane, first: n as u64 + 1 };
            key_of.insert(which, *key);
            add(&mut engine, which.lane, which.first, *key, now);
        }
        let (mut under_way, mut done, mut tries) = (Vec::new(), Vec::new(), HashMap::<Which, u32>::new());
        let mut happenings = happenings.into_iter();
        while done.len() < key_of.len() {
            while let Some(which) = engine.start(now) {
                let is_first = |other: &&Which| other.lane == which.lane && other.first < which.first;
                let blocks = |other: &Which| max_in_flight == 1 || key_of[other] == key_of[&which];
                let earlier = key_of.keys().filter(is_first).filter(|other| blocks(other));
                prop_assert!(earlier.clone().all(|other| done.contains(other)), "{:?} overtakes", which);
                under_way.push(which);
                prop_assert!(under_way.len() <= max_in_flight);
            }
            if under_way.is_empty() {
                now = engine.wake().expect("something is due").max(now);
                continue;
            }
            let (at, what) = happenings.next().unwrap_or((0, 0));
            let which = under_way.remove(at % under_way.len());
            let verdict = match what {
                0..=4 => Verdict::Delivered,
                5 | 6 => Verdict::Failed,
                7 => Verdict::SlowDown(Some(Duration::from_secs(u64::from(what)))),
                8 => Verdict::SlowDown(None),
                _ => Verdict::NotCounted,
            };
            *tries.entry(which).or_default() += u32::from(matches!(verdict, Verdict::Failed | Verdict::SlowDown(_)));
            match engine.finished(which, verdict, now, 0.5) {
                Next::Again => prop_assert!(tries[&which] < max_attempts),
                Next::Bury => {
                    prop_assert_eq!(tries[&which], max_attempts);
                    engine.buried(which);
                }
                Next::Done => {}
            }
            for out in record(&mut engine, which.lane, now) {
                let out = Which { lane: which.lane, first: out };
                prop_assert!(!done.contains(&out));
                done.push(out);
            }
        }
        prop_assert!(engine.is_at_rest() && engine.wake().is_none());
    }
}
