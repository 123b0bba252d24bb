//! Large answers of the vendor whose callers are slow: they stay within their room, and nobody else notices.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rtm_gateway::kernel::metrics::ShedLabels;
use rtm_gateway::kernel::names::Stream;
use rtm_gateway::kernel::task::{Kind, Tasks};
use rtm_gateway::simulator::{Endpoint, Fault};
use rtm_gateway::upstream::pool::Bounds;
use tokio::task::JoinSet;

use super::events::texts;
use super::stage::{APP, DEADLINE, RTM, Stage, request};
use crate::support::settings;
use crate::support::waiting::eventually;

const KIB: usize = 1 << 10;
const ROOM: Bounds = Bounds { all: 512 * KIB, answer: 64 * KIB, small: 4 * KIB, waiting: 256 };
const LARGE: usize = 48 * KIB;

/// With little room, and a second client, whose name is `other`.
async fn stage() -> Stage {
    let other = settings::client("other", r#"allow = [{ app = "*", actions = ["events", "messages"] }]"#);
    let stage = Stage::with("[upstream]\nrequest_timeout = \"120s\"", &other).await;
    stage.parts.egress.bound_answers(ROOM);
    stage
}

fn held(stage: &Stage) -> usize {
    usize::try_from(stage.parts.metrics.response_body_bytes.get()).unwrap()
}

/// A connection whose streams take a KiB each until they are read.
async fn callers(stage: &Stage, tasks: &Tasks) -> SendRequest<Full<Bytes>> {
    let io = TokioIo::new(stage.connect().await);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(1024).initial_connection_window_size(1 << 20);
    let (sender, connection) = builder.handshake(io).await.unwrap();
    tasks.spawn(Kind::Simulator, async { drop(connection.await) });
    sender
}

fn message(wait: u32) -> Request<Full<Bytes>> {
    Request::post(format!("http://gateway{RTM}/users/u/peer_messages"))
        .header("x-api-key", "all-key")
        .header("prefer", format!("wait={wait}"))
        .body(Full::from(r#"{"destination":"x","payload":"y"}"#))
        .unwrap()
}

/// So many slow callers, each with its answer's head at most.
fn ask(sender: &SendRequest<Full<Bytes>>, count: usize) -> JoinSet<Response<Incoming>> {
    let mut asked = JoinSet::new();
    for _ in 0..count {
        let mut sender = sender.clone();
        asked.spawn(async move { sender.send_request(message(100)).await.unwrap() });
    }
    asked
}

async fn next(asked: &mut JoinSet<Response<Incoming>>) -> Option<Response<Incoming>> {
    tokio::time::timeout(DEADLINE, asked.join_next()).await.expect("it goes on").map(Result::unwrap)
}

fn sent(stage: &Stage) -> u64 {
    stage.sim.stats().of(Endpoint::PeerMessages).received
}

#[tokio::test]
async fn slow_callers_of_large_answers_keep_within_the_room_and_others_go_on() {
    let stage = stage().await;
    let tasks = Tasks::new();
    let sender = callers(&stage, &tasks).await;
    for _ in 0..40 {
        stage.sim.on(Endpoint::PeerMessages, Fault::Pad(LARGE));
    }
    let mut asked = ask(&sender, 40);
    eventually(|| sent(&stage) == 40).await;
    let mut slow = Vec::new();
    while held(&stage) < ROOM.all - 2 * LARGE {
        slow.push(next(&mut asked).await.unwrap());
    }
    // Nobody reads: messages of another client, events and probes go on.
    for n in 0..5 {
        let body = r#"{"destination":"x","payload":"y"}"#;
        let small = request("POST", &format!("{RTM}/users/u/peer_messages"), "other", "", body);
        assert_eq!(stage.raw(small).await.status, 200);
        stage.sim.always(Endpoint::UserEvents, Fault::Pad(LARGE));
        stage.sim.emit_raw(APP, Stream::UserEvents, &format!(r#"{{"ms":{n},"type":"Login","user_id":"u"}}"#));
        let events = request("GET", &format!("{RTM}/vendor/user_events?wait=20s"), "other", "", "");
        assert_eq!(texts(&stage.raw(events).await).len(), 1);
    }
    assert!(held(&stage) <= ROOM.all);
    // One that would have to wait longer than it may is told so.
    let shed =
        || stage.parts.metrics.requests_shed.get_or_create(&ShedLabels { reason: "response_memory".into() }).get();
    stage.sim.on(Endpoint::PeerMessages, Fault::Pad(LARGE));
    let refused = sender.clone().send_request(message(5)).await.unwrap();
    assert_eq!((refused.status().as_u16(), shed()), (503, 1));
    assert!(refused.headers().contains_key("retry-after"));
    let refused = refused.into_body().collect().await.unwrap().to_bytes();
    assert!(std::str::from_utf8(&refused).unwrap().contains("may have been sent"), "{refused:?}");
    // All who wait get theirs when those before them read or leave.
    let mut read = 0;
    loop {
        for answer in slow.drain(..) {
            if read % 3 != 2 {
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                assert!(body.len() > LARGE);
            }
            read += 1;
        }
        match next(&mut asked).await {
            Some(answer) => slow.push(answer),
            None => break,
        }
        assert!(held(&stage) <= ROOM.all);
    }
    assert_eq!(read, 40);
    eventually(|| held(&stage) == 0).await;
    drop(sender);
    stage.stopped().await;
}

#[tokio::test]
async fn a_connection_that_is_lost_gives_back_what_its_answers_held() {
    let stage = stage().await;
    for _ in 0..3 {
        let tasks = Tasks::new();
        let sender = callers(&stage, &tasks).await;
        let before = sent(&stage);
        for _ in 0..20 {
            stage.sim.on(Endpoint::PeerMessages, Fault::all([Fault::Pad(LARGE), Fault::Chunked]));
        }
        let mut asked = ask(&sender, 20);
        eventually(|| sent(&stage) == before + 20).await;
        eventually(|| held(&stage) >= ROOM.all - 2 * ROOM.answer).await;
        asked.abort_all();
        drop(sender);
        tasks.finish(Duration::ZERO).await;
        while asked.join_next().await.is_some() {}
        eventually(|| held(&stage) == 0).await;
    }
    stage.stopped().await;
}
