//! What operators do is told in the log, and who may do what: by the operator's own key, by the read-only one, by none.

use rtm_gateway::admin::{Act, Operation, View};
use rtm_gateway::kernel::names::Stream;
use rtm_gateway::simulator::{Endpoint, Fault};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::stage::{APP, Answer, Stage, request};
use crate::support::log_lines::LogLines;
use crate::support::waiting::found;

const OPERATOR: &str = "rtm_gateway::operator";

/// Asks the operators' port on a connection of its own. Says what its line would name as the peer.
async fn ask(stage: &Stage, key: &str, (method, target): (&str, &str), body: &str) -> (Answer, String) {
    let mut tcp = TcpStream::connect(stage.admin).await.unwrap();
    let peer = tcp.local_addr().unwrap().to_string();
    let key = if key.is_empty() { String::new() } else { format!("X-API-Key: {key}\r\n") };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let head =
        format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{key}{kind}Content-Length: {}\r\n\r\n", body.len());
    tcp.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    (Answer::read(&mut tcp).await, peer)
}

/// The lines about operators that name this peer.
fn told(lines: &LogLines, peer: &str) -> Vec<Value> {
    lines.those(|line| line["target"] == OPERATOR && line["peer"] == peer)
}

/// A gateway whose operators' port takes the keys `whole` and `looks`.
async fn keyed() -> Stage {
    let stage = Stage::start().await;
    let mut config = rtm_gateway::config::Config::clone(&stage.parts.config.load());
    let digest = |key: &str| Some(Sha256::digest(key).into());
    (config.admin.api_key_sha256, config.admin.read_key_sha256) = (digest("whole"), digest("looks"));
    stage.parts.config.store(std::sync::Arc::new(config));
    stage
}

/// A path that the operation takes, of things that are not there.
fn target(operation: Operation) -> String {
    let values = [("{app}", APP), ("{stream}", "user_events"), ("{name}", "none"), ("{id}", "1"), ("{cursor}", "x")];
    values.iter().fold(operation.path().to_owned(), |path, (name, value)| path.replace(name, value))
}

#[tokio::test]
async fn a_place_that_was_changed_is_told_with_where_it_was_and_is_and_by_whom() {
    let lines = LogLines::of_this_process();
    let stage = keyed().await;
    stage.sim.emit_many(APP, Stream::UserEvents, 3);
    let read = request("GET", &format!("/v1/apps/{APP}/events/user_events?wait=20s&limit=3"), "reader", "", "");
    let answer = stage.raw(read).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // What was handed over is settled in a moment.
    let at = found(async || {
        let (answer, _) = ask(&stage, "looks", ("GET", "/admin/v1/subscriptions"), "").await;
        let all = answer.json()["subscriptions"].clone();
        let reader = all.as_array().unwrap().iter().find(|s| s["client"] == "reader" && s["lag"] == 0).cloned();
        reader.and_then(|reader| reader["cursor"].as_str().map(str::to_owned))
    })
    .await;
    let place = format!("/admin/v1/apps/{APP}/events/user_events/subscriptions/reader");
    let (answer, peer) = ask(&stage, "whole", ("POST", &format!("{place}/seek")), r#"{ "to": "earliest" }"#).await;
    let back = answer.json()["cursor"].as_str().unwrap().to_owned();
    let [line] = &told(&lines, &peer)[..] else { panic!("{:?}", told(&lines, &peer)) };
    for (member, value) in [
        ("level", json!("WARN")),
        ("message", json!("an operator acted")),
        ("operator", json!("key")),
        ("operation", json!("seekSubscription")),
        ("app", json!(APP)),
        ("stream", json!("user_events")),
        // Not as the path has it, which names the client.
        ("subscription", json!("$client.reader")),
        ("before", json!(format!("cursor={at} lag=0 unacknowledged=0 dead_letters=0"))),
        ("after", json!(format!("cursor={back} lag=3"))),
        ("outcome", json!("done")),
        ("status", json!(200)),
        ("webhook", Value::Null),
        ("why", Value::Null),
    ] {
        assert_eq!(line[member], value, "{member}: {line}");
    }
    // Refused for what it asks: the place as it was is told, too.
    let (answer, peer) = ask(&stage, "whole", ("POST", &format!("{place}/seek")), r#"{ "to": "nowhere" }"#).await;
    let line = told(&lines, &peer).pop().unwrap();
    assert_eq!((answer.status, &line["outcome"], &line["status"]), (400, &json!("refused"), &json!(400)), "{line}");
    assert_eq!(line["after"], Value::Null, "{line}");
    assert!(line["why"].as_str().unwrap().starts_with("to: earliest"), "{line}");
    let (answer, peer) = ask(&stage, "whole", ("DELETE", &place), "").await;
    let line = told(&lines, &peer).pop().unwrap();
    assert_eq!((answer.status, &line["after"]), (200, &json!("removed=true")), "{line}");
    assert!(line["before"].as_str().unwrap().contains(" lag=3 "), "{line}");
    stage.stopped().await;
}

#[tokio::test]
async fn the_read_only_key_looks_and_each_act_leaves_a_line_whoever_asks_for_it() {
    let lines = LogLines::of_this_process();
    let stage = keyed().await;
    for operation in Operation::all() {
        let target = target(operation);
        let asked = (operation.method(), target.as_str());
        let (answer, peer) = ask(&stage, "looks", asked, "").await;
        let told_of = told(&lines, &peer);
        match operation {
            Operation::View(_) => assert!(answer.status == 200 && told_of.is_empty(), "{operation:?}: {told_of:?}"),
            Operation::Act(act) => {
                assert!(answer.status == 403 && answer.text().contains("admin.api_key_sha256"), "{act:?}: {answer:?}");
                let [line] = &told_of[..] else { panic!("{act:?}: {told_of:?}") };
                let (who, what) = (&line["operator"], &line["operation"]);
                assert_eq!((who, what, &line["status"]), (&json!("read_key"), &json!(act.id()), &json!(403)), "{line}");
            }
        }
        // With the other key it is done, or there is nothing to do it to.
        let (answer, peer) = ask(&stage, "whole", asked, "").await;
        let told_of = told(&lines, &peer);
        assert_eq!(told_of.len(), usize::from(matches!(operation, Operation::Act(_))), "{operation:?}: {told_of:?}");
        for line in told_of {
            assert_eq!((&line["operator"], &line["status"]), (&json!("key"), &json!(answer.status)), "{line}");
            let is_done = answer.status == 200;
            let says_what = ["shown", "after"].iter().any(|member| line[member].is_string());
            assert_eq!((line["outcome"] == "done", says_what), (is_done, is_done), "{line}");
        }
    }
    let refused = format!(r#"rtm_gateway_operator_requests_refused_total{{reason="read_key"}} {}"#, Act::ALL.len());
    assert!(stage.parts.metrics.text().contains(&refused), "{}", stage.parts.metrics.text());
    stage.stopped().await;
}

#[tokio::test]
async fn who_shows_no_key_or_a_wrong_one_is_told_of_and_counted_and_what_was_shown_is_not() {
    let lines = LogLines::of_this_process();
    let stage = keyed().await;
    for (key, reason, target) in [
        ("", "no_key", "/admin/v1/apps"),
        ("planted-wrong-key", "wrong_key", "/admin/v1/apps"),
        ("planted-wrong-key", "wrong_key", "/admin/v1/planted-secret"),
    ] {
        let (answer, peer) = ask(&stage, key, ("GET", target), "").await;
        assert_eq!(answer.status, 401, "{target}");
        let [line] = &told(&lines, &peer)[..] else { panic!("{target}: {:?}", told(&lines, &peer)) };
        assert_eq!((&line["level"], &line["reason"]), (&json!("WARN"), &json!(reason)), "{line}");
    }
    // A flood of them is counted, and told in a few lines.
    for _ in 0..40 {
        assert_eq!(ask(&stage, "planted-wrong-key", ("GET", "/admin/v1/apps"), "").await.0.status, 401);
    }
    let text = stage.parts.metrics.text();
    for (reason, count) in [("no_key", 1), ("wrong_key", 42), ("read_key", 0), ("certificate", 0)] {
        let series = format!(r#"rtm_gateway_operator_requests_refused_total{{reason="{reason}"}} {count}"#);
        assert!(text.contains(&series), "{text}");
    }
    assert!(!lines.text().contains("planted-wrong") && !lines.text().contains("planted-secret"));
    stage.stopped().await;
}

#[tokio::test]
async fn an_answer_of_the_vendors_that_was_read_or_read_again_is_told_with_how_much_of_it() {
    let lines = LogLines::of_this_process();
    let stage = keyed().await;
    let garbage = r#"{"events":[{"n":1},{"n":2},<oops>]}"#;
    stage.sim.on(Endpoint::UserEvents, Fault::garbage(garbage));
    let id = found(async || {
        let (answer, _) = ask(&stage, "looks", ("GET", "/admin/v1/quarantine"), "").await;
        answer.json()["quarantine"][0]["id"].as_u64()
    })
    .await;
    let item = format!("/admin/v1/quarantine/{APP}/user_events/{id}");
    for (method, target, told_as) in [
        ("GET", item.clone(), [Value::Null, Value::Null, json!(format!("bytes={}", garbage.len()))]),
        ("POST", format!("{item}/redeliver"), [json!("delivered=2"), json!("delivered=2 redelivered=0"), Value::Null]),
    ] {
        let (answer, peer) = ask(&stage, "whole", (method, &target), "").await;
        assert_eq!(answer.status, 200, "{target}");
        let [line] = &told(&lines, &peer)[..] else { panic!("{target}: {:?}", told(&lines, &peer)) };
        assert_eq!(["before", "after", "shown"].map(|member| line[member].clone()), told_as, "{line}");
        assert_eq!((&line["id"], &line["stream"]), (&json!(id.to_string()), &json!("user_events")), "{line}");
    }
    stage.stopped().await;
}

#[tokio::test]
async fn an_operator_who_leaves_in_the_middle_leaves_a_line_all_the_same() {
    let lines = LogLines::of_this_process();
    let stage = keyed().await;
    let mut tcp = TcpStream::connect(stage.admin).await.unwrap();
    let peer = tcp.local_addr().unwrap().to_string();
    let again = format!("/admin/v1/apps/{APP}/events/user_events/subscriptions/none/dead-letters/redeliver");
    let head =
        format!("POST {again} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: whole\r\nContent-Type: application/json\r\n");
    // Of a place that is there: its body is waited for.
    let read = request("GET", &format!("/v1/apps/{APP}/events/user_events?subscription=none"), "all", "", "");
    assert_eq!(stage.raw(read).await.status, 200);
    tcp.write_all(format!("{head}Content-Length: 100\r\n\r\n{{").as_bytes()).await.unwrap();
    drop(tcp);
    let line = found(async || told(&lines, &peer).pop()).await;
    assert!(line["outcome"] == "cut_off" || line["outcome"] == "refused", "{line}");
    assert_eq!((&line["operation"], &line["after"]), (&json!("redeliverDeadLetters"), &Value::Null), "{line}");
    stage.stopped().await;
}

#[tokio::test]
async fn of_acts_at_the_same_time_each_line_begins_where_another_ended() {
    let lines = LogLines::of_this_process();
    let stage = keyed().await;
    stage.sim.emit_many(APP, Stream::UserEvents, 9);
    let read = request("GET", &format!("/v1/apps/{APP}/events/user_events?wait=20s&limit=9"), "reader", "", "");
    let events = stage.raw(read).await.json()["events"].clone();
    let mut cursors: Vec<_> = events.as_array().unwrap().iter().map(|event| event["cursor"].clone()).collect();
    let place = async || {
        let (answer, _) = ask(&stage, "looks", ("GET", "/admin/v1/subscriptions"), "").await;
        let all = answer.json()["subscriptions"].clone();
        all.as_array().unwrap().iter().find(|s| s["client"] == "reader").cloned().unwrap()
    };
    let first = found(async || Some(place().await).filter(|place| place["lag"] == 0)).await["cursor"].clone();
    let seek = format!("/admin/v1/apps/{APP}/events/user_events/subscriptions/reader/seek");
    // One whose body comes late, and all others meanwhile.
    let last = json!({ "to": cursors.pop().unwrap() }).to_string();
    let mut slow = TcpStream::connect(stage.admin).await.unwrap();
    let mut peers = vec![slow.local_addr().unwrap().to_string()];
    let head = format!(
        "POST {seek} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: whole\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        last.len()
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let others = cursors.iter().map(|to| {
        let (stage, seek, body) = (&stage, &seek, json!({ "to": to }).to_string());
        async move { ask(stage, "whole", ("POST", seek), &body).await }
    });
    for (answer, peer) in futures_util::future::join_all(others).await {
        assert_eq!(answer.status, 200, "{answer:?}");
        peers.push(peer);
    }
    slow.write_all(last.as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut slow).await.status, 200);

    let cursor = |line: &Value, member: &str| {
        let facts = line[member].as_str().unwrap().to_owned();
        json!(facts.split(' ').next().unwrap().strip_prefix("cursor=").unwrap())
    };
    let told: Vec<_> = peers.iter().flat_map(|peer| told(&lines, peer)).collect();
    assert_eq!(told.len(), peers.len(), "{told:?}");
    let mut begun: Vec<_> = told.iter().map(|line| cursor(line, "before").to_string()).collect();
    let mut ended: Vec<_> = told.iter().map(|line| cursor(line, "after").to_string()).collect();
    begun.push(place().await["cursor"].to_string());
    ended.push(first.to_string());
    begun.sort();
    ended.sort();
    assert_eq!(begun, ended, "{told:?}");
    stage.stopped().await;
}

#[tokio::test]
async fn a_browser_finds_what_there_is_with_and_without_a_slash() {
    let stage = keyed().await;
    let (answer, _) = ask(&stage, "", ("GET", "/"), "").await;
    let open: Vec<_> = answer.json()["operations"].as_array().unwrap().iter().map(|o| o["path"].clone()).collect();
    assert_eq!(open, ["/", "/openapi.json", "/healthz", "/readyz", "/metrics"]);
    let more = answer.json()["more"].as_str().unwrap().to_owned();
    for target in [more.as_str(), "/admin/v1"] {
        assert_eq!(ask(&stage, "", ("GET", target), "").await.0.status, 401, "{target}");
        let (answer, _) = ask(&stage, "looks", ("GET", target), "").await;
        let all = answer.json()["operations"].as_array().unwrap().clone();
        assert_eq!((answer.status, all.len()), (200, Operation::all().count()), "{target}");
        let seek = all.iter().find(|operation| operation["operation"] == "seekSubscription").unwrap();
        assert_eq!((&seek["method"], &seek["needs"]), (&json!("POST"), &json!("operator key")));
        let apps = all.iter().find(|operation| operation["path"] == View::Apps.path()).unwrap();
        assert_eq!(apps["needs"], "read key");
    }
    for (target, status) in [
        ("/healthz/", 200),
        ("/admin/v1/apps/", 200),
        ("/admin", 404),
        ("/admin/", 404),
        ("/admin/v1//", 400),
        ("//", 400),
        ("/nothing", 404),
    ] {
        assert_eq!(ask(&stage, "looks", ("GET", target), "").await.0.status, status, "{target}");
    }
    stage.stopped().await;
}
