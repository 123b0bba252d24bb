//! Whose a subscription is: a client's own place is that client's, whatever the configuration says at the moment, and
//! however it is named.

use rtm_gateway::config::Config;
use rtm_gateway::kernel::names::Stream;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::stage::{APP, Answer, Stage, request};
use crate::support::waiting::found;

const JSON: &str = "Content-Type: application/json\r\n";

fn events(more: &str) -> String {
    format!("/v1/apps/{APP}/events/user_events{more}")
}

async fn read(stage: &Stage, client: &str, more: &str) -> Answer {
    stage.raw(request("GET", &events(more), client, "", "")).await
}

/// The users of the events in an answer.
fn users(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let each = answer.json()["events"].as_array().unwrap().clone();
    each.iter().map(|event| event["user_id"].as_str().unwrap().to_owned()).collect()
}

async fn reload(stage: &Stage, change: impl FnOnce(&mut Config)) {
    let mut config = Config::clone(&stage.parts.config.load());
    change(&mut config);
    stage.parts.apply(&config).await.unwrap();
}

async fn without(stage: &Stage, client: &str) {
    reload(stage, |config| config.clients.retain(|c| c.name.as_str() != client)).await;
}

/// An operator's request.
async fn operate(stage: &Stage, method: &str, path: &str, body: &str) -> Answer {
    let mut tcp = tokio::net::TcpStream::connect(stage.admin).await.unwrap();
    let length = if body.is_empty() { String::new() } else { format!("{JSON}Content-Length: {}\r\n", body.len()) };
    let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n{body}");
    tcp.write_all(request.as_bytes()).await.unwrap();
    Answer::read(&mut tcp).await
}

async fn subscriptions(stage: &Stage) -> Vec<(String, Value, u64)> {
    let all = operate(stage, "GET", "/admin/v1/subscriptions", "").await.json()["subscriptions"].clone();
    let of_stream = all.as_array().unwrap().iter().filter(|s| s["stream"] == "user_events");
    let one = |s: &Value| (s["subscription"].as_str().unwrap().into(), s["client"].clone(), s["lag"].as_u64().unwrap());
    let mut shown: Vec<(String, Value, u64)> = of_stream.map(one).collect();
    shown.sort_by(|a, b| a.0.cmp(&b.0));
    shown
}

/// A gateway that has these users' events, and a shared subscription that has read them all.
async fn with_events(of: &[&str]) -> Stage {
    let stage = Stage::start().await;
    for (n, user) in of.iter().enumerate() {
        stage.sim.emit_raw(APP, Stream::UserEvents, &format!(r#"{{"type":"Login","user_id":"{user}","ms":{n}}}"#));
    }
    let mut there = 0;
    while there < of.len() {
        there += users(&read(&stage, "all", "?subscription=probe&wait=20s").await).len();
    }
    stage
}

#[tokio::test]
async fn a_client_s_own_place_stays_closed_to_others_while_the_client_is_not_configured() {
    let stage = with_events(&["ann", "bob", "cid"]).await;
    assert_eq!(users(&read(&stage, "reader", "?limit=1").await), ["ann"]);
    let before = stage.parts.config.load_full();
    without(&stage, "reader").await;
    for other in ["?subscription=reader", "?subscription=reader&ack=explicit", "?subscription=reader&from=latest"] {
        assert_eq!(read(&stage, "all", other).await.status, 403, "{other}");
    }
    let streams = "Accept: text/event-stream\r\n";
    for target in [events("?subscription=reader"), format!("/v1/apps/{APP}/events/all?subscription=reader")] {
        assert_eq!(stage.raw(request("GET", &target, "all", streams, "")).await.status, 403);
    }
    let vendors = format!("{}/vendor/user_events?subscription=reader", super::stage::RTM);
    assert_eq!(stage.get(&vendors).await.status, 403);
    let of_reader = json!({ "subscription": "reader", "lease": "AAAAAAAAAAAAAAAAAAAAAA" }).to_string();
    for what in ["ack", "nack", "extend"] {
        let said = stage.raw(request("POST", &events(&format!("/{what}")), "all", JSON, &of_reader)).await;
        assert_eq!(said.status, 403, "{what}");
    }
    reload(&stage, |config| *config = Config::clone(&before)).await;
    assert_eq!(users(&read(&stage, "reader", "").await), ["bob", "cid"]);
    stage.stopped().await;
}

#[tokio::test]
async fn a_client_s_own_place_cannot_be_taken_in_advance() {
    let stage = with_events(&["ann", "bob"]).await;
    let before = stage.parts.config.load_full();
    without(&stage, "reader").await;
    // A name like any other, as long as nobody has it.
    assert_eq!(users(&read(&stage, "all", "?subscription=reader").await), ["ann", "bob"]);
    reload(&stage, |config| *config = Config::clone(&before)).await;
    assert_eq!(read(&stage, "all", "?subscription=reader").await.status, 403);
    assert_eq!(users(&read(&stage, "reader", "").await), ["ann", "bob"], "its own, from the beginning");
    // What was read lags until the other end's system has acknowledged it.
    let shown = found(async || {
        let shown = subscriptions(&stage).await;
        (shown[0].2 == 0 && shown[2].2 == 0).then_some(shown)
    })
    .await;
    assert_eq!(shown[0], ("$client.reader".to_owned(), json!("reader"), 0));
    assert_eq!(shown[2], ("reader".to_owned(), json!("all"), 0));
    stage.stopped().await;
}

#[tokio::test]
async fn who_names_itself_means_its_own_place_and_no_caller_names_the_gateway_s() {
    let stage = with_events(&["ann", "bob", "cid"]).await;
    assert_eq!(users(&read(&stage, "reader", "?limit=1").await), ["ann"]);
    assert_eq!(users(&read(&stage, "reader", "?subscription=reader&limit=1").await), ["bob"]);
    let leased = read(&stage, "reader", "?subscription=reader&ack=explicit").await.json();
    for named in [
        json!({ "lease": leased["lease"], "lease_for": "1m" }),
        json!({ "subscription": "reader", "lease": leased["lease"] }),
    ] {
        let said = stage.raw(request("POST", &events("/extend"), "reader", JSON, &named.to_string())).await;
        assert_eq!((said.status, &said.json()["events"]), (200, &json!(1)), "{named}");
    }
    for name in ["$client.reader", "$client.all", "$webhook.x", "$", "%24client.reader"] {
        let refused = read(&stage, "all", &format!("?subscription={name}")).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "bad_request"), "{name}");
        let body = json!({ "subscription": name, "lease": leased["lease"] }).to_string();
        assert_eq!(stage.raw(request("POST", &events("/ack"), "all", JSON, &body)).await.status, 400, "{name}");
    }
    stage.stopped().await;
}

#[tokio::test]
async fn operators_reach_a_client_s_own_place_by_its_name_and_by_the_client_s() {
    let stage = with_events(&["ann", "bob"]).await;
    assert_eq!(users(&read(&stage, "reader", "").await), ["ann", "bob"]);
    let below = format!("/admin/v1/apps/{APP}/events/user_events/subscriptions");
    for name in ["reader", "$client.reader", "%24client.reader"] {
        let moved = operate(&stage, "POST", &format!("{below}/{name}/seek"), r#"{"to":"earliest"}"#).await;
        assert_eq!(moved.status, 200, "{moved:?}");
        assert_eq!(users(&read(&stage, "reader", "").await), ["ann", "bob"], "{name}");
        assert_eq!(operate(&stage, "GET", &format!("{below}/{name}/dead-letters"), "").await.status, 200);
    }
    assert_eq!(operate(&stage, "DELETE", &format!("{below}/reader"), "").await.status, 200);
    assert_eq!(operate(&stage, "DELETE", &format!("{below}/reader"), "").await.status, 404);
    assert_eq!(users(&read(&stage, "reader", "").await), ["ann", "bob"]);
    stage.stopped().await;
}
