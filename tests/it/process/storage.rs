//! Storage that goes bad, and the way back: flipped bits in the data file, backups taken while running.

use std::fs;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rtm_gateway::kernel::names::Stream;
use rustix::process::Signal;
use serde_json::Value;

use super::gateway::{APP, Gateway, Home, vendor};
use crate::support::client::Client;

/// A stream by cursor from before its first entry: events as text, markers as their reason.
async fn whole_log(gateway: &Gateway) -> Vec<String> {
    let mut reader = gateway.caller("two").await;
    let path = |query: &str| format!("/v1/apps/{APP}/events/user_events?limit=1000&{query}");
    // A cursor of nowhere is answered with the earliest.
    let nowhere = rtm_gateway::events::Cursor { epoch: 0, at: rtm_gateway::store::Sequence(0) };
    let mut after = reader.get(&path(&format!("after={nowhere}"))).await.unwrap().json()["earliest"].clone();
    let mut all = Vec::new();
    loop {
        let body = reader.get(&path(&format!("after={}", after.as_str().unwrap()))).await.unwrap().json();
        let page = body["events"].as_array().unwrap();
        if page.is_empty() {
            return all;
        }
        let text = |e: &Value| if e["event"].is_null() { e["reason"].to_string() } else { e["event"].to_string() };
        all.extend(page.iter().map(text));
        after = body["next"].clone();
    }
}

/// How a gateway met its damaged data file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Met {
    Refused,
    Whole,
    Contained,
}

#[tokio::test(flavor = "multi_thread")]
async fn bits_flipped_in_the_data_file_are_met_by_a_marker_or_a_refusal_never_by_a_wrong_event() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let gateway = Gateway::start(&home);
    let mut emitted = Vec::new();
    for _ in 0..40 {
        let events = vendor.emit_many(APP, Stream::UserEvents, 60);
        emitted.extend(events.iter().map(ToString::to_string));
        vendor.wait_until(|_| vendor.ledger(APP, Stream::UserEvents).waiting.is_empty()).await.unwrap();
    }
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().await.code(), Some(0));
    let data = home.path("data/events.redb");
    let sound = fs::read(&data).unwrap();
    let mut random = StdRng::seed_from_u64(7);
    let mut met = std::collections::BTreeMap::new();
    for round in 0..14 {
        let mut bytes = sound.clone();
        // A burst of damage somewhere: in the head where all begins, or anywhere.
        let at = if round < 3 { random.random_range(0..4096) } else { random.random_range(0..bytes.len()) };
        for _ in 0..8 {
            let at = (at + random.random_range(0..512)).min(bytes.len() - 1);
            bytes[at] ^= 1 << random.random_range(0..8);
        }
        fs::write(&data, &bytes).unwrap();
        let how = match Gateway::try_start(&home) {
            Err(log) => {
                assert!(log.contains("the store is damaged") || log.contains("the store cannot be used"), "{log}");
                Met::Refused
            }
            Ok(gateway) => {
                let log = whole_log(&gateway).await;
                let wrong = log.iter().find(|text| !emitted.contains(text) && *text != "\"damaged\"");
                let markers = |text: &&String| *text == "\"unclean_stop\"";
                assert!(wrong.is_none_or(|text| markers(&text)), "{wrong:?}");
                let events: Vec<_> = log.iter().filter(|text| text.starts_with('{')).collect();
                let mut rest = emitted.iter();
                assert!(events.iter().all(|event| rest.any(|e| e == *event)), "in order, none twice");
                if events.len() == emitted.len() { Met::Whole } else { Met::Contained }
            }
        };
        *met.entry(how).or_insert(0) += 1;
    }
    println!("{met:?}");
    assert!(met.contains_key(&Met::Whole), "{met:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_taken_under_load_restores_everything_from_before_it() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let gateway = Gateway::start(&home);
    let first: Vec<_> = vendor.emit_many(APP, Stream::UserEvents, 900).iter().map(ToString::to_string).collect();
    let mut reader = gateway.caller("one").await;
    let read = format!("/v1/apps/{APP}/events/user_events?limit=700&wait=15s");
    let mut acknowledged = 0;
    while acknowledged < first.len() {
        let body = reader.get(&read).await.unwrap().json();
        acknowledged += body["events"].as_array().unwrap().len();
    }
    // The connection takes its next request once it knows that the last answer was handed over.
    assert_eq!(reader.get(&format!("/v1/apps/{APP}/events/user_events?limit=1")).await.unwrap().status, 200);
    vendor.emit_many(APP, Stream::UserEvents, 1500);
    let mut operator = Client::http1(gateway.operators).await;
    let backup = operator.get("/admin/v1/backup").await.unwrap();
    assert_eq!(backup.status, 200);
    assert_eq!(backup.header("content-type"), Some("application/octet-stream"));
    assert!(!backup.broken);
    vendor.emit_many(APP, Stream::UserEvents, 10);
    gateway.kill();

    // Restored into a folder of its own, it serves what it holds; the reader goes on where it was.
    let restored = Home::new(&vendor);
    fs::create_dir(restored.path("data")).unwrap();
    fs::write(restored.path("data/events.redb"), &backup.body).unwrap();
    let gateway = Gateway::start(&restored);
    let log = whole_log(&gateway).await;
    assert_eq!(log[..first.len()], first[..]);
    let mut reader = gateway.caller("one").await;
    let next = reader.get(&read).await.unwrap().json()["events"][0].clone();
    assert!(next["event"].is_null() || !first.contains(&next["event"].to_string()), "{next}");
}
