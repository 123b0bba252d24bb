//! Who uses a bucket's seats, and who merely waits for them.

use super::*;
use crate::kernel::metrics::Metrics;
use crate::kernel::names::{AppId, BucketName};

const APP: &str = "an-app";

/// What a client has used, has, and waits for.
fn of(bucket: &Bucket, client: &str) -> Option<(u64, u64, u32, u32)> {
    let found = bucket.clients().into_iter().find(|one| one.client == client)?;
    Some((found.seats, found.seats_last_minute, found.in_flight, found.waiting))
}

fn waited(bucket: &Bucket, client: &str) -> f64 {
    bucket.clients().into_iter().find(|one| one.client == client).unwrap().waited_seconds
}

fn show(bucket: &Bucket, metrics: &Metrics) {
    let app = AppId::parse(APP).unwrap();
    bucket.show_as(BucketLabel { metrics: metrics.clone(), app, bucket: BucketName::Messages });
}

fn metric(metrics: &Metrics, family: &str, client: &str) -> Option<f64> {
    let series = format!(r#"rtm_gateway_{family}{{app="{APP}",bucket="messages",client="{client}"}} "#);
    metrics.text().lines().find_map(|line| line.strip_prefix(&series)?.parse().ok())
}

#[tokio::test(start_paused = true)]
async fn who_uses_seats_and_who_merely_waits_are_told_apart_while_it_lasts() {
    let (bucket, metrics) = (bucket(2, Begin::Full), Metrics::new());
    show(&bucket, &metrics);
    assert_eq!((bucket.clients(), metric(&metrics, "client_seats_total", "eater")), (vec![], None));
    for _ in 0..2 {
        use_up(bucket.seat(&payer("eater", 1), within(LONG)).await.unwrap());
    }
    let mut held = bucket.seat(&payer("eater", 1), within(LONG)).await.unwrap();
    held.sending();
    let last = bucket.seat(&payer("eater", 1), within(LONG)).await.unwrap();
    // All seats are the eater's; the waiter gets none for as long as that lasts.
    let waiter = payer("waiter", 1);
    let waiting = bucket.seat(&waiter, within(LONG));
    tokio::pin!(waiting);
    assert!((&mut waiting).now_or_never().is_none());
    pass(W * 30).await;
    assert_eq!((of(&bucket, "eater"), of(&bucket, "waiter")), (Some((2, 2, 2, 0)), Some((0, 0, 0, 1))));
    assert_eq!(bucket.clients()[0].client, "eater");
    assert!((waited(&bucket, "waiter") - 30.0).abs() < 0.01, "{}", waited(&bucket, "waiter"));
    bucket.refresh_clients();
    let shown = ["client_seats_total", "client_seat_wait_seconds_total", "client_seats_waiting"]
        .map(|family| ["eater", "waiter"].map(|client| metric(&metrics, family, client).unwrap().round()));
    // The eater has waited for one window.
    assert_eq!(shown, [[2.0, 0.0], [1.0, 30.0], [0.0, 1.0]]);

    // What was not sent with is nobody's use, and goes to who waits.
    drop(last);
    drop(waiting.await.unwrap());
    drop(held);
    assert_eq!((of(&bucket, "eater"), of(&bucket, "waiter")), (Some((3, 3, 0, 0)), Some((0, 0, 0, 0))));
    pass(Duration::from_secs(60)).await;
    assert_eq!(of(&bucket, "eater"), Some((3, 0, 0, 0)), "a minute later");
    assert!((waited(&bucket, "waiter") - 30.0).abs() < 0.01, "it waits no longer");
}

#[tokio::test(start_paused = true)]
async fn who_used_most_in_the_last_minute_comes_first() {
    let bucket = bucket(100, Begin::Full);
    for (client, seats, then) in [("before", 20, 31), ("now", 3, 31), ("idle", 0, 0)] {
        for _ in 0..seats {
            use_up(bucket.seat(&payer(client, 1), within(LONG)).await.unwrap());
        }
        drop(bucket.seat(&payer(client, 1), within(LONG)).await.unwrap());
        pass(Duration::from_secs(then)).await;
    }
    let order: Vec<_> = bucket.clients().into_iter().map(|one| (one.client, one.seats_last_minute)).collect();
    assert_eq!(order, [("now".to_owned(), 3), ("before".to_owned(), 0), ("idle".to_owned(), 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_seat_that_several_wait_for_is_counted_once_for_whose_line_gave_it() {
    let (bucket, _, tasks) = contended(20).await;
    let sharers = watch::Sender::new(vec![sharer("a"), sharer("b")]);
    let first = payer("a", 1);
    let seat = seat_of_any(&bucket, &first, sharers.subscribe(), within(LONG));
    tokio::pin!(seat);
    assert!((&mut seat).now_or_never().is_none());
    assert_eq!(of(&bucket, "b"), Some((0, 0, 0, 1)), "it stands in the line of each");
    assert_eq!(of(&bucket, "a").unwrap().3, 21);
    use_up(seat.await.unwrap());
    assert_eq!(of(&bucket, "b"), Some((1, 1, 0, 0)));
    tasks.join_all().await;
    let sum: u64 = bucket.clients().iter().map(|one| one.seats).sum();
    assert_eq!((sum, of(&bucket, "b")), (22, Some((1, 1, 0, 0))), "twenty of theirs, the first, and the shared one");
}

#[tokio::test(start_paused = true)]
async fn the_series_go_on_when_a_bucket_takes_over_or_has_another_name() {
    let (old, metrics) = (bucket(2, Begin::Full), Metrics::new());
    show(&old, &metrics);
    use_up(seat(&old, LONG).await.unwrap());
    let mut under_way = seat(&old, LONG).await.unwrap();
    under_way.sending();
    let new = bucket(2, Begin::Empty);
    show(&new, &metrics);
    old.retire(std::slice::from_ref(&new));
    under_way.answered();
    use_up(seat(&new, LONG).await.unwrap());
    assert_eq!((of(&new, "a"), metric(&metrics, "client_seats_total", "a")), (Some((3, 1, 0, 0)), Some(3.0)));

    // Another name: what is used from now on is counted there, and so is who waits.
    exhaust(&new).await;
    let client = payer("a", 1);
    let waiting = new.seat(&client, within(LONG));
    tokio::pin!(waiting);
    assert!((&mut waiting).now_or_never().is_none());
    assert_eq!(metric(&metrics, "client_seats_waiting", "a"), Some(1.0));
    let app = AppId::parse(APP).unwrap();
    new.show_as(BucketLabel { metrics: metrics.clone(), app, bucket: BucketName::HistoryGet });
    assert_eq!(metric(&metrics, "client_seats_waiting", "a"), Some(0.0));
    assert!(metrics.text().contains(r#"client_seats_waiting{app="an-app",bucket="history_get",client="a"} 1"#));
    use_up(waiting.await.unwrap());
    assert_eq!(of(&new, "a").unwrap().0, 1);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_bound_clients_are_counted_together() {
    let (bucket, metrics) = (bucket(20_000, Begin::Full), Metrics::new());
    show(&bucket, &metrics);
    for number in 0..10_003 {
        use_up(bucket.seat(&payer(&format!("c{number}"), 1), within(LONG)).await.unwrap());
    }
    use_up(bucket.seat(&payer("c7", 1), within(LONG)).await.unwrap());
    use_up(bucket.seat(&payer("c10001", 1), within(LONG)).await.unwrap());
    let clients = bucket.clients();
    assert_eq!((clients.len(), &*clients[0].client, clients[0].seats), (10_001, "other", 4));
    // Whoever has that very name is shown with them, not beside them with the same numbers.
    use_up(bucket.seat(&payer("other", 1), within(LONG)).await.unwrap());
    assert_eq!((bucket.clients().len(), of(&bucket, "other")), (10_001, Some((5, 5, 0, 0))));
    assert_eq!(of(&bucket, "c7"), Some((2, 2, 0, 0)));
    let series = |family: &str| metrics.text().lines().filter(|line| line.starts_with(family)).count();
    assert_eq!(series("rtm_gateway_client_seats_total{"), 10_001);
}
