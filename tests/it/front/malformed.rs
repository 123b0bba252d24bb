//! What is not a request, or could be read as two, is refused with a reason and never reaches the vendor.

use super::stage::{RTM, Stage, request};

/// Without the events streams: whatever the vendor sees then comes from callers.
async fn quiet() -> Stage {
    Stage::with("", "streams = []").await
}

#[tokio::test]
async fn a_request_that_could_be_read_in_two_ways_is_refused() {
    let stage = quiet().await;
    let query = format!("{RTM}/message/history/query");
    let post = |headers: &str, body: &str| {
        format!("POST {query} HTTP/1.1\r\nHost: a\r\nX-API-Key: all-key\r\n{headers}\r\n{body}")
    };
    let get = |target: &str| request("GET", target, "all", "", "");
    let events = format!("{RTM}/vendor/user_events");
    for bytes in [
        post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
        post("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"),
        post("Content-Length: 2\r\nContent-Length: 3\r\n", "{}"),
        post("Content-Length: x\r\n", "{}"),
        post("Transfer-Encoding: gzip\r\n", "{}"),
        post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        post("Host: b\r\n", ""),
        post("Name : value\r\n", ""),
        post("Name: a\r\n folded\r\n", ""),
        post("Na me: a\r\n", ""),
        post("Name: a\0b\r\n", ""),
        get(&format!("{events}#fragment")),
        get(&format!("{RTM}/vendor/../vendor/user_events")),
        get(&format!("{RTM}/vendor/%2e%2e/user_events")),
        get(&format!("{RTM}//vendor/user_events")),
        get(&format!("{RTM}/message/history/query/a%2fb")),
        get(&format!("{RTM}/message/history/query/a%5Cb")),
        get(&format!("{RTM}/message/history/query/a\\b")),
        get(&format!("{RTM}/message/history/query/a%00b")),
        get(&format!("{RTM}/message/history/query/%zz")),
        get(&format!("{RTM}/message/history/query/%ff")),
        get("*"),
        get("dev/v2"),
        get(&format!("{events}?limit=5&limit=6")),
        get(&format!("{events}?limits=5")),
        format!("GET {events} HTTP/1.1\r\nX-API-Key: all-key\r\n\r\n"),
        format!("GET {events} HTTP/1.1\r\nHost: a b\r\nX-API-Key: all-key\r\n\r\n"),
        format!("GET {events} HTTP/9.1\r\nHost: a\r\n\r\n"),
        "nonsense\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\0\u{5}a TLS hello\r\n\r\n".to_owned(),
    ] {
        let answer = stage.raw(&bytes).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{bytes}");
    }
    assert_eq!(stage.sim.stats().connections, 0);
    stage.stopped().await;
}

#[tokio::test]
async fn what_follows_an_ambiguous_length_is_never_read_as_a_request() {
    let stage = quiet().await;
    let smuggled = request(
        "GET",
        &format!("{RTM}/message/history/count?source=a&start_time=0&end_time=9999999999"),
        "all",
        "",
        "",
    );
    let outer = format!(
        "POST {RTM}/message/history/query HTTP/1.1\r\nHost: a\r\nX-API-Key: all-key\r\nContent-Length: {}\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}",
        smuggled.len() + 5
    );
    let mut tcp = stage.connect().await;
    tokio::io::AsyncWriteExt::write_all(&mut tcp, outer.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut tcp, &mut all).await.unwrap();
    let all = String::from_utf8(all).unwrap();
    assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{all}");
    assert!(all.starts_with("HTTP/1.1 400 ") && all.contains("connection: close"), "{all}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_431() {
    let stage = quiet().await;
    let large = |headers: String| request("GET", "/x", "all", &headers, "");
    for bytes in [
        large(format!("X: {}\r\n", "y".repeat(70_000))),
        large(format!("X: {}\r\n", "y".repeat(1_000_000))),
        large("X: y\r\n".repeat(200)),
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(70_000)),
    ] {
        let answer = stage.raw(&bytes).await;
        assert_eq!((answer.status, answer.code().as_str()), (431, "headers_too_large"), "{} bytes", bytes.len());
    }
}

#[tokio::test]
async fn places_and_methods_that_do_not_exist_are_told_apart() {
    let stage = quiet().await;
    for (method, target, status, code) in [
        ("GET", "/", 404, "no_such_route"),
        ("GET", "/v1/apps/demo-app", 404, "no_such_route"),
        ("GET", &format!("{RTM}/vendor/other"), 404, "no_such_route"),
        ("GET", "http://elsewhere/dev", 404, "no_such_route"),
        ("POST", &format!("{RTM}/vendor/user_events"), 405, "method_not_allowed"),
        ("DELETE", &format!("{RTM}/message/history/query/x"), 405, "method_not_allowed"),
        ("CONNECT", "gateway:443", 405, "method_not_allowed"),
    ] {
        let answer = stage.raw(request(method, target, "all", "", "")).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {target}");
        assert_eq!(answer.header("allow").is_some(), status == 405, "{method} {target}");
    }
    // HEAD has no body to read.
    let mut tcp = stage.connect().await;
    let head = request("HEAD", &format!("{RTM}/vendor/user_events"), "all", "Connection: close\r\n", "");
    tokio::io::AsyncWriteExt::write_all(&mut tcp, head.as_bytes()).await.unwrap();
    let mut all = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut tcp, &mut all).await.unwrap();
    assert!(all.starts_with("HTTP/1.1 405 ") && all.ends_with("\r\n\r\n") && all.contains("allow: GET"), "{all}");
}

#[tokio::test]
async fn a_target_in_absolute_form_for_the_vendor_is_served_like_the_origin_form() {
    let stage = quiet().await;
    for host in [stage.sim.addr(), stage.addr] {
        let answer = stage
            .get(&format!("http://{host}{RTM}/message/history/count?source=a&start_time=0&end_time=9999999999"))
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}
