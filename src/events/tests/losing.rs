//! What operators are told of losses: the same after a stop and after a kill, at whatever instant.

use super::*;

/// What may have been lost, as an operator reads it.
async fn losses(rig: &Rig, query: LossQuery) -> Vec<LossRecord> {
    let page = rig.events.losses(&LossQuery { limit: 1000, ..query }).await.unwrap();
    assert!(page.next.is_none() && !page.left_out);
    page.losses
}

/// `(subscription, events, from, to)` of those of subscriptions.
async fn of_readers(rig: &Rig) -> Vec<(String, u64, String, String)> {
    let all = losses(rig, LossQuery::default()).await.into_iter().filter(|loss| loss.kind == "retention");
    all.map(|loss| (loss.subscription.unwrap(), loss.events.unwrap(), loss.from, loss.to)).collect()
}

fn lost(rig: &Rig, name: &str) -> u64 {
    rig.events.subscriptions().into_iter().find(|status| status.subscription == name).unwrap().lost
}

fn kept_for(seconds: u64) -> config::App {
    let mut config = config(&[]);
    config.events.retention = Duration::from_secs(seconds);
    config
}

#[tokio::test(start_paused = true)]
async fn what_a_subscription_has_lost_is_counted_once_whatever_stops_or_kills_there_are() {
    for kills in [[false; 4], [true; 4], [true, false, true, false], [false, true, true, true]] {
        let mut rig = Rig::over(MemoryStore::default(), kept_for(1000)).await;
        rig.append(0..10).await;
        assert_eq!(rig.take(by("a", 2)).await, numbers(0..2));
        assert_eq!(rig.take(by("well", 10)).await, numbers(0..10));
        rig.events.save_cursors().await.unwrap();
        pass(Duration::from_secs(1100)).await;
        assert_eq!((lost(&rig, "a"), lost(&rig, "well")), (8, 0));
        let native = || ReadRequest { markers: true, ..by("a", 100) };
        for (round, kill) in kills.into_iter().enumerate() {
            rig = if kill { rig.kill().await } else { rig.restart().await };
            let losses = of_readers(&rig).await;
            let [(name, events, from, to)] = &losses[..] else { panic!("{kills:?} {round}: {losses:?}") };
            assert_eq!((name.as_str(), *events, lost(&rig, "a")), ("a", 8, 8), "{kills:?} {round}");
            assert!(from <= to);
            if round == 1 {
                // Its reader comes, is told, and reads on: nothing of it is forgotten.
                rig.append(10..12).await;
                assert_eq!(rig.take(native()).await, ["retention", "10", "11"]);
                rig.events.save_cursors().await.unwrap();
            }
        }
        // What is lost later is another loss.
        rig.append(12..15).await;
        assert_eq!(rig.take(by("well", 10)).await, numbers(10..15));
        rig.events.save_cursors().await.unwrap();
        pass(Duration::from_secs(1100)).await;
        let again = of_readers(&rig).await;
        assert_eq!(again.iter().map(|loss| (loss.0.as_str(), loss.1)).collect::<Vec<_>>(), [("a", 8), ("a", 3)]);
        assert!(again[0].3 < again[1].2);
        // It goes with the subscription.
        rig.events.remove(&app(), STREAM, &SubscriptionName::parse("a").unwrap()).await.unwrap();
        assert_eq!(of_readers(&rig).await, []);
    }
}

#[tokio::test(start_paused = true)]
async fn markers_and_damage_are_found_in_the_log_and_go_with_it() {
    let rig = Rig::over(MemoryStore::default(), kept_for(1000)).await;
    let possible = |reason: &str| Content::PossibleLoss(reason.to_owned());
    rig.append(0..3).await;
    rig.append_content(possible("timeout")).await;
    pass(Duration::from_secs(600)).await;
    rig.append_content(Content::Damaged(5)).await;
    rig.append_content(possible("status_5xx")).await;
    let what = |losses: &[LossRecord]| -> Vec<(String, &'static str, Option<u64>)> {
        losses.iter().map(|loss| (loss.reason.clone(), loss.kind, loss.events)).collect()
    };
    let all = losses(&rig, LossQuery::default()).await;
    let wanted = [
        ("timeout".to_owned(), "possible_loss", None),
        ("damaged".to_owned(), "damaged", Some(5)),
        ("status_5xx".to_owned(), "possible_loss", None),
    ];
    assert_eq!(what(&all), wanted);
    assert_eq!(all[0].cursor, rig.cursor(4).to_string());
    // By time and page.
    let then = rig.clock.wall_ms();
    let since = LossQuery { since: Some(then), ..LossQuery::default() };
    assert_eq!(what(&losses(&rig, since).await), wanted[1..]);
    let until = LossQuery { until: Some(then), ..LossQuery::default() };
    assert_eq!(what(&losses(&rig, until).await), wanted[..1]);
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let query = LossQuery { after, limit: 1, ..LossQuery::default() };
        let page = rig.events.losses(&query).await.unwrap();
        paged.extend(page.losses);
        after = page.next.map(|next| next.to_string().parse().unwrap());
        if after.is_none() {
            break;
        }
    }
    assert_eq!(what(&paged), wanted);
    // A kill forgets nothing; retention does.
    let rig = rig.kill().await;
    assert_eq!(what(&losses(&rig, LossQuery::default()).await), wanted);
    pass(Duration::from_secs(500)).await;
    assert_eq!(what(&losses(&rig, LossQuery::default()).await), wanted[1..]);
    let other = LossQuery { app: Some(AppId::parse("other").unwrap()), ..LossQuery::default() };
    assert_eq!(rig.events.losses(&other).await.unwrap_err(), ReadError::NoSuchStream);
}

#[tokio::test(start_paused = true)]
async fn who_falls_behind_is_told_when_retention_takes_what_it_has_not_read() {
    let rig = Rig::over(MemoryStore::default(), kept_for(1000)).await;
    let of = |name: &str| rig.events.subscriptions().into_iter().find(|status| status.subscription == name).unwrap();
    rig.append(0..1).await;
    for name in ["slow", "gone", "well"] {
        rig.take(by(name, 1)).await;
    }
    for second in 0..30 {
        rig.append(second * 10..second * 10 + 50).await;
        rig.take(by("slow", 10)).await;
        rig.take(by("well", 1000)).await;
        pass(Duration::from_secs(5)).await;
    }
    let near = |value: Option<f64>, wanted: f64| value.is_some_and(|value| (value - wanted).abs() < wanted / 5.0 + 0.1);
    let (slow, gone, well) = (of("slow"), of("gone"), of("well"));
    assert!(near(slow.arriving_per_second, 10.0) && near(slow.read_per_second, 2.0), "{slow:?}");
    assert!(near(gone.read_per_second, 0.0) && near(well.read_per_second, 10.0), "{gone:?} {well:?}");
    assert_eq!((slow.lost, slow.readers, gone.cut_off_by), (0, 0, Some("retention")));
    // Its oldest unread came 150 s ago.
    assert!(near(gone.seconds_to_cut_off, 850.0), "{gone:?}");
    assert!(slow.seconds_to_cut_off > gone.seconds_to_cut_off, "{slow:?}");
    assert_eq!((well.cut_off_at, well.seconds_to_cut_off, well.cut_off_by), (None, None, None));
    // It was right: a moment before, nothing is lost, and a moment after, some is.
    let left = gone.seconds_to_cut_off.unwrap();
    pass(Duration::from_secs_f64(left - 10.0)).await;
    assert_eq!(of("gone").lost, 0);
    pass(Duration::from_secs(10) + retention::TRIMMED_EVERY).await;
    assert!(of("gone").lost > 0);
}
