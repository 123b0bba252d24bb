//! What readers get, and when.

use super::*;
use crate::kernel::testing::pass;

#[tokio::test(start_paused = true)]
async fn every_subscription_gets_every_event_and_readers_of_one_share_it() {
    let rig = Rig::quiet().await;
    rig.append(0..5).await;
    rig.append(5..8).await;
    assert_eq!(rig.take(by("a", 1000)).await, numbers(0..8));
    assert_eq!(rig.take(by("a", 1000)).await, numbers(0..0));
    let (one, two) = (rig.read(by("b", 4)).await.unwrap(), rig.read(by("b", 4)).await.unwrap());
    assert_eq!((texts(&one), texts(&two)), (numbers(0..4), numbers(4..8)));
    assert_eq!((one.lag, two.lag), (4, 0));
    assert_eq!(rig.take(by("b", 4)).await, numbers(0..0), "all is on its way");
    drop(one);
    two.receipt.handed_over();
    assert_eq!(rig.take(by("b", 3)).await, numbers(0..3), "given again");
    assert_eq!(rig.take(by("b", 3)).await, numbers(3..4));
    assert!(rig.metric(r#"events_delivered_total{app="app",stream="user_events",subscription="b"} 8"#));
    assert!(rig.metric(r#"events_given_again_total{app="app",stream="user_events",subscription="b"} 4"#));
}

#[tokio::test(start_paused = true)]
async fn readers_who_keep_up_share_one_copy_and_do_not_ask_the_store() {
    let rig = Rig::quiet().await;
    rig.append(0..100).await;
    let mut copies = Vec::new();
    for n in 0..50 {
        let delivery = rig.read(by(&format!("s{n}"), 1000)).await.unwrap();
        copies.push(Arc::clone(&delivery.runs[0].batch));
        delivery.receipt.handed_over();
    }
    assert!(copies.windows(2).all(|two| Arc::ptr_eq(&two[0], &two[1])));
    assert_eq!(rig.store.reads.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_ends_with_the_first_event_and_not_with_a_marker() {
    let rig = Arc::new(Rig::quiet().await);
    let began = Instant::now();
    let reader = |read| {
        let rig = Arc::clone(&rig);
        async move { (rig.take(read).await, Instant::now() - began) }
    };
    let writer = async {
        pass(Duration::from_secs(3)).await;
        rig.append_content(Content::PossibleLoss("reset".into())).await;
        pass(Duration::from_secs(3)).await;
        rig.append(0..1).await;
    };
    let native = ReadRequest { markers: true, ..wait(20, by("native", 10)) };
    let ((), plain, native, after, short) = tokio::join!(
        writer,
        reader(wait(20, by("plain", 10))),
        reader(native),
        reader(wait(20, ReadRequest { place: ReadFrom::After(rig.cursor(0)), ..by("x", 10) })),
        reader(wait(5, by("short", 10))),
    );
    assert_eq!(plain, (numbers(0..1), Duration::from_secs(6)));
    assert_eq!(native, (vec!["reset".to_owned()], Duration::from_secs(3)));
    assert_eq!(after, (numbers(0..1), Duration::from_secs(6)));
    assert_eq!(short, (numbers(0..0), Duration::from_secs(5)));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_reader_gets_what_another_gives_back() {
    let rig = Rig::quiet().await;
    rig.append(0..3).await;
    let lost = rig.read(by("a", 10)).await.unwrap();
    let give_back = async {
        pass(Duration::from_secs(1)).await;
        drop(lost);
    };
    let (taken, ()) = tokio::join!(rig.take(wait(20, by("a", 10))), give_back);
    assert_eq!(taken, numbers(0..3));
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_wait() {
    let rig = Rig::quiet().await;
    let began = Instant::now();
    let stop = async {
        pass(Duration::from_secs(1)).await;
        rig.tasks.stopping().cancel();
    };
    let (taken, ()) = tokio::join!(rig.take(wait(20, by("a", 10))), stop);
    assert_eq!((taken, began.elapsed()), (numbers(0..0), Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn a_cursor_moves_nothing_and_says_when_it_is_no_place() {
    let rig = Rig::quiet().await;
    rig.append(0..10).await;
    let after = |cursor, limit| ReadRequest { place: ReadFrom::After(cursor), ..by("x", limit) };
    let first = rig.read(after(rig.cursor(0), 4)).await.unwrap();
    for _ in 0..2 {
        let second = rig.read(after(first.next, 4)).await.unwrap();
        assert_eq!((texts(&second), second.lag), (numbers(4..8), 2));
    }
    assert_eq!(rig.events.subscriptions().len(), 0);
    let end = rig.read(after(rig.cursor(10), 4)).await.unwrap();
    assert_eq!((texts(&end).len(), end.next), (0, rig.cursor(10)));
    for ahead in [11, u64::MAX] {
        assert_eq!(rig.read(after(rig.cursor(ahead), 4)).await.unwrap_err(), ReadError::Ahead);
    }
    let other = Cursor { epoch: 1, ..first.next };
    let expired = ReadError::Expired { earliest: rig.cursor(0), lost: None };
    assert_eq!(rig.read(after(other, 4)).await.unwrap_err(), expired);
    let none = rig.events.read(&app(), Stream::ChannelEvents, by("x", 1)).await;
    assert_eq!(none.unwrap_err(), ReadError::NoSuchStream);
}

#[tokio::test(start_paused = true)]
async fn what_memory_has_dropped_comes_from_the_store() {
    let rig = Rig::quiet().await;
    let big = |n: u64| Content::Events(EventText::join([format!("{n}{}", " ".repeat(900_000)).as_bytes()]).unwrap());
    for n in 0..10 {
        rig.append_content(big(n)).await;
    }
    let trimmed = |texts: Vec<String>| texts.iter().map(|text| text.trim().to_owned()).collect::<Vec<_>>();
    assert_eq!(trimmed(rig.take(by("a", 3)).await), numbers(0..3));
    assert_eq!(trimmed(rig.take(by("a", 1000)).await), numbers(3..10));
    assert_eq!(rig.store.reads.load(Ordering::Relaxed), 2);
    assert_eq!(
        trimmed(rig.take(from(StartAt::Since(crate::kernel::clock::UnixMillis(0)), by("b", 1))).await),
        numbers(0..1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_burst_does_not_outgrow_what_is_kept() {
    let mut config = config(&[]);
    config.events.retention_bytes = 8000;
    let rig = Rig::in_folder(config).await;
    for n in 0..400 {
        rig.append(n * 10..(n + 1) * 10).await;
        let bytes = rig.log().store().log_state(&key()).await.unwrap().bytes;
        assert!(bytes <= 9000, "{bytes}");
    }
    assert!(rig.range().0 > 1, "something was removed");
}

#[tokio::test(start_paused = true)]
async fn retention_cuts_subscriptions_off_and_tells_native_readers_once() {
    let mut config = config(&[]);
    config.events.retention = Duration::from_secs(3600);
    let rig = Rig::over(MemoryStore::default(), config).await;
    rig.append(0..10).await;
    let first = rig.read(by("a", 2)).await.unwrap();
    let cursor = first.next;
    first.receipt.handed_over();
    rig.take(by("vendor-like", 2)).await;
    pass(Duration::from_secs(3000)).await;
    rig.append(10..12).await;
    pass(Duration::from_secs(1000)).await;
    let read = ReadRequest { place: ReadFrom::After(cursor), ..by("x", 10) };
    let expired = ReadError::Expired { earliest: rig.cursor(10), lost: Some(8) };
    assert_eq!(rig.read(read).await.unwrap_err(), expired);
    assert!(rig.metric(r#"events_cut_off_total{app="app",stream="user_events",subscription="a"} 8"#));
    assert!(rig.metric(r#"subscription_lag_events{app="app",stream="user_events",subscription="a"} 2"#));
    let native = ReadRequest { markers: true, ..by("a", 1) };
    drop(rig.read(native.clone()).await.unwrap());
    assert_eq!(rig.take(native.clone()).await, ["retention", "10"]);
    assert_eq!(rig.take(native).await, ["11"]);
    assert_eq!(rig.take(by("vendor-like", 10)).await, numbers(10..12));
    pass(Duration::from_secs(4000)).await;
    assert_eq!(rig.all().await, numbers(0..0));
    rig.append(12..13).await;
    assert_eq!(rig.take(by("a", 1)).await, numbers(12..13), "numbers go on after all was trimmed");
    assert_eq!(rig.range(), (13, 14));
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_deletes_nothing_young() {
    let mut config = config(&[]);
    config.events.retention = Duration::from_secs(3600);
    let rig = Rig::over(MemoryStore::default(), config).await;
    rig.append(0..10).await;
    for jump in [3_600_000, 365 * 24 * 3_600_000, -7_200_000] {
        rig.clock.jump(jump);
        tokio::time::advance(Duration::from_secs(300)).await;
        rig.stream().trim().await.unwrap();
        assert_eq!(rig.range().0, 1, "{jump}");
        rig.append(10..11).await;
    }
    // Nor does a restart in between make them old.
    let rig = rig.restart().await;
    rig.clock.jump(24 * 3_600_000);
    let rig = rig.kill().await;
    rig.stream().trim().await.unwrap();
    assert_eq!(rig.range().0, 1);
    // They are removed when they are old by any clock.
    tokio::time::advance(Duration::from_secs(3 * 3600)).await;
    rig.stream().trim().await.unwrap();
    assert!(rig.range().0 > 10);
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_brings_no_duplicate_from_another_region() {
    let rig = Rig::new(&["cn", "eu"]).await;
    rig.vendor.say("cn", [answer(0..5)]);
    while rig.range().1 < 6 {
        pass(Duration::from_millis(10)).await;
    }
    rig.clock.jump(3_600_000);
    rig.vendor.say("eu", [answer(0..3)]);
    rig.until_seen(rig.vendor.seen() + 4).await;
    let rig = rig.restart().await;
    rig.clock.jump(3_600_000);
    let rig = rig.restart().await;
    rig.vendor.say("eu", [answer(3..6)]);
    while rig.range().1 < 7 {
        pass(Duration::from_millis(10)).await;
    }
    assert_eq!(rig.all().await, numbers(0..6));
}

#[tokio::test(start_paused = true)]
async fn readers_pass_over_damaged_entries_and_native_ones_are_told() {
    let rig = Rig::quiet().await;
    rig.append(0..3).await;
    rig.append_content(Content::Damaged(4)).await;
    rig.append(3..5).await;
    assert_eq!(rig.take(by("a", 1000)).await, numbers(0..5));
    let native = |limit| ReadRequest { markers: true, ..by("b", limit) };
    assert_eq!(rig.take(native(2)).await, numbers(0..2));
    assert_eq!(rig.take(native(3)).await, ["2", "damaged"]);
    let delivery = rig.read(native(1000)).await.unwrap();
    assert_eq!(texts(&delivery), ["damaged", "3", "4"]);
    assert_eq!(delivery.next, rig.cursor(9));
}

#[tokio::test(start_paused = true)]
async fn a_filter_passes_over_what_is_not_wanted_and_hands_over_no_more_than_the_limit() {
    let rig = Rig::quiet().await;
    let event = |n: u64| format!(r#"{{"type":"T{}"}}"#, n % 3);
    for batch in [0..10, 10..20] {
        let events: Vec<_> = batch.map(event).collect();
        rig.append_content(Content::Events(EventText::join(events.iter().map(String::as_bytes)).unwrap())).await;
    }
    rig.append_content(Content::PossibleLoss("reset".into())).await;
    let wants = |kinds: &[&str], read: ReadRequest| {
        let kinds: Vec<_> = kinds.iter().map(ToString::to_string).collect();
        ReadRequest { filter: Arc::new(Filter::new(&kinds, &[], &[])), ..read }
    };
    let all = |kind: u64, range: std::ops::Range<u64>| range.filter(|n| n % 3 == kind).map(event).collect::<Vec<_>>();
    let few = rig.read(wants(&["T1"], by("a", 5))).await.unwrap();
    assert_eq!(texts(&few), all(1, 0..14), "numbers 1, 4, 7, 10 and 13");
    assert_eq!((few.next, few.lag), (rig.cursor(14), 7), "no more was claimed than was looked at");
    few.receipt.handed_over();
    let native = |read| ReadRequest { markers: true, ..read };
    let rest = [all(1, 14..20), vec!["reset".into()]].concat();
    assert_eq!(rig.take(native(wants(&["T1"], by("a", 5)))).await, rest);
    assert_eq!(rig.take(wants(&["none"], by("b", 5))).await, numbers(0..0));
    assert_eq!(rig.take(by("b", 5)).await, numbers(0..0), "what is not wanted counts as read");
    assert!(rig.metric(r#"events_delivered_total{app="app",stream="user_events",subscription="a"} 7"#));
    let after = |limit, at| ReadRequest { place: ReadFrom::After(rig.cursor(at)), ..by("x", limit) };
    assert_eq!(rig.take(wants(&["T0", "T2"], after(2, 8))).await, [event(8), event(9)]);
}
