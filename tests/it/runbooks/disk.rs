//! (i) Is the disk filling?

use rtm_gateway::kernel::names::Stream;
use serde_json::Value;

use crate::support::client::Client;
use crate::support::settings;
use crate::support::stage::{APP, Stage};
use crate::support::waiting::found;

async fn shown(stage: &Stage) -> Value {
    Client::http1(stage.admin).await.get("/admin/v1/store").await.unwrap().json()
}

/// A metric's value, by its name with its labels.
async fn metric(stage: &Stage, name: &str) -> u64 {
    let page = Client::http1(stage.admin).await.get("/metrics").await.unwrap();
    let name = format!("rtm_gateway_{name} ");
    page.text().lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_else(|| panic!("{name}")).parse().unwrap()
}

/// What a log holds, as the view has it.
fn bytes(shown: &Value, stream: &str) -> Option<u64> {
    shown["logs"].as_array()?.iter().find(|log| log["stream"] == stream)?["bytes"].as_u64()
}

/// Waits until so many events were read from the vendor.
async fn read(stage: &Stage, events: u64) {
    found(async || {
        let pollers = Client::http1(stage.admin).await.get("/admin/v1/pollers").await.unwrap().json();
        pollers["pollers"].as_array().unwrap().iter().any(|poller| poller["events"] == events).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_log_that_grows_is_named_with_its_limit_and_a_full_disk_is_told_from_a_full_log() {
    let mut stage = Stage::new().await;
    let listen = "[server]\nlisten = [\"127.0.0.1:0\"]\n";
    let app = format!("{}retention_bytes = \"1MiB\"\n", stage.demo_app(""));
    stage.configure(&format!(
        "{listen}{app}{}",
        settings::client("all", r#"allow = [{ app = "*", actions = ["events"] }]"#)
    ));
    stage.run().await;
    let event = format!(r#"{{"type":"Login","user_id":"{}"}}"#, "x".repeat(2000));
    for round in 1..=3 {
        for _ in 0..100 {
            stage.sim.emit_raw(APP, Stream::UserEvents, &event);
        }
        read(&stage, round * 100).await;
    }
    let grown = found(async || {
        let shown = shown(&stage).await;
        bytes(&shown, "user_events").is_some_and(|bytes| bytes > 300_000).then_some(shown)
    })
    .await;
    assert_eq!(bytes(&grown, "channel_events"), Some(0), "{grown}");
    let log = grown["logs"].as_array().unwrap().iter().find(|log| log["stream"] == "user_events").unwrap();
    assert_eq!((log["app"].as_str(), log["limit_bytes"].as_u64()), (Some(APP), Some(1 << 20)), "{grown}");
    assert_eq!(grown["limit_bytes"], 2 << 20, "of both streams: {grown}");
    let number = |key: &str| grown[key].as_u64().unwrap_or_else(|| panic!("{key} in {grown}"));
    assert!(number("free_bytes") > 0 && number("data_bytes") > 300_000 && number("used_bytes") > 300_000, "{grown}");
    assert!(number("left_bytes") + number("reserve_bytes") >= number("free_bytes"), "{grown}");
    assert_eq!(grown["full_in_seconds"], Value::Null, "nobody can tell after a moment: {grown}");

    let label = r#"{app="demo-app",stream="user_events"}"#;
    assert!(metric(&stage, &format!("store_log_bytes{label}")).await >= number("data_bytes").min(300_000));
    assert_eq!(metric(&stage, &format!("store_log_limit_bytes{label}")).await, 1 << 20);
    assert_eq!(metric(&stage, "store_limit_bytes").await, 2 << 20);
    assert_eq!(metric(&stage, "store_reserve_bytes").await, number("reserve_bytes"));
    assert!(metric(&stage, "store_bytes").await > 0 && metric(&stage, "store_free_bytes").await > 0);

    // The look-alike: a log at its limit. It stays there by dropping its oldest, and nothing is wrong with the disk.
    for round in 4..=9 {
        for _ in 0..100 {
            stage.sim.emit_raw(APP, Stream::UserEvents, &event);
        }
        read(&stage, round * 100).await;
    }
    found(async || {
        // It may grow by an eighth before it is trimmed at once.
        let bytes = bytes(&shown(&stage).await, "user_events")?;
        (bytes > 500_000 && bytes <= (9 << 20) / 8).then_some(())
    })
    .await;
    assert_eq!(Client::http1(stage.admin).await.get("/readyz").await.unwrap().status, 200);
    stage.stopped().await;
}
