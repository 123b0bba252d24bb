//! Work that several ask for, that goes on without them, or whose result is given again.

use super::*;
use crate::kernel::testing::pass;

#[tokio::test(start_paused = true)]
async fn identical_requests_in_flight_share_one_vendor_request() {
    let world = World::new(5);
    let (a2, same) = (AppId::parse("a2").unwrap(), present(20));
    let other_words = same.replace("\"s\"", "\"\\u0073\"").replace("1400000000", "\"2014-05-13T16:53:20Z\"");
    let asked = ["c", "d", "c"].map(|client| terms(client, 30));
    let mut answers = join_all([
        world.query(&same, asked[0].clone()),
        world.query(&other_words, asked[1].clone()),
        world.query(&same, asked[2].clone()),
    ])
    .await;
    assert_eq!(world.vendor.seen("history_create").len(), 1);
    // Each is told of all of it, and that it is not told alone.
    assert_eq!(asked.each_ref().map(told), [Some((2, true)); 3]);
    // Each client has a handle of its own; the messages are one copy.
    let third = location(&answers.pop().unwrap().unwrap());
    let [first, second] = [0, 1].map(|n| location(answers[n].as_ref().unwrap()));
    assert_eq!((first == third, first == second), (true, false));
    assert!(matches!(world.fetch(&second, "c").await, Err(Error::NoSuchHandle)));
    let chunks: Vec<_> = answers.iter().map(|answer| answer.as_ref().unwrap().members[2].as_ptr()).collect();
    assert_eq!(chunks[0], chunks[1]);

    let fresh = |client| Terms { max_age: Some(Duration::ZERO), ..terms(client, 30) };
    tokio::join!(
        async { world.query(&same, terms("c", 30)).await.unwrap() },
        async { world.query(&same, fresh("c")).await.unwrap() },
        async { world.history.query(&a2, same.as_bytes(), terms("c", 30)).await.unwrap() },
        async { world.query(present(21), terms("c", 30)).await.unwrap() },
    );
    assert_eq!(world.vendor.seen("history_create").len(), 5);
    let outcomes = ["miss", "joined", "bypass", "hit"]
        .map(|o| world.metric(&format!(r#"rtm_gateway_cache_requests_total{{cache="history",outcome="{o}"}}"#)));
    assert_eq!(outcomes, ["4", "2", "1", "0"].map(|n| Some(n.to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_leaves_a_handle_and_the_work_goes_on() {
    for (endpoint, act) in [
        ("history_get", Act::InProgress),
        ("history_get", Act::Hangs),
        ("history_create", Act::Hangs),
        ("history_create", Act::NoSeatInTime),
    ] {
        let world = World::new(5);
        world.vendor.script(endpoint, [act.clone()]);
        let began = Instant::now();
        let error = world.query(present(20), terms("c", 1)).await.unwrap_err();
        let Error::StillRunning { location: Some(location) } = error else { panic!("{act:?}: {error:?}") };
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        let answer = world.fetch(&location, "c").await.unwrap();
        assert_eq!((answer.state, &*text(&answer)), (AnswerState::InProgress, r#""code":"in progress""#));
        assert!(matches!(world.fetch(&location, "d").await, Err(Error::NoSuchHandle)));
        pass(Duration::from_secs(5)).await;
        let answer = world.fetch(&location, "c").await.unwrap();
        assert_eq!(text(&answer), format!(r#""code":"ok","messages":{}"#, world.vendor.list(0, 5)), "{act:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_does_not_wait_gets_a_handle_at_once() {
    let world = World::new(5);
    let began = Instant::now();
    let async_terms = Terms { respond_async: true, ..terms("c", 0) };
    let answer = world.query(present(20), async_terms.clone()).await.unwrap();
    assert_eq!((answer.state, began.elapsed()), (AnswerState::Accepted, Duration::ZERO));
    let value = value(&answer);
    assert_eq!((&value["code"], &value["limit"]), (&json!("in progress"), &json!(20)));
    pass(Duration::from_secs(1)).await;
    assert_eq!(world.fetch(&location(&answer), "c").await.unwrap().state, AnswerState::Done);

    // What ends in an error is told to the one who fetches it.
    world.vendor.script("history_create", [Act::Says(400, "{}")]);
    let answer = world.query(present(20), async_terms).await.unwrap();
    pass(Duration::from_secs(1)).await;
    assert!(matches!(world.fetch(&location(&answer), "c").await, Err(Error::Refused(_))));
}

#[tokio::test(start_paused = true)]
async fn work_that_nobody_waits_for_any_more_is_dropped_where_nothing_is_owed() {
    let world = World::new(5);
    joining::keeps_going_for(&world, Duration::ZERO);
    world.vendor.script("history_get", [Act::InProgress]);
    let (one, other) = (world.query(present(20), terms("c", 30)), world.query(present(20), terms("d", 30)));
    let left = tokio::time::timeout(Duration::from_millis(500), async {
        tokio::join!(one, async {
            // This one leaves first: the work goes on for the other.
            drop(tokio::time::timeout(Duration::from_millis(150), other).await);
        })
    });
    assert!(left.await.is_err());
    pass(Duration::from_secs(60)).await;
    assert_eq!((world.vendor.seen("history_create").len(), world.vendor.seen("history_get").len()), (1, 1));
    // A count has no handle: it ends with its callers' deadlines.
    world.vendor.script("history_count", (0..100).map(|_| Act::InProgress));
    let count = world.count("source=s&start_time=1&end_time=2", terms("c", 3)).await;
    assert!(matches!(count, Err(Error::StillRunning { location: None })));
    pass(Duration::from_secs(60)).await;
    assert_eq!(world.vendor.seen("history_count").len(), 2);
    assert!(world.query(present(20), terms("c", 30)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_result_is_given_again_only_if_its_window_is_past_and_for_a_minute() {
    let world = World::new(5);
    let fetched = || world.vendor.seen("history_get").len();
    let past = body(20, NOW - 31);
    let first = world.query(&past, terms("c", 30)).await.unwrap();
    let asked = terms("d", 30);
    let again = world.query(&past, asked.clone()).await.unwrap();
    assert_eq!((fetched(), told(&asked)), (1, None), "what was kept costs nothing");
    assert_eq!(first.members[2], again.members[2]);
    assert_eq!(world.fetch(&location(&again), "d").await.unwrap().state, AnswerState::Done);
    world.query(&past, Terms { max_age: Some(Duration::ZERO), ..terms("c", 30) }).await.unwrap();
    assert_eq!(fetched(), 2);
    pass(Duration::from_secs(59)).await;
    world.query(&past, terms("c", 30)).await.unwrap();
    assert_eq!(fetched(), 2);
    pass(Duration::from_secs(2)).await;
    world.query(&past, terms("c", 30)).await.unwrap();
    assert_eq!(fetched(), 3);
    for end in [NOW - 1, NOW + 100] {
        world.query(body(20, end + 60), terms("c", 30)).await.unwrap();
        world.query(body(20, end + 60), terms("c", 30)).await.unwrap();
    }
    assert_eq!(fetched(), 7);

    let count = format!("source=s&start_time=1&end_time={}", NOW - 1000);
    for _ in 0..3 {
        world.count(&count, terms("c", 30)).await.unwrap();
    }
    assert_eq!(world.vendor.seen("history_count").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_for_too_much_is_refused_and_leaves_room_for_others() {
    let world = World::new(5);
    let bodies: Vec<_> = (0..1100).map(|n| present(20 + n)).collect();
    let flood = join_all(bodies.iter().map(|body| world.query(body, terms("c", 30))));
    let fresh = || Terms { max_age: Some(Duration::ZERO), ..terms("d", 30) };
    let (flood, others) = tokio::join!(flood, async {
        // A few milliseconds of paused time: the flood has come by then, and the vendor has answered nothing.
        pass(Duration::from_millis(10)).await;
        join_all(bodies.iter().take(50).map(|body| world.query(body, fresh()))).await
    });
    let refused = |answers: &[Result<Answer, Error>]| {
        answers.iter().filter(|answer| matches!(answer, Err(Error::Crowded))).count()
    };
    // 921 of 1024: nine times what is then left.
    assert_eq!((refused(&flood), refused(&others)), (1100 - 921, 0));
    assert!(world.query(present(20), terms("c", 30)).await.is_ok(), "what has ended makes room");
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_callers_but_not_for_promises() {
    let world = World::new(5);
    world.vendor.script("history_get", (0..100).map(|_| Act::InProgress));
    world.query(present(20), Terms { respond_async: true, ..terms("c", 0) }).await.unwrap();
    let began = Instant::now();
    let (stopped, waited) =
        tokio::join!(world.tasks.finish(Duration::from_secs(60)), world.query(present(21), terms("c", 10)));
    assert_eq!(stopped, 0);
    assert!(matches!(waited, Err(Error::StillRunning { .. })), "{waited:?}");
    assert_eq!(began.elapsed(), Duration::from_secs(10));
}
