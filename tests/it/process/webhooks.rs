//! `kill -9` while events are pushed: every stored event is delivered, in its user's order, under one id, and of those
//! that the endpoint had taken only as many come again as were under way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rtm_gateway::kernel::names::Stream;
use rtm_gateway::simulator::{App, Limit, Limits, Sim};

use super::gateway::{APP, Gateway, Home, client};
use super::kill::whole_log;
use crate::support::receiver::{Answer, Receiver, Seen};

const KILLS: usize = 10;
const IN_FLIGHT: usize = 3;

async fn vendor() -> Sim {
    let limits = Limits::all(Limit::per_second(1000));
    Sim::start(App::new(APP).basic("api-key", "api-secret").limits(limits)).await.unwrap()
}

/// A webhook that tries again soon, and for ever.
fn configure(home: &Home, vendor: &Sim, receiver: &Receiver, more: &str) {
    std::fs::write(home.path("signing"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let webhook = format!(
        r#"
[apps.quota]
user_events = {{ requests = 50, per = "50ms" }}
[[apps.webhooks]]
name = "crm"
url = "{}"
streams = ["user_events"]
secrets = [{{ file = "{}" }}]
max_attempts = 1000
retry = {{ initial = "5ms", max = "20ms" }}
allow_private_targets = true
{more}
"#,
        receiver.url("/"),
        home.path("signing").display()
    );
    home.write(&format!("{}{webhook}{}{}", home.base(vendor), client("one"), client("two")));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_many_kills_every_event_was_delivered_and_no_more_came_again_than_were_under_way() {
    let vendor = vendor().await;
    let receiver = Receiver::start().await;
    let home = Home::new(&vendor);
    configure(&home, &vendor, &receiver, &format!("max_in_flight = {IN_FLIGHT}"));
    let asked = AtomicUsize::new(0);
    receiver.rule(move |_| Answer::Status(if asked.fetch_add(1, Ordering::Relaxed) % 5 == 4 { 500 } else { 204 }));
    let mut random = StdRng::seed_from_u64(11);
    let mut log = Vec::new();
    for round in 0..=KILLS {
        let gateway = Gateway::start(&home);
        for _ in 0..random.random_range(1..4) {
            let users = random.random_range(1..5);
            for _ in 0..random.random_range(0..30) {
                let (user, nonce) = (random.random_range(0..users), random.random::<u64>());
                let event = format!(r#"{{"type":"Login","ms":1476095418189,"user_id":"u{user}","nonce":"{nonce}"}}"#);
                vendor.emit_raw(APP, Stream::UserEvents, &event);
            }
            let count = receiver.seen().len();
            let more = random.random_range(0..20);
            // Not all of that may come: then the kill comes without it.
            let _ = tokio::time::timeout(Duration::from_millis(500), receiver.requests(count + more)).await;
        }
        if round < KILLS {
            gateway.kill();
            continue;
        }
        vendor.emit_raw(APP, Stream::UserEvents, r#"{"type":"Login","user_id":"last"}"#);
        let is_last = |seen: &Seen| seen.answered == 204 && seen.json()["data"]["user_id"] == "last";
        receiver.until(|seen| seen.iter().any(is_last)).await;
        gateway
            .admin_says("/admin/v1/subscriptions", |_, body| {
                let all = body["subscriptions"].as_array().cloned().unwrap_or_default();
                all.iter().any(|s| s["subscription"] == "$webhook.crm" && s["lag"] == 0)
            })
            .await;
        log = whole_log(&gateway).await;
    }
    let seen = receiver.seen();
    let is_event = |seen: &&Seen| seen.json()["type"] != "possible_loss";
    let taken: Vec<&Seen> = seen.iter().filter(is_event).filter(|seen| seen.answered == 204).collect();
    let mut ids: HashMap<String, &str> = HashMap::new();
    let mut times: HashMap<&str, usize> = HashMap::new();
    for seen in &taken {
        let id = ids.entry(seen.json()["data"].to_string()).or_insert(seen.id());
        assert_eq!(*id, seen.id(), "an event has one id");
        *times.entry(seen.id()).or_default() += 1;
    }
    for event in &log {
        assert!(ids.contains_key(event), "not delivered: {event}");
    }
    assert_eq!(ids.len(), log.len(), "nothing is delivered that is not stored");
    let again = taken.len() - ids.len();
    assert!(again <= KILLS * IN_FLIGHT, "{again} came again");
    // The first time that each was taken is in its user's order.
    let place: HashMap<&str, usize> = log.iter().enumerate().map(|(n, event)| (ids[event], n)).collect();
    let mut last: HashMap<String, usize> = HashMap::new();
    let mut known = std::collections::HashSet::new();
    for seen in taken.iter().filter(|seen| known.insert(seen.id())) {
        let at = place[seen.id()];
        let before = last.insert(seen.user(), at);
        assert!(before.is_none_or(|before| before < at), "{} overtook", seen.id());
    }
    println!("{} stored, {} requests, {again} taken again after {KILLS} kills", log.len(), seen.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_failed_before_a_kill_comes_again_as_it_was_though_there_is_more_to_send() {
    let vendor = vendor().await;
    let receiver = Receiver::start().await;
    let home = Home::new(&vendor);
    configure(&home, &vendor, &receiver, "format = \"batch\"\nmax_in_flight = 2");
    receiver.rule(|_| Answer::Status(500));
    let emit = |user: &str| {
        vendor.emit_raw(APP, Stream::UserEvents, &format!(r#"{{"type":"Login","user_id":"{user}"}}"#));
    };
    ["a", "b", "c"].into_iter().for_each(emit);
    let mut failed: Vec<Seen> = Vec::new();
    for _ in 0..3 {
        let gateway = Gateway::start(&home);
        gateway
            .admin_says("/admin/v1/webhooks", |_, body| body["webhooks"][0]["failures"].as_u64().is_some_and(|n| n > 1))
            .await;
        gateway.kill();
        ["d", "e"].into_iter().for_each(emit);
        failed = receiver.seen();
    }
    receiver.rule(|_| Answer::Status(204));
    let _gateway = Gateway::start(&home);
    let first = failed[0].clone();
    let seen = receiver.until(|seen| seen.iter().filter(|seen| seen.answered == 204).count() >= 2).await;
    let again = seen.iter().find(|seen| seen.answered == 204 && seen.id() == first.id());
    assert_eq!(again.map(|seen| &seen.body), Some(&first.body));
    let ids: std::collections::HashSet<&str> = failed.iter().map(Seen::id).collect();
    let texts =
        |seen: &Seen| seen.json().as_array().unwrap().iter().map(|e| e["cursor"].to_string()).collect::<Vec<_>>();
    for seen in seen.iter().filter(|seen| texts(seen).iter().any(|cursor| texts(&first).contains(cursor))) {
        assert_eq!((seen.id(), &seen.body), (first.id(), &first.body));
    }
    assert!(ids.len() < failed.len(), "{} requests under {} ids", failed.len(), ids.len());
}
