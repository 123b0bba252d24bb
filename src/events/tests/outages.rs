//! An outage: one note while it goes on, one marker when it ends.

use super::*;
use crate::store::NoteKind;

fn doubt() -> Step {
    Step::Fail(Failure::TimedOut { sent: true })
}

fn doubts(count: usize) -> impl Iterator<Item = Step> {
    (0..count).map(|_| doubt())
}

fn cut(numbers: std::ops::Range<u64>) -> Step {
    let numbers: Vec<_> = numbers.map(|n| n.to_string()).collect();
    // The last number may have gone on.
    let partial = format!(r#"{{"events":[{},1"#, numbers.join(","));
    Step::Fail(Failure::Lost { why: "cut".into(), partial: Some(partial.into()), retry_after: None })
}

/// The count of the stored note, if there is one.
async fn note(rig: &Rig, region: &str) -> Option<u64> {
    let note = rig.log().store().note(&key(), NoteKind::Waiting, &format!("outage/{region}")).await.unwrap()?;
    serde_json::from_slice::<serde_json::Value>(&note).unwrap()["count"].as_u64()
}

async fn counts(rig: &Rig) -> Vec<(String, u64)> {
    rig.markers().await.into_iter().map(|marker| (marker.reason, marker.outage.map_or(0, |o| o.count))).collect()
}

/// Waits until the script of a region is at its end, and what it brought is kept.
async fn until_said(rig: &Rig, region: &str) {
    while lock(&rig.vendor.steps).get(region).is_some_and(|steps| !steps.is_empty()) {
        look_again().await;
    }
    pass(Duration::from_millis(50)).await;
}

#[tokio::test(start_paused = true)]
async fn a_long_outage_is_one_note_and_one_marker_before_the_first_events_after_it() {
    let rig = Rig::new(&["cn"]).await;
    rig.vendor.say("cn", [answer(0..1)]);
    rig.vendor.say("cn", doubts(20));
    rig.vendor.say("cn", [Step::Answer(403, String::new()), Step::Answer(500, String::new()), answer(1..3)]);
    while rig.events.pollers()[0].outage.as_ref().is_none_or(|outage| outage.doubts < 7) {
        look_again().await;
    }
    // The note is there before the next read is sent.
    let seen = rig.vendor.seen();
    pass(Duration::from_millis(10)).await;
    assert_eq!((note(&rig, "cn").await, rig.vendor.seen()), (Some(7), seen));
    assert_eq!(rig.all().await, ["0"]);
    let poller = &rig.events.pollers()[0];
    assert_eq!((poller.state, poller.failed_reads), ("failing", 7));
    assert_eq!(poller.outage.as_ref().unwrap().reasons["timeout"], 7);
    until_said(&rig, "cn").await;
    assert_eq!(rig.all().await, ["0", "timeout", "1", "2"]);
    assert_eq!((counts(&rig).await, note(&rig, "cn").await), (vec![("timeout".to_owned(), 21)], None));
    assert!(
        rig.metric(r#"events_possible_loss_total{app="app",stream="user_events",region="cn",reason="timeout"} 20"#)
    );
    assert_eq!(rig.events.pollers()[0].outage, None);
}

#[tokio::test(start_paused = true)]
async fn a_good_read_that_brings_nothing_ends_an_outage_too_and_each_region_has_its_own() {
    let rig = Rig::new(&["cn", "eu"]).await;
    rig.vendor.say("cn", doubts(3));
    rig.vendor.say("eu", doubts(100));
    until_said(&rig, "cn").await;
    pass(Duration::from_secs(30)).await;
    assert_eq!(counts(&rig).await, [("timeout".to_owned(), 3)]);
    assert_eq!(note(&rig, "cn").await, None);
    assert!(note(&rig, "eu").await.unwrap() > 3);
}

#[tokio::test(start_paused = true)]
async fn events_of_a_read_in_doubt_come_at_once_with_the_marker_of_what_was_before_and_the_outage_goes_on() {
    for order_window in [Duration::ZERO, Duration::from_secs(2)] {
        let mut config = config(&["cn", "eu"]);
        config.events.order_window = order_window;
        let rig = Rig::over(MemoryStore::default(), config).await;
        rig.vendor.say("cn", [answer(0..1), doubt(), doubt(), cut(1..3)]);
        rig.vendor.say("cn", doubts(2));
        rig.vendor.say("cn", [Step::Hang]);
        until_said(&rig, "cn").await;
        pass(Duration::from_secs(3)).await;
        assert_eq!(rig.all().await, ["0", "timeout", "1", "2"]);
        assert_eq!(note(&rig, "cn").await, Some(3));
        let rig = rig.kill().await;
        rig.vendor.say("cn", [answer(3..4)]);
        pass(Duration::from_secs(9)).await;
        assert_eq!(
            rig.all().await.iter().filter(|entry| *entry != "unclean_stop").collect::<Vec<_>>(),
            ["0", "timeout", "1", "2", "cut_body", "3"]
        );
        let of_reads: Vec<_> = counts(&rig).await.into_iter().filter(|(reason, _)| reason != "unclean_stop").collect();
        assert_eq!(of_reads, [("timeout".to_owned(), 2), ("cut_body".to_owned(), 3)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_kill_between_the_note_and_the_marker_or_between_doubts_loses_nothing_of_the_outage() {
    for in_folder in [false, true] {
        let rig = if in_folder { Rig::in_folder(config(&["cn"])).await } else { Rig::new(&["cn"]).await };
        rig.vendor.say("cn", [answer(0..1), doubt()]);
        until_said(&rig, "cn").await;
        rig.vendor.say("cn", [Step::Hang]);
        while note(&rig, "cn").await.is_none() {
            pass(Duration::from_millis(1)).await;
        }
        let rig = rig.kill().await;
        rig.vendor.say("cn", doubts(2));
        rig.vendor.say("cn", [Step::Hang]);
        while note(&rig, "cn").await != Some(3) {
            pass(Duration::from_millis(10)).await;
        }
        let rig = rig.kill().await;
        lock(&rig.vendor.steps).clear();
        rig.vendor.say("cn", [answer(1..2)]);
        while rig.all().await.last().is_none_or(|last| last != "1") {
            pass(Duration::from_millis(10)).await;
        }
        let counts = counts(&rig).await;
        assert_eq!(counts.last().unwrap(), &("timeout".to_owned(), 3), "{counts:?}");
        assert_eq!(note(&rig, "cn").await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_leaves_the_note_and_the_next_run_goes_on_with_the_outage() {
    let rig = Rig::new(&["cn"]).await;
    rig.vendor.say("cn", [answer(0..1)]);
    rig.vendor.say("cn", doubts(4));
    rig.vendor.say("cn", [Step::After(Duration::from_secs(5), Box::new(doubt()))]);
    until_said(&rig, "cn").await;
    // For the next run.
    rig.vendor.say("cn", [doubt(), answer(1..2)]);
    let rig = rig.restart().await;
    until_said(&rig, "cn").await;
    assert_eq!(rig.all().await, ["0", "timeout", "1"]);
    assert_eq!(counts(&rig).await, [("timeout".to_owned(), 6)]);
}

#[tokio::test(start_paused = true)]
async fn a_marker_is_stored_with_the_events_behind_it_or_not_at_all() {
    let rig = Rig::new(&["cn"]).await;
    rig.vendor.say("cn", [doubt(), answer(0..2)]);
    while note(&rig, "cn").await.is_none() {
        pass(Duration::from_millis(1)).await;
    }
    rig.store.broken.store(true, Ordering::Relaxed);
    pass(Duration::from_secs(20)).await;
    assert_eq!((rig.range().1, note(&rig, "cn").await), (1, Some(1)));
    assert_eq!(rig.events.pollers()[0].state, "paused");
    // A forced stop: what is in hand is left for the last flush.
    rig.tasks.finish(Duration::ZERO).await;
    rig.store.broken.store(false, Ordering::Relaxed);
    rig.events.flush().await.unwrap();
    assert_eq!(rig.all().await, ["timeout", "0", "1"]);
    assert_eq!(note(&rig, "cn").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_has_the_marker_of_the_doubts_so_far_before_it_and_the_others_stay_open() {
    let rig = Rig::new(&["cn"]).await;
    let late = Step::After(Duration::from_secs(30), Box::new(answer(1..2)));
    rig.vendor.say("cn", [answer(0..1), doubt(), late]);
    rig.vendor.say("cn", doubts(60));
    pass(Duration::from_secs(60)).await;
    assert_eq!(rig.all().await, ["0", "timeout", "1"]);
    assert!(note(&rig, "cn").await.unwrap() > counts(&rig).await[0].1 - 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_a_state_with_its_cause_and_no_outage() {
    let rig = Rig::new(&["cn"]).await;
    rig.until_seen(2).await;
    let region = || RegionName::parse("cn").unwrap();
    rig.vendor.say("cn", (0..20).map(|_| Step::Answer(403, String::new())));
    pass(Duration::from_secs(60)).await;
    let poller = &rig.events.pollers()[0];
    assert_eq!((poller.state, poller.outage.clone()), ("refused", None));
    assert!(poller.failed_reads > 5 && poller.last_error.as_ref().unwrap().contains("403"), "{poller:?}");
    assert!((55.0..=65.0).contains(&poller.last_good_read_seconds), "{poller:?}");
    assert!(
        rig.events.troubles().iter().any(|trouble| trouble.symptom == crate::kernel::trouble::Symptom::EventsNotGiven)
    );
    rig.events.observe();
    let gauge = r#"poller_last_good_read_seconds{app="app",stream="user_events",region="cn"} "#;
    let text = rig.metrics.text();
    let line = text.lines().find_map(|line| line.strip_prefix("rtm_gateway_")?.strip_prefix(gauge)).unwrap();
    assert!(line.parse::<f64>().unwrap() > 55.0, "{line}");
    lock(&rig.vendor.steps).clear();
    // The breaker is open: the cause is kept.
    let left_alone = Failure::RegionDown { region: region(), retry_after: Duration::from_secs(1) };
    rig.vendor.say("cn", [Step::Fail(Failure::Unreachable("no route".into()))]);
    rig.vendor.say("cn", (0..20).map(|_| Step::Fail(left_alone.clone())));
    pass(Duration::from_secs(15)).await;
    let poller = &rig.events.pollers()[0];
    assert_eq!(poller.state, "failing");
    assert!(poller.last_error.as_ref().unwrap().contains("no route"), "{poller:?}");
    lock(&rig.vendor.steps).clear();
    pass(Duration::from_secs(15)).await;
    let poller = &rig.events.pollers()[0];
    assert_eq!((poller.state, poller.failed_reads, poller.last_error.clone()), ("waiting", 0, None));
    assert!(poller.last_good_read_seconds < 5.0);
    assert_eq!((rig.events.troubles(), rig.markers().await), (Vec::new(), Vec::new()));
}

/// That each count is the sum of its reasons' is all a reader can hold a marker to.
async fn counts_add_up(rig: &Rig) {
    for marker in rig.markers().await {
        let outage = marker.outage.expect("of an outage");
        assert!(outage.count > 0 && outage.count == outage.reasons.values().sum::<u64>(), "{outage:?}");
    }
    let open = rig.events.pollers()[0].outage.clone();
    assert!(open.is_none_or(|open| open.doubts == open.reasons.values().sum::<u64>()));
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_takes_nothing_from_an_outage_that_its_own_doubt_is_not_of() {
    let rig = Rig::new(&["cn"]).await;
    let late = |numbers| Step::After(Duration::from_secs(40), Box::new(answer(numbers)));
    // Both are given up, and told with the marker before 2. They come while another outage is open, of one doubt.
    rig.vendor.say("cn", [late(0..1), late(1..2), answer(2..3)]);
    let reset = Step::Fail(Failure::Lost { why: "reset".into(), partial: None, retry_after: None });
    rig.vendor.say("cn", [reset]);
    rig.vendor.say("cn", (0..60).map(|_| Step::Answer(403, String::new())));
    pass(Duration::from_secs(90)).await;
    lock(&rig.vendor.steps).clear();
    rig.vendor.say("cn", [answer(3..4)]);
    pass(Duration::from_secs(30)).await;
    assert_eq!(rig.all().await, ["timeout", "2", "reset", "0", "reset", "1", "reset", "3"]);
    counts_add_up(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_that_is_cut_leaves_a_doubt_behind_its_events() {
    let rig = Rig::new(&["cn"]).await;
    let late = Step::After(Duration::from_secs(20), Box::new(cut(1..3)));
    rig.vendor.say("cn", [answer(0..1), late]);
    rig.vendor.say("cn", (0..4).map(|_| Step::Answer(403, String::new())));
    pass(Duration::from_secs(25)).await;
    lock(&rig.vendor.steps).clear();
    rig.vendor.say("cn", [answer(3..4)]);
    pass(Duration::from_secs(30)).await;
    assert_eq!(rig.all().await, ["0", "timeout", "1", "2", "cut_body", "3"]);
    counts_add_up(&rig).await;
}

/// Who reads the stream goes on without the region, and is to know what may be missing of it.
#[tokio::test(start_paused = true)]
async fn an_outage_of_a_region_that_is_taken_out_is_marked() {
    for by_restart in [false, true] {
        let mut rig = Rig::new(&["cn", "eu"]).await;
        rig.vendor.say("cn", [answer(0..1)]);
        rig.vendor.say("cn", doubts(200));
        pass(Duration::from_secs(10)).await;
        assert!(note(&rig, "cn").await.is_some());
        rig.config.regions.retain(|region| region.name.as_str() == "eu");
        if by_restart {
            rig = rig.restart().await;
        } else {
            rig.apply().await;
        }
        pass(Duration::from_secs(2)).await;
        rig.vendor.say("eu", [answer(1..2)]);
        pass(Duration::from_secs(2)).await;
        assert_eq!((rig.all().await, note(&rig, "cn").await), (vec!["0".into(), "timeout".into(), "1".into()], None));
        counts_add_up(&rig).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_region_that_is_taken_out_and_put_back_has_one_outage() {
    let mut rig = Rig::new(&["cn", "eu"]).await;
    let slow_doubt = Step::After(Duration::from_secs(10), Box::new(doubt()));
    rig.vendor.say("cn", [answer(0..1), slow_doubt]);
    until_said(&rig, "cn").await;
    let both = rig.config.regions.clone();
    rig.config.regions.retain(|region| region.name.as_str() == "eu");
    rig.apply().await;
    rig.config.regions = both;
    rig.apply().await;
    // The old poller's read ends in doubt while the new one reads already.
    pass(Duration::from_secs(20)).await;
    rig.vendor.say("cn", [answer(1..2)]);
    pass(Duration::from_secs(5)).await;
    assert_eq!((rig.all().await, note(&rig, "cn").await), (vec!["0".into(), "timeout".into(), "1".into()], None));
    counts_add_up(&rig).await;
}

/// A balancer that answers 404 and 503 in turn is no less a failure than one that stays with one of them.
#[tokio::test(start_paused = true)]
async fn reads_that_fail_in_turns_are_told_to_probes_as_others_are() {
    let rig = Rig::new(&["cn"]).await;
    rig.until_seen(2).await;
    let turns = [Step::Answer(404, String::new()), Step::Fail(Failure::Unreachable("no route".into()))];
    rig.vendor.say("cn", turns.iter().cycle().take(100).cloned());
    pass(Duration::from_secs(120)).await;
    let since: Vec<_> = rig.events.troubles().iter().map(|trouble| trouble.symptom).collect();
    assert_eq!(since, [crate::kernel::trouble::Symptom::EventsNotGiven]);
}

/// A stop in order says when the run ended, not when it last read.
#[tokio::test(start_paused = true)]
async fn a_restart_does_not_take_a_stop_for_a_read_while_reads_fail() {
    for failing in [Step::Answer(403, String::new()), Step::Answer(503, String::new())] {
        let rig = Rig::new(&["cn"]).await;
        // Ten a second: 200 s to overflow.
        for second in 0..30 {
            rig.vendor.say("cn", [answer(second * 10..second * 10 + 10)]);
            pass(Duration::from_secs(1)).await;
        }
        rig.vendor.say("cn", (0..500).map(|_| failing.clone()));
        pass(Duration::from_secs(150)).await;
        let before = rig.events.pollers()[0].seconds_to_overflow.unwrap();
        let rig = rig.restart().await;
        pass(Duration::from_millis(10)).await;
        let after = rig.events.pollers()[0].seconds_to_overflow.unwrap();
        assert!(before < 70.0 && after < before + 5.0, "{before} {after}");
        pass(Duration::from_secs(100)).await;
        let rig = rig.restart().await;
        pass(Duration::from_millis(10)).await;
        assert!(rig.events.pollers()[0].seconds_to_overflow < Some(1.0));
    }
}

/// Two reads end while the store fails: one that was given up brings its answer, and one ends in doubt. Whichever comes
/// first, a forced stop leaves both, and what was decided last holds.
#[tokio::test(start_paused = true)]
async fn what_a_forced_stop_leaves_of_an_outage_is_what_was_decided_last() {
    for (doubt_after, told) in [(2, 2), (8, 1)] {
        let rig = Rig::new(&["cn"]).await;
        let in_time = |seconds, step| Step::After(Duration::from_secs(seconds), Box::new(step));
        rig.vendor.say("cn", [in_time(20, answer(1..2)), in_time(doubt_after, doubt()), Step::Hang]);
        rig.until_seen(2).await;
        while note(&rig, "cn").await.is_none() {
            pass(Duration::from_millis(1)).await;
        }
        rig.store.broken.store(true, Ordering::Relaxed);
        pass(Duration::from_secs(14)).await;
        rig.tasks.finish(Duration::ZERO).await;
        rig.store.broken.store(false, Ordering::Relaxed);
        rig.events.flush().await.unwrap();
        assert_eq!(rig.all().await, ["timeout", "1"], "{doubt_after} s");
        assert_eq!(counts(&rig).await, [("timeout".to_owned(), told)], "{doubt_after} s");
        assert_eq!(note(&rig, "cn").await, Some(1), "{doubt_after} s");
    }
}
