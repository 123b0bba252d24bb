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
        for _ in 0..random.random_range(1..8) {
            let leased = lease(&mut reader, random.random_range(1..30)).await;
            let cursors = cursors(&leased);
            assert!(
                cursors.iter().all(|cursor| !settled.contains(cursor)),
                "round {round}: acknowledged, and came again"
            );
            // Some as a whole, some one by one and out of order, some not at all.
            let body = match random.random_range(0..3) {
                _ if cursors.is_empty() => break,
                0 => json!({ "lease": leased["lease"] }),
                1 => json!({ "cursors": cursors.iter().rev().step_by(2).collect::<Vec<_>>() }),
                _ => continue,
            };
            let path = format!("/v1/apps/{APP}/events/user_events/ack");
            let answer = reader.post(&path, &body.to_string()).await.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.json());
            match body["cursors"].as_array() {
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
            let path = format!("/v1/apps/{APP}/events/user_events/ack");
            assert_eq!(reader.post(&path, &json!({ "lease": leased["lease"] }).to_string()).await.unwrap().status, 200);
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

async fn lease(reader: &mut crate::support::client::Client, limit: usize) -> Value {
    let path = format!("/v1/apps/{APP}/events/user_events?ack=explicit&lease=1h&max_attempts=1000&limit={limit}");
    reader.get(&path).await.unwrap().json()
}

fn cursors(leased: &Value) -> Vec<String> {
    let each = leased["events"].as_array().unwrap().iter();
    each.map(|event| event["cursor"].as_str().unwrap().to_owned()).collect()
}
