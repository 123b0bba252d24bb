//! (j) Why does a webhook not deliver?

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::receiver::{Answer, Receiver};
use crate::webhooks::rig::{Rig, webhook};

/// One webhook for each reason, and one that is well. None of them delivers but the last, and each says why, by its name.
#[tokio::test]
async fn each_webhook_that_delivers_nothing_says_what_it_waits_for() {
    let receiver = Receiver::start().await;
    receiver.rule(|seen| match seen.path.as_str() {
        "/refusing" => Answer::Status(500),
        "/gone" => Answer::Status(410),
        "/busy" => Answer::With(503, "retry-after", "3600".to_owned()),
        "/silent" => Answer::Never,
        _ => Answer::Status(204),
    });
    let hour = "retry = { initial = \"1h\", max = \"1h\" }\ntimeout = \"30s\"";
    let hook = |name: &str, more: &str| webhook(name, &receiver.url(&format!("/{name}")), &format!("{hour}\n{more}"));
    let hooks: String = [
        hook("refusing", ""),
        hook("gone", ""),
        hook("busy", ""),
        hook("silent", ""),
        hook("nothing", "streams = [\"channel_events\"]"),
        hook("filtered", "filter = { type = [\"Nonsense\"] }"),
        hook("well", ""),
        // Nobody listens there.
        webhook("unreachable", "http://127.0.0.1:1/", hour),
    ]
    .concat();
    let rig = Rig::start(&hooks).await;
    rig.emit(&["a"]);
    let why = |said: &Value| -> BTreeMap<String, Value> {
        let of = |w: &Value| {
            json!([w["state"], w["waits_for"], w["last_error_status"], w["consecutive_failures"], w["lag"]])
        };
        let all = said["webhooks"].as_array().unwrap();
        all.iter().map(|w| (w["name"].as_str().unwrap().to_owned(), of(w))).collect()
    };
    let wanted: BTreeMap<String, Value> = [
        ("busy", json!(["slowed", "endpoint", 503, 1, 1])),
        ("filtered", json!(["delivering", "events", null, 0, 0])),
        ("gone", json!(["disabled", "enable", 410, 1, 1])),
        ("nothing", json!(["delivering", "events", null, 0, 0])),
        ("refusing", json!(["retrying", "retry", 500, 1, 1])),
        ("silent", json!(["delivering", "answer", null, 0, 1])),
        ("unreachable", json!(["retrying", "retry", null, 1, 1])),
        ("well", json!(["delivering", "events", null, 0, 0])),
    ]
    .map(|(name, why)| (name.to_owned(), why))
    .into();
    let said = rig.says("/admin/v1/webhooks", |said| why(said) == wanted && delivered(said, "well")).await;
    // Look-alikes: of three that say `events`, one has delivered; one has a filter that passed over what there was (its
    // place is the stream's end); to one nothing came.
    let of = |name: &str| said["webhooks"].as_array().unwrap().iter().find(|w| w["name"] == name).unwrap().clone();
    assert_eq!(of("filtered")["filter"]["type"], json!(["Nonsense"]));
    assert!(!delivered(&said, "filtered") && !delivered(&said, "nothing"));
    assert!(of("unreachable")["last_error"].as_str().unwrap().contains("cannot be reached"));
    assert_eq!(of("gone")["disabled"]["why"], "gone");
    // The one that is mended is tried at once; one that is disabled says that it is.
    receiver.rule(|_| Answer::Status(204));
    let tried = async |name: &str| rig.admin("POST", &format!("/admin/v1/webhooks/demo-app/{name}/try"), None).await.0;
    assert_eq!((tried("refusing").await, tried("busy").await, tried("gone").await), (200, 200, 409));
    rig.says("/admin/v1/webhooks", |said| delivered(said, "refusing") && delivered(said, "busy")).await;
    let enabled = rig.admin("POST", "/admin/v1/apps/demo-app/webhooks/gone/enable", None).await.0;
    assert_eq!(enabled, 200);
    rig.says("/admin/v1/webhooks", |said| delivered(said, "gone")).await;
}

fn delivered(said: &Value, name: &str) -> bool {
    let mut all = said["webhooks"].as_array().unwrap().iter();
    all.any(|w| w["name"] == name && w["last_success_at"].is_string())
}
