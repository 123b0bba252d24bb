//! What operators do by the admin API: dead letters listed, given again, forgotten; webhooks disabled and enabled; places
//! set back.

use serde_json::{Value, json};

use super::rig::{Rig, webhook};
use crate::support::log_lines::LogLines;
use crate::support::receiver::{Answer, Receiver, Seen};

const HOOK: &str = "/admin/v1/apps/demo-app/webhooks/crm";

fn users(receiver: &Receiver) -> Vec<String> {
    receiver.seen().iter().map(Seen::user).collect()
}

/// `(user_id, attempts, reason)` of each dead letter.
fn letters(list: &Value) -> Vec<(String, u64, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let letter = |l: &Value| (text(&l["event"]["user_id"]), l["attempts"].as_u64().unwrap(), text(&l["reason"]));
    list["dead_letters"].as_array().unwrap().iter().map(letter).collect()
}

#[tokio::test]
async fn what_was_tried_often_enough_is_a_dead_letter_and_the_next_goes_on() {
    let receiver = Receiver::start().await;
    receiver.rule(|seen| Answer::Status(if seen.user().starts_with("bad") { 500 } else { 204 }));
    let mut rig = Rig::start(&webhook("crm", &receiver.url("/"), "max_attempts = 3")).await;
    rig.emit(&["a", "bad-1", "b", "bad-2", "c"]);
    rig.idle("crm").await;
    assert_eq!(users(&receiver), ["a", "bad-1", "bad-1", "bad-1", "b", "bad-2", "bad-2", "bad-2", "c"]);
    let (status, list) = rig.admin("GET", &format!("{HOOK}/dead-letters"), None).await;
    let found = letters(&list);
    assert_eq!((status, found.len()), (200, 2), "{list}");
    assert_eq!((found[0].0.as_str(), found[0].1, found[1].0.as_str()), ("bad-1", 3, "bad-2"));
    assert!(found[0].2.contains("500"), "{list}");
    let dead = r#"rtm_gateway_webhook_dead_letters_total{app="demo-app",webhook="crm"}"#;
    assert_eq!(rig.metric(dead), 2.0);

    // One is given again, and taken: it leaves the list. A restart changes nothing of it.
    receiver.rule(|_| Answer::Status(204));
    let cursor = list["dead_letters"][1]["cursor"].as_str().unwrap().to_owned();
    let id = receiver.seen().iter().find(|s| s.user() == "bad-2").unwrap().id().to_owned();
    rig.stop().await;
    rig.run().await;
    let again =
        rig.admin("POST", &format!("{HOOK}/dead-letters/redeliver"), Some(json!({ "cursors": [cursor] }))).await;
    assert_eq!(again, (200, json!({ "redelivered": 1 })));
    let seen = receiver.requests(10).await;
    assert_eq!(seen[9].id(), id);
    rig.says(&format!("{HOOK}/dead-letters"), |list| letters(list).len() == 1).await;

    // All of them, and then there are none.
    let all = rig.admin("POST", &format!("{HOOK}/dead-letters/redeliver"), Some(json!({ "all": true }))).await;
    assert_eq!(all, (200, json!({ "redelivered": 1 })));
    receiver.requests(11).await;
    rig.says(&format!("{HOOK}/dead-letters"), |list| letters(list).is_empty()).await;
    rig.emit(&["d"]);
    rig.idle("crm").await;
    assert_eq!(users(&receiver)[9..], ["bad-2", "bad-1", "d"]);
    rig.stop().await;
}

#[tokio::test]
async fn dead_letters_are_cleared_one_by_one_or_all_at_once() {
    let receiver = Receiver::start().await;
    receiver.rule(|_| Answer::Status(400));
    let more = "max_attempts = 1\nmax_in_flight = 4\nstreams = [\"user_events\", \"channel_events\"]";
    let mut rig = Rig::start(&webhook("crm", &receiver.url("/"), more)).await;
    rig.emit(&["a", "b", "c"]);
    let path = format!("{HOOK}/dead-letters");
    let list = rig.says(&path, |list| letters(list).len() == 3).await;
    let cursor = list["dead_letters"][0]["cursor"].as_str().unwrap().to_owned();
    // Of several streams a cursor does not say which.
    assert_eq!(rig.admin("DELETE", &format!("{path}/{cursor}"), None).await.0, 400);
    let one = format!("{path}/{cursor}?stream=user_events");
    assert_eq!(rig.admin("DELETE", &one, None).await, (200, json!({ "cleared": 1 })));
    assert_eq!(rig.admin("DELETE", &one, None).await.0, 404);
    let page = rig.admin("GET", &format!("{path}?limit=1"), None).await.1;
    assert_eq!(letters(&page)[0].0, "b");
    let (stream, after) = (page["next"]["stream"].as_str().unwrap(), page["next"]["after"].as_str().unwrap());
    let next = rig.admin("GET", &format!("{path}?stream={stream}&after={after}"), None).await.1;
    assert_eq!((letters(&next)[0].0.as_str(), &next["next"]), ("c", &Value::Null));
    assert_eq!(rig.admin("DELETE", &path, None).await, (200, json!({ "cleared": 2 })));
    assert!(letters(&rig.admin("GET", &path, None).await.1).is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn a_webhook_is_disabled_enabled_and_shown() {
    let receiver = Receiver::start().await;
    let mut rig = Rig::start(&webhook("crm", &receiver.url("/"), "")).await;
    assert_eq!(rig.admin("POST", &format!("{HOOK}/disable"), None).await.0, 200);
    let shown = rig.says("/admin/v1/webhooks", |all| all["webhooks"][0]["state"] == "disabled").await;
    assert_eq!(shown["webhooks"][0]["disabled"]["why"], "operator");
    rig.emit(&["a"]);
    assert_eq!(rig.admin("POST", &format!("{HOOK}/enable"), None).await.0, 200);
    receiver.requests(1).await;
    let shown = rig.says("/admin/v1/webhooks", |all| all["webhooks"][0]["last_delivery_at"].is_string()).await;
    assert_eq!(shown["webhooks"][0]["state"], "delivering");
    for (method, path, status) in [
        ("GET", format!("{HOOK}/enable"), 405),
        ("POST", "/admin/v1/apps/demo-app/webhooks/other/enable".to_owned(), 404),
        ("POST", "/admin/v1/apps/other/webhooks/crm/enable".to_owned(), 404),
        ("POST", format!("{HOOK}/else"), 404),
        ("GET", format!("{HOOK}/dead-letters?what=1"), 400),
        ("DELETE", format!("{HOOK}/dead-letters/nonsense"), 400),
    ] {
        assert_eq!(rig.admin(method, &path, None).await.0, status, "{method} {path}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_list_of_both_streams_is_read_to_its_end_page_by_page() {
    let receiver = Receiver::start().await;
    receiver.rule(|_| Answer::Status(400));
    let more = "max_attempts = 1\nmax_in_flight = 4\nstreams = [\"user_events\", \"channel_events\"]";
    let mut rig = Rig::start(&webhook("crm", &receiver.url("/"), more)).await;
    rig.emit(&["a", "b", "c"]);
    rig.emit_of_channel(&["d", "e"]);
    let path = format!("{HOOK}/dead-letters");
    rig.says(&path, |list| letters(list).len() == 5).await;
    for limit in 1..=6 {
        let (mut all, mut next) = (Vec::new(), format!("limit={limit}"));
        for _ in 0..6 {
            let page = rig.admin("GET", &format!("{path}?{next}"), None).await.1;
            all.extend(letters(&page).into_iter().map(|(user, ..)| user));
            let Some(parameters) = page["next"].as_object() else { break };
            let parameter = |(name, value): (&String, &Value)| format!("{name}={}", value.as_str().unwrap());
            next = parameters.iter().map(parameter).chain([format!("limit={limit}")]).collect::<Vec<_>>().join("&");
        }
        assert_eq!(all, ["a", "b", "c", "d", "e"], "{limit}");
        let one = rig.admin("GET", &format!("{path}?stream=user_events&limit={limit}"), None).await.1;
        let after = one["next"]["after"].as_str().map_or_else(String::new, |after| format!("&after={after}"));
        let rest = rig.admin("GET", &format!("{path}?stream=user_events{after}"), None).await.1;
        assert_eq!(letters(&rest).last().map_or("c", |last| &last.0), "c", "of one stream it goes on in that");
    }
    assert_eq!(rig.admin("GET", &format!("{path}?stream=all&limit=5"), None).await.1["next"]["stream"], "all");
    rig.stop().await;
}

#[tokio::test]
async fn a_webhook_is_shown_as_disabled_from_the_answer_on_that_says_so() {
    let receiver = Receiver::start().await;
    receiver.rule(|_| Answer::Never);
    let mut rig = Rig::start(&webhook("crm", &receiver.url("/"), "timeout = \"2s\"")).await;
    rig.emit(&["a"]);
    receiver.requests(1).await;
    let disabled = r#"rtm_gateway_webhook_disabled{app="demo-app",webhook="crm"}"#;
    assert_eq!(rig.admin("POST", &format!("{HOOK}/disable"), None).await.0, 200);
    assert_eq!((rig.status("crm").state, rig.metric(disabled)), ("disabled", 1.0), "what is under way ends later");
    rig.stop().await;
    // Nor does a start say otherwise, when it knows, or before.
    rig.run().await;
    assert_eq!(rig.status("crm").state, "disabled");
    rig.stop().await;
}

#[tokio::test]
async fn an_operator_sets_a_webhook_back_and_it_delivers_again_from_there() {
    let receiver = Receiver::start().await;
    let hook = webhook("crm", &receiver.url("/"), "");
    let mut rig = Rig::start(&hook).await;
    rig.emit(&["a", "b"]);
    rig.idle("crm").await;
    let seek = "/admin/v1/apps/demo-app/events/user_events/subscriptions/$webhook.crm/seek";
    // While it delivers, while it is disabled, and after a start.
    let to = || Some(json!({ "to": "earliest" }));
    assert_eq!(rig.admin("POST", seek, to()).await.0, 200);
    receiver.requests(4).await;
    rig.disable("crm").await;
    assert_eq!(rig.admin("POST", seek, to()).await.0, 200);
    rig.enable("crm").await;
    receiver.requests(6).await;
    rig.idle("crm").await;
    rig.disable("crm").await;
    assert_eq!(rig.admin("POST", seek, to()).await.0, 200);
    rig.stop().await;
    rig.run().await;
    rig.enable("crm").await;
    receiver.requests(8).await;
    rig.idle("crm").await;
    assert_eq!(users(&receiver), ["a", "b", "a", "b", "a", "b", "a", "b"]);
    rig.stop().await;
}

#[tokio::test]
async fn what_was_done_to_a_webhook_is_told_with_how_it_stood_and_stands() {
    let lines = LogLines::of_this_process();
    let receiver = Receiver::start().await;
    receiver.rule(|_| Answer::Status(500));
    let mut rig = Rig::start(&webhook("told", &receiver.url("/"), "max_attempts = 1")).await;
    rig.emit(&["a", "b"]);
    let hook = "/admin/v1/apps/demo-app/webhooks/told";
    let letters = format!("{hook}/dead-letters");
    rig.says(&letters, |list| list["dead_letters"].as_array().unwrap().len() == 2).await;
    for (method, path, body) in [
        ("POST", format!("{hook}/disable"), None),
        ("POST", format!("{letters}/redeliver"), Some(json!({ "all": true }))),
        ("DELETE", letters.clone(), None),
        ("DELETE", format!("{letters}/nothing"), None),
    ] {
        rig.admin(method, &path, body).await;
    }
    let told = lines.those(|line| line["target"] == "rtm_gateway::operator" && line["webhook"] == "told");
    // The look at the letters is told each time.
    let acts = told.iter().filter(|line| line["shown"].is_null());
    let acts: Vec<_> =
        acts.map(|line| ["operation", "before", "after", "outcome"].map(|member| line[member].clone())).collect();
    let expected = [
        json!(["disableWebhook", "state=delivering", "state=disabled", "done"]),
        json!(["redeliverToWebhook", "dead_letters=2 asked=all", "redelivered=2", "done"]),
        // Those that are being given again stay.
        json!(["clearWebhookDeadLetters", "dead_letters=2", "dead_letters=2 cleared=0", "done"]),
        json!(["clearWebhookDeadLetter", null, null, "refused"]),
    ];
    assert_eq!(json!(acts), json!(expected));
    assert!(told.iter().any(|line| line["shown"] == "dead_letters=2"), "{told:?}");
    rig.stop().await;
}
