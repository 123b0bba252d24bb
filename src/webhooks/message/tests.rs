use std::sync::Arc;

use super::*;
use crate::events::{Cursor, Run};
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::RegionName;
use crate::store::{Batch, Content, EventText, Sequence};
use serde_json::{Value, json};

fn entries(content: Content) -> Vec<Entry> {
    let count = content.len();
    let batch = Batch {
        first: Sequence(7),
        received_at: UnixMillis(1_700_000_000_123),
        region: RegionName::parse("cn").unwrap(),
        content,
    };
    Entry::all_of(&[Run { batch: Arc::new(batch), entries: 0..count }], 3, 3)
}

fn events(texts: &[&str]) -> Vec<Entry> {
    entries(Content::Events(EventText::join(texts.iter().map(|text| text.as_bytes())).unwrap()))
}

fn message(format: WebhookFormat, stream: Stream, entries: &[Entry]) -> Message {
    Message::new(format, &AppId::parse("app-1").unwrap(), stream, entries)
}

fn cursor(at: u64) -> String {
    Cursor { epoch: 3, at: Sequence(at) }.to_string()
}

const LOGIN: &str = r#"{ "ms":1476095418189 , "type":"Login","user_id":"w\u0065b 9%","new":[1] }"#;

#[test]
fn a_structured_event_has_its_attributes_and_the_vendors_own_text() {
    let message = message(WebhookFormat::Structured, Stream::UserEvents, &events(&[LOGIN]));
    assert_eq!(message.headers[CONTENT_TYPE], "application/cloudevents+json");
    assert_eq!(message.id, format!("app-1:user_events:{}", cursor(7)));
    let text = std::str::from_utf8(&message.body).unwrap();
    assert!(text.ends_with(&format!(r#""data":{LOGIN}}}"#)), "{text}");
    let mut event: Value = serde_json::from_str(text).unwrap();
    event.as_object_mut().unwrap().remove("data");
    assert_eq!(
        event,
        json!({
            "specversion": "1.0", "id": message.id, "source": "/v1/apps/app-1/events/user_events", "type": "Login",
            "subject": "web 9%", "time": "2016-10-10T10:30:18.189Z", "region": "cn",
            "receivedat": "2023-11-14T22:13:20.123Z", "cursor": cursor(7), "datacontenttype": "application/json",
        })
    );
}

#[test]
fn a_binary_event_is_the_vendors_own_text_with_its_attributes_in_the_head() {
    let message = message(WebhookFormat::Binary, Stream::UserEvents, &events(&[LOGIN]));
    assert_eq!(message.body, LOGIN);
    let head: Vec<(&str, &str)> =
        message.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(
        head,
        [
            ("ce-specversion", "1.0"),
            ("ce-id", message.id.as_str()),
            ("ce-source", "/v1/apps/app-1/events/user_events"),
            ("ce-type", "Login"),
            ("ce-subject", "web%209%25"),
            ("ce-time", "2016-10-10T10:30:18.189Z"),
            ("ce-region", "cn"),
            ("ce-receivedat", "2023-11-14T22:13:20.123Z"),
            ("ce-cursor", &cursor(7)),
            ("content-type", "application/json"),
        ]
    );
}

#[test]
fn a_batch_is_known_by_the_events_it_holds() {
    let join = r#"{"channel_id":"room","ts":"1476095418189","type":"Join","user_id":"u"}"#;
    let both = events(&[join, LOGIN]);
    let made = message(WebhookFormat::Batch, Stream::ChannelEvents, &both);
    assert_eq!(made.headers[CONTENT_TYPE], "application/cloudevents-batch+json");
    let all: Value = serde_json::from_slice(&made.body).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 2);
    assert_eq!((&all[0]["subject"], &all[0]["type"]), (&json!("room"), &json!("Join")));
    assert!(all[1].get("subject").is_none(), "an event of no channel");
    assert_eq!(message(WebhookFormat::Batch, Stream::ChannelEvents, &both).id, made.id);
    assert_ne!(message(WebhookFormat::Batch, Stream::ChannelEvents, &both[..1]).id, made.id);
    assert_ne!(message(WebhookFormat::Batch, Stream::UserEvents, &both).id, made.id);
    assert!(!made.id.contains('.') && made.id.len() < 64);
}

#[test]
fn what_the_vendor_leaves_out_or_writes_oddly_still_makes_an_event() {
    let odd = r#"{"type":"","user_id":"a\u0000b","ms":999999999999999}"#;
    for text in ["7", "null", "\"\"", "{}", odd, r#"{"type":"\u0085"}"#] {
        for format in [WebhookFormat::Structured, WebhookFormat::Binary] {
            let message = message(format, Stream::UserEvents, &events(&[text]));
            let (kind, time, subject) = match format {
                WebhookFormat::Binary => {
                    let of = |name: &str| message.headers.get(name).map(|v| v.to_str().unwrap().to_owned());
                    assert_eq!(message.body, text);
                    (of("ce-type"), of("ce-time"), of("ce-subject"))
                }
                _ => {
                    let event: Value = serde_json::from_slice(&message.body).unwrap();
                    let of = |name: &str| event[name].as_str().map(str::to_owned);
                    (of("type"), of("time"), of("subject"))
                }
            };
            assert_eq!((kind.as_deref(), subject), (Some("untyped"), None), "{text}");
            assert_eq!(time.as_deref(), Some("2023-11-14T22:13:20.123Z"), "{text}");
        }
    }
}

#[test]
fn a_possible_loss_is_an_event_of_its_own_type() {
    for (content, reason) in [(Content::PossibleLoss("timeout".into()), "timeout"), (Content::Damaged(5), "damaged")] {
        let entries = entries(content);
        assert_eq!(entries.len(), 1);
        let message = message(WebhookFormat::Structured, Stream::UserEvents, &entries);
        let event: Value = serde_json::from_slice(&message.body).unwrap();
        assert_eq!((&event["type"], &event["data"]), (&json!("possible_loss"), &json!({ "reason": reason })));
        assert_eq!(event["time"], "2023-11-14T22:13:20.123Z");
    }
}

#[test]
fn a_marker_of_what_retention_took_does_not_have_the_id_of_the_event_whose_place_it_has() {
    let event = events(&[LOGIN]).remove(0);
    let marker = entries(Content::PossibleLoss("retention".into())).remove(0).apart();
    let id = |entry: &Entry| message(WebhookFormat::Structured, Stream::UserEvents, std::slice::from_ref(entry)).id;
    assert_eq!(marker.number(), event.number());
    assert_eq!(id(&marker), format!("{}:retention", id(&event)));
    assert_eq!(id(&marker), id(&marker.clone()), "the same in every try");
}
