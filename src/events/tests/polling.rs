//! What the poller reads, when, and what it keeps of it.

use super::*;
use crate::kernel::testing::pass;
use crate::kernel::trouble::{Part, Symptom};

#[tokio::test(start_paused = true)]
async fn what_is_read_is_stored_and_a_full_read_is_followed_at_once() {
    let vendor = Arc::new(Script::default());
    vendor.say("cn", [answer(0..1000), answer(1000..1007), answer(0..0), answer(1007..1009)]);
    let rig = Rig::with(MemoryStore::default(), config(&["cn"]), vendor).await;
    rig.until_seen(6).await;
    assert_eq!(rig.all().await, numbers(0..1009));
    let times: Vec<_> = lock(&rig.vendor.seen).iter().map(|(_, at)| *at).collect();
    let pauses: Vec<_> = times.windows(2).map(|w| (w[1] - w[0]).as_millis() / 10 * 10).collect();
    assert_eq!(pauses, [0, 200, 400, 200, 400]);
    assert!(rig.metric(r#"events_ingested_total{app="app",stream="user_events",region="cn"} 1009"#));
    let status = &rig.events.pollers()[0];
    assert_eq!((status.events, status.possible_losses, status.last_error.as_deref()), (1009, 0, None));
}

#[tokio::test(start_paused = true)]
async fn reads_that_bring_nothing_new_write_nothing_but_once_what_was_dropped() {
    for order_window in [Duration::ZERO, Duration::from_secs(2)] {
        let mut config = config(&["cn", "eu"]);
        config.events.order_window = order_window;
        let rig = Rig::over(MemoryStore::default(), config).await;
        rig.vendor.say("cn", [answer(0..3)]);
        pass(Duration::from_secs(10)).await;
        let before = (rig.store.commits.load(Ordering::Relaxed), rig.vendor.seen());
        rig.vendor.say("eu", [answer(0..1), answer(1..2), answer(2..3)]);
        pass(Duration::from_secs(10)).await;
        assert!(rig.vendor.seen() > before.1 + 5);
        // What was dropped of all of them, in one commit of housekeeping's.
        assert_eq!((rig.store.commits.load(Ordering::Relaxed), rig.all().await.len()), (before.0 + 1, 3));
        pass(Duration::from_secs(60)).await;
        assert_eq!(rig.store.commits.load(Ordering::Relaxed), before.0 + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn two_full_reads_after_a_pause_are_marked_once() {
    let rig = Rig::new(&["cn"]).await;
    rig.until_seen(1).await;
    rig.vendor.say("cn", (0..4).map(|n| answer(n * 1000..(n + 1) * 1000)));
    rig.until_seen(7).await;
    let markers: Vec<_> = rig.all().await.into_iter().filter(|text| text == "overflow").collect();
    assert_eq!(markers.len(), 1);
    assert!(rig.metric(r#"events_overflow_suspected_total{app="app",stream="user_events",region="cn"} 1"#));
    assert_eq!(rig.all().await.len(), 4001);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_while_the_store_cannot_keep_it_and_reading_goes_on_by_itself() {
    let store = MemoryStore::default();
    store.unready.store(true, Ordering::Relaxed);
    let rig = Rig::over(store, config(&["cn"])).await;
    pass(Duration::from_secs(60)).await;
    assert_eq!(rig.vendor.seen(), 0);
    assert!(rig.events.not_ready().unwrap().contains("short of space"));
    assert!(rig.metric(r#"poller_paused{app="app",stream="user_events",region="cn"} 1"#));
    assert_eq!(rig.events.pollers()[0].state, "paused");
    rig.store.unready.store(false, Ordering::Relaxed);
    rig.until_seen(2).await;
    assert_eq!(rig.events.not_ready(), None);
    assert!(rig.metric(r#"poller_paused{app="app",stream="user_events",region="cn"} 0"#));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_cannot_be_stored_is_held_until_it_can_and_nothing_is_read_meanwhile() {
    let rig = Rig::new(&["cn"]).await;
    rig.until_seen(1).await;
    rig.store.broken.store(true, Ordering::Relaxed);
    rig.vendor.say("cn", [answer(0..3), answer(3..4)]);
    pass(Duration::from_secs(60)).await;
    assert_eq!(rig.vendor.seen(), 2);
    assert!(rig.events.not_ready().is_some());
    assert_eq!(rig.all().await, numbers(0..0));
    rig.store.broken.store(false, Ordering::Relaxed);
    rig.until_seen(4).await;
    assert_eq!(rig.all().await, numbers(0..4));
    assert_eq!(rig.events.not_ready(), None);
}

#[tokio::test(start_paused = true)]
async fn one_poller_that_is_stopped_is_told_and_takes_nothing_else_out_of_readiness() {
    let rig = Rig::new(&["cn", "eu"]).await;
    rig.until_seen(2).await;
    rig.store.broken.store(true, Ordering::Relaxed);
    rig.vendor.say("cn", [answer(0..3)]);
    pass(Duration::from_secs(60)).await;
    let states: Vec<_> = rig.events.pollers().into_iter().map(|poller| (poller.region, poller.state)).collect();
    assert!(
        states.contains(&("cn".to_owned(), "paused")) && !states.contains(&("eu".to_owned(), "paused")),
        "{states:?}"
    );
    assert_eq!(rig.events.not_ready(), None);
    let troubles = rig.events.troubles();
    let told: Vec<_> = troubles.iter().map(|one| (one.part, one.symptom, one.app.as_ref().unwrap().as_str())).collect();
    assert_eq!(told, [(Part::Events, Symptom::ReadingStopped, "app")]);
    rig.store.broken.store(false, Ordering::Relaxed);
    pass(Duration::from_secs(60)).await;
    assert_eq!(rig.events.troubles(), []);
}

#[tokio::test(start_paused = true)]
async fn reads_in_doubt_are_marked_once_with_their_reasons_and_reading_goes_on_in_the_same_region() {
    let rig = Rig::new(&["cn", "eu"]).await;
    let lost = |partial: Option<&'static str>| Failure::Lost {
        why: "x".into(),
        partial: partial.map(Into::into),
        retry_after: None,
    };
    rig.vendor.say(
        "cn",
        [
            Step::Fail(Failure::TimedOut { sent: true }),
            Step::Fail(lost(None)),
            Step::Fail(lost(Some("{\"events\":[1"))),
            Step::Answer(408, "{}".into()),
            Step::Answer(502, "<html>".into()),
            Step::Answer(200, "<html>".into()),
            Step::Fail(Failure::Unreachable("no".into())),
            Step::Answer(404, "no".into()),
            answer(7..8),
        ],
    );
    while rig.all().await.last().is_none_or(|last| last != "7") {
        pass(Duration::from_secs(1)).await;
    }
    assert_eq!(rig.all().await, ["timeout", "7"]);
    let [marker] = &rig.markers().await[..] else { panic!() };
    let outage = marker.outage.as_ref().unwrap();
    let reasons = ["cut_body", "reset", "status_408", "status_5xx", "timeout", "unparsable"];
    assert_eq!(
        outage.reasons.iter().map(|(reason, times)| (&**reason, *times)).collect::<Vec<_>>(),
        reasons.map(|r| (r, 1))
    );
    assert!(outage.count == 6 && outage.to.0 > outage.from.0 + 1000, "{outage:?}");
    assert_eq!(rig.quarantined().await, [("<html>".to_owned(), 0), ("{\"events\":[1".to_owned(), 0)]);
    assert!(
        rig.metric(r#"events_possible_loss_total{app="app",stream="user_events",region="cn",reason="status_408"} 1"#)
    );
    assert!(rig.metric(r#"events_quarantined_total{app="app",stream="user_events",region="cn"} 2"#));
    assert_eq!(lock(&rig.vendor.steps)["cn"].len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_whole_of_a_cut_answer_comes_at_once_and_before_its_marker_also_with_dedup_and_order() {
    for order_window in [Duration::ZERO, Duration::from_secs(2)] {
        let mut config = config(&["cn", "eu"]);
        config.events.order_window = order_window;
        let rig = Rig::over(MemoryStore::default(), config).await;
        rig.until_seen(2).await;
        rig.vendor.say("eu", [answer(0..2)]);
        pass(Duration::from_secs(5)).await;
        let partial = Some(r#"{"result":"success","events":[1,2,3,4"#.into());
        // The step fails for a while: nothing of it is there.
        rig.store.broken.store(true, Ordering::Relaxed);
        rig.vendor.say("cn", [Step::Fail(Failure::Lost { why: "x".into(), partial, retry_after: None })]);
        pass(Duration::from_secs(5)).await;
        assert_eq!((rig.all().await, rig.quarantined().await.len()), (numbers(0..2), 0));
        rig.store.broken.store(false, Ordering::Relaxed);
        pass(Duration::from_secs(10)).await;
        assert_eq!(rig.all().await, ["0", "1", "2", "3", "cut_body"]);
        let quarantined = rig.quarantined().await;
        assert_eq!(quarantined, [(r#"{"result":"success","events":[1,2,3,4"#.to_owned(), 3)]);
    }
}

/// How long after a step the next read comes, when `reads` reads brought 20 events each, one every 200 ms, before it.
async fn pause_after(reads: u64, step: Step) -> (Duration, Duration) {
    let vendor = Arc::new(Script::default());
    vendor.say("cn", (0..reads).map(|n| answer(n * 20..(n + 1) * 20)));
    vendor.say("cn", [step]);
    let rig = Rig::with(MemoryStore::default(), config(&["cn"]), vendor).await;
    pass(Duration::from_millis(200 * reads) + Duration::from_secs(90)).await;
    let step = usize::try_from(reads).unwrap();
    let (seen, obeys) = (lock(&rig.vendor.seen), lock(&rig.vendor.obeys));
    (seen[step + 1].1 - seen[step].1, obeys[step])
}

#[tokio::test(start_paused = true)]
async fn reads_obey_the_vendors_wish_for_a_minute_or_half_the_time_until_it_overwrites_events() {
    let minute = Duration::from_secs(60);
    let hour = minute * 60;
    let region = || RegionName::parse("cn").unwrap();
    let wishes = || {
        [
            Step::Busy(503, "3600"),
            Step::Busy(429, "3600"),
            Step::Busy(503, "99999999999999999999999"),
            Step::Busy(503, "Fri, 31 Dec 9999 23:59:59 GMT"),
            Step::Fail(Failure::RegionDown { region: region(), retry_after: hour }),
            Step::Fail(Failure::AskedToWait { region: region(), retry_after: hour }),
        ]
    };
    for wish in wishes() {
        let (pause, obeys) = pause_after(0, wish.clone()).await;
        assert!(pause >= minute && pause < minute + Duration::from_millis(10), "{wish:?}: {pause:?}");
        assert_eq!(obeys, minute);
    }
    // 100 events a second fill the vendor's room of 2000 in 20 s.
    for wish in wishes() {
        let (pause, obeys) = pause_after(1000, wish.clone()).await;
        for obeyed in [pause, obeys] {
            assert!(obeyed > Duration::from_secs(9) && obeyed <= Duration::from_secs(10), "{wish:?}: {obeyed:?}");
        }
    }
    // A wish that is shorter, one that is over, and none that can be read: the pause after a failure.
    assert!((7_000..7_010).contains(&pause_after(0, Step::Busy(503, "7")).await.0.as_millis()));
    for odd in ["0", "-5", "1.5", "soon", "", "Sun, 06 Nov 1994 08:49:37 GMT"] {
        let (pause, _) = pause_after(0, Step::Busy(503, odd)).await;
        assert!(pause >= Duration::from_millis(200) && pause < Duration::from_secs(1), "{odd:?}: {pause:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_stored_after_all_and_its_doubt_is_marked_once() {
    let rig = Rig::new(&["cn"]).await;
    rig.until_seen(1).await;
    let late = Step::After(Duration::from_secs(40), Box::new(answer(0..5)));
    let dead = Step::After(Duration::from_secs(60), Box::new(Step::Fail(Failure::TimedOut { sent: true })));
    rig.vendor.say("cn", [late, answer(5..6), dead, answer(6..7)]);
    pass(Duration::from_secs(90)).await;
    assert_eq!(rig.all().await, ["timeout", "5", "timeout", "6", "0", "1", "2", "3", "4"]);
    assert!(rig.vendor.seen() > 10, "reading went on meanwhile");
}

#[tokio::test(start_paused = true)]
async fn reads_that_hang_are_bounded_in_number() {
    let rig = Rig::new(&["cn"]).await;
    rig.vendor.say("cn", (0..1000).map(|_| Step::Hang));
    pass(Duration::from_secs(3600)).await;
    assert_eq!(rig.vendor.seen(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_stop_finishes_the_read_in_hand_and_stores_it() {
    let rig = Rig::new(&["cn"]).await;
    rig.until_seen(1).await;
    rig.vendor.say("cn", [Step::After(Duration::from_secs(5), Box::new(answer(0..5)))]);
    rig.until_seen(2).await;
    let before = rig.vendor.seen();
    let rig = rig.restart().await;
    assert_eq!(rig.all().await, numbers(0..5));
    assert!(rig.vendor.seen() <= before + 1);
}

#[tokio::test(start_paused = true)]
async fn a_forced_stop_leaves_a_marker_for_the_read_in_hand_and_stores_what_it_holds() {
    let rig = Rig::new(&["cn", "eu"]).await;
    rig.until_seen(2).await;
    rig.vendor.say("cn", [answer(0..5)]);
    rig.vendor.say("eu", [Step::Hang]);
    rig.store.broken.store(true, Ordering::Relaxed);
    rig.until_seen(4).await;
    assert_eq!(rig.tasks.finish(Duration::from_secs(1)).await, 4, "two pollers and their reads");
    assert!(rig.events.flush().await.is_err());
    rig.store.broken.store(false, Ordering::Relaxed);
    rig.events.flush().await.unwrap();
    let mut all = rig.all().await;
    all.sort();
    assert_eq!(all, ["0", "1", "2", "3", "4", "stopped"]);
}

#[tokio::test(start_paused = true)]
async fn an_append_that_a_forced_stop_cut_short_is_not_stored_twice() {
    let rig = Rig::new(&["cn"]).await;
    rig.until_seen(1).await;
    rig.vendor.say("cn", [answer(0..5)]);
    rig.store.ack_delay.store(10_000, Ordering::Relaxed);
    rig.until_seen(2).await;
    pass(Duration::from_secs(1)).await;
    assert_eq!(rig.all().await, numbers(0..0), "the store has not said that it is stored");
    rig.tasks.finish(Duration::ZERO).await;
    rig.store.ack_delay.store(0, Ordering::Relaxed);
    rig.events.flush().await.unwrap();
    assert_eq!(rig.all().await, numbers(0..5));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_did_not_end_in_order_is_marked() {
    let rig = Rig::new(&["cn"]).await;
    rig.vendor.say("cn", [answer(0..2)]);
    rig.until_seen(3).await;
    let rig = rig.restart().await;
    rig.until_seen(5).await;
    assert_eq!(rig.all().await, numbers(0..2));
    let rig = rig.kill().await;
    rig.until_seen(7).await;
    assert_eq!(rig.all().await, ["0", "1", "unclean_stop"]);
}

#[tokio::test(start_paused = true)]
async fn what_another_region_returned_is_dropped_also_after_a_restart() {
    let rig = Rig::new(&["cn", "eu"]).await;
    rig.vendor.say("cn", [answer(0..4)]);
    rig.until_seen(5).await;
    rig.vendor.say("eu", [answer(2..6)]);
    pass(Duration::from_secs(2)).await;
    assert_eq!(rig.all().await, numbers(0..6));
    assert!(rig.metric(r#"events_duplicates_total{app="app",stream="user_events",region="eu"} 2"#));
    let rig = rig.restart().await;
    rig.vendor.say("eu", [answer(0..2)]);
    rig.vendor.say("cn", [answer(4..5), answer(3..4)]);
    pass(Duration::from_secs(5)).await;
    let mut expected = numbers(0..6);
    expected.push("3".into()); // Twice from one region: two events.
    assert_eq!(rig.all().await, expected);
    pass(Duration::from_secs(601)).await;
    rig.vendor.say("eu", [answer(0..1)]);
    pass(Duration::from_secs(5)).await;
    expected.push("0".into());
    assert_eq!(rig.all().await, expected, "outside of the window");
}

#[tokio::test(start_paused = true)]
async fn what_regions_returned_is_forgotten_after_the_window_also_when_no_more_comes() {
    let rig = Rig::new(&["cn", "eu"]).await;
    rig.vendor.say("cn", [answer(0..500)]);
    rig.vendor.say("eu", [answer(0..500)]);
    let remembered = async || rig.stream().appender.sightings().await;
    pass(Duration::from_secs(5)).await;
    assert_eq!(remembered().await, 1000);
    pass(rig.config.events.dedup_window + retention::TRIMMED_EVERY).await;
    assert_eq!(remembered().await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_append_that_is_tried_again_counts_as_one_sighting() {
    let rig = Rig::new(&["cn", "eu"]).await;
    rig.until_seen(2).await;
    rig.store.broken.store(true, Ordering::Relaxed);
    rig.vendor.say("cn", [answer(1..2)]);
    pass(Duration::from_secs(10)).await;
    rig.store.broken.store(false, Ordering::Relaxed);
    pass(Duration::from_secs(10)).await;
    rig.vendor.say("eu", [Step::Answer(200, r#"{"events":[1,1]}"#.into())]);
    pass(Duration::from_secs(2)).await;
    assert_eq!(rig.all().await, ["1", "1"], "the second of eu is another event");
}

#[tokio::test(start_paused = true)]
async fn a_reload_leaves_pollers_running_and_a_poller_that_is_gone_finishes_its_read() {
    let mut rig = Rig::new(&["cn", "eu"]).await;
    rig.until_seen(2).await;
    let slow = |numbers| Step::After(Duration::from_secs(5), Box::new(answer(numbers)));
    rig.vendor.say("cn", [slow(0..2)]);
    rig.vendor.say("eu", [slow(2..4)]);
    rig.until_seen(4).await;
    rig.config.regions.pop();
    rig.config.events.poll_interval_idle = Duration::from_secs(3600);
    rig.apply().await;
    assert_eq!(rig.vendor.seen(), 4, "no poller was started anew");
    pass(Duration::from_secs(6)).await;
    let mut all = rig.all().await;
    all.sort();
    assert_eq!(all, numbers(0..4));
    pass(Duration::from_secs(7200)).await;
    let before = rig.vendor.seen();
    rig.config.events.poll_interval_idle = Duration::from_secs(1);
    rig.apply().await;
    rig.until_seen(before + 2).await;
    assert!(lock(&rig.vendor.seen)[4..].iter().all(|(region, _)| region == "cn"));
    rig.events.apply(&[], &config::Upstream::default(), &[]).await.unwrap();
    assert_eq!(rig.events.pollers().len(), 0);
    assert_eq!(rig.all().await.len(), 4, "the log stays readable");
}

/// An answer with 20 events, each with a time: one every 50 ms, up to this many milliseconds after the start.
fn timed(until: u64, count: u64) -> Step {
    let event = |n: u64| format!(r#"{{"ms":{}}}"#, 1_800_000_000_000 + until - 50 * (count - 1 - n));
    let events: Vec<_> = (0..count).map(event).collect();
    Step::Answer(200, format!(r#"{{"result":"success","events":[{}]}}"#, events.join(",")))
}

fn left(rig: &Rig, region: &str) -> f64 {
    let pollers = rig.events.pollers();
    pollers.into_iter().find(|poller| poller.region == region).unwrap().seconds_to_overflow.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_time_to_overflow_is_told_after_the_first_read_of_a_run_and_runs_down_while_nothing_is_read() {
    // Twenty events a second: 100 s fill the vendor's room.
    let vendor = Arc::new(Script::default());
    vendor.say("cn", [timed(0, 600)]);
    let rig = Rig::with(MemoryStore::default(), config(&["cn", "eu"]), vendor).await;
    pass(Duration::from_secs(2)).await;
    assert!((90.0..=110.0).contains(&left(&rig, "cn")), "{}", left(&rig, "cn"));
    assert_eq!(rig.events.pollers()[1].seconds_to_overflow, None, "each region for itself");
    // The store is full: reading is stopped, and the vendor's queue fills.
    rig.store.unready.store(true, Ordering::Relaxed);
    pass(Duration::from_secs(60)).await;
    let before = left(&rig, "cn");
    pass(Duration::from_secs(20)).await;
    assert!((before - left(&rig, "cn") - 20.0).abs() < 0.1, "{before} {}", left(&rig, "cn"));
    rig.events.observe();
    assert!(
        rig.metrics.text().contains("events_seconds_to_overflow{app=\"app\",stream=\"user_events\",region=\"cn\"} ")
    );
    let rig = rig.restart().await;
    // A full queue: what an earlier run stored, and when, was known before the first read; now the events' times say it.
    rig.vendor.say("cn", [timed(150_000, 1000), timed(150_000, 1000)]);
    rig.until_seen(1).await;
    pass(Duration::from_millis(20)).await;
    assert!((45.0..=101.0).contains(&left(&rig, "cn")), "{}", left(&rig, "cn"));
    rig.vendor.say("cn", (0..100).map(|_| Step::Answer(403, String::new())));
    pass(Duration::from_secs(10)).await;
    let before = left(&rig, "cn");
    pass(Duration::from_secs(20)).await;
    assert!((before - left(&rig, "cn") - 20.0).abs() < 0.1, "a refusal stops it no less");
}
