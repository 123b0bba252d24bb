//! `order_window`: several regions' events in order of the vendor's time.

use super::*;
use crate::kernel::testing::pass;

fn ordered(regions: &[&str]) -> config::App {
    let mut config = config(regions);
    config.events.order_window = Duration::from_secs(2);
    config
}

/// Events that say their `ms`, and nothing else.
fn at(ms: &[u64]) -> Step {
    let events: Vec<_> = ms.iter().map(|ms| format!(r#"{{"ms":{ms}}}"#)).collect();
    Step::Answer(200, format!(r#"{{"events":[{}]}}"#, events.join(",")))
}

/// The log's times, and reasons of markers.
async fn times(rig: &Rig) -> Vec<String> {
    let bare = |text: String| text.trim_start_matches(r#"{"ms":"#).trim_end_matches('}').to_owned();
    rig.all().await.into_iter().map(bare).collect()
}

#[tokio::test(start_paused = true)]
async fn regions_are_merged_by_time_and_a_silent_one_holds_nobody_up() {
    let vendor = Arc::new(Script::default());
    vendor.say("cn", [at(&[10, 30, 50]), at(&[]), at(&[70])]);
    let later = Step::After(Duration::from_millis(900), Box::new(at(&[20, 40, 60, 10])));
    vendor.say("eu", [later]);
    vendor.say("us", [Step::Hang]);
    let rig = Rig::with(MemoryStore::default(), ordered(&["cn", "eu", "us"]), vendor).await;
    pass(Duration::from_millis(1900)).await;
    assert_eq!(times(&rig).await, numbers(0..0), "nobody sees what has no place yet");
    pass(Duration::from_millis(200)).await;
    assert_eq!(times(&rig).await, ["10", "20", "30", "40", "50"], "the same event of two regions is one");
    pass(Duration::from_secs(2)).await;
    assert_eq!(times(&rig).await, ["10", "20", "30", "40", "50", "60", "70"]);
    rig.vendor.say("eu", [at(&[65, 80])]);
    pass(Duration::from_millis(1100)).await;
    assert_eq!(times(&rig).await.last().unwrap(), "65", "one that is late is there at once");
    assert!(rig.metric(r#"events_late_total{app="app",stream="user_events",region="eu"} 1"#));
    assert!(rig.metric(r#"events_late_total{app="app",stream="user_events",region="cn"} 0"#));
    let eu = rig.events.pollers().into_iter().find(|poller| poller.region == "eu").unwrap();
    assert_eq!((eu.events, eu.duplicates, eu.late), (5, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_waits_outlives_a_kill_and_is_known_to_other_regions_after_it() {
    let rig = Rig::new_ordered(&["cn", "eu"]).await;
    rig.until_seen(2).await;
    rig.vendor.say("cn", [at(&[10, 30])]);
    rig.until_seen(5).await;
    let rig = rig.kill().await;
    rig.vendor.say("eu", [at(&[20, 30, 40])]);
    pass(Duration::from_millis(1500)).await;
    assert_eq!(rig.all().await, numbers(0..0));
    pass(Duration::from_secs(3)).await;
    let mut all = times(&rig).await;
    all.retain(|text| text != "unclean_stop");
    assert_eq!(all, ["10", "20", "30", "40"]);
    let rig = rig.restart().await;
    pass(Duration::from_secs(3)).await;
    assert_eq!(times(&rig).await.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_window_that_is_turned_off_lets_all_go_that_waited() {
    let mut rig = Rig::new_ordered(&["cn", "eu"]).await;
    rig.until_seen(2).await;
    rig.vendor.say("cn", [at(&[10, 30])]);
    rig.vendor.say("eu", [at(&[20])]);
    rig.until_seen(6).await;
    assert_eq!(rig.all().await, numbers(0..0));
    rig.config.events.order_window = Duration::ZERO;
    rig.apply().await;
    assert_eq!(times(&rig).await, ["10", "20", "30"]);
    assert_eq!(rig.store.notes(&key(), crate::store::NoteKind::Waiting, "", "", 9).await.unwrap(), []);
    rig.vendor.say("eu", [at(&[5])]);
    pass(Duration::from_secs(1)).await;
    assert_eq!(times(&rig).await, ["10", "20", "30", "5"], "in the order in which they come");
}

#[tokio::test(start_paused = true)]
async fn what_a_stop_left_waiting_is_there_after_a_start_without_a_window() {
    let mut rig = Rig::new_ordered(&["cn", "eu"]).await;
    rig.until_seen(2).await;
    rig.vendor.say("cn", [at(&[30, 10])]);
    rig.until_seen(5).await;
    rig.config.events.order_window = Duration::ZERO;
    let rig = rig.restart().await;
    assert_eq!(times(&rig).await, ["10", "30"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_loses_nothing_that_waits() {
    let rig = Rig::new_ordered(&["cn", "eu"]).await;
    rig.until_seen(2).await;
    rig.vendor.say("cn", [at(&[10, 30])]);
    rig.until_seen(4).await;
    rig.store.broken.store(true, Ordering::Relaxed);
    rig.vendor.say("eu", [at(&[20])]);
    pass(Duration::from_secs(60)).await;
    assert_eq!(rig.all().await, numbers(0..0));
    rig.store.broken.store(false, Ordering::Relaxed);
    pass(Duration::from_secs(10)).await;
    assert_eq!(times(&rig).await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_append_that_a_forced_stop_cut_short_is_stored_once() {
    let rig = Rig::new_ordered(&["cn", "eu"]).await;
    rig.until_seen(2).await;
    rig.store.ack_delay.store(60_000, Ordering::Relaxed);
    rig.vendor.say("cn", [at(&[10, 30])]);
    pass(Duration::from_secs(5)).await;
    rig.tasks.finish(Duration::ZERO).await;
    rig.store.ack_delay.store(0, Ordering::Relaxed);
    rig.events.flush().await.unwrap();
    let rig = rig.restart().await;
    pass(Duration::from_secs(5)).await;
    assert_eq!(times(&rig).await, ["10", "30"]);
}

/// The real store, killed at once after a read was kept.
#[tokio::test]
async fn what_waits_outlives_a_kill_in_the_real_store() {
    let mut config = ordered(&["cn", "eu"]);
    config.events.order_window = Duration::from_millis(300);
    config.events.poll_interval = Duration::from_millis(1);
    config.events.poll_interval_idle = Duration::from_millis(2);
    let mut rig = Rig::in_folder(config).await;
    for round in 0..3 {
        rig.vendor.say("cn", [at(&[round * 100 + 10, round * 100 + 30])]);
        rig.vendor.say("eu", [at(&[round * 100 + 20])]);
        rig.until_each_seen(&["cn", "eu"], 3).await;
        rig = rig.kill().await;
    }
    let mut next = rig.log().changes();
    // Each kill leaves a marker for each region.
    let all = next.wait_for(|next| next.0 > 9 + 6);
    tokio::time::timeout(Duration::from_secs(10), all).await.unwrap().unwrap();
    let mut all = times(&rig).await;
    all.retain(|text| text != "unclean_stop");
    assert_eq!(all, ["10", "20", "30", "110", "120", "130", "210", "220", "230"]);
}

impl Rig {
    async fn new_ordered(regions: &[&str]) -> Self {
        Self::over(MemoryStore::default(), ordered(regions)).await
    }
}
