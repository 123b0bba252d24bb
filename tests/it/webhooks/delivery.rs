//! What arrives: every event, in order, as it was, signed; and what of it may overtake what.

use std::collections::HashSet;

use rtm_gateway::kernel::names::Stream;
use rtm_gateway::kernel::secret::Secret;
use rtm_gateway::kernel::standard_webhooks::{Key, signatures};
use rtm_gateway::simulator::{Endpoint, Fault};

use super::rig::{APP, ASYMMETRIC, Rig, SYMMETRIC, webhook};
use crate::support::receiver::{Answer, Receiver, Seen};

fn signed_with(seen: &Seen, keys: &[&str]) -> String {
    let keys: Vec<Key> = keys.iter().map(|key| Key::parse(&Secret::new((*key).to_owned())).unwrap()).collect();
    signatures(&keys, seen.id(), seen.header("webhook-timestamp").parse().unwrap(), &seen.body)
}

#[tokio::test]
async fn every_event_arrives_once_in_order_signed_and_byte_for_byte() {
    let receiver = Receiver::start().await;
    let mut rig = Rig::start(&webhook("crm", &receiver.url("/hook"), "")).await;
    let odd = r#"{ "ms":1476095418189 , "type":"Login","user_id":"w\u0065b","new":[1,{"a":null}] }"#;
    let mut sent = vec![rig.sim.emit_raw(APP, Stream::UserEvents, odd).to_string()];
    sent.extend(rig.emit_many(60));
    rig.sim.emit_many(APP, Stream::ChannelEvents, 3);
    let seen = receiver.requests(sent.len()).await;
    rig.idle("crm").await;
    assert_eq!(receiver.seen().len(), sent.len());
    assert_eq!(seen.iter().map(Seen::data).collect::<Vec<_>>(), sent);
    let ids: HashSet<&str> = seen.iter().map(Seen::id).collect();
    assert_eq!(ids.len(), sent.len());
    for seen in &seen {
        assert_eq!(seen.path, "/hook");
        assert_eq!(seen.json()["id"], seen.id());
        assert_eq!(seen.header("content-type"), "application/cloudevents+json");
        assert_eq!(seen.header("webhook-signature"), signed_with(seen, &[SYMMETRIC]));
    }
    let delivered = r#"rtm_gateway_webhook_delivered_total{app="demo-app",webhook="crm"}"#;
    assert_eq!(rig.metric(delivered), sent.len() as f64);
    rig.stop().await;
}

#[tokio::test]
async fn only_what_the_filter_admits_arrives_and_a_possible_loss_is_told() {
    let receiver = Receiver::start().await;
    let filter = "filter = { user_id = [\"vip-*\"] }";
    let mut rig = Rig::start(&webhook("crm", &receiver.url("/"), filter)).await;
    rig.emit(&["a", "vip-1", "b"]);
    receiver.requests(1).await;
    // A read whose end is in doubt: what was in it may be lost.
    rig.sim.on(Endpoint::UserEvents, Fault::status(408));
    let seen = receiver.until(|seen| seen.iter().any(|s| s.json()["type"] == "possible_loss")).await;
    rig.emit(&["c", "vip-2"]);
    let all = receiver.requests(seen.len() + 1).await;
    assert_eq!((all[0].user().as_str(), all[all.len() - 1].user().as_str()), ("vip-1", "vip-2"));
    let marker = &all[1].json();
    assert!(marker["data"]["reason"].is_string() && marker["id"] == all[1].id(), "{marker}");
    rig.stop().await;
}

#[tokio::test]
async fn with_several_in_flight_each_users_events_are_in_order_and_a_failing_one_holds_up_no_other() {
    let receiver = Receiver::start().await;
    receiver.rule(|seen| Answer::Status(if seen.user() == "stuck" { 500 } else { 204 }));
    let more = "max_in_flight = 4\nmax_attempts = 1000";
    let mut rig = Rig::start(&webhook("crm", &receiver.url("/"), more)).await;
    let users: Vec<String> =
        (0..120).map(|n| if n == 3 || n == 9 { "stuck".into() } else { format!("u{}", n % 5) }).collect();
    let sent = rig.emit(&users.iter().map(String::as_str).collect::<Vec<_>>());
    let others = |seen: &[Seen]| seen.iter().filter(|s| s.user() != "stuck").cloned().collect::<Vec<_>>();
    let seen = receiver.until(|seen| others(seen).len() >= 118).await;
    let stuck: HashSet<&str> = seen.iter().filter(|s| s.user() == "stuck").map(Seen::id).collect();
    assert_eq!(stuck.len(), 1, "the second of that user waits for the first");
    for user in ["u0", "u1", "u2", "u3", "u4"] {
        let came: Vec<String> = seen.iter().filter(|s| s.user() == user).map(Seen::data).collect();
        let wanted: Vec<String> =
            sent.iter().zip(&users).filter(|(_, of)| *of == user).map(|(event, _)| event.clone()).collect();
        assert_eq!(came, wanted, "{user}");
    }
    receiver.rule(|_| Answer::Status(204));
    rig.idle("crm").await;
    let ids: HashSet<String> = receiver.seen().iter().map(|seen| seen.id().to_owned()).collect();
    assert_eq!(ids.len(), sent.len());
    rig.stop().await;
}

#[tokio::test]
async fn a_batch_is_one_request_and_a_failed_one_comes_again_as_it_was() {
    let receiver = Receiver::start().await;
    receiver.next(std::iter::repeat_n(Answer::Status(500), 3));
    let mut rig = Rig::start(&webhook("crm", &receiver.url("/"), "format = \"batch\"\nmax_attempts = 100")).await;
    let sent = rig.emit_many(250);
    rig.idle("crm").await;
    let seen = receiver.seen();
    let (failed, good) = seen.split_at(3);
    assert!(failed.iter().all(|f| f.id() == good[0].id() && f.body == good[0].body));
    let events: Vec<serde_json::Value> = good.iter().flat_map(|g| g.json().as_array().unwrap().clone()).collect();
    let came: Vec<String> = events.iter().map(|event| event["data"].to_string()).collect();
    assert_eq!(came, sent);
    assert!(good.len() < 100, "{} requests", good.len());
    assert_eq!(seen[0].header("content-type"), "application/cloudevents-batch+json");
    rig.stop().await;
}

#[tokio::test]
async fn in_binary_mode_the_body_is_the_vendors_text_alone() {
    let receiver = Receiver::start().await;
    let more = "format = \"binary\"\nsecrets = [{ file = \"$DIR/asymmetric\" }]";
    let mut rig = Rig::start(&webhook("crm", &receiver.url("/"), more)).await;
    let sent = rig.emit(&["用户"]);
    let seen = &receiver.requests(1).await[0];
    assert_eq!(seen.body, sent[0]);
    assert_eq!((seen.header("ce-id"), seen.header("ce-type")), (seen.id(), "Login"));
    assert_eq!(seen.header("ce-subject"), "%E7%94%A8%E6%88%B7");
    assert_eq!(seen.header("webhook-signature"), signed_with(seen, &[ASYMMETRIC]));
    rig.stop().await;
}

#[tokio::test]
async fn both_streams_go_to_one_endpoint_under_ids_of_their_own() {
    let receiver = Receiver::start().await;
    let streams = "streams = [\"user_events\", \"channel_events\"]";
    let mut rig = Rig::start(&webhook("crm", &receiver.url("/"), streams)).await;
    rig.sim.emit_many(APP, Stream::UserEvents, 20);
    rig.sim.emit_many(APP, Stream::ChannelEvents, 20);
    let seen = receiver.requests(40).await;
    let ids: HashSet<&str> = seen.iter().map(Seen::id).collect();
    let of = |stream: &str| {
        let source = format!("/v1/apps/{APP}/events/{stream}");
        seen.iter().filter(|seen| seen.json()["source"] == source.as_str()).count()
    };
    assert_eq!((ids.len(), of("user_events"), of("channel_events")), (40, 20, 20));
    rig.stop().await;
}

#[tokio::test]
async fn both_secrets_sign_while_one_takes_over_from_the_other() {
    let receiver = Receiver::start().await;
    let url = receiver.url("/");
    let with = |secrets: &str| webhook("crm", &url, &format!("secrets = [{secrets}]"));
    let (old, new) = ("{ file = \"$DIR/symmetric\" }", "{ file = \"$DIR/asymmetric\" }");
    let mut rig = Rig::start(&with(old)).await;
    for (secrets, keys) in [
        (old.to_owned(), &[SYMMETRIC][..]),
        (format!("{new}, {old}"), &[ASYMMETRIC, SYMMETRIC]),
        (new.to_owned(), &[ASYMMETRIC]),
    ] {
        rig.reload(&with(&secrets)).await;
        let count = receiver.seen().len();
        rig.emit(&["a"]);
        let seen = &receiver.requests(count + 1).await[count];
        assert_eq!(seen.header("webhook-signature"), signed_with(seen, keys));
    }
    // A file whose content changes is read again, with nothing else changed.
    rig.write("asymmetric", SYMMETRIC);
    rig.reload(&with(new)).await;
    let count = receiver.seen().len();
    rig.emit(&["a"]);
    let seen = &receiver.requests(count + 1).await[count];
    assert_eq!(seen.header("webhook-signature"), signed_with(seen, &[SYMMETRIC]));
    rig.stop().await;
}
