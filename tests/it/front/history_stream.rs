//! A stream of messages over real sockets: whole while the list moves and connections are cut, and no faster than it is
//! read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use hyper::Method;
use hyper::body::Incoming;
use rtm_gateway::kernel::clock::Clock;
use rtm_gateway::kernel::names::{AppId, BucketName};
use rtm_gateway::simulator::{Endpoint, Fault, Message, Profile};
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio::time::timeout;

use super::stage::{APP, DEADLINE, Stage};
use crate::support::client::Client;
use crate::support::waiting::pause;

const NDJSON: (&str, &str) = ("accept", "application/x-ndjson");

async fn stage() -> Stage {
    Stage::with("", "streams = []").await
}

fn target(more: &str) -> String {
    format!("/v1/apps/{APP}/history?source=alice&start_time=0&end_time=4102444800{more}")
}

/// Lines of a body that is still coming.
struct Lines {
    body: Incoming,
    buffer: BytesMut,
}

impl Lines {
    async fn open(client: &mut Client, more: &str) -> Self {
        let response = client.head(Method::GET, &target(more), &[NDJSON], "").await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"application/x-ndjson".parse().unwrap())
        );
        Self { body: response.into_body(), buffer: BytesMut::new() }
    }

    /// The next line; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(at);
                self.buffer.advance(1);
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = timeout(DEADLINE, self.body.frame()).await.expect("a frame or an end in time")?;
            self.buffer.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
    }
}

async fn client(stage: &Stage) -> Client {
    Client::http1(stage.addr).await.with("x-api-key", "all-key")
}

fn number(message: &Value) -> u64 {
    message["payload"].as_str().unwrap().split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn cut_again_and_again_while_the_list_moves_it_is_whole() {
    for order in ["asc", "desc"] {
        let stage = stage().await;
        let world = stage.sim.world();
        let base = Clock::system().wall_ms().0 - 3_600_000;
        // Seven share a millisecond, 350 a second; numbers rise with time.
        let message = move |n: u64| Message::peer("alice", "bob", &n.to_string()).at(base + n / 7 * 20);
        world.add_messages(APP, (0..3000).map(message));
        let (next, oldest) = (Arc::new(AtomicU64::new(3000)), AtomicU64::new(0));
        let newest = next.clone();
        // Nothing expires before the reader has it, however slow it is: what has expired cannot be given.
        let has = Arc::new(AtomicU64::new(if order == "asc" { 0 } else { u64::MAX }));
        let read = has.clone();
        world.before_each(move |world, endpoint| {
            if matches!(endpoint, Endpoint::HistoryCreate | Endpoint::HistoryGet) {
                let n = next.fetch_add(2, Ordering::Relaxed);
                world.add_messages(APP, (n..n + 2).map(message));
                let gone = oldest.fetch_add(1, Ordering::Relaxed).min(read.load(Ordering::Relaxed));
                world.remove_messages(APP, |m| m.payload.parse::<u64>().is_ok_and(|n| n < gone));
            }
        });
        stage.sim.random(
            Profile::seeded(11)
                .with_at(Endpoint::HistoryGet, 0.05, Fault::ResetAfter)
                .with_at(Endpoint::HistoryGet, 0.05, Fault::CutBody { keep: 500 })
                .with_at(Endpoint::HistoryCreate, 0.05, Fault::status(503))
                .with(0.3, Fault::JitterAfter(Duration::from_millis(20))),
        );
        let mut got: Vec<u64> = Vec::new();
        let mut cursor = String::new();
        let mut cut_after = (1..).map(|n| n * 137 % 800);
        let end = loop {
            let mut caller = client(&stage).await;
            let mut lines = Lines::open(&mut caller, &format!("&order={order}{cursor}")).await;
            // What came after the last cursor is thrown away with the connection.
            let mut since = Vec::new();
            let mut left = cut_after.next().unwrap();
            let end = loop {
                let line = lines.next().await.expect("a stream says how it ends");
                if line.get("ms").is_some() {
                    since.push(number(&line));
                } else {
                    assert!(line.get("error").is_none(), "{line}");
                    cursor = format!("&cursor={}", line["cursor"].as_str().unwrap());
                    got.append(&mut since);
                    if let Some(last) = got.last().filter(|_| order == "asc") {
                        has.store(*last, Ordering::Relaxed);
                    }
                    if line["end"] == true {
                        break Some(line["messages"].as_u64().unwrap());
                    }
                }
                left -= 1;
                if left == 0 {
                    break None;
                }
            };
            if end.is_some() {
                break end;
            }
        };
        assert!(end.is_some());
        let step = |pair: &[u64]| if order == "asc" { pair[0] + 1 == pair[1] } else { pair[0] == pair[1] + 1 };
        if let Some(at) = got.windows(2).position(|pair| !step(pair)) {
            panic!("{order}: {:?}", &got[at.saturating_sub(3)..(at + 3).min(got.len())]);
        }
        let (first, last) = (got[0], got[got.len() - 1]);
        if order == "asc" {
            assert!(first < 100 && last >= 2999, "{first}..{last}");
        } else {
            assert!(first >= 2999 && last < newest.load(Ordering::Relaxed) / 2, "{first}..{last}");
        }
        assert_eq!(stage.sim.violations(), []);
    }
}

#[tokio::test]
async fn after_each_page_one_can_go_on_however_many_messages_share_a_millisecond() {
    for order in ["asc", "desc"] {
        let stage = stage().await;
        let base = Clock::system().wall_ms().0 - 3_600_000;
        let message = |n: u64| Message::peer("alice", "bob", &n.to_string()).at(base + u64::from(n > 1990));
        stage.sim.world().add_messages(APP, (0..2100).map(message));
        let mut got: Vec<u64> = Vec::new();
        let mut cursor = String::new();
        // The last of these pages ends among messages of which a cursor has no print each.
        for pages in [1, 2, 1, 15, usize::MAX] {
            let mut caller = client(&stage).await;
            let mut lines = Lines::open(&mut caller, &format!("&order={order}{cursor}")).await;
            let mut left = pages;
            while left > 0 {
                let Some(line) = lines.next().await else { break };
                if line.get("ms").is_some() {
                    got.push(number(&line));
                } else {
                    assert!(line.get("error").is_none(), "{line}");
                    let place = line["cursor"].as_str().unwrap();
                    assert!(place.len() <= 10_000);
                    cursor = format!("&cursor={place}");
                    left -= 1;
                }
            }
        }
        let mut wanted: Vec<u64> = (0..2100).collect();
        if order == "desc" {
            wanted.reverse();
        }
        assert!(got == wanted, "{order}: {} of {}", got.len(), wanted.len());
        assert_eq!(stage.sim.violations(), []);
    }
}

#[tokio::test]
async fn a_reader_that_stops_reading_stops_the_calls_to_the_vendor() {
    let stage = stage().await;
    let world = stage.sim.world();
    let base = Clock::system().wall_ms().0 - 3_600_000;
    let filling = "x".repeat(8000);
    let message = |n: u64| Message::peer("alice", "bob", &format!("{n} {filling}")).at(base + n);
    world.add_messages(APP, (0..4_000).map(message));
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let io = socket.connect(stage.addr).await.unwrap();
    let mut caller = Client::http1_over(io, "gateway").await.with("x-api-key", "all-key");
    let mut lines = Lines::open(&mut caller, "").await;
    let first = lines.next().await.unwrap();
    assert_eq!(number(&first), 0);
    // Quiet for longer than the quota's window: on a machine so slow that it only seems so, the numbers below still hold.
    let asked = || stage.sim.stats().of(Endpoint::HistoryCreate).received;
    let mut quiet = (asked(), 0);
    while quiet.1 < 30 {
        pause(Duration::from_millis(50)).await;
        quiet = if asked() == quiet.0 { (quiet.0, quiet.1 + 1) } else { (asked(), 0) };
    }
    // 32 MB in 41 pages; the sockets' buffers take some.
    assert!(quiet.0 < 30, "{} pages for a reader that reads nothing", quiet.0);
    // Nothing of it holds a seat, nor is under way: others have the quota.
    let bucket = stage.parts.egress.bucket(&AppId::parse(APP).unwrap(), BucketName::HistoryGet).unwrap();
    assert_eq!((bucket.in_flight, bucket.waiting), (0, 0), "{bucket:?}");
    let mut count = 1;
    while let Some(line) = lines.next().await {
        if line.get("ms").is_some() {
            assert_eq!(number(&line), count);
            count += 1;
        } else if line["end"] == true {
            assert_eq!(line["messages"], 4_000);
        }
    }
    assert_eq!(count, 4_000);
    assert_eq!(stage.sim.violations(), []);
}

#[tokio::test]
async fn what_can_be_known_before_the_first_line_has_a_status_of_its_own() {
    let stage = stage().await;
    let mut caller = client(&stage).await;
    for (more, headers, status, code) in [
        ("", &[("accept", "application/json")][..], 406, "not_acceptable"),
        ("&cursor=AQ", &[NDJSON], 400, "bad_request"),
        ("&order=up", &[], 400, "bad_request"),
        ("&source=bob", &[], 400, "bad_request"),
    ] {
        let reply = caller.request(Method::GET, &target(more), headers, "").await.unwrap();
        assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (status, &code.into()), "{more}");
    }
    let reply = caller.request(Method::POST, &target(""), &[], "").await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, Some("GET")));
    let mut other = Client::http1(stage.addr).await.with("x-api-key", "reader-key");
    assert_eq!(other.get(&target("")).await.unwrap().status, 403);
    assert_eq!(stage.sim.stats().received(), 0);
    stage.sim.on(Endpoint::HistoryCreate, Fault::status(400));
    let refused = caller.get(&target("")).await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.header("x-rtm-origin")), (400, Some("vendor")));
}

#[tokio::test]
async fn it_comes_over_http2_too_and_to_callers_that_ask_for_nothing_in_particular() {
    let stage = stage().await;
    stage.sim.add_message(APP, Message::peer("alice", "bob", "hi"));
    let mut caller = Client::http2(stage.addr).await.with("x-api-key", "all-key");
    let reply = caller.get(&target("")).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.broken), (200, false));
    let lines: Vec<Value> = reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&lines[0]["payload"], &lines[2]["end"], &lines[2]["messages"]),
        (&"hi".into(), &true.into(), &1.into())
    );
    assert_eq!(lines[1]["cursor"], lines[2]["cursor"]);
    // The end's cursor leads to what has come since.
    let since = target(&format!("&cursor={}", lines[2]["cursor"].as_str().unwrap()));
    assert_eq!(caller.get(&since).await.unwrap().text().lines().count(), 1);
    stage.sim.add_message(APP, Message::peer("alice", "bob", "there"));
    let more = caller.get(&since).await.unwrap();
    assert!(more.text().contains("there") && !more.text().contains("hi\""), "{}", more.text());
}

#[tokio::test]
async fn a_gateway_that_stops_tells_its_readers_where_to_go_on() {
    let stage = stage().await;
    let base = Clock::system().wall_ms().0 - 3_600_000;
    let filling = "x".repeat(2000);
    let message = |n: u64| Message::peer("alice", "bob", &format!("{n} {filling}")).at(base + n);
    stage.sim.world().add_messages(APP, (0..20_000).map(message));
    let mut caller = client(&stage).await;
    let mut lines = Lines::open(&mut caller, "").await;
    lines.next().await.unwrap();
    stage.stop();
    let mut last = Value::Null;
    let mut cursor = Value::Null;
    while let Some(line) = lines.next().await {
        if let Some(place) = line.get("cursor") {
            cursor = place.clone();
        }
        last = line;
    }
    assert_eq!((&last["error"]["code"], &last["error"]["status"]), (&"unavailable".into(), &503.into()), "{last}");
    assert_eq!(last["cursor"], cursor);
    drop(caller);
    stage.stopped().await;
}
