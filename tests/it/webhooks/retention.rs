//! What retention took before a webhook was sent it: the marker of that is tried, waits and is given up as an event is, and
//! harms none.

use serde_json::{Value, json};

use super::rig::{Rig, webhook};
use crate::support::receiver::{Answer, Receiver, Seen};

const HOOK: &str = "/admin/v1/apps/demo-app/webhooks/crm";
const PLACE: &str = "/admin/v1/apps/demo-app/events/user_events/subscriptions/$webhook.crm";

/// Of an app that keeps little.
fn hook(receiver: &Receiver, more: &str) -> String {
    format!("retention_bytes = \"8KiB\"\n{}", webhook("crm", &receiver.url("/"), more))
}

fn is_marker(seen: &Seen) -> bool {
    seen.json()["data"]["reason"] == "retention"
}

/// A webhook that has taken one event, is disabled, and was not sent many that are gone.
async fn behind(receiver: &Receiver, more: &str) -> Rig {
    let mut rig = Rig::start(&hook(receiver, more)).await;
    rig.emit(&["first"]);
    rig.idle("crm").await;
    rig.disable("crm").await;
    for emitted in 1..=8 {
        rig.emit_many(60);
        // What was read by then is a batch of its own.
        rig.reads(1 + emitted * 60).await;
    }
    rig.stop().await;
    rig.run().await;
    rig.says("/admin/v1/subscriptions", |all| all["subscriptions"][0]["lag"].as_u64().is_some_and(|lag| lag < 300))
        .await;
    rig
}

async fn letters(rig: &Rig) -> Vec<Value> {
    let list = rig.admin("GET", &format!("{HOOK}/dead-letters?limit=1000"), None).await.1;
    list["dead_letters"].as_array().unwrap().clone()
}

#[tokio::test]
async fn an_event_that_comes_with_a_marker_has_all_its_tries() {
    let receiver = Receiver::start().await;
    let mut rig = behind(&receiver, "max_attempts = 1").await;
    let lag = rig.admin("GET", "/admin/v1/subscriptions", None).await.1["subscriptions"][0]["lag"].as_u64().unwrap();
    rig.enable("crm").await;
    rig.idle("crm").await;
    let seen = receiver.seen();
    assert!(is_marker(&seen[1]) && seen[1].id().ends_with(":retention"), "{:?}", seen[1]);
    assert_eq!(seen.len() as u64, 2 + lag, "one, the marker, and all that is left");
    assert_eq!(letters(&rig).await, Vec::<Value>::new());
    rig.stop().await;
}

#[tokio::test]
async fn a_marker_is_the_same_in_every_try_and_its_tries_and_waits_outlive_reloads_and_restarts() {
    let receiver = Receiver::start().await;
    receiver.rule(|seen| Answer::Status(if is_marker(seen) { 500 } else { 204 }));
    let quick = "max_attempts = 1000\nretry = { initial = \"20ms\", max = \"20ms\" }";
    let mut rig = behind(&receiver, quick).await;
    rig.enable("crm").await;
    receiver.requests(3).await;
    rig.stop().await;
    let tries = receiver.seen().len();
    let slow = "max_attempts = 1000\nretry = { initial = \"1h\", max = \"1h\" }";
    rig.configure(&hook(&receiver, slow));
    rig.run().await;
    // It goes by what is configured now.
    receiver.requests(tries + 1).await;
    let status = rig.stands("crm", |status| status.in_flight == 0 && status.next_try_at.is_some()).await;
    assert_eq!((status.state, status.failures as usize), ("retrying", tries));
    rig.reload(&hook(&receiver, &format!("{slow}\ntimeout = \"9s\""))).await;
    rig.stands("crm", |status| status.failures as usize == tries && status.held > 0).await;
    rig.stop().await;
    rig.run().await;
    rig.stands("crm", |status| status.failures as usize == tries && status.held > 0).await;
    let seen = receiver.seen();
    assert_eq!(seen.len(), tries + 1, "it waits, and so does what is behind it");
    assert!(
        seen[1..].iter().all(|seen| (seen.id(), &seen.body) == (receiver.seen()[1].id(), &receiver.seen()[1].body))
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_marker_that_was_tried_often_enough_is_a_dead_letter_and_the_next_goes_on() {
    let receiver = Receiver::start().await;
    receiver.rule(|seen| Answer::Status(if is_marker(seen) { 500 } else { 204 }));
    let mut rig = behind(&receiver, "max_attempts = 2").await;
    rig.enable("crm").await;
    rig.idle("crm").await;
    let seen = receiver.seen();
    assert_eq!(seen.iter().filter(|seen| is_marker(seen)).count(), 2);
    let dead = r#"rtm_gateway_webhook_dead_letters_total{app="demo-app",webhook="crm"}"#;
    assert_eq!(rig.metric(dead), 1.0);
    rig.stop().await;
    rig.run().await;
    rig.emit(&["last"]);
    rig.idle("crm").await;
    assert_eq!(receiver.seen().iter().filter(|seen| is_marker(seen)).count(), 2, "it is told, or on the list");
    let list = letters(&rig).await;
    let [letter] = &list[..] else { panic!("{list:?}") };
    assert_eq!(
        (&letter["attempts"], &letter["event"]),
        (&json!(2), &json!({ "type": "possible_loss", "reason": "retention" }))
    );
    assert_eq!(letter["cursor"], seen[1].json()["cursor"]);
    // What is gone cannot be given again.
    let redeliver = format!("{HOOK}/dead-letters/redeliver");
    assert_eq!(rig.admin("POST", &redeliver, Some(json!({ "all": true }))).await.1, json!({ "redelivered": 0 }));
    let one = json!({ "cursors": [letter["cursor"]] });
    assert_eq!(rig.admin("POST", &redeliver, Some(one)).await.0, 410);
    let path = format!("{HOOK}/dead-letters/{}", letter["cursor"].as_str().unwrap());
    assert_eq!(rig.admin("DELETE", &path, None).await, (200, json!({ "cleared": 1 })));
    rig.stop().await;
}

#[tokio::test]
async fn a_marker_that_waits_is_dropped_by_a_seek_and_holds_nothing_of_the_new_place() {
    for removes in [false, true] {
        let receiver = Receiver::start().await;
        receiver.rule(|seen| Answer::Status(if is_marker(seen) { 500 } else { 204 }));
        let mut rig = behind(&receiver, "max_attempts = 9\nretry = { initial = \"1h\", max = \"1h\" }").await;
        rig.enable("crm").await;
        rig.stands("crm", |status| status.failures == 1 && status.in_flight == 0).await;
        if removes {
            assert_eq!(rig.admin("DELETE", PLACE, None).await.0, 200);
        } else {
            let latest = Some(json!({ "to": "latest" }));
            assert_eq!(rig.admin("POST", &format!("{PLACE}/seek"), latest).await.0, 200);
        }
        rig.emit(&["new"]);
        receiver.until(|seen| seen.last().is_some_and(|seen| !is_marker(seen) && seen.user() == "new")).await;
        rig.idle("crm").await;
        assert_eq!(receiver.seen().iter().filter(|seen| is_marker(seen)).count(), 1);
        rig.stop().await;
    }
}
