//! `kill -9` at any instant: what was acknowledged explicitly never comes again, all else does.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rtm_gateway::kernel::names::Stream;
use serde_json::{Value, json};

use super::gateway::{APP, Gateway, Home, vendor};
use super::kill::whole_log;

const KILLS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_never_comes_again_whenever_the_gateway_is_killed() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let mut random = StdRng::seed_from_u64(11);
    let mut settled: BTreeSet<String> = BTreeSet::new();
    for round in 0..=KILLS {
        let gateway = Gateway::start(&home);
        let mut reader = gateway.caller("one").await;
        vendor.emit_many(APP, Stream::UserEvents, 60);
        vendor.wait_until(|_| vendor.ledger(APP, Stream::UserEvents).waiting.is_empty()).await.unwrap();
        let mut leased = lease(&mut reader, random.random_range(1..30)).await;
        for _ in 0..random.random_range(1..8) {
            let cursors = cursors(&leased);
            assert!(
                cursors.iter().all(|cursor| !settled.contains(cursor)),
                "round {round}: acknowledged, and came again"
            );
            // Some as a whole, some one by one and out of order, some not at all.
            let said = match random.random_range(0..3) {
                _ if cursors.is_empty() => break,
                0 => Some(json!({ "lease": leased["lease"] })),
                1 => Some(json!({ "cursors": cursors.iter().rev().step_by(2).collect::<Vec<_>>() })),
                _ => None,
            };
            let limit = random.random_range(1..30);
            // Alone, or with the next read.
            leased = match &said {
                None => lease(&mut reader, limit).await,
                Some(said) if random.random_bool(0.5) => {
                    let answer = reader.post(&path("ack"), &said.to_string()).await.unwrap();
                    assert_eq!(answer.status, 200, "{}", answer.json());
                    lease(&mut reader, limit).await
                }
                Some(said) => {
                    let next = next(&mut reader, said, limit).await;
                    assert_eq!(next["settled"]["result"], "success", "{next}");
                    next
                }
            };
            let Some(said) = said else { continue };
            match said["cursors"].as_array() {
                None => settled.extend(cursors),
                Some(some) => settled.extend(some.iter().map(|cursor| cursor.as_str().unwrap().to_owned())),
            }
        }
        if round < KILLS {
            gateway.kill();
            continue;
        }
        let stored = whole_log(&gateway).await.len();
        loop {
            let leased = lease(&mut reader, 1000).await;
            let cursors = cursors(&leased);
            if cursors.is_empty() {
                break;
            }
            assert!(cursors.iter().all(|cursor| settled.insert(cursor.clone())), "each once");
            let said = json!({ "lease": leased["lease"] });
            assert_eq!(reader.post(&path("ack"), &said.to_string()).await.unwrap().status, 200);
        }
        // What the last round leased and did not acknowledge is still leased: it comes when that is over.
        let (_, body) = gateway.admin("/admin/v1/subscriptions").await;
        let of_one =
            body["subscriptions"].as_array().unwrap().iter().find(|s| s["subscription"] == "$client.one").unwrap();
        let leased = of_one["unacknowledged"].as_u64().unwrap();
        assert_eq!(of_one["undelivered"], 0);
        assert!(settled.len() as u64 + leased >= stored as u64, "{} {leased} {stored}", settled.len());
        assert!(leased < 60 * 8, "{leased}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_with_a_read_that_waits_is_durable_before_it_waits() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let gateway = Gateway::start(&home);
    let mut reader = gateway.caller("one").await;
    vendor.emit_many(APP, Stream::UserEvents, 5);
    vendor.wait_until(|_| vendor.ledger(APP, Stream::UserEvents).waiting.is_empty()).await.unwrap();
    while whole_log(&gateway).await.len() < 5 {}
    let leased = lease(&mut reader, 3).await;
    let rest = lease(&mut reader, 10).await;
    assert_eq!((cursors(&leased).len(), cursors(&rest).len()), (3, 2));
    // Nothing is left to read: it waits, and is killed while it does.
    let said = json!({ "settle": { "lease": leased["lease"] }, "wait": "60s" }).to_string();
    let path = path("next");
    let waits = reader.post(&path, &said);
    tokio::pin!(waits);
    tokio::select! {
        answered = &mut waits => panic!("it was answered: {:?}", answered.map(|answer| answer.status)),
        _ = gateway.admin_says("/admin/v1/subscriptions", |_, body| {
            let all = body["subscriptions"].as_array().unwrap();
            all.iter().any(|one| one["subscription"] == "$client.one" && one["readers"] == 1)
        }) => {}
    }
    gateway.kill();
    assert!(waits.await.is_err());
    let gateway = Gateway::start(&home);
    let mut reader = gateway.caller("one").await;
    let again = cursors(&lease(&mut reader, 100).await);
    assert_eq!(again, cursors(&rest));
}

/// Acknowledges and reads on.
async fn next(reader: &mut crate::support::client::Client, settle: &Value, limit: usize) -> Value {
    let said = json!({ "settle": settle, "lease": "1h", "max_attempts": 1000, "limit": limit });
    let answer = reader.post(&path("next"), &said.to_string()).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.json());
    answer.json()
}

fn path(word: &str) -> String {
    format!("/v1/apps/{APP}/events/user_events/{word}")
}

async fn lease(reader: &mut crate::support::client::Client, limit: usize) -> Value {
    let path = format!("/v1/apps/{APP}/events/user_events?ack=explicit&lease=1h&max_attempts=1000&limit={limit}");
    reader.get(&path).await.unwrap().json()
}

fn cursors(leased: &Value) -> Vec<String> {
    let each = leased["events"].as_array().unwrap().iter();
    each.map(|event| event["cursor"].as_str().unwrap().to_owned()).collect()
}
