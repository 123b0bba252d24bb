//! The one line a request leaves, and what must not be in it.

use std::collections::BTreeSet;

use rtm_gateway::kernel::names::Stream;
use serde_json::json;

use super::stage::{APP, Answer, RTM, Stage, VENDOR_SECRET, request};
use crate::support::log_lines::LogLines;
use crate::support::waiting::eventually;
use tokio::io::AsyncWriteExt as _;

#[tokio::test]
async fn a_request_leaves_one_line_without_secrets_when_its_answer_ended() {
    let lines = LogLines::of_this_process();
    let stage = Stage::start().await;
    stage.sim.emit_many(APP, Stream::UserEvents, 2);
    let target = format!("{RTM}/vendor/user_events?wait=20s&subscription=night-shift");
    let ask = |target: &str, client: &str, id: &str| {
        let headers = format!("X-Request-Id: {id}\r\nCookie: planted-cookie\r\n");
        stage.raw(request("GET", target, client, &headers, ""))
    };
    let answer = ask(&target, "all", "line-1").await;
    assert_eq!(answer.status, 200);
    ask(&format!("{RTM}/message/history/query/planted-handle"), "all", "line-2").await;
    ask("/planted-path", "wrong-planted", "line-3").await;
    eventually(|| ["line-1", "line-2", "line-3"].iter().all(|id| lines.of(id).len() == 1)).await;

    let line = &lines.of("line-1")[0];
    for (field, expected) in [
        ("client", "all"),
        ("app", APP),
        ("route", "user_events"),
        ("method", "GET"),
        ("subscription", "night-shift"),
        ("proof", "x_api_key:1"),
        ("origin", "gateway"),
        ("end", "handed_over"),
    ] {
        assert_eq!(line[field], expected, "{line}");
    }
    assert_eq!(line["query"], json!(["wait", "subscription"]), "{line}");
    assert_eq!((&line["status"], &line["bytes"]), (&200.into(), &answer.body.len().into()), "{line}");
    assert_eq!(lines.of("line-2")[0]["code"], "resource not exist");
    assert_eq!(lines.of("line-3")[0]["route"], "unmatched");
    stage.stopped().await;
    let text = lines.text();
    for secret in ["planted", "all-key", VENDOR_SECRET, "dmVuZG9y"] {
        let told: Vec<&str> = text.lines().filter(|l| l.contains(secret)).collect();
        assert!(told.is_empty(), "{secret}: {told:#?}");
    }
    let metrics = stage.parts.metrics.text();
    assert!(metrics.contains(r#"requests_total{route="user_events",client="all",status="200"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"requests_total{route="unmatched",client="",status="401"} 1"#), "{metrics}");
}

#[tokio::test]
async fn a_line_says_from_where_a_caller_came_what_it_called_itself_and_how_it_was_known_or_not() {
    let lines = LogLines::of_this_process();
    let stage = Stage::start().await;
    let basic = |pair: &str| {
        use base64::Engine as _;
        format!("Authorization: Basic {}\r\n", base64::engine::general_purpose::STANDARD.encode(pair))
    };
    for (at, (shown, proof, client)) in [
        ("X-API-Key: all-key\r\n".to_owned(), "x_api_key:1", "all"),
        ("Authorization: Bearer all-key\r\n".to_owned(), "key:1", "all"),
        (basic("all:all-key"), "basic:1", "all"),
        (String::new(), "none", ""),
        ("Authorization: Bearer lost-key\r\n".to_owned(), "wrong_key", ""),
        (basic("reader:all-key"), "wrong_name", ""),
        ("Authorization: Negotiate abc\r\n".to_owned(), "unreadable", ""),
        // Not of a caller: nobody was asked who it is.
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n".to_owned(), "", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("who-{at}");
        let mut tcp = stage.connect().await;
        let from = tcp.local_addr().unwrap().to_string();
        let head = format!("GET {RTM}/vendor/user_events HTTP/1.1\r\nHost: a\r\nX-Request-Id: {id}\r\n");
        tcp.write_all(
            format!("{head}User-Agent: night-job/2 (\"x\"; rtmk_{})\r\n{shown}\r\n", "k".repeat(43)).as_bytes(),
        )
        .await
        .unwrap();
        Answer::read(&mut tcp).await;
        let line = lines.one(&id).await;
        assert_eq!((&line["proof"], &line["client"]), (&proof.into(), &client.into()), "{line}");
        assert_eq!(line["peer"], from, "{line}");
        assert_eq!(line["user_agent"], "night-job/2 (\"x\"; …)", "{line}");
    }
    stage.stopped().await;
}

#[tokio::test]
async fn the_page_of_the_log_has_a_row_for_each_member_of_the_access_line_and_for_nothing_else() {
    let lines = LogLines::of_this_process();
    let stage = Stage::start().await;
    stage.raw(request("GET", "/nothing", "all", "X-Request-Id: members\r\n", "")).await;
    let line = lines.one("members").await;
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/log.md")).unwrap();
    let (_, table) = page.split_once("## The access line").unwrap();
    let rows = table.lines().filter_map(|row| row.strip_prefix("| `")?.split_once("` |").map(|(names, _)| names));
    let documented: BTreeSet<_> = rows.flat_map(|names| names.split("`, `")).collect();
    let members: BTreeSet<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, documented);
    stage.stopped().await;
}
