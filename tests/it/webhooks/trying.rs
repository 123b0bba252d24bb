//! An operator has a webhook try at once what waits; what was said of the last tries outlives a stop; and what a webhook
//! leaves that is not configured any more.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use super::rig::{Rig, webhook};
use crate::support::client::Client;
use crate::support::receiver::{Answer, Receiver, Seen};
use crate::support::waiting::pause;

const TRY: &str = "/admin/v1/webhooks/demo-app/crm/try";
const HOUR: &str = "retry = { initial = \"1h\", max = \"1h\" }";

fn users(receiver: &Receiver) -> Vec<String> {
    receiver.seen().iter().map(Seen::user).collect()
}

#[tokio::test]
async fn a_mended_endpoint_is_tried_at_once_and_that_counts_as_any_try() {
    for (answer, state) in [(Answer::Status(500), "retrying"), (busy(), "slowed")] {
        for format in ["structured", "batch"] {
            let receiver = Receiver::start().await;
            let bad = answer.clone();
            receiver.rule(move |_| bad.clone());
            let hook = webhook("crm", &receiver.url("/"), &format!("{HOUR}\nmax_attempts = 3\nformat = \"{format}\""));
            let mut rig = Rig::start(&hook).await;
            rig.emit(&["a", "b"]);
            rig.stands("crm", |status| status.state == state && status.in_flight == 0).await;
            // Still broken: one more try in vain, no more.
            assert_eq!(rig.admin("POST", TRY, None).await, (200, json!({ "result": "trying", "in_flight": 0 })));
            receiver.requests(2).await;
            let status = rig.stands("crm", |status| status.failures == 2 && status.in_flight == 0).await;
            assert_eq!((status.consecutive_failures, status.last_error_attempt), (2, Some(2)), "{state} {format}");
            // A stop between changes nothing of that.
            rig.stop().await;
            rig.run().await;
            receiver.rule(|_| Answer::Status(204));
            assert_eq!(rig.admin("POST", TRY, None).await.0, 200);
            receiver.until(|seen| seen.iter().any(|seen| seen.answered == 204)).await;
            rig.idle("crm").await;
            let status = rig.status("crm");
            assert_eq!((status.consecutive_failures, status.waits_for), (0, "events"), "{state} {format}");
            let seen = receiver.seen();
            assert!(seen[..3].iter().all(|s| (s.id(), &s.body) == (seen[0].id(), &seen[0].body)), "{state} {format}");
            assert_eq!(rig.admin("POST", TRY, None).await, (200, json!({ "result": "nothing_waits", "in_flight": 0 })));
            rig.stop().await;
        }
    }
}

fn busy() -> Answer {
    Answer::With(503, "retry-after", "3600".to_owned())
}

#[tokio::test]
async fn what_many_wait_for_in_several_requests_is_tried_each_once() {
    let receiver = Receiver::start().await;
    receiver.rule(|_| Answer::Status(500));
    let hook = webhook("crm", &receiver.url("/"), &format!("{HOUR}\nmax_in_flight = 4"));
    let mut rig = Rig::start(&hook).await;
    rig.emit(&["a", "b", "c"]);
    rig.stands("crm", |status| status.consecutive_failures == 3 && status.in_flight == 0).await;
    receiver.rule(|_| Answer::Status(204));
    assert_eq!(rig.admin("POST", TRY, None).await.1["result"], "trying");
    rig.idle("crm").await;
    let mut taken: Vec<_> = users(&receiver).split_off(3);
    taken.sort();
    assert_eq!(taken, ["a", "b", "c"]);
    rig.stop().await;
}

/// What an operator wants of a webhook that goes at that moment is refused: it neither waits for it to come back, nor is
/// done then.
#[tokio::test]
async fn what_is_wanted_of_a_webhook_that_is_just_removed_is_refused_and_not_done_later() {
    let receiver = Receiver::start().await;
    receiver.rule(|seen| if seen.user() == "a" { Answer::Never } else { Answer::Status(500) });
    let hook = webhook("crm", &receiver.url("/"), &format!("{HOUR}\nmax_in_flight = 2\ntimeout = \"2s\""));
    let mut rig = Rig::start(&hook).await;
    rig.emit(&["a", "b"]);
    rig.stands("crm", |status| status.in_flight == 1 && status.consecutive_failures == 1).await;
    // It begins anew when the answer has come, and hears nothing until then.
    assert_eq!(rig.admin("POST", TRY, None).await, (200, json!({ "result": "trying", "in_flight": 1 })));
    let mut operator = Client::http1(rig.admin).await;
    let disable = "/admin/v1/apps/demo-app/webhooks/crm/disable";
    let (refused, ()) = tokio::join!(operator.request(Method::POST, disable, &[], ""), async {
        pause(Duration::from_millis(200)).await;
        rig.reload("").await;
    });
    assert_eq!(refused.unwrap().status.as_u16(), 404);
    rig.reload(&hook).await;
    rig.stands("crm", |status| status.state == "retrying").await;
    rig.stop().await;
}

/// Two operators at once, or one who was just before: what waits is tried, and neither is told that there is nothing.
#[tokio::test]
async fn while_something_is_about_to_be_tried_nobody_is_told_that_nothing_waits() {
    let receiver = Receiver::start().await;
    receiver.rule(|_| Answer::Status(500));
    let mut rig = Rig::start(&webhook("crm", &receiver.url("/"), &format!("{HOUR}\nmax_attempts = 1000"))).await;
    rig.emit(&["a", "b"]);
    rig.stands("crm", |status| status.state == "retrying" && status.in_flight == 0).await;
    for _ in 0..20 {
        let said =
            tokio::join!(rig.admin("POST", TRY, None), rig.admin("POST", TRY, None), rig.admin("POST", TRY, None));
        for (status, said) in [said.0, said.1, said.2] {
            assert!(status == 200 && said["result"] != "nothing_waits", "{said}");
        }
    }
    receiver.rule(|_| Answer::Status(204));
    rig.admin("POST", TRY, None).await;
    rig.idle("crm").await;
    assert_eq!(rig.admin("POST", TRY, None).await.1["result"], "nothing_waits");
    rig.stop().await;
}

#[tokio::test]
async fn with_an_answer_to_come_or_while_disabled_trying_says_so_and_changes_nothing() {
    let receiver = Receiver::start().await;
    receiver.rule(|_| Answer::Never);
    let mut rig = Rig::start(&webhook("crm", &receiver.url("/"), "timeout = \"2s\"")).await;
    rig.emit(&["a", "b"]);
    receiver.requests(1).await;
    let status = rig.stands("crm", |status| status.in_flight == 1).await;
    assert_eq!(status.waits_for, "answer");
    assert_eq!(rig.admin("POST", TRY, None).await, (200, json!({ "result": "under_way", "in_flight": 1 })));
    rig.disable("crm").await;
    rig.stands("crm", |status| status.in_flight == 0).await;
    let (status, said) = rig.admin("POST", TRY, None).await;
    assert_eq!((status, &said["code"]), (409, &json!("webhook_disabled")), "{said}");
    assert_eq!(receiver.seen().len(), 1);
    for (method, path, status) in [
        ("GET", TRY, 405),
        ("POST", "/admin/v1/webhooks/demo-app/other/try", 404),
        ("POST", "/admin/v1/webhooks/demo-app/crm/else", 404),
    ] {
        assert_eq!(rig.admin(method, path, None).await.0, status, "{method} {path}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn the_last_error_and_the_last_success_outlive_a_stop() {
    let receiver = Receiver::start().await;
    let mut rig = Rig::start(&webhook("crm", &receiver.url("/secret-path"), HOUR)).await;
    rig.emit(&["a"]);
    rig.idle("crm").await;
    receiver.rule(|_| Answer::Status(507));
    rig.emit(&["b"]);
    let before = rig.stands("crm", |status| status.last_error.is_some() && status.in_flight == 0).await;
    rig.stop().await;
    rig.run().await;
    let after = rig.status("crm");
    assert_eq!(after.last_error.as_deref(), Some("the endpoint answered 507"));
    assert_eq!(
        (after.last_error_status, after.last_error_attempt, after.consecutive_failures),
        (Some(507), Some(1), 1)
    );
    assert_eq!((&after.last_error_at, &after.last_success_at), (&before.last_error_at, &before.last_success_at));
    assert!(after.last_success_at.is_some() && after.last_success_at < after.last_error_at);
    assert_eq!((&after.last_delivery_at, &after.last_try_at), (&after.last_success_at, &after.last_error_at));
    rig.stands("crm", |status| status.waits_for == "retry" && status.next_attempt_at.is_some()).await;
    let shown = rig.admin("GET", "/admin/v1/webhooks", None).await.1.to_string();
    assert!(!shown.contains("secret-path"), "{shown}");
    rig.stop().await;
}

fn place<'a>(said: &'a Value, name: &str) -> Option<&'a Value> {
    said["subscriptions"].as_array().unwrap().iter().find(|s| s["subscription"] == name)
}

#[tokio::test]
async fn what_a_webhook_leaves_is_shown_as_such_rings_no_alarm_and_can_be_removed_or_taken_up() {
    let receiver = Receiver::start().await;
    let hook = webhook("crm", &receiver.url("/"), "");
    let mut rig = Rig::start(&hook).await;
    rig.emit(&["a"]);
    rig.idle("crm").await;
    let lag = r#"rtm_gateway_subscription_lag_events{app="demo-app",stream="user_events",subscription="$webhook.crm"}"#;
    let left = async |rig: &Rig, events: u64| {
        let is_left =
            |said: &Value| place(said, "$webhook.crm").is_some_and(|s| s["lag"] == events && s["orphan"] == true);
        rig.says("/admin/v1/subscriptions", is_left).await;
        let said = rig.admin("GET", "/admin/v1/webhooks", None).await.1;
        let removed = json!({ "app": "demo-app", "name": "crm", "state": "removed", "streams": ["user_events"],
            "lag": events, "dead_letters": 0 });
        assert_eq!(said["webhooks"], json!([removed]));
        assert_eq!(rig.metric(lag), 0.0);
    };
    rig.reload("").await;
    rig.emit(&["b", "c"]);
    left(&rig, 2).await;
    // A restart says the same; nothing of it can be tried.
    rig.configure("");
    rig.stop().await;
    rig.run().await;
    left(&rig, 2).await;
    assert_eq!(rig.admin("POST", TRY, None).await.0, 404);
    // It comes back, and goes on.
    rig.reload(&hook).await;
    rig.idle("crm").await;
    assert_eq!(users(&receiver), ["a", "b", "c"]);
    let said = rig.admin("GET", "/admin/v1/subscriptions", None).await.1;
    assert_eq!(place(&said, "$webhook.crm").unwrap()["orphan"], false);
    // Gone for good.
    rig.reload("").await;
    let path = "/admin/v1/apps/demo-app/events/user_events/subscriptions/$webhook.crm";
    assert_eq!(rig.admin("DELETE", path, None).await, (200, json!({ "removed": true })));
    assert_eq!(rig.admin("GET", "/admin/v1/webhooks", None).await.1, json!({ "webhooks": [] }));
    rig.stop().await;
}
