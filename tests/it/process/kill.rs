//! `kill -9` at any instant: nothing stored is lost, order holds, and nothing before a stored cursor comes again.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rtm_gateway::kernel::names::Stream;
use serde_json::Value;

use super::gateway::{APP, Gateway, Home, api, vendor};

const KILLS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn after_many_kills_every_stored_event_was_delivered_in_order_and_none_before_the_cursor_again() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let mut random = StdRng::seed_from_u64(7);
    let mut emitted: Vec<String> = Vec::new();
    // What the reader got, and how much of it the gateway had on record as read when it was killed.
    let mut received: Vec<String> = Vec::new();
    let mut log: Vec<String> = Vec::new();
    for round in 0..=KILLS {
        let gateway = Gateway::start(&home);
        // What was in the log before the kill is in it now, in the same place.
        let now = whole_log(&gateway).await;
        assert!(now.starts_with(&log), "round {round}: the log has changed what it held");
        log = now;
        let stored = cursor_of(&gateway, "$client.one").await;
        let mut reader = gateway.caller("one").await;
        let rounds = random.random_range(1..12);
        let mut first = true;
        for _ in 0..rounds {
            let count = random.random_range(0..40);
            let new = vendor.emit_many(APP, Stream::UserEvents, count);
            emitted.extend(new.iter().map(|event| event.to_string()));
            let limit = random.random_range(1..60);
            let path = api(&format!("vendor/user_events?limit={limit}&wait=100ms"));
            let events = events(&reader.get(&path).await.unwrap().json());
            if let (true, Some(event)) = (first, events.first()) {
                // The first event after a restart is the one behind the stored cursor.
                let log = whole_log(&gateway).await;
                assert_eq!(log.iter().position(|e| e == event), Some(stored), "round {round}");
                first = false;
            }
            received.extend(events);
        }
        if round < KILLS {
            gateway.kill();
            continue;
        }
        // No more kills: the rest is read to the end.
        vendor.wait_until(|_| vendor.ledger(APP, Stream::UserEvents).waiting.is_empty()).await.unwrap();
        loop {
            let path = api("vendor/user_events?wait=500ms");
            let events = events(&reader.get(&path).await.unwrap().json());
            if events.is_empty() {
                break;
            }
            received.extend(events);
        }
        log = whole_log(&gateway).await;
    }
    let place: HashMap<&str, usize> = emitted.iter().enumerate().map(|(n, e)| (e.as_str(), n)).collect();
    let order: Vec<usize> = log.iter().map(|e| place[e.as_str()]).collect();
    assert!(order.windows(2).all(|w| w[0] < w[1]), "the log is in the vendor's order, each event once");
    let lost = emitted.len() - log.len();
    let cut = vendor.ledger(APP, Stream::UserEvents);
    assert!(lost <= cut.counts.handed as usize + cut.counts.lost as usize - log.len(), "only reads that a kill cut");
    let mut seen = vec![false; log.len()];
    let at: HashMap<&str, usize> = log.iter().enumerate().map(|(n, e)| (e.as_str(), n)).collect();
    for event in &received {
        seen[*at.get(event.as_str()).expect("nothing is delivered that is not stored")] = true;
    }
    assert!(seen.iter().all(|seen| *seen), "every stored event was delivered");
    assert_eq!(vendor.world().breaches(), [], "a restart breaches nothing");
    println!("{} emitted, {} stored, {} delivered, {lost} lost in cut reads", emitted.len(), log.len(), received.len());
}

/// All events that are stored, by cursor, moving nothing.
pub(crate) async fn whole_log(gateway: &Gateway) -> Vec<String> {
    let mut reader = gateway.caller("two").await;
    let mut all = Vec::new();
    // A subscription that starts at the earliest names the first cursor.
    let mut path = format!("/v1/apps/{APP}/events/user_events?limit=1000&subscription=probe-{}", nonce());
    loop {
        let body = reader.get(&path).await.unwrap().json();
        let page = body["events"].as_array().unwrap();
        if page.is_empty() {
            return all;
        }
        let events = page.iter().filter(|e| e["type"] != "possible_loss");
        all.extend(events.map(|e| e["event"].to_string()));
        path = format!("/v1/apps/{APP}/events/user_events?limit=1000&after={}", body["next"].as_str().unwrap());
    }
}

/// How many events are before the stored cursor of a subscription.
async fn cursor_of(gateway: &Gateway, subscription: &str) -> usize {
    let (_, body) = gateway.admin("/admin/v1/subscriptions").await;
    let found = body["subscriptions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["subscription"] == subscription && s["stream"] == "user_events");
    let Some(found) = found else { return 0 };
    let cursor = found["cursor"].as_str().unwrap();
    let all = whole_log(gateway).await.len();
    let mut reader = gateway.caller("two").await;
    let mut left = 0;
    let mut after = cursor.to_owned();
    loop {
        let path = format!("/v1/apps/{APP}/events/user_events?limit=1000&after={after}");
        let body = reader.get(&path).await.unwrap().json();
        let page = body["events"].as_array().unwrap();
        if page.is_empty() {
            return all - left;
        }
        left += page.iter().filter(|e| e["type"] != "possible_loss").count();
        after = body["next"].as_str().unwrap().to_owned();
    }
}

fn events(body: &Value) -> Vec<String> {
    body["events"].as_array().unwrap().iter().map(ToString::to_string).collect()
}

fn nonce() -> u64 {
    rand::random()
}
