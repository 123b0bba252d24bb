//! History and count as a caller meets them: statuses, headers, bodies' limits.

use rtm_gateway::simulator::{Endpoint, Fault, Message};
use tokio::io::AsyncWriteExt as _;

use super::stage::{APP, Answer, RTM, Stage, request};

fn query(headers: &str, body: &str) -> String {
    request("POST", &format!("{RTM}/message/history/query"), "all", headers, body)
}

const FILTER: &str = r#"{"filter":{"source":"alice","start_time":0,"end_time":4102444800},"limit":20}"#;

async fn stage() -> Stage {
    let stage = Stage::with("", "streams = []").await;
    stage.sim.add_message(APP, Message::peer("alice", "bob", "hi"));
    stage
}

#[tokio::test]
async fn a_query_is_answered_with_the_messages_and_again_by_its_location() {
    let stage = stage().await;
    let answer = stage.raw(query("Prefer: wait=9\r\n", FILTER)).await;
    assert_eq!((answer.status, answer.header("x-rtm-origin")), (200, Some("gateway")), "{answer:?}");
    assert_eq!(answer.header("preference-applied"), Some("wait=9"));
    let body = answer.json();
    assert_eq!((&body["result"], &body["code"]), (&"success".into(), &"ok".into()));
    assert_eq!(body["request_id"].as_str(), answer.header("x-request-id"));
    assert_eq!(body["messages"][0]["payload"], "hi");
    let location = body["location"].as_str().unwrap().replacen("~/rtm", RTM, 1);
    let again = stage.get(&location).await.json();
    assert_eq!((&again["code"], &again["messages"]), (&"ok".into(), &body["messages"]));
    // It belongs to who made it.
    let gone = stage.get(&format!("{RTM}/message/history/query/no-such-handle")).await;
    assert_eq!((gone.status, gone.code().as_str()), (410, "resource not exist"));
}

#[tokio::test]
async fn respond_async_answers_at_once_with_the_place_of_the_result() {
    let stage = stage().await;
    let answer = stage.raw(query("Prefer: respond-async\r\n", FILTER)).await;
    assert_eq!((answer.status, answer.header("preference-applied")), (202, Some("respond-async")), "{answer:?}");
    let place = answer.header("location").unwrap().to_owned();
    assert_eq!(place, answer.json()["location"].as_str().unwrap().replacen("~/rtm", RTM, 1));
    loop {
        let fetched = stage.get(&place).await;
        assert_eq!(fetched.status, 200);
        if fetched.json()["code"] == "ok" {
            assert_eq!(fetched.json()["messages"][0]["payload"], "hi");
            break;
        }
    }
}

#[tokio::test]
async fn a_deadline_that_passes_is_504_with_the_place_of_the_result() {
    let stage = stage().await;
    stage.sim.always(Endpoint::HistoryCreate, Fault::Hang);
    let answer = stage.raw(query("Prefer: wait=0\r\n", FILTER)).await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "in progress"));
    assert!(answer.json()["location"].as_str().unwrap().starts_with("~/rtm/message/history/query/"));
}

#[tokio::test]
async fn a_count_takes_the_vendors_odd_forms() {
    let stage = stage().await;
    // Raw quotation marks are what the vendor's own examples send, though no URI may hold them.
    for quote in ["%22", "\""] {
        let query = format!("&source={quote}alice{quote}&start_time=0&end_time=4102444800");
        let answer = stage.get(&format!("{RTM}/message/history/count?{query}")).await;
        assert_eq!((answer.status, &answer.json()["count"]), (200, &1.into()), "{answer:?}");
    }
    let bad = stage.get(&format!("{RTM}/message/history/count")).await;
    assert_eq!((bad.status, bad.code().as_str()), (400, "bad_request"));
}

#[tokio::test]
async fn bodies_that_are_no_json_or_too_large_never_reach_the_vendor() {
    let stage = stage().await;
    for (headers, body, status, code) in [
        ("Content-Type: text/plain\r\n", FILTER, 415, "unsupported_media_type"),
        ("Content-Encoding: gzip\r\n", FILTER, 415, "unsupported_media_type"),
        ("Content-Type: application/json\r\n", "{", 400, "bad_request"),
        ("", "", 400, "bad_request"),
        ("", &"x".repeat(65 * 1024), 413, "body_too_large"),
    ] {
        let answer = stage.raw(query(headers, body)).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{headers}");
    }
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(4096));
    let chunked = query("Transfer-Encoding: chunked\r\n", "") + &chunk.repeat(20);
    let answer = stage.raw(chunked).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    assert_eq!(stage.sim.stats().connections, 0);
}

#[tokio::test]
async fn a_caller_that_asks_before_it_sends_a_body_is_told_to_go_on_or_not() {
    let stage = stage().await;
    let head = |length: usize| {
        format!(
            "POST {RTM}/message/history/query HTTP/1.1\r\nHost: a\r\nX-API-Key: all-key\r\nContent-Length: {length}\r\n\
             Expect: 100-continue\r\n\r\n"
        )
    };
    let mut caller = stage.connect().await;
    caller.write_all(head(FILTER.len()).as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut caller).await.status, 100);
    caller.write_all(FILTER.as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut caller).await.status, 200);
    assert_eq!(stage.raw(head(1 << 20)).await.status, 413);
}
