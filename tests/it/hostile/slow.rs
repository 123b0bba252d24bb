//! Callers that are slow: to take an answer, to send a body. (Slow heads are in `front::connections`; idle HTTP/2
//! connections, whose time is long, in the unit tests of `listener::connection`, where time is paused.)

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::frames::*;
use crate::front::arrival::{emit, given_again, nothing_is_missing, what_is_left, whole_events};
use crate::front::events::texts;
use crate::front::handover::{large_events, read, rest, small_caller};
use crate::front::stage::{RTM, Stage};
use crate::support::waiting::{eventually, pause};

/// As short as a loaded machine allows: what is expected is the cut, and nobody here takes anything in time.
const SHORT: &str = "write_timeout = \"400ms\"";

#[tokio::test]
async fn a_caller_that_stops_reading_is_cut_and_its_events_are_given_again() {
    let stage = Stage::with(SHORT, "").await;
    let sent = large_events(&stage).await;
    let mut caller = small_caller(&stage).await;
    caller.write_all(read().as_bytes()).await.unwrap();
    let mut some = vec![0; 10_000];
    caller.read_exact(&mut some).await.unwrap();
    // The connection is kept, and nothing more is read from it: it ends all the same.
    eventually(|| stage.parts.metrics.connections.get() == 0).await;
    assert_eq!(rest(&stage, sent.len()).await, sent);
    drop(caller);
    stage.stopped().await;
}

#[tokio::test]
async fn a_caller_that_reads_a_byte_now_and_then_is_cut_too() {
    let stage = Stage::with(SHORT, "").await;
    let sent = large_events(&stage).await;
    let mut caller = small_caller(&stage).await;
    caller.write_all(read().as_bytes()).await.unwrap();
    let trickling = async {
        let mut byte = [0];
        while caller.read(&mut byte).await.is_ok() {
            pause(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = trickling => {}
        () = eventually(|| stage.parts.metrics.connections.get() == 0) => {}
    }
    assert_eq!(rest(&stage, sent.len()).await, sent);
    stage.stopped().await;
}

fn head(path: &str, method: &[u8]) -> Vec<u8> {
    block(&[
        (b":method", method),
        (b":scheme", b"http"),
        (b":authority", b"gateway"),
        (b":path", path.as_bytes()),
        (b"x-api-key", b"all-key"),
    ])
}

#[tokio::test]
async fn over_http2_a_stream_whose_window_stays_shut_is_reset_and_the_others_go_on() {
    let stage = Stage::with(SHORT, "").await;
    let sent = large_events(&stage).await;
    // No stream may send anything before its window is opened.
    let mut caller = Caller::connect(&stage, &[(4, 0)]).await;
    let (shut, open) = (1, 3);
    let events = head(&format!("{RTM}/vendor/user_events?wait=20s"), b"GET");
    caller.send(&frame(HEADERS, END_STREAM | END_HEADERS, shut, &events)).await;
    caller.hear(|heard| heard.statuses.contains_key(&shut)).await;
    let heard = caller.hear(|heard| heard.resets.contains_key(&shut)).await;
    assert_eq!((heard.data, heard.goaway, heard.closed), (0, None, false), "{heard:?}");
    caller.send(&frame(HEADERS, END_STREAM | END_HEADERS, open, &head("/nothing/here", b"GET"))).await;
    caller.send(&frame(WINDOW_UPDATE, 0, open, &10_000_u32.to_be_bytes())).await;
    let heard = caller.hear(|heard| heard.whole.contains(&open)).await;
    assert_eq!(heard.statuses[&open], 404);
    assert_eq!(rest(&stage, sent.len()).await, sent);
    stage.stopped().await;
}

#[tokio::test]
async fn over_http2_windows_opened_a_byte_at_a_time_do_not_keep_a_stream() {
    let stage = Stage::with(SHORT, "").await;
    let sent = large_events(&stage).await;
    let mut caller = Caller::connect(&stage, &[(4, 1)]).await;
    let events = head(&format!("{RTM}/vendor/user_events?wait=20s"), b"GET");
    caller.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &events)).await;
    caller.hear(|heard| heard.statuses.contains_key(&1)).await;
    while caller.heard.resets.is_empty() && !caller.heard.closed {
        caller.send(&frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes())).await;
        let had = caller.heard.data;
        caller.hear(|heard| heard.data > had || !heard.resets.is_empty()).await;
        pause(Duration::from_millis(20)).await;
    }
    assert!(caller.heard.data < 1000, "{:?}", caller.heard);
    assert_eq!(rest(&stage, sent.len()).await, sent);
    stage.stopped().await;
}

#[tokio::test]
async fn a_slow_caller_that_takes_all_of_it_in_time_is_not_cut() {
    let stage = Stage::with(SHORT, "").await;
    let sent = large_events(&stage).await;
    let mut caller = small_caller(&stage).await;
    caller.write_all(read().as_bytes()).await.unwrap();
    let answer = crate::front::stage::Answer::read(&mut caller).await;
    assert_eq!(texts(&answer).len(), sent.len().min(1000));
    // What waits for events is not slow, however long it waits.
    caller.write_all(read().replace("wait=20s", "wait=1s").as_bytes()).await.unwrap();
    let answer = crate::front::stage::Answer::read(&mut caller).await;
    assert_eq!((answer.status, texts(&answer).len()), (200, 0));
    stage.stopped().await;
}

#[tokio::test]
async fn over_http2_streams_that_nobody_reads_are_given_again_but_for_what_their_system_took() {
    let stage = Stage::with(SHORT, "").await;
    let sent = emit(&stage.sim, &stage.parts, 300).await;
    // Windows as wide as can be: it is the connection that nobody reads.
    let wide = (1 << 31) - 1;
    let mut caller = Caller::over(small_caller(&stage).await, &[(4, wide)]).await;
    caller.send(&frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes())).await;
    let mut streamed = head("/v1/apps/demo-app/events/user_events?limit=1", b"GET");
    streamed.extend(literal(b"accept", b"text/event-stream"));
    caller.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &streamed)).await;
    eventually(|| stage.parts.metrics.connections.get() == 1).await;
    eventually(|| stage.parts.metrics.connections.get() == 0).await;
    let came = what_is_left(&mut caller.reading).await;
    let had = whole_events(&payloads(&came));
    nothing_is_missing(&sent, &had, &given_again(&mut stage.connect().await, "all").await);
    stage.stopped().await;
}

/// What is in the DATA frames of these bytes.
fn payloads(mut bytes: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let here = length.min(rest.len());
        if head[3] == DATA {
            data.extend_from_slice(&rest[..here]);
        }
        bytes = &rest[here..];
    }
    data
}
