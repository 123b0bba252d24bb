//! Stops, starts and reloads lose nothing and repeat nothing.

use std::collections::HashSet;

use super::rig::{Rig, webhook};
use crate::support::receiver::{Answer, Receiver, Seen};

fn users(receiver: &Receiver) -> Vec<String> {
    receiver.seen().iter().map(Seen::user).collect()
}

#[tokio::test]
async fn what_was_delivered_does_not_come_again_after_a_stop_though_an_earlier_event_is_stuck() {
    let receiver = Receiver::start().await;
    receiver.rule(|seen| Answer::Status(if seen.user() == "stuck" { 500 } else { 204 }));
    let hook = webhook("crm", &receiver.url("/"), "max_in_flight = 3\nmax_attempts = 1000");
    let mut rig = Rig::start(&hook).await;
    rig.emit(&["a", "stuck", "b", "c", "stuck", "d"]);
    let others = |seen: &[Seen]| seen.iter().filter(|s| s.user() != "stuck").count();
    receiver.until(|seen| others(seen) >= 4).await;
    rig.stop().await;
    rig.run().await;
    rig.emit(&["e"]);
    receiver.until(|seen| seen.iter().any(|s| s.user() == "e")).await;
    receiver.rule(|_| Answer::Status(204));
    rig.idle("crm").await;
    let came = users(&receiver);
    for user in ["a", "b", "c", "d", "e"] {
        assert_eq!(came.iter().filter(|u| *u == user).count(), 1, "{user} in {came:?}");
    }
    let stuck: Vec<Seen> = receiver.seen().into_iter().filter(|s| s.user() == "stuck").collect();
    let ids: HashSet<&str> = stuck.iter().map(Seen::id).collect();
    assert_eq!(ids.len(), 2, "ids are the same after the start");
    rig.stop().await;
}

#[tokio::test]
async fn a_batch_that_failed_before_a_stop_comes_again_as_it_was() {
    let receiver = Receiver::start().await;
    receiver.rule(|_| Answer::Status(500));
    let hook = webhook("crm", &receiver.url("/"), "format = \"batch\"\nmax_attempts = 1000");
    let mut rig = Rig::start(&hook).await;
    rig.emit(&["a", "b", "c"]);
    let last = receiver.requests(2).await[1].clone();
    rig.stop().await;
    let stopped = receiver.seen().len();
    rig.run().await;
    // More events are there than before: they are no part of it.
    rig.emit(&["d", "e"]);
    let again = receiver.requests(stopped + 1).await[stopped].clone();
    assert_eq!((again.id(), &again.body), (last.id(), &last.body));
    receiver.rule(|_| Answer::Status(204));
    rig.idle("crm").await;
    rig.stop().await;
}

#[tokio::test]
async fn tries_are_counted_over_stops_and_waits_go_on() {
    let receiver = Receiver::start().await;
    receiver.rule(|_| Answer::Status(500));
    let hook = webhook("crm", &receiver.url("/"), "retry = { initial = \"1h\", max = \"1h\" }");
    let mut rig = Rig::start(&hook).await;
    rig.emit(&["a"]);
    let waits = rig.stands("crm", |status| status.failures == 1).await;
    assert!(waits.next_try_at.is_some());
    rig.stop().await;
    rig.run().await;
    let status = rig.stands("crm", |status| status.failures == 1).await;
    assert_eq!((status.state, receiver.seen().len()), ("retrying", 1));
    rig.stop().await;
}

#[tokio::test]
async fn a_reload_moves_a_webhook_to_another_address_and_format_without_loss() {
    let (before, after) = (Receiver::start().await, Receiver::start().await);
    before.rule(|seen| Answer::Status(if seen.user() == "b" { 503 } else { 204 }));
    let mut rig = Rig::start(&webhook("crm", &before.url("/"), "")).await;
    rig.emit(&["a", "b", "c"]);
    before.until(|seen| seen.iter().any(|s| s.user() == "b")).await;
    rig.reload(&webhook("crm", &after.url("/"), "max_in_flight = 2")).await;
    rig.emit(&["d"]);
    rig.idle("crm").await;
    assert_eq!(users(&before)[0], "a");
    assert!(users(&before)[1..].iter().all(|user| user == "b"));
    let mut moved = users(&after);
    moved.sort();
    assert_eq!(moved, ["b", "c", "d"]);
    rig.stop().await;
}

#[tokio::test]
async fn a_webhook_that_is_taken_out_and_put_in_again_goes_on_from_its_place() {
    let receiver = Receiver::start().await;
    let hook = webhook("crm", &receiver.url("/"), "");
    let mut rig = Rig::start(&hook).await;
    rig.emit(&["a"]);
    rig.idle("crm").await;
    rig.reload("").await;
    assert!(rig.parts.webhooks.status().is_empty());
    rig.emit(&["b"]);
    rig.reload(&hook).await;
    receiver.requests(2).await;
    rig.idle("crm").await;
    rig.stop().await;
    rig.configure("");
    rig.run().await;
    rig.emit(&["c"]);
    rig.stop().await;
    rig.configure(&hook);
    rig.run().await;
    receiver.requests(3).await;
    rig.idle("crm").await;
    assert_eq!(users(&receiver), ["a", "b", "c"]);
    rig.stop().await;
}

#[tokio::test]
async fn a_new_webhook_begins_where_it_is_told_to() {
    let (all, new) = (Receiver::start().await, Receiver::start().await);
    let first = webhook("all", &all.url("/"), "");
    let mut rig = Rig::start(&first).await;
    rig.emit(&["a"]);
    rig.idle("all").await;
    let hooks =
        first + &webhook("late", &new.url("/"), "from = \"latest\"") + &webhook("early", &new.url("/early"), "");
    rig.reload(&hooks).await;
    let early = new.requests(1).await;
    assert_eq!((early[0].path.as_str(), early[0].user().as_str()), ("/early", "a"));
    rig.stands("late", |_| rig.parts.events.subscriptions().iter().any(|s| s.subscription == "$webhook.late")).await;
    rig.emit(&["b"]);
    let seen = new.requests(3).await;
    let late: Vec<String> = seen.iter().filter(|s| s.path == "/").map(Seen::user).collect();
    assert_eq!(late, ["b"]);
    rig.stop().await;
}

#[tokio::test]
async fn order_holds_when_the_number_in_flight_is_changed_while_an_event_is_stuck() {
    let receiver = Receiver::start().await;
    receiver.rule(|seen| Answer::Status(if seen.user() == "stuck" { 500 } else { 204 }));
    let hook =
        |many: usize| webhook("crm", &receiver.url("/"), &format!("max_attempts = 1000\nmax_in_flight = {many}"));
    let mut rig = Rig::start(&hook(1)).await;
    rig.emit(&["stuck", "a", "stuck", "b"]);
    receiver.requests(4).await;
    assert!(users(&receiver).iter().all(|user| user == "stuck"), "all wait for the first");
    rig.reload(&hook(4)).await;
    receiver.until(|seen| seen.iter().any(|seen| seen.user() == "b")).await;
    let stuck: HashSet<String> =
        receiver.seen().iter().filter(|seen| seen.user() == "stuck").map(|seen| seen.id().to_owned()).collect();
    assert_eq!(stuck.len(), 1, "the second of that user waits for the first");
    rig.reload(&hook(1)).await;
    rig.emit(&["c"]);
    let count = receiver.seen().len();
    receiver.requests(count + 4).await;
    assert!(!users(&receiver).contains(&"c".to_owned()), "all wait for the first again");
    receiver.rule(|_| Answer::Status(204));
    rig.idle("crm").await;
    let taken: Vec<Seen> = receiver.seen().into_iter().filter(|seen| seen.answered == 204).collect();
    assert_eq!(taken.iter().map(Seen::user).collect::<Vec<_>>(), ["a", "b", "stuck", "stuck", "c"]);
    rig.stop().await;
}
