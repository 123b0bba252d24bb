//! An answer that is made before its request's body has come: the caller reads it, and knows whether its connection is
//! kept. And how long one is kept that has no request.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Version};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::stage::{Answer, RTM, Stage, exchange, request};

const QUERY: &str = "/message/history/query";
const LARGE: usize = 300 << 10;
const SMALL: usize = 20 << 10;

fn count() -> String {
    request("GET", &format!("{RTM}/message/history/count?source=a&start_time=0&end_time=9999999999"), "all", "", "")
}

/// Requests that are refused by their heads, or as soon as that much of the body has come; with their status.
fn refused() -> Vec<(u16, &'static str, String)> {
    let to = |path: &str| format!("{RTM}{path}");
    vec![
        (401, "unknown", to(QUERY)),
        (403, "nobody", to(QUERY)),
        (404, "all", "/nothing/here".to_owned()),
        (405, "all", to("/message/history/count")),
        (415, "all", to(QUERY)),
    ]
}

#[tokio::test]
async fn a_small_body_that_nobody_wants_is_read_away_and_the_connection_kept() {
    let stage = Stage::with("", "streams = []").await;
    let mut caller = stage.connect().await;
    let body = "x".repeat(SMALL);
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for (status, client, path) in refused() {
        for (headers, body) in [
            (format!("Content-Length: {}\r\n", body.len()), &body),
            ("Transfer-Encoding: chunked\r\n".to_owned(), &chunked),
        ] {
            let head = request("POST", &path, client, &format!("Content-Type: text/plain\r\n{headers}"), "");
            caller.write_all(head.as_bytes()).await.unwrap();
            // The rest comes in its own time.
            tokio::task::yield_now().await;
            caller.write_all(body.as_bytes()).await.unwrap();
            let answer = Answer::read(&mut caller).await;
            assert_eq!((answer.status, answer.header("connection")), (status, Some("keep-alive")), "{headers}");
            assert_eq!(exchange(&mut caller, &count()).await.status, 200);
        }
    }
    drop(caller);
    stage.stopped().await;
}

#[tokio::test]
async fn a_large_one_ends_the_connection_and_the_answer_says_so_and_is_read() {
    let stage = Stage::with("", "streams = []").await;
    let body = "x".repeat(LARGE);
    let mut cases = refused();
    cases.retain(|(status, ..)| *status != 415);
    cases.push((413, "all", format!("{RTM}{QUERY}")));
    for (status, client, path) in cases {
        for (headers, body) in [
            (format!("Content-Length: {}\r\n", body.len()), body.clone()),
            ("Transfer-Encoding: chunked\r\n".to_owned(), format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())),
        ] {
            let mut caller = stage.connect().await;
            let kind = "Content-Type: application/json\r\n";
            let head = request("POST", &path, client, &format!("{kind}{headers}"), "");
            // Whole, before it looks at the answer: what was refused is taken all the same.
            caller.write_all(head.as_bytes()).await.unwrap();
            caller.write_all(body.as_bytes()).await.unwrap();
            let answer = Answer::read(&mut caller).await;
            assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{headers}");
            assert_eq!(answer.header("keep-alive"), None);
            assert_eq!(caller.read(&mut [0]).await.unwrap(), 0, "closed, not reset");
        }
    }
    stage.stopped().await;
}

#[tokio::test]
async fn a_body_that_waits_to_be_asked_for_is_not_asked_for_to_be_thrown_away() {
    let stage = Stage::with("", "streams = []").await;
    for length in [SMALL, LARGE] {
        let mut caller = stage.connect().await;
        let headers = format!("Expect: 100-continue\r\nContent-Length: {length}\r\n");
        caller.write_all(request("POST", &format!("{RTM}{QUERY}"), "unknown", &headers, "").as_bytes()).await.unwrap();
        let answer = Answer::read(&mut caller).await;
        assert_eq!((answer.status, answer.header("connection")), (401, Some("close")));
        assert_eq!(caller.read(&mut [0]).await.unwrap(), 0);
    }
    stage.stopped().await;
}

/// A client with a pool, as services have one: it knows of a connection's end only what it is told.
fn pool(http2: bool) -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).http2_only(http2).pool_max_idle_per_host(1).build_http()
}

#[tokio::test]
async fn a_client_with_a_pool_loses_no_good_request_after_refused_ones() {
    let stage = Stage::with("", "streams = []").await;
    for http2 in [false, true] {
        let client = pool(http2);
        let ask = |method: &str, path: &str, key: &str, body: usize| {
            let uri = format!("http://{}{path}", stage.addr);
            let body = Full::from(vec![b'x'; body]);
            client.request(Request::builder().method(method).uri(uri).header("x-api-key", key).body(body).unwrap())
        };
        let good = format!("{RTM}/message/history/count?source=a&start_time=0&end_time=9999999999");
        for _ in 0..30 {
            let refused = ask("POST", &format!("{RTM}{QUERY}"), "unknown-key", LARGE).await.unwrap();
            assert_eq!(refused.status(), 401);
            assert!(!refused.into_body().collect().await.unwrap().to_bytes().is_empty());
            let answer = ask("GET", &good, "all-key", 0).await.unwrap();
            assert_eq!(answer.status(), 200);
            let version = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
            assert_eq!(answer.version(), version);
            answer.into_body().collect().await.unwrap();
        }
    }
    stage.stopped().await;
}

#[tokio::test]
async fn over_http2_only_the_stream_ends_and_without_an_error() {
    let stage = Stage::with("", "streams = []").await;
    let client = pool(true);
    let uri = format!("http://{}{RTM}{QUERY}", stage.addr);
    // More together than the connection's window: what was sent for nothing is given back.
    for _ in 0..20 {
        let body = Full::from(vec![b'x'; LARGE]);
        let answer =
            client.request(Request::post(&uri).header("x-api-key", "unknown").body(body).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 401);
        answer.into_body().collect().await.unwrap();
        assert_eq!(stage.parts.metrics.connections.get(), 1);
    }
    drop(client);
    stage.stopped().await;
}

#[tokio::test]
async fn answers_say_for_how_long_the_connection_is_kept_only_where_it_is() {
    for (times, said) in [("", "timeout=115"), ("idle_timeout = \"40s\"", "timeout=38")] {
        let stage = Stage::with(times, "streams = []").await;
        let mut caller = stage.connect().await;
        for path in ["/nothing", &format!("{RTM}/message/history/count?source=a&start_time=0&end_time=9")] {
            let answer = exchange(&mut caller, &request("GET", path, "all", "", "")).await;
            assert_eq!(answer.header("keep-alive"), Some(said));
            assert_eq!(answer.header("connection"), Some("keep-alive"));
        }
        let answer = exchange(&mut caller, &request("GET", "/nothing", "all", "Connection: close\r\n", "")).await;
        assert_eq!((answer.header("keep-alive"), answer.header("connection")), (None, Some("close")));
        assert_eq!(caller.read(&mut [0]).await.unwrap(), 0);
        let mut operator = tokio::net::TcpStream::connect(stage.admin).await.unwrap();
        let answer = exchange(&mut operator, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(answer.header("keep-alive"), Some(said));
        drop(operator);
        stage.stopped().await;
    }
}
