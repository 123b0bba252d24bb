//! Who is given whose work: nobody what was so before it asked, but who comes back what it had asked for.

use super::*;
use crate::kernel::testing::pass;

/// Waits so many milliseconds for an answer, then leaves.
async fn patient<T>(ms: u64, asking: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::from_millis(ms), asking).await.ok()
}

fn creations(world: &World) -> usize {
    world.vendor.seen("history_create").len()
}

pub(super) fn keeps_going_for(world: &World, time: Duration) {
    let mut app = app("a1");
    app.history.keep_going = time;
    world.history.apply(&[app], Vendor::AnyRtc);
}

/// A count of what may still grow.
const GROWS: &str = "source=s&start_time=1&end_time=1700000000";

#[tokio::test(start_paused = true)]
async fn a_question_is_not_answered_by_what_was_read_before_it() {
    for (window, asked) in [(present(20), 2), (body(20, NOW - 100), 1)] {
        let world = World::new(5);
        let (one, other) = tokio::join!(world.query(&window, terms("c", 30)), async {
            pass(Duration::from_millis(50)).await;
            world.query(&window, terms("d", 30)).await
        });
        assert!(one.is_ok() && other.is_ok());
        assert_eq!(creations(&world), asked);
    }
    let world = World::new(5);
    let (one, other) = tokio::join!(world.count(GROWS, terms("c", 30)), async {
        pass(Duration::from_millis(50)).await;
        world.count(GROWS, terms("c", 30)).await
    });
    assert!(one.is_ok() && other.is_ok());
    assert_eq!(world.vendor.seen("history_count").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn work_that_began_before_its_window_was_past_is_not_given_to_who_asks_after() {
    let world = World::new(5);
    let window = body(20, NOW - 25);
    world.vendor.script("history_get", (0..10).map(|_| Act::InProgress));
    let (one, other) = tokio::join!(world.query(&window, terms("c", 30)), async {
        pass(Duration::from_secs(10)).await;
        world.query(&window, terms("d", 30)).await
    });
    assert!(one.is_ok() && other.is_ok());
    assert_eq!(creations(&world), 2);
}

#[tokio::test(start_paused = true)]
async fn work_that_has_asked_nothing_yet_is_joined() {
    let world = World::new(5);
    world.vendor.script("history_create", [Act::NoSeatInTime]);
    let (one, other) = tokio::join!(world.query(present(20), terms("c", 5)), async {
        pass(Duration::from_secs(1)).await;
        world.query(present(20), terms("d", 30)).await
    });
    assert!(one.is_err() && other.is_ok());
    assert_eq!(value(&other.unwrap())["as_of"], Value::Null);
    let clients: Vec<_> = world.vendor.orders().iter().map(|order| order.payer.client.clone()).collect();
    assert!(clients.iter().all(|client| client.as_str() == "c"), "{clients:?}");
}

#[tokio::test(start_paused = true)]
async fn who_has_less_patience_than_the_vendor_needs_comes_to_its_answer() {
    let world = World::new(5);
    world.vendor.script("history_get", (0..6).map(|_| Act::InProgress));
    for _ in 0..2 {
        assert!(patient(5000, world.query(present(20), terms("c", 30))).await.is_none());
    }
    // Another is not given it.
    assert!(patient(100, world.query(present(20), terms("d", 30))).await.is_none());
    assert_eq!(creations(&world), 2);
    let answer = patient(5000, world.query(present(20), terms("c", 30))).await.unwrap().unwrap();
    assert_eq!(value(&answer)["as_of"], "2020-09-13T12:26:40.000Z");
    assert_eq!(text(&answer).matches("\"ms\"").count(), 5);
    assert_eq!(creations(&world), 2);
    // It was given; the next question is a new one.
    let answer = world.query(present(20), terms("c", 30)).await.unwrap();
    assert_eq!((value(&answer)["as_of"].clone(), creations(&world)), (Value::Null, 3));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_came_after_its_asker_had_left_is_kept_for_it_and_given_once() {
    let world = World::new(5);
    world.vendor.script("history_count", [Act::InProgress]);
    assert!(patient(500, world.count(GROWS, terms("c", 30))).await.is_none());
    pass(Duration::from_secs(200)).await;
    assert_eq!(value(&world.count(GROWS, terms("d", 30)).await.unwrap())["as_of"], Value::Null);
    let answer = value(&world.count(GROWS, terms("c", 30)).await.unwrap());
    assert_eq!((answer["count"].clone(), answer["as_of"].clone()), (json!(5), json!("2020-09-13T12:26:40.000Z")));
    assert_eq!(world.vendor.seen("history_count").len(), 3);
    assert_eq!(value(&world.count(GROWS, terms("c", 30)).await.unwrap())["as_of"], Value::Null);
    // Nobody came back: it is forgotten.
    assert!(patient(50, world.count(GROWS, terms("e", 30))).await.is_none());
    pass(Duration::from_secs(400)).await;
    assert_eq!(value(&world.count(GROWS, terms("e", 30)).await.unwrap())["as_of"], Value::Null);
    assert!(world.history.0.results.is_empty());
}

#[tokio::test(start_paused = true)]
async fn work_goes_on_for_those_who_left_as_long_as_configured() {
    for (keep_going, asked) in [(0, 1), (20, 11)] {
        let world = World::new(5);
        keeps_going_for(&world, Duration::from_secs(keep_going));
        world.vendor.script("history_get", (0..100).map(|_| Act::InProgress));
        assert!(patient(500, world.query(present(20), terms("c", 30))).await.is_none());
        pass(Duration::from_secs(100)).await;
        let fetched = world.vendor.seen("history_get").len();
        assert!(fetched.abs_diff(asked) <= 1, "{keep_going}: {fetched}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_asked_anew_and_so_is_what_is_to_be_fresh() {
    let world = World::new(5);
    world.vendor.script("history_get", [Act::InProgress]);
    world.vendor.script(
        "history_create",
        [Act::Says(200, r#"{"result":"success","location":"~/rtm/message/history/query/x"}"#), Act::Says(400, "no")],
    );
    world.vendor.script("history_get", (0..9).map(|_| Act::Spoilt("")));
    assert!(patient(500, world.query(present(20), terms("c", 30))).await.is_none());
    pass(Duration::from_secs(60)).await;
    world.vendor.heal("history_get");
    let answer = value(&world.query(present(20), terms("c", 30)).await.unwrap());
    assert_eq!(answer["as_of"], Value::Null);
    world.vendor.script("history_get", [Act::InProgress]);
    assert!(patient(500, world.query(present(20), terms("c", 30))).await.is_none());
    let before = creations(&world);
    let fresh = Terms { max_age: Some(Duration::ZERO), ..terms("c", 30) };
    assert_eq!(value(&world.query(present(20), fresh).await.unwrap())["as_of"], Value::Null);
    assert_eq!(creations(&world), before + 1);
}

#[tokio::test(start_paused = true)]
async fn work_that_goes_on_for_those_who_left_is_bounded_and_a_client_s_oldest_goes_first() {
    let world = World::new(5);
    world.vendor.script("history_get", (0..100_000).map(|_| Act::InProgress));
    for limit in 1..=300 {
        assert!(patient(1, world.query(present(limit), terms("greedy", 30))).await.is_none());
    }
    assert!(patient(1, world.query(present(1), terms("other", 30))).await.is_none());
    pass(Duration::from_secs(1)).await;
    let before = creations(&world);
    // Of 128 there are nine times as many as it leaves free.
    let running = |client: &'static str, limit| patient(1, world.query(present(limit), terms(client, 30)));
    for limit in [300, 250, 200] {
        assert!(running("greedy", limit).await.is_none());
    }
    assert!(running("other", 1).await.is_none());
    assert_eq!(creations(&world), before);
    assert!(running("greedy", 100).await.is_none());
    pass(Duration::from_secs(1)).await;
    assert_eq!(creations(&world), before + 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_what_only_those_who_left_are_owed() {
    let world = World::new(5);
    world.vendor.script("history_get", (0..100).map(|_| Act::InProgress));
    assert!(patient(500, world.query(present(20), terms("c", 30))).await.is_none());
    let began = Instant::now();
    assert_eq!(world.tasks.finish(Duration::from_secs(60)).await, 0);
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn after_in_progress_nobody_asks_for_the_same_count_within_two_seconds() {
    let world = World::new(5);
    world.vendor.script("history_count", (0..3).map(|_| Act::InProgress));
    join_all((0..9).map(|n| {
        let world = &world;
        async move {
            pass(Duration::from_millis(150 * n)).await;
            world.count(GROWS, terms(&format!("c{n}"), 30)).await.unwrap()
        }
    }))
    .await;
    // The first is told so after 100 ms, and all others wait.
    let seen = world.vendor.seen("history_count");
    assert!(seen[1..].iter().all(|at| *at >= Duration::from_millis(2100)), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn who_would_have_it_later_waits_as_long_as_it_says() {
    for (patience, state) in [(1, AnswerState::Accepted), (5, AnswerState::Done)] {
        let world = World::new(5);
        world.vendor.script("history_get", [Act::InProgress]);
        let began = Instant::now();
        let later = Terms { respond_async: true, ..terms("c", patience) };
        let answer = world.query(present(20), later).await.unwrap();
        assert_eq!(answer.state, state);
        assert_eq!(began.elapsed().as_secs(), patience.min(2));
        pass(Duration::from_secs(5)).await;
        assert_eq!(world.fetch(&location(&answer), "c").await.unwrap().state, AnswerState::Done);
    }
}

#[tokio::test(start_paused = true)]
async fn a_kept_result_is_given_to_who_takes_one_so_old() {
    let world = World::new(5);
    let past = body(20, NOW - 100);
    let taking = async |max_age: Option<u64>| {
        let terms = Terms { max_age: max_age.map(Duration::from_secs), ..terms("c", 30) };
        world.query(&past, terms).await.unwrap();
        creations(&world)
    };
    assert_eq!(taking(Some(10)).await, 1);
    pass(Duration::from_secs(20)).await;
    assert_eq!(
        [taking(None).await, taking(Some(20)).await, taking(Some(19)).await, taking(Some(0)).await],
        [1, 1, 2, 3]
    );
}

#[tokio::test(start_paused = true)]
async fn counts_that_no_seat_came_for_are_told_so_and_those_that_were_sent_too() {
    let world = World::new(5);
    world.vendor.script("history_count", [Act::NoSeatInTime]);
    let error = world.count(GROWS, terms("c", 10)).await.unwrap_err();
    assert!(matches!(error, Error::Egress(Failure::QuotaSpent { .. })), "{error:?}");
    let world = World::new(5);
    world.vendor.script("history_count", [Act::InProgress, Act::InProgress, Act::NoSeatInTime]);
    let error = world.count(GROWS, terms("c", 3)).await.unwrap_err();
    assert!(matches!(error, Error::StillRunning { location: None }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_client_is_owed_is_not_given_to_one_that_wants_a_younger_answer() {
    // It has come meanwhile, or is still awaited.
    for (in_progress, awaited) in [(1, 50), (100, 10)] {
        for (max_age, is_taken) in
            [(None, true), (Some(awaited + 1), true), (Some(awaited - 1), false), (Some(0), false)]
        {
            let world = World::new(5);
            world.vendor.script("history_get", (0..in_progress).map(|_| Act::InProgress));
            assert!(patient(500, world.query(present(20), terms("c", 30))).await.is_none());
            pass(Duration::from_secs(awaited)).await;
            world.vendor.heal("history_get");
            let asked = Terms { max_age: max_age.map(Duration::from_secs), ..terms("c", 30) };
            let answer = world.query(present(20), asked).await.unwrap();
            assert_eq!(value(&answer)["as_of"] != Value::Null, is_taken, "{max_age:?}");
            // What it has seen since is not taken back.
            let answer = world.query(present(20), terms("c", 30)).await.unwrap();
            assert_eq!(
                (value(&answer)["as_of"].clone(), creations(&world)),
                (Value::Null, if is_taken { 2 } else { 3 })
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_gets_by_a_handle_what_it_was_owed_is_told_as_of_when_it_is() {
    let world = World::new(5);
    let window = body(20, NOW - 100);
    world.vendor.script("history_get", (0..2).map(|_| Act::InProgress));
    assert!(patient(500, world.query(&window, terms("c", 30))).await.is_none());
    pass(Duration::from_secs(1)).await;
    let later = |client| Terms { respond_async: true, ..terms(client, 0) };
    let owed = world.query(&window, later("c")).await.unwrap();
    let shared = world.query(&window, later("d")).await.unwrap();
    pass(Duration::from_secs(10)).await;
    assert_eq!(creations(&world), 1);
    let as_of = json!("2020-09-13T12:26:40.000Z");
    for (answer, client, said) in [(owed, "c", as_of), (shared, "d", Value::Null)] {
        assert_eq!((answer.state, value(&answer)["as_of"].clone()), (AnswerState::Accepted, said.clone()));
        let fetched = value(&world.fetch(&location(&answer), client).await.unwrap());
        assert_eq!((fetched["as_of"].clone(), fetched["messages"].as_array().map(Vec::len)), (said, Some(5)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_count_that_waits_for_a_seat_does_not_go_out_just_after_another_was_told_that_it_is_in_progress() {
    let world = World::new(5);
    // The second waits for its seat from before the first is answered until after that.
    world.vendor.script("history_count", [Act::InProgress, Act::SeatAfter(1000)]);
    let counts = [0, 50].map(|ms| {
        let (world, client) = (&world, format!("c{ms}"));
        async move {
            pass(Duration::from_millis(ms)).await;
            world.count(GROWS, terms(&client, 30)).await.unwrap()
        }
    });
    join_all(counts).await;
    let seen = world.vendor.seen("history_count");
    assert!(seen[1..].iter().all(|at| *at >= Duration::from_millis(2100)), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_asks_while_an_answer_may_come_that_nobody_waits_for() {
    let world = World::new(5);
    keeps_going_for(&world, Duration::ZERO);
    world.vendor.script("history_count", [Act::InProgress]);
    assert!(patient(50, world.count(GROWS, terms("c", 30))).await.is_none());
    assert!(world.count(GROWS, terms("d", 30)).await.is_ok());
    let seen = world.vendor.seen("history_count");
    assert_eq!((seen.len(), seen[1] >= Duration::from_millis(2050)), (2, true), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_has_ended_is_found_until_it_is_kept() {
    let jobs = Jobs::new(Clock::anchored(SystemTime::UNIX_EPOCH));
    let (end, Terms { payer, proof, deadline, .. }) = (Instant::now() + Duration::from_secs(60), terms("c", 30));
    let query = query::parse_body(present(20).as_bytes(), 20).unwrap();
    let key = JobKey { app: a1(), question: Question::Messages(query) };
    let keep_going = Duration::ZERO;
    let (payer, proof) = (&payer, &proof);
    let request = JobRequest { payer, proof, max_age: None, deadline, is_past: false, end, keep_going };
    let JobLookup::Began(caller, runner) = jobs.enter(key, &request).unwrap() else { panic!("it is the first") };
    let number = caller.job.number;
    runner.publish(Instant::now(), Err(Error::Crowded));
    assert!(caller.wait(deadline).await.is_some());
    drop(caller);
    assert!(jobs.find(number).is_some());
    drop(runner);
    assert!(jobs.find(number).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_page_that_went_out_in_time_is_not_asked_for_again_because_its_caller_left_with_a_promise() {
    // Made, or read, as the caller's time ends; the vendor needs two seconds.
    for (slow, latency) in [("history_create", 2000), ("history_get", 2000)] {
        let world = World::new(5);
        world.vendor.script(slow, [Act::Takes(latency)]);
        let error = world.query(&body(20, NOW - 100), terms("c", 1)).await.unwrap_err();
        let Error::StillRunning { location: Some(location) } = error else { panic!("{slow}: {error:?}") };
        pass(Duration::from_secs(5)).await;
        let fetched = value(&world.fetch(&location, "c").await.unwrap());
        assert_eq!(fetched["messages"].as_array().map(Vec::len), Some(5));
        assert_eq!((creations(&world), world.vendor.seen("history_get").len()), (1, 1), "{slow}");
    }
}
