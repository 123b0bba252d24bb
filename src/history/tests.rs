//! The service against a scripted vendor, in paused time.

mod joining;
mod left_alone;
mod scripted;
mod streaming;

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::sleep;

use self::scripted::{Act, Scripted};
use super::*;
use crate::config::{Credential, Quota};
use crate::names::{Action, ClientName};
use crate::proof::{Basis, By, Ended, Evidence, Life, Proofs, Verdict};
use crate::secret::SecretSource;

/// The wall clock when a test begins, in seconds; all messages are long before it.
const NOW: u64 = 1_600_000_000;

struct World {
    vendor: Arc<Scripted>,
    history: History,
    tasks: Tasks,
    metrics: Metrics,
}

fn app(id: &str) -> config::App {
    let secret = || SecretSource::Env("X".into());
    config::App {
        id: AppId::parse(id).unwrap(),
        regions: vec![],
        credential: Credential::Basic { api_key: secret(), api_secret: secret() },
        quota: Quota::default(),
        events: config::Events::default(),
        history: config::History::default(),
        webhooks: Vec::new(),
    }
}

impl World {
    fn new(messages: usize) -> Self {
        let vendor = Arc::new(Scripted::new(messages));
        let (tasks, metrics) = (Tasks::new(), Metrics::new());
        let clock = Clock::anchored(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW));
        let door: Arc<dyn Door> = Arc::clone(&vendor) as _;
        let history = History::through(door, tasks.clone(), clock, metrics.clone());
        history.apply(&[app("a1"), app("a2")], Vendor::AnyRtc);
        Self { vendor, history, tasks, metrics }
    }

    async fn query(&self, body: impl AsRef<str>, terms: Terms) -> Result<Answer, Error> {
        self.history.query(&a1(), body.as_ref().as_bytes(), terms).await
    }

    async fn count(&self, query: &str, terms: Terms) -> Result<Answer, Error> {
        let query: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        self.history.count(&a1(), &query, terms).await
    }

    async fn fetch(&self, location: &str, client: &str) -> Result<Answer, Error> {
        let handle = location.strip_prefix("~/rtm/message/history/query/").unwrap();
        self.history.fetch(&a1(), handle, Terms { ..terms(client, 30) }).await
    }

    fn metric(&self, line: &str) -> Option<String> {
        let text = self.metrics.text();
        text.lines().find_map(|l| l.strip_prefix(line)).map(|rest| rest.trim().to_owned())
    }
}

fn a1() -> AppId {
    AppId::parse("a1").unwrap()
}

fn terms(client: &str, seconds: u64) -> Terms {
    let payer = Payer { client: ClientName::parse(client).unwrap(), weight: 1 };
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let proof = Proof::unending(Clock::anchored(SystemTime::UNIX_EPOCH), payer.client.clone(), a1(), Action::History);
    Terms { payer, proof, deadline, max_age: None, respond_async: false }
}

fn body(limit: usize, end: u64) -> String {
    json!({"filter": {"source": "s", "start_time": 1_400_000_000, "end_time": end}, "limit": limit}).to_string()
}

/// A query whose result may not be given again, because its window has not ended.
fn present(limit: usize) -> String {
    body(limit, NOW + 60)
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.members.concat()).unwrap()
}

fn value(answer: &Answer) -> Value {
    serde_json::from_str(&format!("{{{}}}", text(answer))).unwrap()
}

fn location(answer: &Answer) -> String {
    value(answer)["location"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn one_request_gives_the_messages_as_the_vendor_wrote_them() {
    let world = World::new(30);
    let answer = world.query(present(20), terms("c", 30)).await.unwrap();
    let list = world.vendor.list(0, 20);
    let location = location(&answer);
    assert_eq!(
        text(&answer),
        format!(r#""code":"ok","offset":0,"limit":20,"order":"asc","location":"{location}","messages":{list}"#)
    );
    assert_eq!((answer.state, answer.costs.exchanges), (State::Done, 2));
    for order in world.vendor.orders() {
        assert_eq!(
            (order.app, order.payer.client.as_str(), order.headers["accept"].as_bytes()),
            (a1(), "c", &b"application/json"[..])
        );
    }

    // Two-step software fetches it, as often as it likes, until the handle expires; nobody else does.
    for _ in 0..3 {
        sleep(Duration::from_secs(99)).await;
        let answer = world.fetch(&location, "c").await.unwrap();
        assert_eq!(text(&answer), format!(r#""code":"ok","messages":{list}"#));
    }
    assert!(matches!(world.fetch(&location, "other").await, Err(Error::NoSuchHandle)));
    let elsewhere = world.history.fetch(&AppId::parse("a2").unwrap(), &location[28..], terms("c", 30)).await;
    assert!(matches!(elsewhere, Err(Error::NoSuchHandle)));
    assert!(matches!(world.fetch(&format!("{location}A"), "c").await, Err(Error::NoSuchHandle)));
    sleep(Duration::from_secs(4)).await;
    assert!(matches!(world.fetch(&location, "c").await, Err(Error::NoSuchHandle)));
    assert_eq!(world.vendor.orders().len(), 2);
    sleep(Duration::from_secs(600)).await;
    assert!(world.history.0.results.is_empty());
}

#[tokio::test(start_paused = true)]
async fn more_than_a_page_is_one_list() {
    let world = World::new(950);
    let answer = world.query(present(940), terms("c", 30)).await.unwrap();
    assert!(text(&answer).ends_with(&format!(r#""messages":{}"#, world.vendor.list(0, 940))));
    let answer = world.query(present(941), terms("c", 30)).await.unwrap();
    assert_eq!(value(&answer)["limit"], 941);
    let answer = world.query(present(5000), terms("c", 30)).await.unwrap();
    assert!(text(&answer).ends_with(&format!(r#""messages":{}"#, world.vendor.list(0, 950))));
}

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
async fn identical_requests_in_flight_share_one_vendor_request() {
    let world = World::new(5);
    let (a2, same) = (AppId::parse("a2").unwrap(), present(20));
    let other_words = same.replace("\"s\"", "\"\\u0073\"").replace("1400000000", "\"2014-05-13T16:53:20Z\"");
    let mut answers = join_all([
        world.query(&same, terms("c", 30)),
        world.query(&other_words, terms("d", 30)),
        world.query(&same, terms("c", 30)),
    ])
    .await;
    assert_eq!(world.vendor.seen("history_create").len(), 1);
    let costs: Vec<_> = answers.iter().map(|answer| answer.as_ref().unwrap().costs.exchanges).collect();
    assert_eq!(costs, [2, 0, 0]);
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
    assert_eq!(outcomes, ["4", "2", "1", ""].map(|n| Some(n.to_owned()).filter(|n| !n.is_empty())));
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
        assert_eq!((answer.state, &*text(&answer)), (State::InProgress, r#""code":"in progress""#));
        assert!(matches!(world.fetch(&location, "d").await, Err(Error::NoSuchHandle)));
        sleep(Duration::from_secs(5)).await;
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
    assert_eq!((answer.state, began.elapsed()), (State::Accepted, Duration::ZERO));
    let value = value(&answer);
    assert_eq!((&value["code"], &value["limit"]), (&json!("in progress"), &json!(20)));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.fetch(&location(&answer), "c").await.unwrap().state, State::Done);

    // What ends in an error is told to the one who fetches it.
    world.vendor.script("history_create", [Act::Says(400, "{}")]);
    let answer = world.query(present(20), async_terms).await.unwrap();
    sleep(Duration::from_secs(1)).await;
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
    sleep(Duration::from_secs(60)).await;
    assert_eq!((world.vendor.seen("history_create").len(), world.vendor.seen("history_get").len()), (1, 1));
    // A count has no handle: it ends with its callers' deadlines.
    world.vendor.script("history_count", (0..100).map(|_| Act::InProgress));
    let count = world.count("source=s&start_time=1&end_time=2", terms("c", 3)).await;
    assert!(matches!(count, Err(Error::StillRunning { location: None })));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.vendor.seen("history_count").len(), 2);
    assert!(world.query(present(20), terms("c", 30)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_vendor_that_never_gets_ready_is_given_up_at_last() {
    let world = World::new(5);
    world.vendor.script("history_get", (0..10_000).map(|_| Act::InProgress));
    let error = world.query(present(20), terms("c", 30)).await.unwrap_err();
    let Error::StillRunning { location: Some(location) } = error else { panic!("{error:?}") };
    sleep(Duration::from_secs(400)).await;
    assert!(matches!(world.fetch(&location, "c").await, Err(Error::Egress(Failure::TimedOut { sent: true }))));
}

#[tokio::test(start_paused = true)]
async fn a_result_is_given_again_only_if_its_window_is_past_and_for_a_minute() {
    let world = World::new(5);
    let fetched = || world.vendor.seen("history_get").len();
    let past = body(20, NOW - 31);
    let first = world.query(&past, terms("c", 30)).await.unwrap();
    let again = world.query(&past, terms("d", 30)).await.unwrap();
    assert_eq!((fetched(), again.costs.exchanges), (1, 0));
    assert_eq!(first.members[2], again.members[2]);
    assert_eq!(world.fetch(&location(&again), "d").await.unwrap().state, State::Done);
    world.query(&past, Terms { max_age: Some(Duration::ZERO), ..terms("c", 30) }).await.unwrap();
    assert_eq!(fetched(), 2);
    sleep(Duration::from_secs(59)).await;
    world.query(&past, terms("c", 30)).await.unwrap();
    assert_eq!(fetched(), 2);
    sleep(Duration::from_secs(2)).await;
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
async fn a_spent_quota_is_told_at_once_unless_one_who_can_wait_has_joined() {
    let world = World::new(5);
    world.vendor.script("history_create", [Act::NoSeat]);
    let error = world.query(present(20), terms("c", 30)).await.unwrap_err();
    assert!(matches!(error, Error::Egress(Failure::QuotaSpent { .. })), "{error:?}");
    world.vendor.script("history_create", [Act::NoSeat]);
    let (short, long) = tokio::join!(world.query(present(20), terms("c", 1)), async {
        sleep(Duration::from_millis(50)).await;
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
        sleep(Duration::from_secs(1)).await;
        world.count(query, terms("d", 30)).await
    };
    let (hasty, patient) = tokio::join!(world.count(query, terms("c", 3)), patient);
    assert!(hasty.is_err());
    assert_eq!(text(&patient.unwrap()), r#""code":"ok","count":5"#);
    let seen = world.vendor.seen("history_count");
    assert_eq!((seen.len(), seen[1] >= Duration::from_secs(5)), (2, true), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handle_is_fetched_where_it_was_made_and_a_count_anywhere() {
    let world = World::new(5);
    world.query(present(20), terms("c", 30)).await.unwrap();
    world.count(&format!("source=a&start_time={}&end_time={NOW}", NOW - 100), terms("c", 30)).await.unwrap();
    for order in world.vendor.orders() {
        let region = order.region.as_ref().map(|region| region.as_str());
        let pinned = (order.operation.endpoint() == "history_get").then_some("default");
        assert_eq!(region, pinned, "{order:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn bad_requests_and_unknown_apps_cost_the_vendor_nothing() {
    let world = World::new(5);
    for body in ["", "{}", &present(0), &present(10_001)] {
        assert!(matches!(world.query(body, terms("c", 30)).await, Err(Error::BadRequest(_))));
    }
    assert!(matches!(world.history.count(&a1(), &[], terms("c", 30)).await, Err(Error::BadRequest(_))));
    let unknown = AppId::parse("a3").unwrap();
    let answer = world.history.query(&unknown, present(20).as_bytes(), terms("c", 30)).await;
    assert!(matches!(answer, Err(Error::Egress(Failure::NoSuchApp))));
    assert!(world.vendor.orders().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_for_too_much_is_refused_and_leaves_room_for_others() {
    let world = World::new(5);
    let bodies: Vec<_> = (0..1100).map(|n| present(20 + n)).collect();
    let flood = join_all(bodies.iter().map(|body| world.query(body, terms("c", 30))));
    let fresh = || Terms { max_age: Some(Duration::ZERO), ..terms("d", 30) };
    let (flood, others) = tokio::join!(flood, async {
        // A few milliseconds of paused time: the flood has come by then, and the vendor has answered nothing.
        sleep(Duration::from_millis(10)).await;
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

/// The proof of a client in a register that a test holds.
fn proof(proofs: &Proofs, client: &str) -> Proof {
    let evidence = Evidence { by: By::Nothing, certificate: None };
    let client = ClientName::parse(client).unwrap();
    let basis = Basis { client, evidence, app: a1(), action: Action::History, user: None };
    proofs.enter(basis, proofs.generation(), Life::ENDLESS)
}

fn proofs() -> Proofs {
    Proofs::new(Clock::anchored(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)))
}

const WITHDRAWN: Verdict = Verdict::Ended(Ended::Withdrawn);
const EXPIRED: Verdict = Verdict::Ended(Ended::Expired);

#[tokio::test(start_paused = true)]
async fn a_promised_job_goes_on_when_its_askers_expire_and_ends_when_the_last_of_them_is_withdrawn() {
    let (world, proofs) = (World::new(20), proofs());
    world.vendor.script("history_get", (0..100_000).map(|_| Act::InProgress));
    let (of_c, of_d) = (proof(&proofs, "c"), proof(&proofs, "d"));
    let by = |proof: &Proof, client| Terms { proof: proof.clone(), respond_async: true, ..terms(client, 0) };
    let place = location(&world.query(present(20), by(&of_c, "c")).await.unwrap());
    world.query(present(20), by(&of_d, "d")).await.unwrap();
    let goes_on = async || {
        let before = world.vendor.orders().len();
        sleep(Duration::from_secs(20)).await;
        world.vendor.orders().len() > before
    };
    assert!(goes_on().await);
    of_c.judge(0, WITHDRAWN);
    of_d.judge(0, EXPIRED);
    world.history.review();
    assert!(goes_on().await, "what began goes on for whoever has only expired");
    assert_eq!(text(&world.fetch(&place, "c").await.unwrap()), "\"code\":\"in progress\"");
    of_d.judge(0, WITHDRAWN);
    world.history.review();
    assert!(!goes_on().await);
    assert!(matches!(world.fetch(&place, "c").await, Err(Error::NoSuchHandle)));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_withdrawn_leaves_its_job_to_the_others_and_one_that_expires_is_answered() {
    for (verdict, is_answered) in [(WITHDRAWN, false), (EXPIRED, true)] {
        let (world, proofs) = (World::new(20), proofs());
        world.vendor.script("history_get", (0..3).map(|_| Act::InProgress));
        let of_c = proof(&proofs, "c");
        let by_c = Terms { proof: of_c.clone(), ..terms("c", 30) };
        let (one, other, ()) =
            tokio::join!(world.query(present(20), by_c), world.query(present(20), terms("d", 30)), async {
                sleep(Duration::from_secs(1)).await;
                of_c.judge(0, verdict);
            });
        assert!(other.is_ok());
        match one {
            Ok(_) => assert!(is_answered),
            Err(Error::Egress(Failure::Unproven(Ended::Withdrawn))) => assert!(!is_answered),
            Err(why) => panic!("{why:?}"),
        }
    }
}
