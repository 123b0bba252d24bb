//! The bytes that leave, and the connections they leave by.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use rtm_gateway::kernel::names::{BucketName, Stream};
use rtm_gateway::simulator::{Endpoint, Idle};
use rtm_gateway::upstream::egress::Failure;
use rtm_gateway::vendor::order::Operation;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::rig::{KEY, Rig, SECRET, count, order, read, vendor};

/// base64("the-key:the-s3cret-of-the-app")
const SHOWN: &str = "dGhlLWtleTp0aGUtczNjcmV0LW9mLXRoZS1hcHA=";

/// Answers connections one after another with these texts and returns the requests it read.
async fn scripted(listener: TcpListener, answers: Vec<&'static str>) -> Vec<String> {
    let mut requests = Vec::new();
    for answer in answers {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let n = tcp.read(&mut buffer).await.unwrap();
            request.extend_from_slice(&buffer[..n]);
            let text = String::from_utf8_lossy(&request);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length =
                head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |l| l.parse().unwrap());
            if body.len() >= length {
                break;
            }
        }
        tcp.write_all(answer.as_bytes()).await.unwrap();
        requests.push(String::from_utf8(request).unwrap());
    }
    requests
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\nset-cookie: a=b\r\nserver: nginx\r\n\
    content-type: application/json\r\nx-ar-token: 006\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n{}";

#[tokio::test]
async fn only_what_the_vendor_needs_leaves_and_only_what_a_caller_needs_comes_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let rig = Rig::new(&format!("http://{address}"));
    let vendor = scripted(listener, vec![OK, OK]);

    let callers = async {
        let mut query = order(Operation::CreateHistory(Bytes::from_static(b"{\"x\":1}")), Duration::from_secs(5));
        for name in [
            "authorization",
            "cookie",
            "x-api-key",
            "x-ar-token",
            "x-ar-uid",
            "x-agora-token",
            "x-forwarded-for",
            "forwarded",
            "via",
            "traceparent",
            "connection",
            "te",
            "upgrade",
            "host",
            "content-length",
            "transfer-encoding",
            "expect",
            "prefer",
            "x-request-id",
            "accept-encoding",
            "range",
            "if-none-match",
        ] {
            query.headers.push((HeaderName::from_static(name), HeaderValue::from_static("callers-own")));
        }
        let wanted = [
            ("accept", "application/json"),
            ("accept", "text/plain"),
            ("content-type", "application/json; charset=utf-8"),
            ("content-encoding", "identity"),
            ("accept-language", "zh"),
            ("user-agent", "billing/2"),
        ];
        for (name, value) in wanted {
            query.headers.push((HeaderName::from_static(name), HeaderValue::from_static(value)));
        }
        let reply = rig.egress.send(query).await.unwrap();
        let names: Vec<_> = reply.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["content-type", "date"]);
        rig.egress.send(read()).await.unwrap();
    };
    let (requests, ()) = tokio::join!(vendor, callers);

    let expected = format!(
        "POST /dev/v2/project/demo-app/rtm/message/history/query HTTP/1.1\r\naccept: application/json\r\n\
         accept: text/plain\r\ncontent-type: application/json; charset=utf-8\r\ncontent-encoding: identity\r\n\
         accept-language: zh\r\nuser-agent: billing/2\r\nauthorization: Basic {SHOWN}\r\nhost: {address}\r\n\
         content-length: 7\r\n\r\n{{\"x\":1}}"
    );
    assert_eq!(requests[0], expected);
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "GET /dev/v2/project/demo-app/rtm/vendor/user_events HTTP/1.1\r\nuser-agent: rtm-gateway/{version}\r\n\
         accept-encoding: identity\r\nauthorization: Basic {SHOWN}\r\nhost: {address}\r\n\r\n"
    );
    assert_eq!(requests[1], expected);
}

#[tokio::test]
async fn no_answer_brings_a_secret_into_an_error_or_a_metric() {
    let garbage = "HTTP/1.1 what\r\n\r\n";
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nhalf";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rig = Rig::new(&format!("http://{}", listener.local_addr().unwrap()));
    let vendor = scripted(listener, vec![garbage, cut]);
    let callers = async {
        let first = rig.egress.send(read()).await.unwrap_err();
        let second = rig.egress.send(read()).await.unwrap_err();
        assert!(matches!(&first.why, Failure::Lost { partial: None, .. }), "{first:?}");
        assert!(matches!(&second.why, Failure::Lost { partial: Some(p), .. } if p == "half"), "{second:?}");
        rig.egress.refresh_metrics();
        format!("{first:?}{second:?}{:?}{}", rig.egress.credential_states(), rig.metrics.text())
    };
    let (_, told) = tokio::join!(vendor, callers);
    for secret in [KEY, SECRET, SHOWN] {
        assert!(!told.contains(secret), "{told}");
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    let sim = vendor().await;
    let rig = Rig::new(&sim.base_url());
    for _ in 0..5 {
        rig.egress.send(read()).await.unwrap();
    }
    assert_eq!(sim.stats().connections, 1);
    assert_eq!(rig.free(), 15);
    assert_eq!(sim.violations(), []);
    sim.stop().await;
}

/// hyper-util sends a request again when the pooled connection was closed before its first byte was written. Nobody may
/// notice: not the quota, and above all not the events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_that_the_vendor_closes_cost_neither_seats_nor_events() {
    let sim = vendor().await;
    let rig = Rig::with(&sim.base_url(), |config| config.apps[0].quota = super::rig::quota(200));
    sim.world().set_limits(super::rig::APP, super::rig::vendor_app(200).limits);
    sim.idle(Idle::CloseAfterEach);
    let (mut lost, mut answered) = (0, 0);
    for round in 0..100 {
        sim.emit_user_event(super::rig::APP, "Login", &format!("user-{round}"));
        match rig.egress.send(read()).await {
            Ok(reply) => {
                answered += 1;
                assert!(String::from_utf8_lossy(&reply.body).contains(&format!("user-{round}\"")), "{round}");
                assert_eq!(reply.costs.exchanges, 1);
            }
            // A request written into a connection that was just closed. In doubt, so not sent again.
            Err(failed) => {
                assert!(matches!(failed.why, Failure::Lost { partial: None, .. }), "{failed:?}");
                lost += 1;
            }
        }
    }
    assert!(answered > 0);
    let stats = sim.stats().of(Endpoint::UserEvents);
    assert!(stats.received <= 100 && stats.received >= answered, "{stats:?}, lost {lost}");
    let ledger = sim.ledger(super::rig::APP, Stream::UserEvents);
    assert_eq!(ledger.lost, Vec::<std::sync::Arc<str>>::new());
    assert_eq!(rig.bucket(BucketName::UserEvents).in_flight, 0);
    assert_eq!(sim.violations(), []);
    sim.stop().await;
}

#[tokio::test]
async fn costs_name_the_vendors_request_id() {
    let sim = vendor().await;
    let rig = Rig::new(&sim.base_url());
    let reply = rig.egress.send(count()).await.unwrap();
    let body = String::from_utf8_lossy(&reply.body).into_owned();
    if let Some(id) = &reply.costs.upstream_request_id {
        assert!(body.contains(&**id), "{body}");
    }
    let read = rig.egress.send(read()).await.unwrap();
    let id = read.costs.upstream_request_id.unwrap();
    assert!(String::from_utf8_lossy(&read.body).contains(&*id));
    let text = rig.metrics.text();
    let line = r#"upstream_requests_total{app="demo-app",region="cn",endpoint="user_events",status="200"} 1"#;
    assert!(text.contains(line), "{text}");
    sim.stop().await;
}
