//! A vendor that fails, is slow, or has no seats left, and what of that the caller is told.

use super::*;
use crate::kernel::testing::pass;

#[tokio::test(start_paused = true)]
async fn after_in_progress_the_vendor_is_left_alone_for_two_seconds() {
    let world = World::new(5);
    world.vendor.script("history_get", [Act::InProgress, Act::InProgress]);
    world.vendor.script("history_count", [Act::InProgress]);
    let began = Instant::now();
    let count = "&source=\"s\"&start_time=1&end_time=2";
    let (answer, count) = tokio::join!(world.query(present(20), terms("c", 30)), world.count(count, terms("c", 30)));
    assert_eq!(value(&answer.unwrap())["messages"].as_array().unwrap().len(), 5);
    assert_eq!(text(&count.unwrap()), r#""code":"ok","count":5"#);
    assert_eq!(began.elapsed(), Duration::from_millis(4400));
    for endpoint in ["history_get", "history_count"] {
        let seen = world.vendor.seen(endpoint);
        assert!(seen.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_secs(2)), "{endpoint}: {seen:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_query_whose_handle_died_is_made_anew() {
    let deaths = [
        Act::Says(410, "gone"),
        Act::Says(404, "<html>"),
        Act::Says(200, r#"{"code":"resource not exist"}"#),
        Act::Says(400, r#"{"code":"resource not exist"}"#),
        Act::Spoilt(r#"{"code":"ok","messages":[{"#),
        Act::Spoilt("busy"),
        Act::Lost,
    ];
    for (n, act) in deaths.into_iter().enumerate() {
        let world = World::new(5);
        world.vendor.script("history_get", [Act::InProgress, act.clone()]);
        let answer = world.query(present(20), terms("c", 30)).await;
        assert_eq!(value(&answer.unwrap())["messages"].as_array().unwrap().len(), 5, "{n} {act:?}");
        assert_eq!(world.vendor.seen("history_create").len(), 2, "{act:?}");
        assert_eq!(world.metric(r#"rtm_gateway_history_recreated_total{app="a1"}"#).as_deref(), Some("1"));
    }
    let world = World::new(5);
    world.vendor.script("history_get", (0..100).map(|_| Act::Lost));
    assert!(matches!(world.query(present(20), terms("c", 30)).await, Err(Error::BadUpstream(_))));
    assert_eq!(world.vendor.seen("history_create").len(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_the_vendor_refuses_passes_through_and_what_it_garbles_does_not() {
    let refused = async |endpoint, act: Act, times| {
        let world = World::new(5);
        world.vendor.script(endpoint, (0..times).map(|_| act.clone()));
        let error = match endpoint {
            "history_count" => world.count("source=s&start_time=1&end_time=2", terms("c", 30)).await,
            _ => world.query(present(20), terms("c", 30)).await,
        };
        match error {
            Err(Error::Refused(reply)) => reply.status.as_u16(),
            Err(Error::BadUpstream(_) | Error::Failing { .. }) => 502,
            Err(Error::AppRefused) => 403,
            Ok(_) => 200,
            other => panic!("{other:?}"),
        }
    };
    let odd = Act::Says(200, "odd");
    for endpoint in ["history_create", "history_count"] {
        assert_eq!(refused(endpoint, Act::Says(400, "{}"), 1).await, 400);
        assert_eq!(refused(endpoint, Act::Says(408, ""), 1).await, 408);
        assert_eq!(refused(endpoint, Act::Says(403, ""), 1).await, 403);
        assert_eq!(refused(endpoint, Act::Says(435, ""), 1).await, 435);
        assert_eq!(refused(endpoint, Act::Says(503, ""), 3).await, 200);
        assert_eq!(refused(endpoint, Act::Says(503, ""), 4).await, 503);
        assert_eq!(refused(endpoint, Act::Says(500, ""), 3).await, 200);
        assert_eq!(refused(endpoint, Act::Says(500, ""), 4).await, 502);
        assert_eq!(refused(endpoint, odd.clone(), 3).await, 200);
        assert_eq!(refused(endpoint, odd.clone(), 4).await, 502);
    }
    assert_eq!(refused("history_get", Act::Says(400, "{}"), 1).await, 400);
    assert_eq!(refused("history_get", Act::Says(408, ""), 3).await, 200);
    assert_eq!(refused("history_get", Act::Says(408, ""), 4).await, 408);
    assert_eq!(refused("history_get", Act::Says(503, "{}"), 3).await, 200);
    assert_eq!(refused("history_get", Act::Says(503, "{}"), 4).await, 503);
}

/// Whether each order for an endpoint asked what had failed.
fn repeats(world: &World, endpoint: &str) -> Vec<bool> {
    let orders = world.vendor.orders().into_iter();
    orders.filter(|order| order.operation.endpoint().as_str() == endpoint).map(|order| order.is_repeat).collect()
}

#[tokio::test(start_paused = true)]
async fn what_asks_once_more_is_a_repeat_and_what_asks_after_in_progress_is_none() {
    let world = World::new(5);
    world.vendor.script("history_create", [Act::Says(500, "")]);
    world
        .vendor
        .script("history_get", [Act::InProgress, Act::Says(500, ""), Act::InProgress, Act::Lost, Act::InProgress]);
    world.vendor.script("history_count", [Act::Says(500, ""), Act::InProgress]);
    world.query(present(20), terms("c", 60)).await.unwrap();
    world.count("source=s&start_time=1&end_time=2", terms("c", 60)).await.unwrap();
    assert_eq!(repeats(&world, "history_create"), [false, true, true]);
    assert_eq!(repeats(&world, "history_get"), [false, false, true, false, false, false]);
    assert_eq!(repeats(&world, "history_count"), [false, true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_spent_retry_budget_lets_a_failure_stand_after_a_second() {
    for (endpoint, act) in [
        ("history_create", Act::Says(500, "")),
        ("history_create", Act::Spoilt("odd")),
        ("history_get", Act::Says(500, "")),
        ("history_get", Act::Lost),
        ("history_count", Act::Says(500, "")),
    ] {
        let world = World::new(5);
        let ask = async || match endpoint {
            "history_count" => world.count("source=s&start_time=1&end_time=2", terms("c", 30)).await,
            _ => world.query(present(20), terms("c", 30)).await,
        };
        world.vendor.script(endpoint, [act.clone()]);
        world.vendor.refuse_repeats(1000);
        let began = Instant::now();
        assert!(matches!(ask().await, Err(Error::Failing { .. } | Error::BadUpstream(_))), "{endpoint} {act:?}");
        assert_eq!(repeats(&world, endpoint), [false], "{act:?}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        // Soon there is something left again.
        world.vendor.script(endpoint, [act.clone()]);
        world.vendor.refuse_repeats(3);
        assert!(ask().await.is_ok(), "{endpoint} {act:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_success_is_asked_again_then_refused_and_never_kept() {
    const FAILED: [&str; 2] = [r#"{"result":"failed","code":"ok","count":0,"messages":[]}"#, r#"{"result":"failed"}"#];
    for failed in FAILED {
        for (endpoint, most) in [("history_create", 3), ("history_get", 4), ("history_count", 3)] {
            let world = World::new(5);
            // A past window, whose result is kept.
            let ask = async || match endpoint {
                "history_count" => world.count("source=s&start_time=1&end_time=2", terms("c", 30)).await,
                _ => world.query(body(20, 1_550_000_000), terms("c", 30)).await,
            };
            world.vendor.script(endpoint, (0..100).map(|_| Act::Spoilt(failed)));
            assert!(matches!(ask().await, Err(Error::BadUpstream(_))), "{endpoint} {failed}");
            assert_eq!(world.vendor.seen(endpoint).len(), most + 1);
            world.vendor.heal(endpoint);
            world.vendor.script(endpoint, (0..most).map(|_| Act::Spoilt(failed)));
            let answer = value(&ask().await.unwrap());
            assert!(answer["count"] == 5 || answer["messages"].as_array().unwrap().len() == 5, "{answer}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_vendor_that_never_gets_ready_is_given_up_at_last() {
    let world = World::new(5);
    world.vendor.script("history_get", (0..10_000).map(|_| Act::InProgress));
    let error = world.query(present(20), terms("c", 30)).await.unwrap_err();
    let Error::StillRunning { location: Some(location) } = error else { panic!("{error:?}") };
    pass(Duration::from_secs(400)).await;
    assert!(matches!(world.fetch(&location, "c").await, Err(Error::Egress(Failure::TimedOut { sent: true }))));
}

#[tokio::test(start_paused = true)]
async fn a_spent_quota_is_told_at_once_unless_one_who_can_wait_has_joined() {
    let world = World::new(5);
    world.vendor.script("history_create", [Act::NoSeat]);
    let error = world.query(present(20), terms("c", 30)).await.unwrap_err();
    assert!(matches!(error, Error::Egress(Failure::QuotaSpent { .. })), "{error:?}");
    world.vendor.script("history_create", [Act::NoSeat]);
    let (short, long) = tokio::join!(world.query(present(20), terms("c", 1)), async {
        pass(Duration::from_millis(50)).await;
        world.query(present(20), terms("d", 30)).await
    });
    assert!(short.is_ok() && long.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_count_that_does_not_wait_learns_of_a_spent_quota_and_of_nothing_else() {
    let world = World::new(5);
    let query = format!("source=a&start_time={}&end_time={NOW}", NOW - 100);
    world.vendor.script("history_count", [Act::NoSeat]);
    let error = world.count(&query, terms("c", 0)).await.unwrap_err();
    assert!(matches!(error, Error::Egress(Failure::QuotaSpent { .. })), "{error:?}");
    // That was its answer: it takes no seat afterwards.
    pass(Duration::from_secs(60)).await;
    assert_eq!(world.vendor.seen("history_count").len(), 1);
    world.vendor.script("history_count", [Act::InProgress]);
    let error = world.count(&query, terms("c", 0)).await.unwrap_err();
    assert!(matches!(error, Error::StillRunning { location: None }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_count_whose_answer_is_late_is_asked_for_again_after_the_pause_that_the_answer_may_ask_for() {
    let world = World::new(5);
    world.vendor.script("history_count", [Act::Hangs]);
    let query = "source=s&start_time=1&end_time=2";
    let patient = async {
        pass(Duration::from_secs(1)).await;
        world.count(query, terms("d", 30)).await
    };
    let (hasty, patient) = tokio::join!(world.count(query, terms("c", 3)), patient);
    assert!(hasty.is_err());
    assert_eq!(text(&patient.unwrap()), r#""code":"ok","count":5"#);
    let seen = world.vendor.seen("history_count");
    assert_eq!((seen.len(), seen[1] >= Duration::from_secs(5)), (2, true), "{seen:?}");
}
