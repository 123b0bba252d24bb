//! Explicit acknowledgement over sockets: two readers who compete, what they say of what they have, and what operators do
//! with what was given up.

use rtm_gateway::kernel::names::Stream;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::stage::{APP, Answer, DEADLINE, Stage, request};

const JSON: &str = "Content-Type: application/json\r\n";

fn events(more: &str) -> String {
    format!("/v1/apps/{APP}/events/user_events{more}")
}

fn event(user: &str, n: u64) -> String {
    format!(r#"{{"type":"Login","user_id":"{user}","ms":{n}}}"#)
}

async fn lease(stage: &Stage, more: &str) -> Value {
    let answer = stage.get(&events(&format!("?subscription=work&ack=explicit&wait=20s{more}"))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn say(stage: &Stage, what: &str, body: Value) -> Answer {
    stage.raw(request("POST", &events(&format!("/{what}")), "all", JSON, &body.to_string())).await
}

/// Who and which attempt, of each event.
fn read(leased: &Value) -> Vec<(String, u64)> {
    let each = leased["events"].as_array().unwrap().iter();
    each.map(|e| (e["user_id"].as_str().unwrap().to_owned(), e["attempt"].as_u64().unwrap())).collect()
}

fn of(users: &[&str], attempt: u64) -> Vec<(String, u64)> {
    users.iter().map(|user| ((*user).to_owned(), attempt)).collect()
}

/// An operator's request.
async fn operate(stage: &Stage, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let mut tcp = tokio::net::TcpStream::connect(stage.admin).await.unwrap();
    let length = if body.is_empty() { String::new() } else { format!("{JSON}Content-Length: {}\r\n", body.len()) };
    let path = format!("/admin/v1/apps/{APP}/events/user_events/subscriptions/{path}");
    let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}{headers}\r\n{body}");
    tcp.write_all(request.as_bytes()).await.unwrap();
    Answer::read(&mut tcp).await
}

#[tokio::test]
async fn two_readers_compete_and_each_users_events_stay_in_order() {
    let stage = Stage::start().await;
    for (n, user) in [(1, "ann"), (2, "bob"), (3, "ann"), (4, "cid")] {
        stage.sim.emit_raw(APP, Stream::UserEvents, &event(user, n));
    }
    // All are there before anybody leases.
    let mut there = 0;
    while there < 4 {
        let answer = stage.get(&events("?subscription=probe&wait=20s")).await;
        there += answer.json()["events"].as_array().unwrap().len();
    }
    let one = lease(&stage, "&limit=1").await;
    assert_eq!(read(&one), of(&["ann"], 1));
    let two = lease(&stage, "&limit=10").await;
    assert_eq!(read(&two), of(&["bob", "cid"], 1), "the later event of ann waits for her first");
    let acked = say(&stage, "ack", json!({"subscription": "work", "lease": one["lease"]})).await;
    assert_eq!((acked.status, &acked.json()["events"]), (200, &1.into()), "{acked:?}");
    assert_eq!(read(&lease(&stage, "&limit=10").await), of(&["ann"], 1));
    // One by its cursor, the other given back: it comes again with its attempt.
    let bob = &two["events"][0]["cursor"];
    assert_eq!(say(&stage, "ack", json!({"subscription": "work", "cursors": [bob]})).await.status, 200);
    let extended =
        say(&stage, "extend", json!({"subscription": "work", "lease": two["lease"], "lease_for": "1m"})).await;
    assert_eq!((extended.status, &extended.json()["events"]), (200, &1.into()));
    let back = say(&stage, "nack", json!({"subscription": "work", "lease": two["lease"], "delay": "50ms"})).await;
    assert_eq!((back.status, &back.json()["events"]), (200, &1.into()));
    assert_eq!(read(&lease(&stage, "&limit=10").await), of(&["cid"], 2));
    let late = say(&stage, "ack", json!({"subscription": "work", "lease": two["lease"]})).await;
    assert_eq!((late.status, late.code().as_str()), (410, "lease_expired"));
    let bad = say(&stage, "nack", json!({"subscription": "work"})).await;
    assert_eq!((bad.status, bad.code().as_str()), (400, "bad_request"));
    // Nobody speaks for another client's own subscription.
    let body = json!({"subscription": "reader", "lease": two["lease"]}).to_string();
    let other = stage.raw(request("POST", &events("/ack"), "all", JSON, &body)).await;
    assert_eq!((other.status, other.code().as_str()), (403, "forbidden"));
    stage.stopped().await;
}

#[tokio::test]
async fn what_is_given_up_is_listed_given_again_and_cleared_by_the_operator() {
    let stage = Stage::start().await;
    stage.sim.emit_raw(APP, Stream::UserEvents, &event("ann", 1));
    for _ in 0..2 {
        let leased = lease(&stage, "&max_attempts=2").await;
        say(&stage, "nack", json!({"subscription": "work", "lease": leased["lease"]})).await;
    }
    stage.sim.emit_raw(APP, Stream::UserEvents, &event("ann", 2));
    let next = lease(&stage, "&max_attempts=2").await;
    assert_eq!(next["events"][0]["ms"], 2);
    assert_eq!(say(&stage, "ack", json!({"subscription": "work", "lease": next["lease"]})).await.status, 200);
    let listed = operate(&stage, "GET", "work/dead-letters?limit=10", "", "").await.json();
    let letter = &listed["dead_letters"][0];
    assert_eq!((&letter["attempts"], &letter["event"]["ms"]), (&2.into(), &1.into()), "{listed}");
    let again = json!({"cursors": [letter["cursor"]]}).to_string();
    let other_site =
        operate(&stage, "POST", "work/dead-letters/redeliver", "Origin: http://evil.example\r\n", &again).await;
    assert_eq!(other_site.status, 403);
    let redelivered = operate(&stage, "POST", "work/dead-letters/redeliver", "", &again).await;
    assert_eq!((redelivered.status, &redelivered.json()["redelivered"]), (200, &1.into()), "{redelivered:?}");
    assert_eq!(lease(&stage, "&max_attempts=2").await["events"][0]["ms"], 1);
    let path = format!("work/dead-letters/{}", letter["cursor"].as_str().unwrap());
    assert_eq!(operate(&stage, "DELETE", &path, "", "").await.status, 200);
    assert_eq!(operate(&stage, "DELETE", &path, "", "").await.status, 404);
    assert_eq!(operate(&stage, "GET", "work/dead-letters", "", "").await.json()["dead_letters"], json!([]));
    let gone = operate(&stage, "POST", "work/dead-letters/redeliver", "", &again).await;
    assert_eq!(
        (gone.status, &gone.json()["detail"]),
        (404, &"the subscription has no such dead letter".into()),
        "{gone:?}"
    );
    for (method, path, body, status) in [
        ("POST", "work", "{}", 405),
        ("PUT", "work/seek", "{}", 405),
        ("POST", "work/seek", r#"{"to":"yesterday"}"#, 400),
        ("POST", "work/seek", r#"{"to":"latest","x":1}"#, 400),
        ("POST", "nobody/seek", r#"{"to":"latest"}"#, 404),
        ("POST", "work/nothing", "{}", 404),
        ("DELETE", "work", "", 200),
        ("DELETE", "work", "", 404),
    ] {
        let answer = operate(&stage, method, path, "", body).await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
    }
    stage.stopped().await;
}

#[tokio::test]
async fn a_stream_leases_what_it_sends_and_sends_no_more_than_its_reader_settles() {
    let stage = Stage::start().await;
    for n in 1..=3 {
        stage.sim.emit_raw(APP, Stream::UserEvents, &event(&format!("u{n}"), n));
    }
    let mut tcp = stage.connect().await;
    let target = events("?subscription=work&ack=explicit&limit=1");
    let head = request("GET", &target, "all", "Accept: text/event-stream\r\n", "");
    tcp.write_all(head.as_bytes()).await.unwrap();
    for n in 1..=3 {
        let reading = async {
            let mut text = String::new();
            while !text.contains(&format!(r#""user_id":"u{n}""#)) || !text.ends_with("\n\n\r\n") {
                text.push(tcp.read_u8().await.unwrap() as char);
            }
            text
        };
        let text = tokio::time::timeout(DEADLINE, reading).await.expect("the event in time");
        assert!(text.contains("\nattempt: 1\n") && !text.contains(&format!("u{}", n + 1)), "{text}");
        let lease = text.lines().find_map(|line| line.strip_prefix("lease: ")).unwrap();
        let acked = say(&stage, "ack", json!({"subscription": "work", "lease": lease})).await;
        assert_eq!((acked.status, &acked.json()["events"]), (200, &1.into()));
    }
    drop(tcp);
    stage.stopped().await;
}
