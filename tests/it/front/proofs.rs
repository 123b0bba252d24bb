//! What proved who calls is gone: what it opened ends, gets nothing more, and loses nothing.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use rtm_gateway::config::{Allow, Config, Limit, QuotaRule};
use rtm_gateway::kernel::metrics::EndedWorkLabels;
use rtm_gateway::kernel::names::{Action, BucketName, Stream};
use rtm_gateway::simulator::{Endpoint, Message};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufStream};
use tokio::net::{TcpStream, UnixStream};

use super::stage::{APP, Answer, DEADLINE, RTM, Stage, request};
use crate::support::waiting::eventually;

const USERS: &str = "/v1/apps/demo-app/events/user_events";
const SSE: &str = "Accept: text/event-stream\r\n";

async fn reload(stage: &Stage, change: impl FnOnce(&mut Config)) {
    let mut config = Config::clone(&stage.parts.config.load());
    change(&mut config);
    stage.parts.apply(&config).await.unwrap();
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// How a proof of the client `all` is withdrawn, and what callers are told.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Withdrawal {
    Key,
    Client,
    Right,
    /// The key is another client's now.
    Moved,
}

const ALL: [(Withdrawal, u16); 4] =
    [(Withdrawal::Key, 401), (Withdrawal::Client, 401), (Withdrawal::Right, 403), (Withdrawal::Moved, 401)];

async fn withdraw(stage: &Stage, how: Withdrawal) {
    reload(stage, |config| {
        let place = config.clients.iter().position(|client| client.name.as_str() == "all").unwrap();
        match how {
            Withdrawal::Key => config.clients[place].api_key_sha256 = vec![digest("another")],
            Withdrawal::Client => drop(config.clients.remove(place)),
            Withdrawal::Right => config.clients[place].allow.clear(),
            Withdrawal::Moved => {
                let keys = std::mem::take(&mut config.clients[place].api_key_sha256);
                config.clients[place].unix_uid = vec![4_000_000];
                let other = config.clients.iter_mut().find(|client| client.name.as_str() == "nobody").unwrap();
                other.api_key_sha256.extend(keys);
            }
        }
    })
    .await;
}

/// How much work of this kind ended for it, as operators see it.
fn ended(stage: &Stage, work: &str, how: Withdrawal) -> u64 {
    let reason = if how == Withdrawal::Right { "forbidden" } else { "withdrawn" };
    let labels = EndedWorkLabels { work: work.to_owned(), reason: reason.to_owned() };
    stage.parts.metrics.ended_work.get_or_create(&labels).get()
}

/// A request whose answer is not read yet.
struct Open<S>(S);

impl Open<BufStream<TcpStream>> {
    async fn begin(stage: &Stage, target: &str, headers: &str) -> Self {
        let mut tcp = stage.connect().await;
        tcp.write_all(request("GET", target, "all", headers, "").as_bytes()).await.unwrap();
        Self(BufStream::new(tcp))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Open<S> {
    /// Reads until this was said.
    async fn until(&mut self, words: &str) -> String {
        let mut got = Vec::new();
        let reading = async {
            loop {
                got.push(self.0.read_u8().await.expect("more"));
                if got.ends_with(words.as_bytes()) {
                    return;
                }
            }
        };
        tokio::time::timeout(DEADLINE, reading).await.unwrap_or_else(|_| panic!("{words}"));
        String::from_utf8(got).unwrap()
    }

    /// Reads to the end of a body that is chunked, and says what came.
    async fn rest(&mut self) -> String {
        self.until("\r\n0\r\n\r\n").await
    }
}

/// Tries each case at a gateway of its own, all at once: what takes time in them is a second here and there.
async fn at_once<C>(cases: impl IntoIterator<Item = C>, one: impl AsyncFn(C)) {
    futures_util::future::join_all(cases.into_iter().map(|case| one(case))).await;
}

/// How many events the stream's subscription has still to get, as a reader with another key sees it.
async fn left(stage: &Stage, subscription: &str) -> usize {
    let target = format!("{USERS}?subscription={subscription}");
    let answer = stage.raw(request("GET", &target, "reader", "", "")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["events"].as_array().unwrap().len()
}

#[tokio::test]
async fn streams_of_every_kind_end_in_order_when_their_proof_is_withdrawn_and_what_comes_after_is_kept() {
    let queries = ["", "&limit=1", "&ack=explicit&lease=5s", "&ack=explicit&lease=5s&limit=1"];
    let cases = ALL.into_iter().flat_map(|(how, _)| queries.map(|query| (how, query)));
    at_once(cases, async |(how, query)| {
        let stage = Stage::start().await;
        let mut open = Open::begin(&stage, &format!("{USERS}?subscription=s{query}"), SSE).await;
        open.until("retry: 2000\n").await;
        stage.sim.emit_many(APP, Stream::UserEvents, 1);
        open.until("data: ").await;
        // An event that is there when the proof is gone belongs to whoever reads next.
        withdraw(&stage, how).await;
        stage.sim.emit_many(APP, Stream::UserEvents, 3);
        let rest = open.rest().await;
        assert!(!rest.contains("data: "), "{how:?} {query}: {rest}");
        assert_eq!(ended(&stage, "stream", how), 1, "{how:?} {query}");
        let mut got = 0;
        let reading = async {
            while got < 3 {
                got += left(&stage, "s&wait=20s").await;
            }
        };
        tokio::time::timeout(DEADLINE, reading).await.expect("what was not handed over is given again");
        drop(open);
        stage.stopped().await;
    })
    .await;
}

#[tokio::test]
async fn a_stream_of_both_ends_too_and_so_does_one_without_a_subscription() {
    let targets = ["/v1/apps/demo-app/events/all?subscription=s", "/v1/apps/demo-app/events/user_events?after=latest"];
    at_once(targets, async |target| {
        let stage = Stage::start().await;
        let mut open = Open::begin(&stage, target, SSE).await;
        open.until("retry: 2000\n").await;
        withdraw(&stage, Withdrawal::Client).await;
        stage.sim.emit_many(APP, Stream::UserEvents, 3);
        assert!(!open.rest().await.contains("data: "));
        drop(open);
        stage.stopped().await;
    })
    .await;
}

#[tokio::test]
async fn a_long_poll_answers_401_or_403_within_a_second_and_takes_nothing() {
    let targets = [
        format!("{USERS}?subscription=s&wait=60s"),
        format!("{USERS}?subscription=s&wait=60s&ack=explicit"),
        format!("{RTM}/vendor/user_events?subscription=s&wait=60s"),
        "/v1/apps/demo-app/events/all?subscription=s&wait=60s".to_owned(),
    ];
    let cases = ALL.into_iter().flat_map(|case| targets.iter().map(move |target| (case, target)));
    at_once(cases, async |((how, status), target)| {
        let stage = Stage::start().await;
        let mut open = Open::begin(&stage, target, "").await;
        eventually(|| stage.parts.gateway.proofs.all().len() == 1).await;
        withdraw(&stage, how).await;
        let answer = tokio::time::timeout(Duration::from_secs(5), Answer::read(&mut open.0)).await.unwrap();
        assert_eq!(answer.status, status, "{how:?} {target}");
        assert_eq!(ended(&stage, "poll", how), 1, "{how:?} {target}");
        stage.sim.emit_many(APP, Stream::UserEvents, 2);
        let mut got = 0;
        while got < 2 {
            got += left(&stage, "s&wait=20s").await;
        }
        drop(open);
        stage.stopped().await;
    })
    .await;
}

#[tokio::test]
async fn a_reload_that_leaves_a_proof_as_it_was_ends_nothing_and_a_client_may_move_to_another_key_meanwhile() {
    let stage = Stage::start().await;
    let mut streams = Vec::new();
    for query in ["a", "b&ack=explicit", "c&limit=1"] {
        let mut open = Open::begin(&stage, &format!("{USERS}?subscription={query}"), SSE).await;
        open.until("retry: 2000\n").await;
        streams.push(open);
    }
    let named = |config: &mut Config, name: &str| config.clients.iter().position(|c| c.name.as_str() == name).unwrap();
    for round in 0..5 {
        reload(&stage, |config| {
            let all = named(config, "all");
            match round {
                0 => {}
                // A second key beside the first; a new weight; another right beside; another client goes.
                1 => config.clients[all].api_key_sha256.insert(0, digest("second")),
                2 => config.clients[all].weight = 7.try_into().unwrap(),
                3 => {
                    let app = Some(rtm_gateway::kernel::names::AppId::parse("other").unwrap());
                    config.clients[all].allow.insert(0, Allow { app, actions: vec![Action::Events], users: None });
                }
                _ => {
                    let bot = named(config, "bot");
                    config.clients.remove(bot);
                }
            }
        })
        .await;
        stage.sim.emit_many(APP, Stream::UserEvents, 1);
        for open in &mut streams {
            open.until("data: ").await;
            open.until("\n").await;
        }
    }
    // The first key goes: the streams that it opened do, and one of the second key goes on.
    let target = format!("{USERS}?subscription=d&from=latest");
    let mut tcp = stage.connect().await;
    let by_second = format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-API-Key: second\r\n{SSE}\r\n");
    tcp.write_all(by_second.as_bytes()).await.unwrap();
    let mut second = Open(tcp);
    second.until("retry: 2000\n").await;
    reload(&stage, |config| {
        let all = named(config, "all");
        config.clients[all].api_key_sha256.truncate(1);
    })
    .await;
    for open in &mut streams {
        open.rest().await;
    }
    stage.sim.emit_many(APP, Stream::UserEvents, 1);
    second.until("data: ").await;
    drop((streams, second));
    stage.stopped().await;
}

#[tokio::test]
async fn the_uid_of_a_unix_socket_and_anonymous_callers_are_held_to_the_same() {
    let uid = std::fs::metadata(tempfile::tempdir().unwrap().path()).unwrap().uid();
    let by_uid = format!(
        "[[clients]]\nname = \"neighbour\"\nunix_uid = {uid}\nallow = [{{ app = \"*\", actions = [\"events\"] }}]"
    );
    for (server, more) in [("", &*by_uid), ("anonymous_client = \"reader\"", "")] {
        let stage = Stage::with(server, more).await;
        let mut unix = UnixStream::connect(stage.socket_path()).await.unwrap();
        let ask = format!("GET {USERS}?subscription=s HTTP/1.1\r\nHost: a\r\n{SSE}\r\n");
        unix.write_all(ask.as_bytes()).await.unwrap();
        let mut open = Open(unix);
        open.until("retry: 2000\n").await;
        reload(&stage, |_| {}).await;
        stage.sim.emit_many(APP, Stream::UserEvents, 1);
        open.until("data: ").await;
        reload(&stage, |config| {
            config.server.anonymous_client = None;
            config.clients.iter_mut().for_each(|client| client.unix_uid = vec![uid + 1]);
            config.clients.iter_mut().skip(1).for_each(|client| client.unix_uid.clear());
        })
        .await;
        stage.sim.emit_many(APP, Stream::UserEvents, 1);
        assert!(!open.rest().await.contains("data: "));
        drop(open);
        stage.stopped().await;
    }
}

#[tokio::test]
async fn a_message_that_waits_for_a_seat_is_answered_401_or_403_and_never_sent() {
    at_once(ALL, async |(how, status)| {
        let stage = Stage::start().await;
        let one = Limit { requests: 1.try_into().unwrap(), per: Duration::from_secs(5) };
        reload(&stage, |config| config.apps[0].quota.messages = QuotaRule::Own(one)).await;
        let target = format!("{RTM}/users/bot-1/peer_messages");
        let body = json!({ "destination": "bob", "payload": "x" }).to_string();
        let kind = "Content-Type: application/json\r\nPrefer: wait=9\r\n";
        // Of a window that was made longer nothing is known: the first seat is a window away.
        let mut tcp = stage.connect().await;
        tcp.write_all(request("POST", &target, "all", kind, &body).as_bytes()).await.unwrap();
        let waiting =
            || stage.parts.egress.bucket(&stage.parts.config.load().apps[0].id, BucketName::Messages).unwrap().waiting;
        eventually(|| waiting() == 1).await;
        withdraw(&stage, how).await;
        assert_eq!(Answer::read(&mut tcp).await.status, status, "{how:?}");
        assert_eq!(ended(&stage, "message", how), 1, "{how:?}");
        assert_eq!(waiting(), 0);
        assert_eq!(stage.sim.stats().of(Endpoint::PeerMessages).counted, 0);
        drop(tcp);
        stage.stopped().await;
    })
    .await;
}

/// Lets the history of the stage wait: the first query has its turn seconds from now.
async fn slow_history(stage: &Stage) {
    let one = Limit { requests: 1.try_into().unwrap(), per: Duration::from_secs(5) };
    reload(stage, |config| config.apps[0].quota.history_create = QuotaRule::Own(one)).await;
}

fn waiting(stage: &Stage) -> usize {
    let app = &stage.parts.config.load().apps[0].id;
    stage.parts.egress.bucket(app, BucketName::HistoryCreate).unwrap().waiting
}

#[tokio::test]
async fn a_history_query_that_waits_is_answered_401_or_403_and_its_work_ends_promised_or_not() {
    let body = r#"{"filter":{"source":"alice","start_time":0,"end_time":4102444800},"limit":20}"#;
    at_once(ALL, async |(how, status)| {
        let stage = Stage::start().await;
        slow_history(&stage).await;
        let target = format!("{RTM}/message/history/query");
        let kind = "Content-Type: application/json\r\n";
        let mut tcp = stage.connect().await;
        tcp.write_all(request("POST", &target, "all", kind, body).as_bytes()).await.unwrap();
        let promised = format!("{kind}Prefer: respond-async\r\nCache-Control: no-cache\r\n");
        eventually(|| waiting(&stage) == 1).await;
        assert_eq!(stage.raw(request("POST", &target, "all", &promised, body)).await.status, 202);
        eventually(|| waiting(&stage) == 2).await;
        withdraw(&stage, how).await;
        assert_eq!(Answer::read(&mut tcp).await.status, status, "{how:?}");
        eventually(|| waiting(&stage) == 0).await;
        assert_eq!(ended(&stage, "history", how), 2, "{how:?}");
        assert_eq!(stage.sim.stats().of(Endpoint::HistoryCreate).counted, 0);
        drop(tcp);
        stage.stopped().await;
    })
    .await;
}

#[tokio::test]
async fn an_export_ends_with_its_line_of_error_and_a_cursor() {
    at_once(ALL, async |(how, status)| {
        let stage = Stage::start().await;
        let ms = rtm_gateway::kernel::clock::Clock::system().wall_ms().0 - 3_600_000;
        let message = |n: u64| Message::peer("alice", "bob", &format!("{n} {}", "x".repeat(2000))).at(ms + n);
        stage.sim.world().add_messages(APP, (0..3000).map(message));
        let target = format!("/v1/apps/{APP}/history?source=alice&start_time=0&end_time=4102444800");
        let mut open = Open::begin(&stage, &target, "Accept: application/x-ndjson\r\n").await;
        open.until("\"cursor\"").await;
        withdraw(&stage, how).await;
        let rest = open.rest().await;
        let last = rest.lines().rev().find(|line| line.starts_with('{')).unwrap();
        let last: serde_json::Value = serde_json::from_str(last).unwrap();
        assert_eq!(last["error"]["status"], status, "{how:?} {last}");
        assert!(last["cursor"].is_string() && !rest.contains("\"end\""));
        assert_eq!(ended(&stage, "export", how), 1, "{how:?}");
        drop(open);
        stage.stopped().await;
    })
    .await;
}
