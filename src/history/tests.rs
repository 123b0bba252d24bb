//! The service against a scripted vendor, in paused time.

mod failing;
mod joining;
mod left_alone;
mod scripted;
mod sharing;
mod streaming;
mod withdrawn;

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use hyper::header::{ACCEPT, HeaderValue};
use serde_json::{Value, json};
use tokio::time::Instant;

use self::scripted::{Act, Scripted};
use super::*;
use crate::config::{Credential, Quota};
use crate::kernel::names::{Action, ClientName};
use crate::kernel::proof::{Basis, By, Ended, Evidence, Life, Proof, Proofs, Verdict};
use crate::kernel::secret::SecretSource;
use crate::kernel::testing::pass;
use crate::upstream::egress::Account;
use crate::vendor::order::Payer;

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
        let client: Arc<dyn Orders> = Arc::clone(&vendor) as _;
        let history = History::through(client, tasks.clone(), clock, metrics.clone());
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
    Terms { payer, proof, deadline, max_age: None, respond_async: false, account: Account::default() }
}

/// Of how many exchanges a request is told, and whether others are, too.
fn told(terms: &Terms) -> Option<(u32, bool)> {
    terms.account.work().map(|work| (work.sum(Instant::now()).exchanges, work.is_shared()))
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
async fn one_request_gives_the_messages_as_the_vendor_wrote_them() {
    let world = World::new(30);
    let asked = terms("c", 30);
    let answer = world.query(present(20), asked.clone()).await.unwrap();
    let list = world.vendor.list(0, 20);
    let location = location(&answer);
    assert_eq!(
        text(&answer),
        format!(r#""code":"ok","offset":0,"limit":20,"order":"asc","location":"{location}","messages":{list}"#)
    );
    assert_eq!((answer.state, told(&asked)), (AnswerState::Done, Some((2, false))));
    for order in world.vendor.orders() {
        let plain = HeaderValue::from_static("application/json");
        assert_eq!((order.app, order.payer.client.as_str()), (a1(), "c"));
        assert!(order.headers.contains(&(ACCEPT, plain)));
    }

    // Two-step software fetches it, as often as it likes, until the handle expires; nobody else does.
    for _ in 0..3 {
        pass(Duration::from_secs(99)).await;
        let answer = world.fetch(&location, "c").await.unwrap();
        assert_eq!(text(&answer), format!(r#""code":"ok","messages":{list}"#));
    }
    assert!(matches!(world.fetch(&location, "other").await, Err(Error::NoSuchHandle)));
    let elsewhere = world.history.fetch(&AppId::parse("a2").unwrap(), &location[28..], terms("c", 30)).await;
    assert!(matches!(elsewhere, Err(Error::NoSuchHandle)));
    assert!(matches!(world.fetch(&format!("{location}A"), "c").await, Err(Error::NoSuchHandle)));
    pass(Duration::from_secs(4)).await;
    assert!(matches!(world.fetch(&location, "c").await, Err(Error::NoSuchHandle)));
    assert_eq!(world.vendor.orders().len(), 2);
    pass(Duration::from_secs(600)).await;
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
async fn a_handle_is_fetched_where_it_was_made_and_a_count_anywhere() {
    let world = World::new(5);
    world.query(present(20), terms("c", 30)).await.unwrap();
    world.count(&format!("source=a&start_time={}&end_time={NOW}", NOW - 100), terms("c", 30)).await.unwrap();
    for order in world.vendor.orders() {
        let region = order.region.as_ref().map(|region| region.as_str());
        let pinned = (order.operation.endpoint().as_str() == "history_get").then_some("default");
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
