//! What each region returned is known after a restart: in order, or after a kill.

use proptest::prelude::*;

use super::*;
use crate::kernel::testing::pass;
use crate::store::NoteKind;

/// What housekeeping has stored by then.
const KEPT: Duration = Duration::from_secs(11);

fn brought(rig: &Rig, region: &str, events: &[u64]) -> Arc<AppendRequest> {
    let texts: Vec<_> = events.iter().map(u64::to_string).collect();
    let content = Content::Events(EventText::join(texts.iter().map(|text| text.as_bytes())).unwrap());
    let received_at = rig.clock.wall_ms();
    let new = NewBatch { received_at, region: RegionName::parse(region).unwrap(), content };
    AppendRequest::new(vec![new], None)
}

async fn returned(rig: &Rig, region: &str, events: &[u64]) {
    rig.stream().append(&brought(rig, region, events)).await.unwrap();
}

/// As [`returned`], but whoever brought it is dropped after so many milliseconds; it is left for the end.
async fn cut_short(rig: &Rig, (region, events): (&str, &[u64]), after: u64) {
    let brought = brought(rig, region, events);
    let _ = tokio::time::timeout(Duration::from_millis(after), rig.stream().append(&brought)).await;
    rig.events.0.pending_writes.add(&rig.stream(), brought);
}

fn slow(rig: &Rig, (delay, ack_delay): (u64, u64)) {
    rig.store.delay.store(delay, Ordering::Relaxed);
    rig.store.ack_delay.store(ack_delay, Ordering::Relaxed);
}

/// The events of the log, without markers.
async fn kept(rig: &Rig) -> Vec<String> {
    let mut all = rig.all().await;
    all.retain(|text| text != "unclean_stop");
    all
}

/// A gateway of two regions that return nothing by themselves.
async fn two_regions() -> Rig {
    Rig::new(&["cn", "eu"]).await
}

async fn notes(rig: &Rig) -> usize {
    rig.store.notes(&key(), NoteKind::Waiting, "seen/", "", usize::MAX).await.unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn a_regions_second_equal_event_is_kept_after_an_orderly_stop_whichever_region_was_first() {
    for (first, second) in [("cn", "eu"), ("eu", "cn")] {
        let rig = two_regions().await;
        returned(&rig, first, &[0, 1]).await;
        returned(&rig, second, &[0, 1]).await;
        assert_eq!(kept(&rig).await, ["0", "1"]);
        let rig = rig.restart().await;
        returned(&rig, second, &[1]).await;
        assert_eq!(kept(&rig).await, ["0", "1", "1"], "the second of {second}");
        returned(&rig, first, &[1]).await;
        assert_eq!(kept(&rig).await, ["0", "1", "1"], "the same of {first}: a copy");
        let rig = rig.restart().await.restart().await;
        returned(&rig, first, &[0]).await;
        returned(&rig, second, &[0, 1]).await;
        assert_eq!(kept(&rig).await, ["0", "1", "1", "0", "1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_regions_second_equal_event_is_kept_after_a_kill_when_something_was_stored_since() {
    for (first, second) in [("cn", "eu"), ("eu", "cn")] {
        for by_housekeeping in [true, false] {
            let rig = two_regions().await;
            returned(&rig, first, &[0, 1]).await;
            returned(&rig, second, &[0, 1]).await;
            match by_housekeeping {
                true => pass(KEPT).await,
                false => returned(&rig, first, &[2]).await,
            }
            let rig = rig.kill().await;
            returned(&rig, second, &[1]).await;
            returned(&rig, first, &[1]).await;
            let mut all = kept(&rig).await;
            all.retain(|text| text != "2");
            assert_eq!(all, ["0", "1", "1"], "{first} first, by housekeeping: {by_housekeeping}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_after_a_kill_counts_as_a_copy() {
    for (first, second) in [("cn", "eu"), ("eu", "cn")] {
        let rig = two_regions().await;
        returned(&rig, first, &[0, 1]).await;
        let rig = rig.kill().await;
        returned(&rig, second, &[0, 1]).await;
        assert_eq!(kept(&rig).await, ["0", "1"], "{second} lagged behind");
        let rig = rig.kill().await;
        // It said so already, which is not known.
        returned(&rig, second, &[1]).await;
        assert_eq!(kept(&rig).await, ["0", "1"]);
        returned(&rig, first, &[1]).await;
        assert_eq!(kept(&rig).await, ["0", "1", "1"], "the region of what is stored is known");
    }
}

#[tokio::test(start_paused = true)]
async fn a_region_that_is_far_behind_is_known_to_be_so_after_either_end() {
    for clean in [true, false] {
        let rig = two_regions().await;
        for n in 0..20 {
            returned(&rig, "cn", &(n * 1000..(n + 1) * 1000).collect::<Vec<_>>()).await;
        }
        for n in 0..10 {
            returned(&rig, "eu", &(n * 1000..(n + 1) * 1000).collect::<Vec<_>>()).await;
        }
        pass(KEPT).await;
        let rig = if clean { rig.restart().await } else { rig.kill().await };
        // What it returned before the stop, and what it had not.
        returned(&rig, "eu", &[5, 9_999]).await;
        for n in 10..20 {
            returned(&rig, "eu", &(n * 1000..(n + 1) * 1000).collect::<Vec<_>>()).await;
        }
        let mut expected = numbers(0..20_000);
        expected.extend(["5".to_owned(), "9999".to_owned()]);
        assert!(kept(&rig).await == expected, "clean: {clean}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_dropped_of_an_answer_that_also_brought_more_is_known_after_a_kill() {
    let rig = two_regions().await;
    returned(&rig, "cn", &[0, 1]).await;
    // In one answer: the copy, and its second.
    returned(&rig, "eu", &[0, 0, 2]).await;
    assert_eq!(kept(&rig).await, ["0", "1", "0", "2"]);
    let rig = rig.kill().await;
    returned(&rig, "cn", &[0]).await;
    assert_eq!(kept(&rig).await, ["0", "1", "0", "2"], "eu returned two of it");
    returned(&rig, "eu", &[0]).await;
    assert_eq!(kept(&rig).await, ["0", "1", "0", "2", "0"]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_what_retention_took_makes_no_event_of_the_other_region_one() {
    let mut config = config(&["cn", "eu"]);
    config.events.retention = Duration::from_secs(60);
    let rig = Rig::over(MemoryStore::default(), config).await;
    returned(&rig, "cn", &[0]).await;
    pass(Duration::from_secs(40)).await;
    returned(&rig, "eu", &[0, 1]).await;
    pass(Duration::from_secs(60)).await;
    assert_eq!(kept(&rig).await, ["1"]);
    let rig = rig.restart().await;
    returned(&rig, "cn", &[0]).await;
    assert_eq!(kept(&rig).await, ["1", "0"]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_outlives_what_it_is_one_of_by_as_much_as_without_a_restart() {
    for restarts in [false, true] {
        let mut rig = two_regions().await;
        returned(&rig, "cn", &[0]).await;
        pass(Duration::from_secs(500)).await;
        returned(&rig, "eu", &[0]).await;
        pass(Duration::from_secs(200)).await;
        if restarts {
            rig = rig.restart().await;
        }
        returned(&rig, "us", &[0]).await;
        assert_eq!(kept(&rig).await, ["0"], "seen from eu within the window; a restart: {restarts}");
        pass(Duration::from_secs(601)).await;
        returned(&rig, "us", &[0]).await;
        assert_eq!(kept(&rig).await, ["0", "0"]);
    }
}

#[tokio::test(start_paused = true)]
async fn notes_of_what_was_dropped_go_when_it_is_older_than_the_window() {
    let rig = two_regions().await;
    for n in 0..3 {
        returned(&rig, "cn", &[n]).await;
        returned(&rig, "eu", &[n]).await;
    }
    assert_eq!(notes(&rig).await, 2, "with the batch after each");
    pass(KEPT).await;
    assert_eq!(notes(&rig).await, 3);
    let commits = rig.store.commits.load(Ordering::Relaxed);
    pass(Duration::from_secs(500)).await;
    assert_eq!(rig.store.commits.load(Ordering::Relaxed), commits, "nothing new, nothing old");
    pass(Duration::from_secs(120)).await;
    assert_eq!(notes(&rig).await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_waits_and_what_was_dropped_of_it_are_known_after_a_kill() {
    let mut config = config(&["cn", "eu"]);
    config.events.order_window = Duration::from_secs(2);
    let rig = Rig::over(MemoryStore::default(), config).await;
    returned(&rig, "cn", &[0, 1]).await;
    returned(&rig, "eu", &[0, 1]).await;
    returned(&rig, "cn", &[2]).await;
    let rig = rig.kill().await;
    returned(&rig, "eu", &[1]).await;
    returned(&rig, "cn", &[1]).await;
    pass(Duration::from_secs(5)).await;
    let mut all = kept(&rig).await;
    all.sort();
    assert_eq!(all, ["0", "1", "1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_failed_and_left_its_note_counts_nothing_twice() {
    let rig = two_regions().await;
    returned(&rig, "cn", &[0, 1]).await;
    rig.store.broken.store(true, Ordering::Relaxed);
    rig.vendor.say("eu", [Step::Answer(200, r#"{"events":[0,5]}"#.into())]);
    pass(Duration::from_secs(10)).await;
    rig.store.broken.store(false, Ordering::Relaxed);
    pass(Duration::from_secs(10)).await;
    assert_eq!(kept(&rig).await, ["0", "1", "5"]);
    let rig = rig.kill().await;
    returned(&rig, "cn", &[0]).await;
    returned(&rig, "eu", &[0]).await;
    assert_eq!(kept(&rig).await, ["0", "1", "5", "0"]);
}

#[tokio::test(start_paused = true)]
async fn an_append_that_was_cut_short_is_known_to_other_regions_and_is_stored_once() {
    // Before the store has it, and after.
    for delays in [(60_000, 0), (0, 60_000)] {
        let rig = two_regions().await;
        returned(&rig, "eu", &[5]).await;
        returned(&rig, "cn", &[5]).await;
        slow(&rig, delays);
        cut_short(&rig, ("cn", &[0, 1]), 1000).await;
        slow(&rig, (0, 0));
        returned(&rig, "eu", &[0, 1, 2]).await;
        assert_eq!(kept(&rig).await, ["5", "0", "1", "2"], "{delays:?}");
        let rig = rig.restart().await;
        assert_eq!(kept(&rig).await, ["5", "0", "1", "2"], "{delays:?}");
        returned(&rig, "cn", &[5]).await;
        returned(&rig, "eu", &[5, 0]).await;
        assert_eq!(kept(&rig).await, ["5", "0", "1", "2", "5", "0"], "{delays:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_dropped_for_a_copy_of_what_is_forgotten_by_now_is_known_after_a_stop() {
    let mut all = Vec::new();
    for stops in [false, true] {
        let mut config = config(&["cn", "eu"]);
        config.events.poll_interval_idle = Duration::from_secs(12 * 3600);
        let mut rig = Rig::over(MemoryStore::default(), config).await;
        // Each a copy of the one before, which it outlives.
        for region in ["cn", "eu", "cn", "eu", "cn"] {
            returned(&rig, region, &[0]).await;
            pass(Duration::from_secs(330)).await;
        }
        if stops {
            rig = rig.restart().await;
        }
        returned(&rig, "eu", &[0]).await;
        all.push(kept(&rig).await);
    }
    assert_eq!(all[0], all[1]);
    assert_eq!(all[0].len(), 1);
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Return(usize, [u8; 3]),
    /// Nobody waits for the store until it is done. (How slow it is before it has it, and after; and how long.)
    CutShort(usize, [u8; 3], (u64, u64), u64),
    Wait(u64),
    Stop,
    Kill,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        8 => (0..3usize, any::<[u8; 3]>()).prop_map(|(region, events)| Act::Return(region, events)),
        2 => (0..3usize, any::<[u8; 3]>(), (0..3u64, 0..3u64), 0..5u64)
            .prop_map(|(region, events, delays, after)| Act::CutShort(region, events, delays, after)),
        2 => (0..400u64).prop_map(Act::Wait),
        2 => Just(Act::Stop),
        1 => Just(Act::Kill),
    ];
    prop::collection::vec(act, 0..30)
}

/// Returns what the log holds, and how often each region returned each event.
async fn run(acts: &[Act], (cuts, stops, kills): (bool, bool, bool)) -> (Vec<String>, HashMap<(usize, u64), usize>) {
    let mut config = config(&["cn", "eu", "us"]);
    // Nothing comes but by this test.
    config.events.poll_interval_idle = Duration::from_secs(12 * 3600);
    let mut rig = Rig::over(MemoryStore::default(), config).await;
    let mut times = HashMap::new();
    for act in acts {
        match *act {
            Act::Return(region, events) => {
                let events = events.map(|event| u64::from(event % 4));
                events.iter().for_each(|&event| *times.entry((region, event)).or_default() += 1);
                returned(&rig, ["cn", "eu", "us"][region], &events).await;
            }
            Act::CutShort(region, events, delays, after) => {
                let events = events.map(|event| u64::from(event % 4));
                events.iter().for_each(|&event| *times.entry((region, event)).or_default() += 1);
                slow(&rig, delays);
                cut_short(&rig, (["cn", "eu", "us"][region], &events), if cuts { after } else { 10_000 }).await;
                slow(&rig, (0, 0));
            }
            Act::Wait(seconds) => pass(Duration::from_secs(seconds)).await,
            Act::Stop if stops => rig = rig.restart().await,
            Act::Kill if kills => rig = rig.kill().await,
            Act::Stop | Act::Kill => {}
        }
    }
    (kept(&rig).await, times)
}

/// How often an event is in the log, and how often the region returned it that did so most often.
fn numbers_of(event: u64, kept: &[String], times: &HashMap<(usize, u64), usize>) -> (usize, usize) {
    let most = (0..3).filter_map(|region| times.get(&(region, event))).max().copied().unwrap_or(0);
    (kept.iter().filter(|text| **text == event.to_string()).count(), most)
}

properties! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn orderly_stops_change_nothing_of_what_is_kept(acts in acts()) {
        let paused = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (straight, _) = paused().block_on(run(&acts, (false, false, false)));
        let (stopped, _) = paused().block_on(run(&acts, (false, true, false)));
        prop_assert_eq!(straight, stopped);
    }

    #[test]
    fn after_kills_nothing_is_kept_more_often_than_a_region_returned_it(acts in acts()) {
        let acts: Vec<_> = acts.into_iter().filter(|act| !matches!(act, Act::Wait(_))).collect();
        let paused = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (kept, times) = paused.block_on(run(&acts, (true, true, true)));
        let is_stored = |event: u64| {
            acts.iter().any(|act| matches!(act, Act::Return(_, events) if events.iter().any(|of| u64::from(of % 4) == event)))
        };
        for event in 0..4 {
            let (kept, most) = numbers_of(event, &kept, &times);
            prop_assert!(kept <= most, "{event}: {kept} kept, {most} returned");
            prop_assert!(kept > 0 || !is_stored(event));
        }
    }

    #[test]
    fn appends_that_are_cut_short_change_no_number(acts in acts()) {
        let acts: Vec<_> = acts.into_iter().filter(|act| !matches!(act, Act::Wait(_))).chain([Act::Stop]).collect();
        let paused = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (kept, times) = paused.block_on(run(&acts, (true, true, false)));
        for event in 0..4 {
            let (kept, most) = numbers_of(event, &kept, &times);
            prop_assert_eq!(kept, most, "{}", event);
        }
    }
}
