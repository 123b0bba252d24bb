//! k. Who changed something by hand?

use rtm_gateway::kernel::names::Stream;
use serde_json::{Value, json};

use crate::front::stage::{APP, Stage, request};
use crate::support::client::Client;
use crate::support::log_lines::LogLines;
use crate::support::waiting::found;

async fn read(stage: &Stage, client: &str, query: &str) -> usize {
    let target = format!("/v1/apps/{APP}/events/user_events?{query}");
    let answer = stage.raw(request("GET", &target, client, "", "")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["events"].as_array().unwrap().len()
}

/// What the page says to look at: the lines about operators, of one subscription.
fn by_hand(lines: &LogLines, subscription: &str) -> Vec<Value> {
    lines.those(|line| line["target"] == "rtm_gateway::operator" && line["subscription"] == subscription)
}

/// Both look alike to the team that gets old events again, and on a graph of the events delivered.
#[tokio::test]
async fn a_place_that_somebody_set_back_names_who_and_a_reader_that_asked_for_old_events_itself_does_not() {
    let lines = LogLines::of_this_process();
    let stage = Stage::start().await;
    stage.sim.emit_many(APP, Stream::UserEvents, 5);
    for subscription in ["night-sought", "night-reader"] {
        let mut there = 0;
        while there < 5 {
            there += read(&stage, "all", &format!("subscription={subscription}&wait=20s")).await;
        }
    }
    let mut operator = Client::http1(stage.admin).await;
    let settled = found(async || {
        let all = operator.get("/admin/v1/subscriptions").await.unwrap().json()["subscriptions"].clone();
        let ours = all.as_array().unwrap().iter().filter(|s| s["subscription"].as_str().unwrap().starts_with("night-"));
        let ours: Vec<_> = ours.filter(|s| s["lag"] == 0).cloned().collect();
        (ours.len() == 2).then(|| ours[0]["cursor"].as_str().unwrap().to_owned())
    })
    .await;

    // The trouble: somebody sets the one back. The look-alike: the other's reader asks for what it had, from the beginning.
    let place = format!("/admin/v1/apps/{APP}/events/user_events/subscriptions/night-sought");
    let sought = operator.post(&format!("{place}/seek"), &json!({ "to": "earliest" }).to_string()).await.unwrap();
    assert_eq!(sought.status, 200, "{}", sought.text());
    assert_eq!(read(&stage, "all", "subscription=night-sought&wait=20s&limit=10").await, 5);
    assert_eq!(read(&stage, "all", "after=earliest&limit=10").await, 5);

    let [line] = &by_hand(&lines, "night-sought")[..] else { panic!("{:?}", by_hand(&lines, "night-sought")) };
    for (member, value) in [
        ("operation", json!("seekSubscription")),
        ("operator", json!("local")),
        ("stream", json!("user_events")),
        ("before", json!(format!("cursor={settled} lag=0 unacknowledged=0 dead_letters=0"))),
        ("after", json!(format!("cursor={} lag=5", sought.json()["cursor"].as_str().unwrap()))),
        ("outcome", json!("done")),
    ] {
        assert_eq!(line[member], value, "{member}: {line}");
    }
    assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    assert_eq!(by_hand(&lines, "night-reader"), [Value::Null; 0], "nobody touched it");
    // Its place is where it was: the access log has who read, and that it said from where.
    let all = operator.get("/admin/v1/subscriptions").await.unwrap().json()["subscriptions"].clone();
    let other = all.as_array().unwrap().iter().find(|s| s["subscription"] == "night-reader").unwrap();
    assert_eq!((&other["lag"], &other["cursor"]), (&json!(0), &json!(settled)));
    drop(operator);
    stage.stopped().await;
}
