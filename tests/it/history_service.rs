//! History and count through the real egress, against the simulated vendor: whole answers from a list that moves and a
//! vendor that fails, without one breach of its rules.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::waiting::eventually;
use futures_util::future::join_all;
use rtm_gateway::config::{App, Config, Credential, Limit, Quota, QuotaRule, Region, RetryBudget};
use rtm_gateway::history::{Answer, Error, History, Terms};
use rtm_gateway::kernel::clock::Clock;
use rtm_gateway::kernel::metrics::Metrics;
use rtm_gateway::kernel::names::{Action, AppId, BucketName, ClientName, RegionName};
use rtm_gateway::kernel::proof::Proof;
use rtm_gateway::kernel::secret::SecretSource;
use rtm_gateway::kernel::task::Tasks;
use rtm_gateway::simulator::{self, DeadHandle, Dialect, Endpoint, Fault, Message, Profile, Sim, Snapshot};
use rtm_gateway::upstream::egress::{Account, Egress, LastShutdown};
use rtm_gateway::vendor::Vendor;
use rtm_gateway::vendor::order::Payer;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

const APP: &str = "demo-app";

/// Far enough back that no result depends on the hour of the test, near enough to be kept by the vendor.
fn base_ms() -> u64 {
    Clock::system().wall_ms().0 - 3_600_000
}

struct Rig {
    sim: Sim,
    egress: Egress,
    history: History,
    tasks: Tasks,
    _folder: tempfile::TempDir,
}

impl Rig {
    async fn new(app: simulator::App, vendor: Vendor) -> Self {
        Self::with(app, vendor, |_| {}).await
    }

    async fn with(app: simulator::App, vendor: Vendor, configure: impl FnOnce(&mut Config)) -> Self {
        let sim = Sim::start(app.basic("key", "secret")).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let secret = |name: &str| {
            std::fs::write(folder.path().join(name), name).unwrap();
            SecretSource::File(folder.path().join(name))
        };
        let mut config = Config::default();
        config.upstream.vendor = vendor;
        config.apps = vec![App {
            id: AppId::parse(APP).unwrap(),
            regions: vec![Region { name: RegionName::parse("cn").unwrap(), base_url: sim.base_url().parse().unwrap() }],
            credential: Credential::Basic { api_key: secret("key"), api_secret: secret("secret") },
            quota: Quota::default(),
            events: rtm_gateway::config::Events::default(),
            history: rtm_gateway::config::History::default(),
            webhooks: Vec::new(),
        }];
        configure(&mut config);
        let (clock, metrics, tasks) = (Clock::system(), Metrics::new(), Tasks::new());
        let egress = Egress::new(&config, LastShutdown::None, clock.clone(), metrics.clone(), &tasks).unwrap();
        let history = History::new(egress.clone(), tasks.clone(), clock, metrics);
        history.apply(&config.apps, vendor);
        Self { sim, egress, history, tasks, _folder: folder }
    }

    async fn query(&self, body: &Value) -> Result<Value, Error> {
        let answer = self.history.query(&AppId::parse(APP).unwrap(), body.to_string().as_bytes(), terms()).await?;
        Ok(value(&answer))
    }

    async fn stop(self) {
        self.tasks.finish(Duration::from_secs(5)).await;
        assert_eq!(self.sim.violations(), []);
        self.sim.stop().await;
    }
}

fn terms() -> Terms {
    let payer = Payer { client: ClientName::parse("tester").unwrap(), weight: 1 };
    let app = AppId::parse(APP).unwrap();
    let proof = Proof::unending(Clock::system(), payer.client.clone(), app, Action::History);
    Terms {
        payer,
        proof,
        deadline: Instant::now() + Duration::from_secs(30),
        max_age: None,
        respond_async: false,
        account: Account::default(),
    }
}

fn value(answer: &Answer) -> Value {
    let members = String::from_utf8(answer.members.concat()).unwrap();
    serde_json::from_str(&format!("{{{members}}}")).unwrap()
}

fn message(n: u64, ms: u64) -> Message {
    Message::peer("alice", "bob", &n.to_string()).at(ms)
}

fn payloads(answer: &Value) -> Vec<u64> {
    let messages = answer["messages"].as_array().unwrap();
    messages.iter().map(|message| message["payload"].as_str().unwrap().parse().unwrap()).collect()
}

fn body(limit: u64, order: &str) -> Value {
    let (start, end) = (base_ms() / 1000 - 10, base_ms() / 1000 + 7200);
    json!({"filter": {"source": "alice", "destination": "", "start_time": start, "end_time": end},
        "limit": limit, "order": order})
}

#[tokio::test]
async fn a_vendor_that_fails_all_it_is_asked_gets_no_more_of_history_than_the_retry_budget() {
    const FIRST: u64 = 200;
    let budget = RetryBudget { percent: 20, min_per_second: 5 };
    let rig = Rig::with(simulator::App::new(APP), Vendor::AnyRtc, |config| {
        config.upstream.breaker.failures = 0;
        config.upstream.retry_budget = budget;
    })
    .await;
    for endpoint in [Endpoint::HistoryCount, Endpoint::HistoryCreate] {
        for _ in 0..FIRST * 12 {
            rig.sim.on(endpoint, Fault::status(500));
        }
    }
    let began = Instant::now();
    let counts = (0..FIRST).map(|n| {
        let query = [("source", "alice"), ("start_time", "1"), ("end_time", &*(n + 2).to_string())];
        let query = query.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let rig = &rig;
        async move { rig.history.count(&AppId::parse(APP).unwrap(), &query, terms()).await }
    });
    let queries = (0..FIRST).map(|n| {
        let mut body = body(20, "asc");
        body["filter"]["destination"] = json!(n.to_string());
        let rig = &rig;
        async move { rig.query(&body).await }
    });
    let (counts, queries) = futures_util::join!(join_all(counts), join_all(queries));
    assert!(counts.iter().all(|answer| matches!(answer, Err(Error::Failing { .. }))), "{counts:?}");
    assert!(queries.iter().all(|answer| matches!(answer, Err(Error::Failing { .. }))), "{queries:?}");
    let asked: u64 =
        [Endpoint::HistoryCount, Endpoint::HistoryCreate].map(|e| rig.sim.stats().of(e).received).iter().sum();
    let most = FIRST * 2 * 120 / 100 + u64::from(budget.min_per_second) * (began.elapsed().as_secs() + 2);
    assert!(asked > FIRST * 2 && asked <= most, "{asked} for {} first ones, {most} at most", FIRST * 2);
    rig.stop().await;
}

#[tokio::test]
async fn who_joins_anothers_work_waits_in_its_own_line_too() {
    let limit = Limit { requests: NonZeroU32::new(5).unwrap(), per: Duration::from_secs(1) };
    let rig = Rig::with(simulator::App::new(APP), Vendor::AnyRtc, |config| {
        config.apps[0].quota.history_count = QuotaRule::Own(limit);
    })
    .await;
    // What only counts up to this second can be joined by others.
    let count = |client: &'static str, n: u64| {
        let query = [("source", "alice"), ("start_time", "1"), ("end_time", &*(n + 2).to_string())];
        let query = query.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut terms = terms();
        terms.payer.client = ClientName::parse(client).unwrap();
        let history = rig.history.clone();
        async move { history.count(&AppId::parse(APP).unwrap(), &query, terms).await.map(|_| Instant::now()) }
    };
    let began = Instant::now();
    let mut many: JoinSet<_> = (0..60).map(|n| count("many", n)).collect();
    // Some have been asked, and all others wait.
    let app = AppId::parse(APP).unwrap();
    eventually(|| rig.egress.bucket(&app, BucketName::HistoryCount).unwrap().waiting >= 50).await;
    // The last of sixty at five a second is twelve seconds away.
    let joined = count("tester", 59).await.unwrap() - began;
    assert!(joined < Duration::from_secs(6), "{joined:?}");
    many.abort_all();
    while many.join_next().await.is_some() {}
    rig.stop().await;
}

#[tokio::test]
async fn a_list_that_moves_under_a_failing_vendor_comes_whole() {
    for (order, snapshot) in [("asc", Snapshot::Fetch), ("desc", Snapshot::Create)] {
        let rig = Rig::new(simulator::App::new(APP), Vendor::AnyRtc).await;
        let world = rig.sim.world();
        world.set_rules(APP, |rules| {
            rules.snapshot = snapshot;
            rules.dead_handle = DeadHandle::Gone;
            rules.unknown_members = true;
        });
        let base = base_ms();
        // Seven messages share a millisecond, 350 a second; numbers rise with time.
        world.add_messages(APP, (0..2000).map(|n| message(n, base + n / 7 * 20)));
        let (next, oldest) = (AtomicU64::new(2000), AtomicU64::new(0));
        world.before_each(move |world, endpoint| {
            if matches!(endpoint, Endpoint::HistoryCreate | Endpoint::HistoryGet) {
                let n = next.fetch_add(3, Ordering::Relaxed);
                world.add_messages(APP, (n..n + 3).map(|n| message(n, base + n / 7 * 20)));
                let gone = oldest.fetch_add(2, Ordering::Relaxed);
                world.remove_messages(APP, |m| m.payload.parse::<u64>().is_ok_and(|n| n < gone));
            }
        });
        rig.sim.random(
            // Which request meets which fault depends on how they interleave. At one fetch in twelve, five of one page in
            // a row, which is an answer of its own, do not come in a thousand runs.
            Profile::seeded(7)
                .with_at(Endpoint::HistoryGet, 0.02, Fault::ResetAfter)
                .with_at(Endpoint::HistoryGet, 0.02, Fault::CutBody { keep: 500 })
                .with_at(Endpoint::HistoryGet, 0.02, Fault::garbage("{\"code\":\"ok\",\"messages\":["))
                .with_at(Endpoint::HistoryGet, 0.02, Fault::status_but_acted(500))
                .with_at(Endpoint::HistoryCreate, 0.05, Fault::status(503))
                .with(0.3, Fault::JitterAfter(Duration::from_millis(30))),
        );
        let got = payloads(&rig.query(&body(1200, order)).await.unwrap());
        assert_eq!(got.len(), 1200);
        let step = |pair: &[u64]| if order == "asc" { pair[0] + 1 == pair[1] } else { pair[0] == pair[1] + 1 };
        assert!(got.windows(2).all(step), "{order}: {got:?}");
        rig.stop().await;
    }
}

#[tokio::test]
async fn both_dialects_and_both_names_of_the_list_are_understood() {
    for (vendor, dialect, member) in
        [(Vendor::AnyRtc, Dialect::AnyRtc, "message"), (Vendor::Agora, Dialect::Agora, "messages")]
    {
        let rig = Rig::new(simulator::App::new(APP), vendor).await;
        rig.sim.world().set_rules(APP, |rules| {
            rules.dialect = dialect;
            rules.messages_member = member;
        });
        let base = base_ms();
        rig.sim.world().add_messages(APP, (0..30).map(|n| message(n, base + n)));
        let got = rig.query(&body(20, "asc")).await.unwrap();
        assert_eq!(payloads(&got), (0..20).collect::<Vec<_>>());
        let start = base / 1000 - 1;
        // "For ever", too, as software writes it.
        for end in [(base / 1000 + 100).to_string(), "9999-12-31T23:59:59Z".to_owned()] {
            let query = [("source", "\"alice\"".into()), ("start_time", start.to_string()), ("end_time", end)];
            let query = query.map(|(name, value)| (name.to_owned(), value));
            let counted = rig.history.count(&AppId::parse(APP).unwrap(), &query, terms()).await.unwrap();
            assert_eq!(value(&counted), json!({"code": "ok", "count": 30}));
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn what_the_vendor_refuses_reaches_the_caller_as_it_is() {
    let rig = Rig::new(simulator::App::new(APP), Vendor::AnyRtc).await;
    rig.sim.on(Endpoint::HistoryCreate, Fault::status(400));
    let Err(Error::Refused(reply)) = rig.query(&body(20, "asc")).await else { panic!("must be refused") };
    assert_eq!(reply.status, 400);
    assert!(reply.body.starts_with(b"{\"result\":\"failed\""));
    rig.stop().await;
}
