//! Reading events: the vendor's form byte for byte, our own with more, each subscription by itself.

use rtm_gateway::kernel::names::Stream;

use super::stage::{APP, Answer, RTM, Stage, request};

/// Reads until so many events have come; gives their texts.
async fn read_all(stage: &Stage, target: &str, count: usize) -> Vec<String> {
    let mut events = Vec::new();
    while events.len() < count {
        let answer = stage.get(target).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        events.extend(texts(&answer));
    }
    events
}

/// The texts of a vendor-compatible answer's events, as they stand in it.
pub(crate) fn texts(answer: &Answer) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Body<'a> {
        result: String,
        request_id: String,
        #[serde(borrow)]
        events: Vec<&'a serde_json::value::RawValue>,
    }
    let body: Body<'_> = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body.result, "success");
    assert_eq!(Some(body.request_id.as_str()), answer.header("x-request-id"));
    body.events.iter().map(|e| e.get().to_owned()).collect()
}

#[tokio::test]
async fn every_subscription_gets_every_event_byte_for_byte_and_once() {
    let stage = Stage::start().await;
    let odd = r#"{ "ms":1476095418189 , "type":"Login","user_id":"w\u0065b","new":[1,{"a":null}] }"#;
    let mut sent = vec![stage.sim.emit_raw(APP, Stream::UserEvents, odd).to_string()];
    sent.extend(stage.sim.emit_many(APP, Stream::UserEvents, 1200).iter().map(ToString::to_string));
    for subscription in ["", "&subscription=second"] {
        let target = format!("{RTM}/vendor/user_events?wait=20s&limit=700{subscription}");
        assert_eq!(read_all(&stage, &target, sent.len()).await, sent);
        let empty = stage.get(&target.replace("20s", "0s")).await;
        assert_eq!(texts(&empty), [""; 0]);
        assert_eq!(empty.header("cache-control"), Some("no-store"));
    }
    assert!(stage.sim.violations().is_empty());
    stage.stopped().await;
}

#[tokio::test]
async fn reading_after_a_cursor_moves_nothing() {
    let stage = Stage::start().await;
    let sent: Vec<String> = stage.sim.emit_many(APP, Stream::UserEvents, 10).iter().map(ToString::to_string).collect();
    let first = stage.get(&format!("{RTM}/vendor/user_events?limit=4&wait=20s")).await;
    let cursor = first.header("x-rtm-cursor").unwrap().to_owned();
    let got = texts(&first).len();
    for _ in 0..2 {
        let mut rest = Vec::new();
        let mut after = cursor.clone();
        while rest.len() < sent.len() - got {
            let more = stage.get(&format!("{RTM}/vendor/user_events?after={after}&wait=20s")).await;
            after = more.header("x-rtm-cursor").unwrap().to_owned();
            rest.extend(texts(&more));
        }
        assert_eq!(rest, sent[got..]);
    }
    let wrong = stage.get(&format!("{RTM}/vendor/user_events?after={cursor}x")).await;
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "bad_request"));
}

#[tokio::test]
async fn the_native_form_evens_out_the_vendors_spellings() {
    let stage = Stage::start().await;
    let old = r#"{"channel_id":"room \"1\"","ts":1476095418189,"type":"Join","user_id":"userA"}"#;
    stage.sim.emit_raw(APP, Stream::ChannelEvents, old);
    let answer = stage.get(&format!("/v1/apps/{APP}/events/channel_events?wait=20s")).await;
    let body = answer.json();
    let event = &body["events"][0];
    assert_eq!(
        (&event["type"], &event["user_id"], &event["group_id"], &event["ms"]),
        (&"Join".into(), &"userA".into(), &"room \"1\"".into(), &1_476_095_418_189_u64.into())
    );
    assert_eq!((&event["region"], &body["lag"]), (&"here".into(), &0.into()));
    assert_eq!(
        (event["cursor"].as_str(), body["next"].as_str()),
        (answer.header("x-rtm-cursor"), event["cursor"].as_str())
    );
    assert!(answer.text().contains(&format!(r#""event":{old}}}"#)), "{}", answer.text());
    stage.stopped().await;
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_nowhere() {
    let stage = Stage::with("", "streams = [\"user_events\"]").await;
    let answer = stage.raw(request("GET", &format!("{RTM}/vendor/channel_events"), "all", "", "")).await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "no_such_route"));
}
