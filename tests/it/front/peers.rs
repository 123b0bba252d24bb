//! Callers on a Unix socket, known by their user; and that nobody chooses the host that the gateway asks.

use std::os::unix::fs::MetadataExt as _;

use tokio::net::{TcpListener, UnixStream};

use super::stage::{RTM, Stage, exchange};

#[tokio::test]
async fn the_user_behind_a_unix_socket_is_a_client_unless_the_head_shows_something_else() {
    let uid = std::fs::metadata(tempfile::tempdir().unwrap().path()).unwrap().uid();
    let client = |uid: u32| {
        format!(
            "[[clients]]\nname = \"neighbour\"\nunix_uid = {uid}\nallow = [{{ app = \"*\", actions = [\"events\"] }}]"
        )
    };
    let target = format!("{RTM}/vendor/user_events");
    let ask = |headers: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    for (uid, headers, status) in [
        (uid, "", 200),
        (uid, "X-API-Key: all-key\r\n", 200),
        (uid, "X-API-Key: nobody-key\r\n", 403),
        (uid, "X-API-Key: wrong\r\n", 401),
        (uid, "Authorization: Bearer a.b.c\r\n", 401),
        (uid, "Authorization: Negotiate abc\r\n", 401),
        (uid + 1, "", 401),
        (uid + 1, "X-API-Key: all-key\r\n", 200),
    ] {
        let stage = Stage::with("unix_mode = \"0600\"", &client(uid)).await;
        let mut unix = UnixStream::connect(stage.socket_path()).await.unwrap();
        assert_eq!(exchange(&mut unix, &ask(headers)).await.status, status, "{uid} {headers}");
        // The same process by TCP shows nothing.
        if headers.is_empty() {
            assert_eq!(stage.raw(ask(headers)).await.status, 401);
        }
        let mode = std::fs::metadata(stage.socket_path()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(unix);
        stage.stopped().await;
    }
}

#[tokio::test]
async fn no_header_and_no_target_of_a_caller_chooses_the_host_that_is_asked() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = elsewhere.local_addr().unwrap();
    let stage = Stage::start().await;
    let path = format!("{RTM}/message/history/count?source=a&start_time=1&end_time=2");
    // A count that was kept would need no vendor.
    let key = "X-API-Key: all-key\r\nCache-Control: no-cache\r\n";
    for (request, status) in [
        (format!("GET {path} HTTP/1.1\r\nHost: {there}\r\n{key}\r\n"), 200),
        (
            format!(
                "GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: {there}\r\nForwarded: host={there}\r\n{key}\r\n"
            ),
            200,
        ),
        (
            format!(
                "GET {path} HTTP/1.1\r\nHost: a\r\nX-Original-URL: http://{there}/\r\nX-Rewrite-URL: http://{there}/\r\n{key}\r\n"
            ),
            200,
        ),
        (format!("GET http://{there}{path} HTTP/1.1\r\nHost: {there}\r\n{key}\r\n"), 404),
        (format!("GET http://{}@{there}{path} HTTP/1.1\r\nHost: a\r\n{key}\r\n", stage.sim.addr()), 400),
        (format!("GET //{there}{path} HTTP/1.1\r\nHost: a\r\n{key}\r\n"), 400),
        (format!("GET /http://{there}{path} HTTP/1.1\r\nHost: a\r\n{key}\r\n"), 400),
    ] {
        let asked = stage.sim.stats().received();
        let answer = stage.raw(&request).await;
        assert_eq!(answer.status, status, "{request}: {answer:?}");
        if status == 200 {
            assert!(stage.sim.stats().received() > asked, "{request}");
        }
    }
    assert!(futures_util::FutureExt::now_or_never(elsewhere.accept()).is_none());
    stage.stopped().await;
}
