//! The main promises once more over the real store, in real time.

use proptest::prelude::*;

use super::subscribing::{acts, one_careful_reader, run};
use super::*;

fn quick(regions: &[&str]) -> config::App {
    let mut config = config(regions);
    config.events.poll_interval = Duration::from_millis(1);
    config.events.poll_interval_idle = Duration::from_millis(2);
    config
}

/// Waits until the log holds so many entries: at most a minute, since a busy disk may take seconds to sync.
async fn until(rig: &Rig, entries: u64) {
    let mut next = rig.log().changes();
    let enough = next.wait_for(|next| next.0 > entries);
    tokio::time::timeout(Duration::from_secs(60), enough).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_read_outlives_a_kill_and_so_do_places() {
    let rig = Rig::in_folder(quick(&["cn", "eu"])).await;
    rig.vendor.say("cn", [answer(0..1000), answer(1000..1500), Step::Answer(200, "<html>".into())]);
    until(&rig, 1501).await;
    rig.vendor.say("eu", [answer(1400..1600)]);
    until(&rig, 1601).await;
    assert_eq!(rig.take(by("a", 700)).await, numbers(0..700));
    assert_eq!(rig.take(from(StartAt::Latest, by("b", 700))).await, numbers(0..0));
    let rig = rig.restart().await;
    assert_eq!(rig.take(by("a", 800)).await, numbers(700..1500));
    rig.vendor.say("eu", [answer(1300..1401)]);
    until(&rig, 1602).await;
    rig.vendor.say("cn", [answer(1590..1602)]);
    until(&rig, 1604).await;
    let rig = rig.kill().await;
    until(&rig, 1606).await;
    let mut all = rig.all().await;
    all.retain(|text| text != "unclean_stop");
    let mut expected = numbers(0..1602);
    expected.insert(1500, "unparsable".into());
    // Twice from eu, before the restart and after it: two events.
    expected.insert(1601, "1400".into());
    assert_eq!(all, expected);
    assert_eq!(rig.take(by("b", 700)).await, ["1400", "1600", "1601"]);
    assert_eq!(rig.quarantined().await, [("<html>".to_owned(), 0)]);
}

#[tokio::test]
async fn what_retention_removed_is_gone_for_cursors_and_subscriptions() {
    let mut config = quick(&[]);
    config.events.retention_bytes = 4000;
    let rig = Rig::in_folder(config).await;
    rig.append(0..100).await;
    let read = ReadRequest { place: ReadFrom::After(rig.cursor(0)), ..by("x", 1) };
    assert_eq!(rig.take(read.clone()).await, numbers(0..1));
    assert_eq!(rig.take(by("a", 1)).await, numbers(0..1));
    for n in 1..20 {
        rig.append(n * 100..(n + 1) * 100).await;
    }
    rig.stream().trim().await.unwrap();
    let earliest = rig.range().0;
    assert!(earliest > 1 && earliest < 2001, "{earliest}");
    let expired = ReadError::Expired { earliest: rig.cursor(earliest - 1), lost: Some(earliest - 1) };
    assert_eq!(rig.read(read).await.unwrap_err(), expired);
    assert_eq!(rig.take(by("a", 1)).await, numbers(earliest - 1..earliest));
    let rig = rig.restart().await;
    assert_eq!(rig.take(by("a", 1)).await, numbers(earliest..earliest + 1));
}

properties! {
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_subscription_gets_every_event_of_the_real_store(acts in acts(25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let over = |acts| async move { run(Rig::in_folder(config(&[])).await, acts).await };
        let (appended, handed_over) = runtime.block_on(over(&acts));
        let distinct: std::collections::BTreeSet<u64> = handed_over.iter().map(|text| text.parse().unwrap()).collect();
        prop_assert!(distinct.into_iter().eq(0..appended));
        let careful = one_careful_reader(&acts);
        let (appended, handed_over) = runtime.block_on(over(&careful));
        prop_assert_eq!(handed_over, numbers(0..appended));
    }
}
