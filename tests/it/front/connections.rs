//! Connections: slow ones end, too many wait, Unix sockets serve, a stop finishes what is in hand.

use rtm_gateway::kernel::names::Stream;
use rtm_gateway::simulator::{Endpoint, Fault};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::stage::{APP, Answer, DEADLINE, RTM, Stage, exchange, request};
use crate::support::waiting::{eventually, pause};

fn count() -> String {
    request("GET", &format!("{RTM}/message/history/count?source=a&start_time=0&end_time=9999999999"), "all", "", "")
}

#[tokio::test]
async fn a_caller_that_never_ends_its_head_is_cut_off() {
    let stage = Stage::with("header_read_timeout = \"150ms\"", "streams = []").await;
    let preface = "PRI * HTTP/2.0\r\n";
    for beginning in ["", "G", "GET / HTTP/1.1\r\nHost: a\r\n", preface] {
        let mut caller = stage.connect().await;
        caller.write_all(beginning.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(DEADLINE, caller.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "{beginning:?} was waited for");
    }
    // A byte at a time does not help.
    let mut caller = stage.connect().await;
    let (mut reading, mut writing) = caller.split();
    let dripping = async {
        loop {
            if writing.write_all(b"x").await.is_err() {
                std::future::pending::<()>().await;
            }
            pause(std::time::Duration::from_millis(20)).await;
        }
    };
    let mut rest = Vec::new();
    tokio::select! {
        ended = tokio::time::timeout(DEADLINE, reading.read_to_end(&mut rest)) => assert!(ended.is_ok()),
        () = dripping => {}
    }
}

#[tokio::test]
async fn more_connections_than_places_wait_only_while_each_has_a_request_in_hand() {
    let stage = Stage::with("max_connections = 1", "").await;
    let mut first = stage.connect().await;
    let wait = request("GET", &format!("{RTM}/vendor/user_events?wait=20s"), "all", "", "");
    first.write_all(wait.as_bytes()).await.unwrap();
    eventually(|| stage.parts.gateway.admission.in_hand() == 1).await;
    let mut second = stage.connect().await;
    second.write_all(count().as_bytes()).await.unwrap();
    stage.sim.emit_many(APP, Stream::UserEvents, 1);
    assert_eq!(Answer::read(&mut first).await.status, 200);
    assert_eq!(Answer::read(&mut second).await.status, 200);
    // Idle, it went for the next.
    assert_eq!(first.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_unix_socket_serves_and_is_gone_after_the_end() {
    let stage = Stage::with("", "streams = []").await;
    let path = stage.socket_path();
    let mut caller = UnixStream::connect(&path).await.unwrap();
    for _ in 0..2 {
        assert_eq!(exchange(&mut caller, &count()).await.status, 200);
    }
    drop(caller);
    stage.stopped().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stop_finishes_what_is_in_hand_and_takes_no_more() {
    let stage = Stage::with("", "streams = []").await;
    stage.sim.on(Endpoint::PeerMessages, Fault::DelayAfter(std::time::Duration::from_millis(300)));
    let mut idle = stage.connect().await;
    assert_eq!(exchange(&mut idle, &count()).await.status, 200);
    let mut busy = stage.connect().await;
    let message =
        request("POST", &format!("{RTM}/users/u/peer_messages"), "all", "", r#"{"destination":"x","payload":"y"}"#);
    busy.write_all(message.as_bytes()).await.unwrap();
    stage.sim.wait_until(|s| s.of(Endpoint::PeerMessages).counted > 0).await.unwrap();
    stage.stop();
    let answer = Answer::read(&mut busy).await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{answer:?}");
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    eventually(|| std::net::TcpStream::connect(stage.addr).is_err()).await;
    stage.stopped().await;
}
