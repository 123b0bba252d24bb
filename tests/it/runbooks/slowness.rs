//! Is the vendor slow, or are we? A slow vendor, and what looks like it to a caller: a spent quota, a caller that sends slowly,
//! and one that takes its answer slowly. In each one number of the access line has the time, and the others do not.

use std::time::Duration;

use rtm_gateway::simulator::{Endpoint, Fault};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::front::handover::{large_events, small_caller};
use crate::front::stage::{Answer, RTM, Stage, request};
use crate::support::log_lines::LogLines;
use crate::support::waiting::pause;

/// Far more than anything takes by itself, also on a busy machine.
const SLOW: Duration = Duration::from_millis(700);

const PARTS: [&str; 4] = ["receive_ms", "queue_wait_ms", "upstream_ms", "send_ms"];

/// Holds the line against what the page says: the time is in this part.
fn is_in(line: &Value, part: &str) {
    let ms = |member: &str| line[member].as_f64().unwrap();
    let slow = SLOW.as_secs_f64() * 1000.0;
    for each in PARTS {
        if each == part {
            assert!(ms(each) >= slow * 0.9, "{each}: {line}");
        } else {
            assert!(ms(each) < ms(part) / 2.0, "{each}: {line}");
        }
    }
    assert!(ms("duration_ms") >= ms(part), "{line}");
}

fn message(id: &str) -> String {
    let headers = format!("Content-Type: application/json\r\nX-Request-Id: {id}\r\n");
    let body = r#"{"destination":"b","payload":"p"}"#;
    request("POST", &format!("{RTM}/users/bot-1/peer_messages"), "all", &headers, body)
}

#[tokio::test]
async fn a_slow_vendor_a_spent_quota_and_a_caller_that_sends_slowly_are_told_apart_by_one_line() {
    let lines = LogLines::of_this_process();
    let quota = format!("messages = {{ requests = 1, per = \"{}ms\" }}", 2 * SLOW.as_millis());
    let stage = crate::support::stage::Stage::new().await;
    let stage = Stage::on(stage, ("", &quota, "")).await;
    // Its one seat comes back so long after the answer to this.
    assert_eq!(stage.raw(message("d-first")).await.status, 200);
    assert_eq!(stage.raw(message("d-quota")).await.status, 200);
    is_in(&lines.one("d-quota").await, "queue_wait_ms");

    stage.stopped().await;

    // A bucket begins spent: nobody knows what was sent before.
    let stage = Stage::start().await;
    assert_eq!(stage.raw(message("d-before")).await.status, 200);
    stage.sim.on(Endpoint::PeerMessages, Fault::DelayAfter(SLOW));
    assert_eq!(stage.raw(message("d-vendor")).await.status, 200);
    is_in(&lines.one("d-vendor").await, "upstream_ms");

    let whole = message("d-caller");
    let (head, body) = whole.split_at(whole.len() - 10);
    let mut tcp = stage.connect().await;
    tcp.write_all(head.as_bytes()).await.unwrap();
    pause(SLOW).await;
    tcp.write_all(body.as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut tcp).await.status, 200);
    is_in(&lines.one("d-caller").await, "receive_ms");
    stage.stopped().await;
}

#[tokio::test]
async fn a_caller_that_takes_its_answer_slowly_is_seen_in_the_time_that_sending_took() {
    let lines = LogLines::of_this_process();
    let stage = Stage::start().await;
    large_events(&stage).await;
    let read = |id: &str| {
        let target = format!("{RTM}/vendor/user_events?subscription={id}&limit=1000");
        request("GET", &target, "all", &format!("X-Request-Id: {id}\r\n"), "")
    };
    let mut caller = small_caller(&stage).await;
    caller.write_all(read("d-reader").as_bytes()).await.unwrap();
    // Its answer is made, which takes its time on a busy machine.
    caller.readable().await.unwrap();
    pause(SLOW).await;
    assert_eq!(Answer::read(&mut caller).await.status, 200);
    is_in(&lines.one("d-reader").await, "send_ms");
    let sending = stage.parts.metrics.text();
    let sum = sending.lines().find_map(|line| line.strip_prefix("rtm_gateway_response_send_seconds_sum ")).unwrap();
    assert!(sum.parse::<f64>().unwrap() >= SLOW.as_secs_f64() * 0.9, "{sum}");
    stage.stopped().await;
}

#[tokio::test]
async fn a_query_that_was_given_up_or_left_says_what_it_waited_for_to_the_last() {
    let lines = LogLines::of_this_process();
    let stage = Stage::start().await;
    let query = |id: &str, user: &str, wait: &str| {
        let headers = format!("Content-Type: application/json\r\nPrefer: wait={wait}\r\nX-Request-Id: {id}\r\n");
        let body = format!(r#"{{"filter":{{"source":"{user}","start_time":0,"end_time":4102444800}},"limit":20}}"#);
        request("POST", &format!("{RTM}/message/history/query"), "all", &headers, &body)
    };
    // A bucket begins spent.
    assert_eq!(stage.raw(query("d-before-query", "a", "9")).await.status, 200);
    stage.sim.on(Endpoint::HistoryCreate, Fault::DelayAfter(4 * SLOW));
    stage.sim.on(Endpoint::HistoryCreate, Fault::DelayAfter(4 * SLOW));
    assert_eq!(stage.raw(query("d-given-up", "b", "1")).await.status, 504);
    let said = lines.one("d-given-up").await;
    is_in(&said, "upstream_ms");
    assert_eq!(said["upstream_exchanges"], 1, "{said}");

    let mut tcp = stage.connect().await;
    tcp.write_all(query("d-left", "c", "9").as_bytes()).await.unwrap();
    pause(SLOW).await;
    drop(tcp);
    let said = lines.one("d-left").await;
    is_in(&said, "upstream_ms");
    assert_eq!((&said["upstream_exchanges"], &said["end"]), (&1.into(), &"caller_left".into()), "{said}");
    stage.stopped().await;
}
