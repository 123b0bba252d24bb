//! The vendor's answers about history: a created query, fetched messages, a count.
//!
//! Input: the body.

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use rtm_gateway::kernel::names::AppId;
use rtm_gateway::vendor;
use rtm_gateway::vendor::history::{LOCATION, Progress, counted, created, fetched, message_ms};
use rtm_gateway::vendor::order::Operation;
use serde_json::Value;

/// Takes any bytes; panics when a promise is broken.
pub fn check(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    let value = serde_json::from_slice::<Value>(&body).ok();
    // A name that is there twice is refused where it matters, and of unknown ones `Value` keeps the last.
    let value = value.as_ref().filter(|value| value.is_object());
    let code = value.and_then(|value| value["code"].as_str()).map(str::trim);
    if let Ok(progress) = fetched(&body) {
        match progress {
            Progress::Ready(messages) => messages_are_slices_in_order(&body, &messages, value),
            Progress::Running => assert!(value.is_none() || code == Some("in progress")),
            Progress::Gone => assert!(value.is_none() || code == Some("resource not exist")),
        }
    }
    if let (Ok(Progress::Ready(count)), Some(value)) = (counted(&body), value) {
        let said = match &value["count"] {
            Value::String(text) => text.parse().ok(),
            number => number.as_u64(),
        };
        assert_eq!(said, Some(count), "{value}");
    }
    if let Ok(handle) = created(&body) {
        handle_stays_in_its_place(&handle, value);
    }
    if let (Some(ms), Some(value)) = (message_ms(&body), value) {
        let of = |name: &str| match &value[name] {
            Value::String(text) => text.parse().ok(),
            number => number.as_u64(),
        };
        assert!(of("ms") == Some(ms) || of("ts") == Some(ms), "{value}");
    }
}

fn messages_are_slices_in_order(body: &Bytes, messages: &[Bytes], value: Option<&Value>) {
    let (mut last, end) = (body.as_ptr() as usize, body.as_ptr() as usize + body.len());
    for message in messages {
        let at = message.as_ptr() as usize;
        assert!(last <= at && at + message.len() <= end && !message.is_empty(), "out of order, or a copy");
        last = at + message.len();
    }
    let Some(value) = value else { return };
    let list = match (&value["messages"], &value["message"]) {
        (Value::Null, other) => other,
        (list, _) => list,
    };
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    assert_eq!(list.len(), messages.len(), "{value}");
    for (text, value) in messages.iter().zip(list) {
        assert_eq!(serde_json::from_slice::<Value>(text).ok().as_ref(), Some(value));
    }
}

fn handle_stays_in_its_place(handle: &str, value: Option<&Value>) {
    if let Some(location) = value.and_then(|value| value["location"].as_str()) {
        assert!(location.ends_with(&format!("{}{handle}", &LOCATION[1..])), "{location}");
    }
    let app = AppId::parse("a1").expect("an app id");
    let target = vendor::target(&app, &Operation::FetchHistory(handle.to_owned()));
    let sent = target.strip_prefix("/dev/v2/project/a1/rtm/message/history/query/").expect("the fetch's path");
    assert!(!sent.contains(['/', '?', '#']) && sent.bytes().all(|b| b.is_ascii_graphic()), "{target}");
    assert!(!matches!(sent, "" | "." | ".."), "{target}");
    assert_eq!(percent_decode_str(sent).decode_utf8().ok().as_deref(), Some(handle));
    target.parse::<hyper::Uri>().unwrap_or_else(|why| panic!("{target}: {why}"));
}
