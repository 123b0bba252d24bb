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

/// Acknowledges this and reads on, with these members more. Nobody gives up.
async fn next(stage: &Stage, settle: Value, more: Value) -> Value {
    let mut body = json!({"subscription": "work", "settle": settle, "max_attempts": 1000});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = say(stage, "next", body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn success(events: u64) -> Value {
    json!({"result": "success", "events": events})
}

/// Emits these and waits until they are stored.
async fn occurred(stage: &Stage, users: &[&str]) {
    for (n, user) in users.iter().enumerate() {
        stage.sim.emit_raw(APP, Stream::UserEvents, &event(user, n as u64));
    }
    let mut there = 0;
    while there < users.len() {
        let answer = stage.get(&events("?subscription=probe&wait=20s")).await;
        there += answer.json()["events"].as_array().unwrap().len();
    }
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
    // All are there before anybody leases.
    occurred(&stage, &["ann", "bob", "ann", "cid"]).await;
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

#[tokio::test]
async fn a_reader_acknowledges_with_its_next_read_and_once_is_enough() {
    let stage = Stage::start().await;
    occurred(&stage, &["ann", "bob", "cid", "ann"]).await;
    let first = next(&stage, Value::Null, json!({"limit": 2})).await;
    assert_eq!(read(&first), of(&["ann", "bob"], 1));
    assert!(first.get("settled").is_none(), "{first}");
    let done = json!({"lease": first["lease"]});
    let second = next(&stage, done.clone(), json!({"limit": 1})).await;
    assert_eq!((&second["settled"], read(&second)), (&success(2), of(&["cid"], 1)));
    // Its answer was lost, say: it asks the same again.
    let again = next(&stage, done, json!({"limit": 1})).await;
    assert_eq!((&again["settled"], read(&again)), (&success(0), of(&["ann"], 1)));
    let cursor = json!({"cursors": [second["events"][0]["cursor"], again["events"][0]["cursor"]]});
    // Nothing is left, and without a wait that is said at once.
    let last = next(&stage, cursor.clone(), json!({})).await;
    assert_eq!((&last["settled"], read(&last)), (&success(2), Vec::new()));
    assert!(last.get("lease").is_none(), "{last}");
    assert_eq!(next(&stage, cursor, json!({"wait": "0s"})).await["settled"], success(0));
    stage.stopped().await;
}

#[tokio::test]
async fn a_lease_that_is_over_is_told_beside_what_is_read_and_its_events_come_again() {
    let stage = Stage::start().await;
    occurred(&stage, &["ann", "bob"]).await;
    let expired = |told: &Value| {
        assert_eq!(
            (&told["result"], &told["code"], &told["status"]),
            (&"failed".into(), &"lease_expired".into(), &410.into())
        );
        assert!(told["detail"].is_string(), "{told}");
    };
    // Nobody was ever leased that.
    let taken = next(&stage, json!({"lease": "AAAAAAAAAAAAAAAAAAAAAA"}), json!({"limit": 1})).await;
    expired(&taken["settled"]);
    assert_eq!(read(&taken), of(&["ann"], 1));
    // Nobody acknowledges this in time: it runs out while the next reader waits.
    let short = next(&stage, Value::Null, json!({"lease": "1s"})).await;
    assert_eq!(read(&short), of(&["bob"], 1));
    let again = next(&stage, Value::Null, json!({"wait": "20s"})).await;
    assert_eq!(read(&again), of(&["bob"], 2));
    let late = next(&stage, json!({"lease": short["lease"]}), json!({})).await;
    expired(&late["settled"]);
    assert_eq!(read(&late), Vec::new());
    // Given back by who has it.
    say(&stage, "nack", json!({"subscription": "work", "lease": taken["lease"]})).await;
    let back = next(&stage, json!({"lease": taken["lease"]}), json!({})).await;
    expired(&back["settled"]);
    assert_eq!(read(&back), of(&["ann"], 2));
    let cursors = json!({"cursors": [short["events"][0]["cursor"], back["events"][0]["cursor"]]});
    assert_eq!(next(&stage, cursors, json!({})).await["settled"], success(2), "by its cursor also late");
    stage.stopped().await;
}

#[tokio::test]
async fn what_is_settled_frees_others_before_the_read_that_settles_it_has_waited() {
    let stage = Stage::start().await;
    occurred(&stage, &["ann", "ann"]).await;
    let one = next(&stage, Value::Null, json!({"limit": 1})).await;
    assert_eq!(read(&one), of(&["ann"], 1));
    // Ann's later event is nobody's until her first is settled. One reader settles that, and both wait: one gets it, the
    // other what occurs then.
    let wait = json!({"wait": "20s", "limit": 1});
    let waits = next(&stage, Value::Null, wait.clone());
    let settles = next(&stage, json!({"lease": one["lease"]}), wait);
    tokio::pin!(waits, settles);
    let mut answers = Vec::new();
    let is_settling = tokio::select! {
        answer = &mut waits => { answers.push(answer); true }
        answer = &mut settles => { answers.push(answer); false }
    };
    assert_eq!(read(&answers[0]), of(&["ann"], 1));
    stage.sim.emit_raw(APP, Stream::UserEvents, &event("bob", 9));
    answers.push(if is_settling { settles.await } else { waits.await });
    assert_eq!(read(&answers[1]), of(&["bob"], 1));
    assert_eq!(answers[usize::from(is_settling)]["settled"], success(1));
    stage.stopped().await;
}

#[tokio::test]
async fn what_is_refused_settles_nothing() {
    let stage = Stage::start().await;
    occurred(&stage, &["ann"]).await;
    let one = next(&stage, Value::Null, json!({"limit": 1})).await;
    let settle = json!({"lease": one["lease"]});
    for (body, status, code) in [
        (json!({"subscription": "work", "settle": settle, "limit": 0}), 400, "bad_request"),
        (json!({"subscription": "work", "settle": settle, "after": "earliest"}), 400, "bad_request"),
        (json!({"subscription": "reader", "settle": settle}), 403, "forbidden"),
    ] {
        let answer = say(&stage, "next", body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{answer:?}");
    }
    let plain = stage.raw(request("POST", &events("/next"), "all", "Content-Type: text/plain\r\n", "{}")).await;
    assert_eq!(plain.status, 415);
    assert_eq!(stage.get(&events("/next")).await.status, 405);
    let all = stage.raw(request("POST", &format!("/v1/apps/{APP}/events/all/next"), "all", JSON, "{}")).await;
    assert_eq!(all.status, 404);
    assert_eq!(next(&stage, settle, json!({})).await["settled"], success(1));
    stage.stopped().await;
}
