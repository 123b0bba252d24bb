//! Entries as CloudEvents 1.0 (github.com/cloudevents/spec: spec.md, json-format.md, http-protocol-binding.md).
//!
//! | attribute | is |
//! | --- | --- |
//! | `id` | the entry's; the same in every try |
//! | `source` | `/v1/apps/APP/events/STREAM`: where the gateway serves the stream |
//! | `type` | the vendor's, [`UNTYPED`] for an event without one, [`POSSIBLE_LOSS`] for a marker |
//! | `subject` | the user of a user event, the channel of a channel event |
//! | `time` | when it happened, by the vendor's word; when the gateway received it, if it gives none |
//! | `datacontenttype` | `application/json` |
//! | `region`, `receivedat`, `cursor` | extensions: where and when the gateway read it, and its place in the stream |
//!
//! Invariants: `data` is the vendor's text, byte for byte. An attribute holds no character that CloudEvents forbid in a
//! text; what the vendor wrote with one is left out of the attributes (it is in `data`).

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::json;

use super::entry::Entry;
use crate::events::EntryContent;
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::{AppId, Stream};
use crate::vendor::events::facts;

/// The `type` of a marker.
pub(super) const POSSIBLE_LOSS: &str = "possible_loss";

/// The `type` of an event that has none.
pub(super) const UNTYPED: &str = "untyped";

/// `datacontenttype`, and `Content-Type` in binary mode.
pub(super) const JSON: &str = "application/json";

/// An entry with its attributes.
pub(super) struct CloudEvent {
    pub(super) id: String,
    attributes: Vec<(&'static str, String)>,
    pub(super) data: Bytes,
}

impl CloudEvent {
    pub(super) fn new(app: &AppId, stream: Stream, entry: &Entry) -> Self {
        let received_at = entry.batch.received_at;
        let (kind, subject, time, data) = match entry.content() {
            EntryContent::Event(text) => {
                let facts = facts(&text);
                let subject = match stream {
                    Stream::UserEvents => facts.user_id,
                    Stream::ChannelEvents => facts.group_id,
                };
                let kind = facts.kind.and_then(attribute).unwrap_or_else(|| UNTYPED.to_owned());
                let time = facts.ms.map(UnixMillis).filter(|ms| *ms <= LAST_TIME).unwrap_or(received_at);
                (kind, subject.and_then(attribute), time, text.clone())
            }
            EntryContent::PossibleLoss(record) => {
                (POSSIBLE_LOSS.to_owned(), None, received_at, json!(record).to_string().into())
            }
        };
        let id = entry.id(app, stream);
        let mut attributes = vec![
            ("specversion", "1.0".to_owned()),
            ("id", id.clone()),
            ("source", format!("/v1/apps/{app}/events/{stream}")),
            ("type", kind),
        ];
        attributes.extend(subject.map(|subject| ("subject", subject)));
        attributes.extend([
            ("time", time.to_string()),
            ("region", entry.batch.region.to_string()),
            ("receivedat", received_at.to_string()),
            ("cursor", entry.cursor.to_string()),
        ]);
        Self { id, attributes, data }
    }

    /// As one JSON object.
    pub(super) fn write_json(&self, out: &mut Vec<u8>) {
        for (n, (name, value)) in self.attributes.iter().enumerate() {
            out.push(if n == 0 { b'{' } else { b',' });
            out.extend_from_slice(json!(name).to_string().as_bytes());
            out.push(b':');
            out.extend_from_slice(json!(value).to_string().as_bytes());
        }
        out.extend_from_slice(br#","datacontenttype":"application/json","data":"#);
        out.extend_from_slice(&self.data);
        out.push(b'}');
    }

    /// The attributes as header fields; `datacontenttype` is the request's `Content-Type`.
    pub(super) fn headers(&self) -> HeaderMap {
        let fields = self.attributes.iter().filter_map(|(name, value)| {
            let name = HeaderName::try_from(format!("ce-{name}")).ok()?;
            Some((name, HeaderValue::try_from(escaped(value)).ok()?))
        });
        fields.collect()
    }
}

/// A text that may be an attribute: not empty, and without the characters that CloudEvents forbid (spec.md, "Type
/// system"): controls and noncharacters. (Rust's texts hold no surrogates.)
fn attribute(text: Cow<'_, str>) -> Option<String> {
    let is_forbidden = |c: char| {
        let code = u32::from(c);
        c.is_control() || (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
    };
    (!text.is_empty() && !text.contains(is_forbidden)).then(|| text.into_owned())
}

/// Percent-encoded for a header field (http-protocol-binding.md, 3.1.3.2): blanks, quotes, percent signs and all that
/// is not printable ASCII.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'"' && byte != b'%' {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// 9999-12-30T00:00:00Z: RFC 3339 knows no year of five digits.
const LAST_TIME: UnixMillis = UnixMillis(253_402_128_000_000);
