//! Connections that never show who they are, whatever they speak: more of them than there are places shut nobody out,
//! neither at the port they come to, nor at another, nor at the operators'.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::frames::*;
use crate::front::stage::{Answer, RTM, Stage, exchange, request};
use crate::support::waiting::eventually;

/// What a stranger says before it falls silent.
fn strangers() -> Vec<(&'static str, Vec<u8>)> {
    let http2 = |more: Vec<u8>| [PREFACE, &frame(SETTINGS, 0, 0, &[]), &more].concat();
    let post = block(&[
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", b"gateway"),
        (b":path", b"/dev/v2/project/demo-app/rtm/message/history/query"),
    ]);
    let shut = [&[0, 4][..], &[0, 0, 0, 0]].concat();
    vec![
        ("silent", vec![]),
        ("the beginning of a head", b"GET / HTTP/1.1\r\nHost: a\r\nX-A: ".to_vec()),
        ("a request without a key, kept", b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("a body that does not come", b"POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n".to_vec()),
        ("a tunnel", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n".to_vec()),
        ("a balancer's line", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec()),
        ("a balancer's bytes", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec()),
        ("the beginning of a handshake", vec![22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]),
        ("half of HTTP/2's preface", PREFACE[..16].to_vec()),
        ("HTTP/2, silent", http2(vec![])),
        ("HTTP/2, half of a head", http2(frame(HEADERS, 0, 1, &literal(b":method", b"GET")))),
        ("HTTP/2, a stream that stays open", http2(frame(HEADERS, END_HEADERS, 1, &post))),
        (
            "HTTP/2, an answer that is not taken",
            [PREFACE, &frame(SETTINGS, 0, 0, &shut), &frame(HEADERS, END_STREAM | END_HEADERS, 1, &post)].concat(),
        ),
    ]
}

async fn crowd(addr: SocketAddr, says: &[u8], count: usize) -> Vec<TcpStream> {
    let mut crowd = Vec::with_capacity(count);
    for _ in 0..count {
        let mut one = TcpStream::connect(addr).await.unwrap();
        // It may have been asked to go already.
        let _ = one.write_all(says).await;
        crowd.push(one);
    }
    crowd
}

fn count() -> String {
    request("GET", &format!("{RTM}/message/history/count?source=a&start_time=0&end_time=9999999999"), "all", "", "")
}

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn strangers_of_any_protocol_shut_nobody_out() {
    // Long times: what makes room is that somebody comes.
    let times = "max_connections = 12\nheader_read_timeout = \"1h\"\nidle_timeout = \"1h\"";
    let stage = Stage::with(times, "streams = []").await;
    let mut kept = stage.connect().await;
    assert_eq!(exchange(&mut kept, &count()).await.status, 200);
    for (name, says) in strangers() {
        let strangers = crowd(stage.addr, &says, 40).await;
        let mut newcomer = stage.connect().await;
        assert_eq!(exchange(&mut newcomer, &count()).await.status, 200, "{name}");
        let mut local = UnixStream::connect(stage.socket_path()).await.unwrap();
        assert_eq!(exchange(&mut local, &count()).await.status, 200, "{name}");
        assert_eq!(exchange(&mut kept, &count()).await.status, 200, "{name}: strangers go first");
        drop(strangers);
    }
    let said = stage.parts.metrics.text();
    assert!(!said.contains("rtm_gateway_connections_evicted_total{who=\"stranger\"} 0\n"), "{said}");
    assert!(said.contains("rtm_gateway_connections_evicted_total{who=\"client\"} 0\n"), "{said}");
    drop(kept);
    stage.stopped().await;
}

#[tokio::test]
async fn strangers_at_the_operators_port_do_not_keep_a_probe_from_its_answer() {
    let stage = Stage::with("", "streams = []").await;
    for (name, says) in strangers() {
        let strangers = crowd(stage.admin, &says, 100).await;
        for _ in 0..3 {
            let mut probe = TcpStream::connect(stage.admin).await.unwrap();
            assert_eq!(exchange(&mut probe, HEALTH).await.status, 200, "{name}");
        }
        drop(strangers);
    }
    stage.stopped().await;
}

#[tokio::test]
async fn one_client_s_requests_in_hand_leave_places_for_others_and_are_not_cut_for_them() {
    let stage = Stage::with("max_connections = 12", "").await;
    let wait = request("GET", &format!("{RTM}/vendor/user_events?wait=20s"), "reader", "", "");
    let mut waiting = Vec::new();
    for n in 1..=20 {
        let mut one = stage.connect().await;
        one.write_all(wait.as_bytes()).await.unwrap();
        if n <= 10 {
            eventually(|| stage.parts.gateway.admission.in_hand() == n).await;
            waiting.push(one);
        } else {
            let answer = Answer::read(&mut one).await;
            assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
            assert!(answer.header("retry-after").is_some());
        }
    }
    let _strangers = crowd(stage.addr, b"", 40).await;
    let mut other = stage.connect().await;
    assert_eq!(exchange(&mut other, &count()).await.status, 200);
    assert_eq!(stage.parts.gateway.admission.in_hand(), 10);
    stage.stop();
    for mut one in waiting {
        assert_eq!(Answer::read(&mut one).await.status, 200);
    }
    stage.stopped().await;
}

#[tokio::test]
async fn an_idle_connection_whose_place_is_needed_is_closed_as_its_protocol_wants() {
    let stage = Stage::with("max_connections = 3", "streams = []").await;
    // One place is the Unix socket's own.
    let mut first = stage.connect().await;
    assert_eq!(exchange(&mut first, &count()).await.status, 200);
    let mut http2 = Caller::connect(&stage, &[]).await;
    let path = format!("{RTM}/message/history/count?source=a&start_time=0&end_time=9999999999");
    let head = block(&[
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"gateway"),
        (b":path", path.as_bytes()),
        (b"x-api-key", b"all-key"),
    ]);
    http2.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &head)).await;
    http2.hear(|heard| heard.statuses.get(&1) == Some(&200)).await;
    // Each who comes is idle after its answer, and the longest idle goes for the next.
    let mut second = stage.connect().await;
    assert_eq!(exchange(&mut second, &count()).await.status, 200);
    let mut rest = Vec::new();
    assert_eq!(first.read_to_end(&mut rest).await.unwrap(), 0, "closed, not reset");
    let mut third = stage.connect().await;
    assert_eq!(exchange(&mut third, &count()).await.status, 200);
    let heard = http2.hear(|heard| heard.goaway.is_some() && heard.closed).await;
    assert_eq!(heard.goaway, Some(0), "NO_ERROR");
    stage.stopped().await;
}
