//! Why does a stream bring nothing? A poller that the vendor refuses for ever, and its look-alike: nothing happens at the
//! vendor.

use rtm_gateway::kernel::names::Stream;
use rtm_gateway::simulator::{Endpoint, Fault};
use serde_json::Value;

use crate::front::stage::{APP, Stage};
use crate::support::client::Client;
use crate::support::log_lines::LogLines;
use crate::support::waiting::{eventually, found};

/// What `/admin/v1/pollers` says of a stream.
async fn poller(stage: &Stage, stream: &str) -> Value {
    let view = Client::http1(stage.admin).await.get("/admin/v1/pollers").await.unwrap().json();
    let pollers = view["pollers"].as_array().unwrap();
    pollers.iter().find(|poller| poller["stream"] == stream).unwrap().clone()
}

/// The gauge of a stream, as scraped.
async fn last_good_read(stage: &Stage, stream: &str) -> f64 {
    let reply = Client::http1(stage.admin).await.get("/metrics").await.unwrap();
    let text = reply.text();
    let begin = format!("rtm_gateway_poller_last_good_read_seconds{{app=\"{APP}\",stream=\"{stream}\",");
    let line = text.lines().find(|line| line.starts_with(&begin)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_poller_that_is_refused_for_ever_is_told_from_a_stream_in_which_nothing_happens() {
    let lines = LogLines::of_this_process();
    let stage = Stage::with("", "").await;
    let said = |message: &str| {
        // No other test's vendor answers this status.
        lines.those(|line| line["message"] == message && line["error"].as_str().is_some_and(|e| e.contains("410")))
    };
    stage.sim.always(Endpoint::UserEvents, Fault::status(410));
    let refused = found(async || {
        Some(poller(&stage, "user_events").await).filter(|poller| poller["failed_reads"].as_u64() >= Some(4))
    })
    .await;
    assert_eq!(refused["state"], "refused", "{refused}");
    assert!(refused["last_error"].as_str().unwrap().contains("410") && refused["outage"].is_null(), "{refused}");
    // Quiet is another thing: it is read, and brings nothing.
    let quiet = poller(&stage, "channel_events").await;
    assert!(["waiting", "reading"].contains(&quiet["state"].as_str().unwrap()), "{quiet}");
    assert_eq!((&quiet["failed_reads"], &quiet["last_error"]), (&0.into(), &Value::Null), "{quiet}");
    let (of_refused, of_quiet) =
        (last_good_read(&stage, "user_events").await, last_good_read(&stage, "channel_events").await);
    assert!(of_refused > of_quiet, "{of_refused} {of_quiet}");
    assert!(refused["since"].as_str() > quiet["since"].as_str(), "{refused} {quiet}");
    let begun = said("events cannot be read");
    assert_eq!(begun.len(), 1, "one line, not one a try: {begun:?}");
    assert_eq!((&begun[0]["state"], &begun[0]["stream"]), (&"refused".into(), &"user_events".into()));

    stage.sim.clear_faults();
    stage.sim.emit_many(APP, Stream::UserEvents, 1);
    eventually(|| !said("events are read again").is_empty()).await;
    let over = said("events are read again");
    assert_eq!(over.len(), 1);
    assert!(over[0]["failed_reads"].as_u64() >= Some(4) && over[0]["seconds"].as_f64() > Some(0.0), "{over:?}");
    let now = poller(&stage, "user_events").await;
    assert_eq!((&now["failed_reads"], &now["last_error"]), (&0.into(), &Value::Null), "{now}");
    stage.stopped().await;
}

/// An outage in which each read may have taken events: one line when it begins, one when it ends, one marker.
#[tokio::test]
async fn an_outage_is_two_lines_and_one_marker_however_many_reads_failed() {
    let lines = LogLines::of_this_process();
    let stage = Stage::with("", "").await;
    // No other test's vendor says that.
    stage.sim.always(Endpoint::ChannelEvents, Fault::status(508));
    let open = found(async || {
        Some(poller(&stage, "channel_events").await).filter(|poller| poller["outage"]["doubts"].as_u64() >= Some(4))
    })
    .await;
    assert_eq!(
        (&open["state"], &open["outage"]["reasons"]["status_5xx"]),
        (&"failing".into(), &open["outage"]["doubts"])
    );
    let from = open["outage"]["from"].clone();
    stage.sim.clear_faults();
    let over = found(async || {
        let over = lines.those(|line| {
            line["message"] == "an outage in which events may have been lost is over" && line["from"] == from
        });
        over.into_iter().next()
    })
    .await;
    assert!(over["count"].as_u64() >= Some(4), "{over}");
    let begun = lines.those(|line| {
        line["message"] == "events may have been lost" && line["error"].as_str().is_some_and(|e| e.contains("508"))
    });
    assert_eq!(begun.len(), 1, "{begun:?}");
    let view = Client::http1(stage.admin).await.get("/admin/v1/losses").await.unwrap().json();
    let [loss] = &view["losses"].as_array().unwrap()[..] else { panic!("{view}") };
    assert_eq!((&loss["count"], &loss["from"], &loss["to"]), (&over["count"], &from, &over["to"]));
    stage.stopped().await;
}
