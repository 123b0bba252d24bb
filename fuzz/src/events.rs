//! The vendor's answers to events reads: nothing that came is dropped, and nothing is changed.
//!
//! Input: a status and, if wanted, a `Retry-After`, on the first line; the body.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use rtm_gateway::events::fuzzing::{Kept, answered, cut};
use rtm_gateway::vendor::events::facts;
use serde_json::Value;
use serde_json::value::RawValue;

/// Takes any bytes; panics when a promise is broken.
pub fn check(data: &[u8]) {
    let Some(line_end) = data.iter().position(|&b| b == b'\n') else { return };
    let (line, body) = (&data[..line_end], Bytes::copy_from_slice(&data[line_end + 1..]));
    let mut words = line.splitn(2, |&b| b == b' ');
    let Some(status) = words.next().and_then(|word| StatusCode::from_bytes(word).ok()) else { return };
    let retry_after = words.next().and_then(|value| HeaderValue::from_bytes(value).ok());
    let kept = answered(status, retry_after, body.clone());
    texts_are_slices_in_order(&kept, &body);
    let value = serde_json::from_slice::<Value>(body.strip_prefix(MARK).unwrap_or(&body)).ok();
    if status.is_success() {
        nothing_is_lost(&kept, &body, value.as_ref(), status);
    } else {
        let in_doubt = status == 408 || (status.is_server_error() && status != 501);
        assert_eq!(kept.loss.is_some(), in_doubt, "{status}");
        assert!(kept.quarantined.as_ref().is_none_or(|quarantined| in_doubt && *quarantined == body));
    }
    if let Some(value) = value.as_ref().filter(|_| !kept.events.is_empty()) {
        events_say_what_json_says(&kept, &body, value);
    }
    let whole = cut(body.clone());
    texts_are_slices_in_order(&whole, &body);
    assert_eq!((&whole.quarantined, whole.loss.is_some()), (&Some(body.clone()), true));
    // What is told of a part is told of the whole, too.
    let part = cut(body.slice(..body.len() / 2));
    assert!(whole.events.starts_with(&part.events));
}

/// What may stand before JSON.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Each text is a piece of the body, after the one before it, and as a list they are what the vendor sent.
fn texts_are_slices_in_order(kept: &Kept, body: &Bytes) {
    let events = &kept.events;
    let mut rest = &body[..];
    for text in events {
        let at = rest.windows(text.len()).position(|piece| piece == text).expect("an event that did not come");
        rest = &rest[at + text.len()..];
    }
    let list = [b"[", &events.join(&b","[..])[..], b"]"].concat();
    let list: Vec<&RawValue> = serde_json::from_slice(&list).expect("what subscribers get is JSON");
    assert_eq!(list.len(), events.len());
    assert!(list.iter().zip(events.iter()).all(|(raw, text)| raw.get().as_bytes() == text));
}

/// An answer that was taken is stored, or kept whole, or says that there was nothing.
fn nothing_is_lost(kept: &Kept, body: &Bytes, value: Option<&Value>, status: StatusCode) {
    if let Some(quarantined) = &kept.quarantined {
        assert_eq!(quarantined, body);
        assert!(kept.loss.is_some());
        return;
    }
    if !kept.events.is_empty() || (status == 204 && body.is_empty()) {
        return;
    }
    // What was passed over as empty is JSON and has no list in it. (Value refuses numbers out of range and deep
    // nesting, of which it cannot tell more.)
    let Some(value) = value else {
        let json = body.strip_prefix(MARK).unwrap_or(body);
        assert!(serde_json::from_slice::<&RawValue>(json).is_ok(), "passed over, and not JSON");
        return;
    };
    let members = value.as_object().expect("passed over, and no object");
    let events = members.get("events");
    assert!(events.is_none_or(|events| events.is_null() || *events == Value::Array(Vec::new())), "{events:?}");
    assert!(members.get("result").is_none_or(|result| result.is_null() || *result == "success"));
    if !matches!(events, Some(Value::Array(_))) && is_plain(body) {
        assert!(!members.values().any(|member| member.is_array() || member.is_object()), "events by another name");
    }
}

fn events_say_what_json_says(kept: &Kept, body: &Bytes, value: &Value) {
    let events = &kept.events;
    let Some(Value::Array(list)) = value.get("events").filter(|_| is_plain(body)) else { return };
    assert_eq!(list.len(), events.len());
    for (text, value) in events.iter().zip(list) {
        assert_eq!(serde_json::from_slice::<Value>(text).ok().as_ref(), Some(value));
        let said = facts(text);
        if let (Some(Value::String(kind)), true) = (value.get("type"), is_plain(text)) {
            assert_eq!(said.kind.as_deref(), Some(&**kind));
        }
        if let (Some(ms), true) = (value.get("ms").and_then(Value::as_u64), is_plain(text)) {
            assert_eq!(said.ms, Some(ms));
        }
    }
}

/// Whether no member can be there twice under its own or an escaped name: of those, `Value` keeps the last.
fn is_plain(text: &[u8]) -> bool {
    let times = |word: &[u8]| text.windows(word.len()).filter(|piece| *piece == word).count();
    let names: [&[u8]; 10] = [
        b"\"events\"",
        b"\"result\"",
        b"\"type\"",
        b"\"ms\"",
        b"\"ts\"",
        b"\"user_id\"",
        b"\"group_id\"",
        b"\"channel_id\"",
        b"\"code\"",
        b"\"request_id\"",
    ];
    !text.contains(&b'\\') && names.iter().all(|name| times(name) <= 1) && times(b"\":") <= names.len()
}
