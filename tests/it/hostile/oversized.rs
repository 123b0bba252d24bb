//! Too much of everything.

use tokio::io::AsyncWriteExt as _;

use super::rig::{Ends, QUERY, judge, post};
use crate::front::stage::{Answer, RTM, Stage, request};

/// Above the stage's `request_body_limit`.
const LARGE: usize = 65 << 10;

#[tokio::test]
async fn a_head_with_too_much_of_anything_is_refused() {
    let stage = Stage::with("", "streams = []").await;
    let count = format!("{RTM}/message/history/count?source=a&start_time=0&end_time=9");
    let with = |target: &str, headers: &str| request("GET", target, "all", headers, "").into_bytes();
    let cases = vec![
        with(&count, &format!("X: {}\r\n", "y".repeat(70_000))),
        with(&count, &format!("X: {}\r\n", "y".repeat(4 << 20))),
        with(&count, &format!("Cookie: {}\r\n", "a=b; ".repeat(20_000))),
        with(&count, &format!("{}: y\r\n", "x".repeat(70_000))),
        with(&count, &format!("{}: y\r\n", "x".repeat(1 << 20))),
        with(&count, &"X: y\r\n".repeat(130)),
        with(&count, &"X: y\r\n".repeat(10_000)),
        with(&count, &(0..10_000).map(|n| format!("X-{n}: y\r\n")).collect::<String>()),
        with(&count, &format!("X:{}y\r\n", " ".repeat(70_000))),
        with(&format!("{count}&x={}", "y".repeat(70_000)), ""),
        with(&format!("{RTM}/users/{}/peer_messages", "u".repeat(70_000)), ""),
        with(&format!("/{}", "a/".repeat(100_000)), ""),
        with(&format!("/{}", "%2e%2e/".repeat(100_000)), ""),
        request(&"G".repeat(70_000), &count, "all", "", "").into(),
        vec![b'x'; 1 << 20],
        vec![0; 1 << 20],
    ];
    judge(&stage, "oversized head", Ends::Closed, cases).await;
    stage.stopped().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_by_its_length_or_as_soon_as_it_is_seen() {
    let stage = Stage::with("", "streams = []").await;
    let large = "x".repeat(LARGE);
    let mut cases = vec![
        post(&format!("Content-Length: {LARGE}\r\n"), &large),
        // Of these lengths not a byte comes, nor is one waited for.
        post("Content-Length: 65537\r\n", ""),
        post("Content-Length: 1099511627776\r\n", ""),
        post("Content-Length: 9223372036854775807\r\n", "{}"),
        post("Expect: 100-continue\r\nContent-Length: 1099511627776\r\n", ""),
        post("Transfer-Encoding: chunked\r\n", &format!("{LARGE:x}\r\n{large}\r\n0\r\n\r\n")),
        post("Transfer-Encoding: chunked\r\n", &format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(LARGE))),
        post("Transfer-Encoding: chunked\r\n", &format!("fffffffffffffff\r\n{large}")),
    ];
    for to in ["peer_messages", "channel_messages"] {
        cases.push(request("POST", &format!("{RTM}/users/u/{to}"), "all", "X-Request-Id: case\r\n", &large).into());
    }
    judge(&stage, "oversized body", Ends::Refused, cases).await;
    // A body that is not what it says: compressed, of another kind, of another encoding.
    let length = QUERY.len();
    let odd = [
        "Content-Encoding: gzip",
        "Content-Encoding: br, gzip",
        "Content-Encoding: identity, gzip",
        "Content-Type: text/plain",
        "Content-Type: multipart/form-data; boundary=x",
        "Content-Type: application/json; charset=utf-16",
        "Content-Type: application/json\r\nContent-Type: text/plain",
    ];
    let odd = odd.map(|headers| post(&format!("{headers}\r\nContent-Length: {length}\r\n"), QUERY));
    judge(&stage, "body of another kind", Ends::Refused, odd.to_vec()).await;
    let deep = [
        format!("{}{}", "[".repeat(30_000), "]".repeat(30_000)),
        format!("{}1{}", r#"{"filter":"#.repeat(5000), "}".repeat(5000)),
        format!(r#"{{"filter":{{"source":"a","start_time":1,"end_time":9}},"limit":{}}}"#, "9".repeat(10_000)),
        r#"{"filter":{"source":"a","start_time":1e9999,"end_time":9}}"#.to_owned(),
        "\u{feff}{}".to_owned(),
        "nul\0l".to_owned(),
        String::new(),
    ];
    let deep = deep.map(|body| post(&format!("Content-Length: {}\r\n", body.len()), &body));
    judge(&stage, "JSON that hurts", Ends::Refused, deep.to_vec()).await;
    stage.stopped().await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_cut_off_after_little() {
    let stage = Stage::with("", "streams = []").await;
    let mut caller = stage.connect().await;
    caller.write_all(&post("Transfer-Encoding: chunked\r\n", "")).await.unwrap();
    let (mut reading, mut writing) = caller.split();
    let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
    let mut sent = 0_usize;
    let sending = async {
        while writing.write_all(chunk.as_bytes()).await.is_ok() {
            sent += chunk.len();
        }
    };
    let (answer, ()) = tokio::join!(Answer::read(&mut reading), sending);
    assert_eq!(answer.status, 413);
    // The limit, and what the system's buffers hold and the time of reading away takes; not without end.
    println!("hostile | body without end | cut off after {sent} bytes");
    assert_eq!(stage.sim.stats().received(), 0);
    stage.stopped().await;
}
