//! (b) Who falls behind, what will they lose, and when?

use std::net::SocketAddr;

use rtm_gateway::kernel::names::Stream;
use serde_json::{Value, json};

use crate::front::stage::{APP, Stage, request};
use crate::support::client::Client;
use crate::support::waiting::{found, pause};

async fn subscriptions(admin: SocketAddr) -> Vec<Value> {
    let said = Client::http1(admin).await.get("/admin/v1/subscriptions").await.unwrap().json();
    said["subscriptions"].as_array().unwrap().clone()
}

fn of<'a>(all: &'a [Value], name: &str, stream: &str) -> &'a Value {
    let mut all = all.iter();
    all.find(|s| s["subscription"] == name && s["stream"] == stream).unwrap_or_else(|| panic!("no {name} of {stream}"))
}

/// Reads at most so many of a stream's events as the client `all`; says how many came.
async fn read(stage: &Stage, stream: &str, name: &str, limit: usize, wait: &str) -> usize {
    let path = format!("/v1/apps/demo-app/events/{stream}?subscription={name}&limit={limit}&wait={wait}");
    let answer = stage.raw(request("GET", &path, "all", "", "")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["events"].as_array().unwrap().len()
}

/// A reader that is slow, one that is gone, and a stream with much traffic with which everybody keeps up.
#[tokio::test]
async fn who_is_slow_who_is_gone_and_who_only_has_much_to_read() {
    let stage = Stage::with("", "retention = \"1h\"\ndedup_window = \"1m\"").await;
    stage.sim.emit_many(APP, Stream::UserEvents, 1);
    for name in ["slow", "gone"] {
        assert_eq!(read(&stage, "user_events", name, 1, "10s").await, 1);
    }
    let all = found(async || {
        stage.sim.emit_many(APP, Stream::UserEvents, 20);
        stage.sim.emit_many(APP, Stream::ChannelEvents, 100);
        read(&stage, "user_events", "slow", 2, "1s").await;
        while read(&stage, "channel_events", "busy", 1000, "100ms").await > 0 {}
        pause(std::time::Duration::from_millis(50)).await;
        let all = subscriptions(stage.admin).await;
        let is_known = |s: &Value| s["read_per_second"].is_number() && s["arriving_per_second"].is_number();
        let forecast = |name| of(&all, name, "user_events")["seconds_to_cut_off"].is_number();
        let is_ready = all.iter().all(is_known) && forecast("slow") && forecast("gone");
        (is_ready && of(&all, "busy", "channel_events")["lag"] == 0).then_some(all)
    })
    .await;
    // It is said at any time, also right after each read of one that is behind all the same.
    for _ in 0..5 {
        assert_eq!(read(&stage, "user_events", "slow", 2, "1s").await, 2);
        let all = subscriptions(stage.admin).await;
        let slow = of(&all, "slow", "user_events");
        assert!(slow["seconds_to_cut_off"].is_number() && slow["oldest_event_age_seconds"].is_number(), "{slow}");
    }
    let (slow, gone) = (of(&all, "slow", "user_events"), of(&all, "gone", "user_events"));
    let busy = of(&all, "busy", "channel_events");
    let number = |s: &Value, name: &str| s[name].as_f64().unwrap_or_else(|| panic!("{name}: {s}"));
    // Both are behind; the slow one reads, and reads too slowly; the gone one does not.
    for behind in [slow, gone] {
        assert!(number(behind, "lag") > 10.0 && number(behind, "arriving_per_second") > 1.0, "{behind}");
        assert!((3500.0..=3600.0).contains(&number(behind, "seconds_to_cut_off")), "{behind}");
        assert_eq!(
            (&behind["cut_off_by"], &behind["lost"], &behind["client"]),
            (&json!("retention"), &json!(0), &json!("all"))
        );
    }
    let read_per_second = number(slow, "read_per_second");
    assert!(read_per_second > 0.0 && read_per_second < number(slow, "arriving_per_second"), "{slow}");
    assert_eq!(number(gone, "read_per_second"), 0.0, "{gone}");
    assert!(slow["last_read_at"].as_str() > gone["last_read_at"].as_str(), "{slow} {gone}");
    // Of the most traffic nothing waits, so nothing is about to be taken.
    assert!(number(busy, "arriving_per_second") > number(slow, "arriving_per_second"), "{busy}");
    assert_eq!((&busy["seconds_to_cut_off"], &busy["cut_off_at"]), (&Value::Null, &Value::Null), "{busy}");
    stage.stopped().await;
}

/// What retention took of whom: the number outlives a restart, and the reader being told.
#[tokio::test]
async fn what_a_reader_that_was_gone_has_lost_is_counted_once_and_kept() {
    let mut stage = Stage::with("", "retention_bytes = \"8KiB\"").await;
    stage.sim.emit_many(APP, Stream::UserEvents, 1);
    assert_eq!(read(&stage, "user_events", "gone", 1, "10s").await, 1);
    let mut kept_up = read(&stage, "user_events", "well", 1000, "10s").await;
    let mut emitted = 1;
    // Batches that are gone, as far as they are more than is kept.
    while of(&subscriptions(stage.admin).await, "gone", "user_events")["lost"].as_u64() < Some(100) {
        emitted += stage.sim.emit_many(APP, Stream::UserEvents, 30).len();
        while kept_up < emitted {
            kept_up += read(&stage, "user_events", "well", 1000, "10s").await;
        }
    }
    // It comes back, is told by a marker, and reads what is left.
    let left = read(&stage, "user_events", "gone", 1000, "1s").await - 1;
    let all = subscriptions(stage.admin).await;
    let (gone, well) = (of(&all, "gone", "user_events"), of(&all, "well", "user_events"));
    let lost = gone["lost"].as_u64().unwrap();
    assert_eq!(lost as usize + left + 1, emitted, "{gone}");
    assert_eq!((&well["lost"], &well["lag"]), (&json!(0), &json!(0)));
    let losses = async |stage: &Stage| {
        let said = Client::http1(stage.admin).await.get("/admin/v1/losses").await.unwrap().json();
        said["losses"].as_array().unwrap().clone()
    };
    let told = losses(&stage).await;
    let [loss] = &told[..] else { panic!("{told:?}") };
    let what = (&loss["kind"], &loss["reason"], &loss["subscription"], &loss["events"]);
    assert_eq!(what, (&json!("retention"), &json!("retention"), &json!("gone"), &json!(lost)));
    // A restart forgets nothing of it.
    stage.end().await;
    stage.run().await;
    let all = subscriptions(stage.admin).await;
    assert_eq!(of(&all, "gone", "user_events")["lost"], lost);
    assert_eq!(losses(&stage).await, told);
    stage.stopped().await;
}
