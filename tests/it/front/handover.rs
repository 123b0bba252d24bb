//! A response that could not be handed over whole is given again; one that was is not.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rtm_gateway::kernel::names::Stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::events::texts;
use super::stage::{APP, Answer, DEADLINE, RTM, Stage, request};
use crate::support::waiting::eventually;

/// More than the sockets' buffers of both ends hold.
const LARGE: usize = 3 << 20;

/// Events of this many bytes together.
pub(crate) async fn large_events(stage: &Stage) -> Vec<String> {
    let payload = "x".repeat(32 << 10);
    let mut sent = Vec::new();
    for n in 0..LARGE / payload.len() {
        let event = format!(r#"{{"ms":{n},"type":"Login","user_id":"{payload}"}}"#);
        sent.push(stage.sim.emit_raw(APP, Stream::UserEvents, &event).to_string());
    }
    // All are in the log once another subscription has seen the last.
    let watching = async {
        let mut seen = 0;
        while seen < sent.len() {
            let more = stage.get(&format!("{RTM}/vendor/user_events?wait=20s&subscription=watcher")).await;
            seen += texts(&more).len();
        }
    };
    tokio::time::timeout(DEADLINE * 2, watching).await.expect("all that was emitted is read");
    sent
}

pub(crate) fn read() -> String {
    request("GET", &format!("{RTM}/vendor/user_events?wait=20s"), "all", "", "")
}

/// A caller whose system buffers little.
pub(crate) async fn small_caller(stage: &Stage) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(stage.addr).await.unwrap()
}

/// Reads again until all events came.
pub(crate) async fn rest(stage: &Stage, count: usize) -> Vec<String> {
    let mut events = Vec::new();
    while events.len() < count {
        events.extend(texts(&stage.raw(read()).await));
    }
    events
}

#[tokio::test]
async fn a_caller_that_leaves_in_the_middle_of_a_response_is_given_it_again() {
    let stage = Stage::start().await;
    let sent = large_events(&stage).await;
    let mut caller = small_caller(&stage).await;
    caller.write_all(read().as_bytes()).await.unwrap();
    let mut some = vec![0; 10_000];
    caller.read_exact(&mut some).await.unwrap();
    assert!(String::from_utf8_lossy(&some).contains(r#""result":"success""#));
    drop(caller);
    assert_eq!(rest(&stage, sent.len()).await, sent);
    stage.stopped().await;
}

#[tokio::test]
async fn a_caller_that_leaves_while_it_waits_takes_nothing_with_it() {
    let stage = Stage::start().await;
    let mut caller = stage.connect().await;
    caller.write_all(read().as_bytes()).await.unwrap();
    eventually(|| stage.parts.events.subscriptions().iter().any(|s| s.subscription == "$client.all")).await;
    drop(caller);
    eventually(|| stage.parts.metrics.connections.get() == 0).await;
    let sent = stage.sim.emit_many(APP, Stream::UserEvents, 3).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(rest(&stage, 3).await, sent);
}

#[tokio::test]
async fn requests_sent_ahead_on_one_connection_get_their_own_events_in_order() {
    let stage = Stage::start().await;
    let sent: Vec<_> = stage.sim.emit_many(APP, Stream::UserEvents, 30).iter().map(ToString::to_string).collect();
    let mut caller = stage.connect().await;
    let ahead = request("GET", &format!("{RTM}/vendor/user_events?wait=20s&limit=1"), "all", "", "").repeat(30);
    caller.write_all(ahead.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    for _ in 0..30 {
        got.extend(texts(&Answer::read(&mut caller).await));
    }
    assert_eq!(got, sent);
}

#[tokio::test]
async fn over_http2_a_stream_that_is_reset_is_given_again_and_one_that_ends_is_not() {
    let stage = Stage::start().await;
    let sent = large_events(&stage).await;
    let tcp = stage.connect().await;
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(100_000)
        .initial_connection_window_size(1 << 20)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(tcp))
        .await
        .unwrap();
    let driving = rtm_gateway::kernel::task::Tasks::new();
    driving.spawn(rtm_gateway::kernel::task::Kind::Linger, async { drop(connection.await) });
    let mut ask = || {
        let uri = format!("http://gateway{RTM}/vendor/user_events?wait=20s");
        let request = Request::builder().uri(uri).header("x-api-key", "all-key").body(Empty::new()).unwrap();
        sender.send_request(request)
    };
    let mut cut = ask().await.unwrap();
    assert_eq!(cut.version(), hyper::Version::HTTP_2);
    assert!(cut.body_mut().frame().await.unwrap().is_ok());
    drop(cut);
    let mut got = Vec::new();
    while got.len() < sent.len() {
        let (head, mut body) = ask().await.unwrap().into_parts();
        let mut whole = Vec::new();
        while let Some(frame) = tokio::time::timeout(DEADLINE, body.frame()).await.unwrap() {
            whole.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
        assert_eq!(head.status, 200);
        let json: serde_json::Value = serde_json::from_slice(&whole).unwrap();
        got.extend(json["events"].as_array().unwrap().iter().map(ToString::to_string));
    }
    let as_json = |text: &String| serde_json::from_str::<serde_json::Value>(text).unwrap().to_string();
    assert_eq!(got, sent.iter().map(as_json).collect::<Vec<_>>());
    // All of it was handed over: there is nothing left.
    let left = stage.get(&format!("{RTM}/vendor/user_events")).await;
    assert_eq!(texts(&left), [""; 0]);
}

#[tokio::test]
async fn a_stop_ends_long_polls_with_what_there_is() {
    let stage = Stage::start().await;
    let mut caller = stage.connect().await;
    let long = request("GET", &format!("{RTM}/vendor/user_events?wait=60s"), "all", "", "");
    caller.write_all(long.as_bytes()).await.unwrap();
    eventually(|| stage.parts.events.subscriptions().iter().any(|s| s.subscription == "$client.all")).await;
    stage.stop();
    let answer = Answer::read(&mut caller).await;
    assert_eq!((answer.status, texts(&answer).len(), answer.header("connection")), (200, 0, Some("close")));
    stage.stopped().await;
}
