//! A webhook whose place is set to another, or removed, whatever it is doing; and what holds for it in all of its streams.

use std::time::Duration;

use serde_json::json;

use super::rig::{Rig, webhook};
use crate::support::receiver::{Answer, Receiver, Seen};
use crate::support::waiting::pause;

const PLACE: &str = "/admin/v1/apps/demo-app/events/user_events/subscriptions/$webhook.crm";

fn users(receiver: &Receiver) -> Vec<String> {
    receiver.seen().iter().map(Seen::user).collect()
}

async fn seek(rig: &Rig, to: &str) {
    assert_eq!(rig.admin("POST", &format!("{PLACE}/seek"), Some(json!({ "to": to }))).await.0, 200);
}

fn fails(user: &'static str) -> impl Fn(&Seen) -> Answer {
    move |seen| Answer::Status(if seen.user() == user { 500 } else { 204 })
}

#[tokio::test]
async fn a_seek_to_the_end_passes_what_is_stuck() {
    let receiver = Receiver::start().await;
    receiver.rule(fails("stuck"));
    let mut rig = Rig::start(&webhook("crm", &receiver.url("/"), "max_attempts = 1000")).await;
    rig.emit(&["stuck", "behind"]);
    receiver.requests(3).await;
    seek(&rig, "latest").await;
    rig.emit(&["new"]);
    receiver.until(|seen| seen.last().is_some_and(|seen| seen.user() == "new")).await;
    rig.idle("crm").await;
    let all = users(&receiver);
    assert!(!all.contains(&"behind".to_owned()));
    rig.emit(&["last"]);
    rig.idle("crm").await;
    assert_eq!(users(&receiver)[all.len()..], ["last"], "nothing of before is tried");
    rig.stop().await;
}

#[tokio::test]
async fn after_a_seek_to_the_beginning_everything_comes_again_in_every_form_and_through_a_restart() {
    for more in ["max_in_flight = 1", "max_in_flight = 4", "format = \"batch\"\nmax_in_flight = 1"] {
        let receiver = Receiver::start().await;
        receiver.rule(|_| Answer::Status(500));
        let mut rig = Rig::start(&webhook("crm", &receiver.url("/"), &format!("max_attempts = 1000\n{more}"))).await;
        let events = rig.emit_many(60);
        receiver.requests(2).await;
        seek(&rig, "earliest").await;
        // Sometimes what was under way at the seek ends after it.
        let count = receiver.seen().len();
        receiver.requests(count + 2).await;
        rig.stop().await;
        receiver.rule(|_| Answer::Status(204));
        rig.run().await;
        rig.idle("crm").await;
        rig.stop().await;
        let delivered: Vec<Seen> = receiver.seen().into_iter().filter(|seen| seen.answered == 204).collect();
        let texts: String = delivered.iter().map(|seen| String::from_utf8_lossy(&seen.body).into_owned()).collect();
        for event in &events {
            assert!(texts.contains(event), "{more}: {event}");
        }
    }
}

#[tokio::test]
async fn a_place_that_is_sought_or_removed_while_the_webhook_is_not_there_holds_when_it_is_again() {
    for removes in [false, true] {
        let receiver = Receiver::start().await;
        let hook = webhook("crm", &receiver.url("/"), "from = \"earliest\"");
        let mut rig = Rig::start(&hook).await;
        rig.emit(&["a", "b", "c"]);
        rig.idle("crm").await;
        rig.reload("").await;
        match removes {
            false => seek(&rig, "earliest").await,
            true => assert_eq!(rig.admin("DELETE", PLACE, None).await.0, 200),
        }
        rig.reload(&hook).await;
        receiver.requests(6).await;
        rig.idle("crm").await;
        assert_eq!(users(&receiver), ["a", "b", "c", "a", "b", "c"], "{removes}");
        rig.stop().await;
        rig.run().await;
        rig.emit(&["d"]);
        rig.idle("crm").await;
        assert_eq!(users(&receiver)[6..], ["d"]);
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_letter_that_is_given_again_brings_nothing_else_again() {
    let receiver = Receiver::start().await;
    receiver.rule(fails("bad"));
    let hook = webhook("crm", &receiver.url("/"), "max_attempts = 1\nmax_in_flight = 4");
    let mut rig = Rig::start(&hook).await;
    rig.emit(&["a", "b", "bad", "c", "stuck"]);
    rig.idle("crm").await;
    rig.disable("crm").await;
    receiver.rule(|_| Answer::Status(204));
    let letters = "/admin/v1/apps/demo-app/webhooks/crm/dead-letters";
    let again = rig.admin("POST", &format!("{letters}/redeliver"), Some(json!({ "all": true }))).await;
    assert_eq!(again.1, json!({ "redelivered": 1 }));
    let before = receiver.seen().len();
    rig.stop().await;
    rig.run().await;
    rig.enable("crm").await;
    receiver.requests(before + 1).await;
    rig.emit(&["d"]);
    rig.idle("crm").await;
    assert_eq!(users(&receiver)[before..], ["bad", "d"]);
    rig.stop().await;
}

#[tokio::test]
async fn a_letter_that_is_given_again_before_its_old_try_is_on_record_is_not_lost() {
    let receiver = Receiver::start().await;
    receiver.rule(|_| Answer::Status(500));
    let mut rig = Rig::start(&webhook("crm", &receiver.url("/"), "max_attempts = 1\nmax_in_flight = 4")).await;
    rig.emit_many(30);
    let letters = "/admin/v1/apps/demo-app/webhooks/crm/dead-letters";
    let again = async || rig.admin("POST", &format!("{letters}/redeliver"), Some(json!({ "all": true }))).await.1;
    for _ in 0..60 {
        again().await;
    }
    receiver.rule(|_| Answer::Status(204));
    let list = async || rig.admin("GET", &format!("{letters}?limit=1000"), None).await.1;
    while !list().await["dead_letters"].as_array().unwrap().is_empty() {
        again().await;
    }
    rig.idle("crm").await;
    let delivered = receiver.seen().into_iter().filter(|seen| seen.answered == 204);
    let ids: std::collections::BTreeSet<String> = delivered.map(|seen| seen.id().to_owned()).collect();
    assert_eq!(ids.len(), 30);
    rig.stop().await;
}

#[tokio::test]
async fn a_letter_is_given_again_while_what_was_read_with_it_is_still_tried() {
    for more in ["max_in_flight = 1", "max_in_flight = 4", "format = \"batch\""] {
        let receiver = Receiver::start().await;
        receiver
            .rule(|seen| Answer::Status(if String::from_utf8_lossy(&seen.body).contains("bad") { 500 } else { 204 }));
        let retry = "retry = { initial = \"200ms\", max = \"200ms\" }";
        let hook = webhook("crm", &receiver.url("/"), &format!("max_attempts = 2\n{retry}\n{more}"));
        let mut rig = Rig::start(&hook).await;
        rig.disable("crm").await;
        rig.emit(&["bad-1", "good", "bad-2"]);
        rig.stands("crm", |status| status.state == "disabled").await;
        rig.enable("crm").await;
        let letters = "/admin/v1/apps/demo-app/webhooks/crm/dead-letters";
        rig.says(letters, |list| !list["dead_letters"].as_array().unwrap().is_empty()).await;
        receiver.rule(|_| Answer::Status(204));
        let mut left = 1;
        while left > 0 {
            rig.admin("POST", &format!("{letters}/redeliver"), Some(json!({ "all": true }))).await;
            let list = rig.admin("GET", letters, None).await.1;
            left = list["dead_letters"].as_array().unwrap().len();
        }
        rig.idle("crm").await;
        rig.stop().await;
        let taken = receiver.seen().into_iter().filter(|seen| seen.answered == 204);
        let texts: String = taken.map(|seen| String::from_utf8_lossy(&seen.body).into_owned()).collect();
        assert!(["bad-1", "good", "bad-2"].iter().all(|user| texts.contains(user)), "{more}: {texts}");
    }
}

#[tokio::test]
async fn a_place_that_is_removed_while_the_webhook_is_full_of_what_is_stuck_begins_anew() {
    let receiver = Receiver::start().await;
    receiver.rule(|_| Answer::Status(500));
    let mut rig =
        Rig::start(&webhook("crm", &receiver.url("/"), "max_attempts = 2\nretry = { initial = \"1m\", max = \"1m\" }"))
            .await;
    rig.emit_many(100);
    receiver.requests(1).await;
    rig.stands("crm", |status| status.held >= 64).await;
    receiver.rule(|_| Answer::Status(204));
    assert_eq!(rig.admin("DELETE", PLACE, None).await.0, 200);
    receiver.requests(101).await;
    rig.idle("crm").await;
    rig.stop().await;
}

#[tokio::test]
async fn enabled_holds_for_a_stream_that_was_not_there_then() {
    let receiver = Receiver::start().await;
    let hook = |streams: &str| webhook("crm", &receiver.url("/"), &format!("streams = [{streams}]"));
    let (both, one) = (hook("\"user_events\", \"channel_events\""), hook("\"user_events\""));
    let mut rig = Rig::start(&both).await;
    rig.disable("crm").await;
    rig.reload(&one).await;
    rig.enable("crm").await;
    rig.stop().await;
    rig.configure(&both);
    rig.run().await;
    rig.emit(&["a"]);
    receiver.requests(1).await;
    assert_eq!(rig.status("crm").state, "delivering");
    rig.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_asked_for_quiet_has_it_whoever_succeeds_and_through_reloads_and_restarts() {
    let receiver = Receiver::start().await;
    receiver.rule(|seen| match seen.user().as_str() {
        "busy" => Answer::With(503, "retry-after", "3".into()),
        _ => Answer::Status(204),
    });
    let hook = |more: &str| {
        let retry = "max_in_flight = 8\nretry = { initial = \"10ms\", max = \"1m\" }";
        webhook("crm", &receiver.url("/"), &format!("{retry}\n{more}"))
    };
    let mut rig = Rig::start(&hook("")).await;
    rig.emit(&["a", "busy", "b", "c"]);
    let seen = receiver.until(|seen| seen.iter().any(|seen| seen.user() == "busy")).await;
    let busy = seen.iter().find(|seen| seen.user() == "busy").unwrap().at;
    rig.stands("crm", |status| status.state == "slowed").await;
    receiver.rule(|_| Answer::Status(204));
    rig.reload(&hook("timeout = \"9s\"")).await;
    rig.emit(&["d"]);
    rig.stop().await;
    rig.run().await;
    rig.idle("crm").await;
    let seen = receiver.seen();
    let late = seen.iter().filter(|seen| seen.user() == "d" || (seen.user() == "busy" && seen.answered == 204));
    assert_eq!(late.clone().count(), 2);
    assert!(late.clone().all(|seen| seen.at - busy >= Duration::from_millis(2900)), "{seen:#?}");
    rig.stop().await;
}

#[tokio::test]
async fn after_the_quiet_that_an_endpoint_asked_for_it_has_one_request_at_a_time_through_reloads_and_restarts_too() {
    let receiver = Receiver::start().await;
    receiver.rule(|_| Answer::Status(503));
    let hook = |more: &str| {
        let retry = "max_in_flight = 8\nmax_attempts = 1000\nretry = { initial = \"20ms\", max = \"20ms\" }";
        webhook("crm", &receiver.url("/"), &format!("{retry}\n{more}"))
    };
    let mut rig = Rig::start(&hook("")).await;
    rig.emit(&["a", "b", "c", "d"]);
    rig.stands("crm", |status| status.state == "slowed").await;
    receiver.rule(|_| Answer::Status(500));
    receiver.until(|seen| seen.last().is_some_and(|seen| seen.answered == 500)).await;
    for restarts in [false, true] {
        // Each ends by its time-out: none is taken.
        receiver.rule(|_| Answer::Never);
        if restarts {
            rig.stop().await;
            rig.run().await;
        } else {
            rig.reload(&hook("timeout = \"1s\"")).await;
        }
        let before = receiver.seen().len();
        receiver.requests(before + 1).await;
        pause(Duration::from_millis(300)).await;
        assert_eq!((receiver.seen().len(), rig.status("crm").state), (before + 1, "slowed"), "{restarts}");
    }
    receiver.rule(|_| Answer::Status(204));
    rig.idle("crm").await;
    rig.stop().await;
    rig.run().await;
    assert_eq!(rig.status("crm").state, "delivering", "one was taken");
    rig.stop().await;
}
