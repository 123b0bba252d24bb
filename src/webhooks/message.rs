//! A [`Message`]: entries as one request to an endpoint, without what differs from try to try.
//!
//! Invariant: the same entries in the same format make the same message, id and body, byte for byte: a receiver that
//! knows the id has had all of it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use sha2::{Digest as _, Sha256};

use super::cloud_event::{CloudEvent, JSON};
use super::entry::Entry;
use crate::config::WebhookFormat;
use crate::kernel::names::{AppId, Stream};

/// Bytes of a batch's events, about. One event alone may be larger.
pub(super) const BATCH_BYTES: usize = 256 << 10;

/// What a request carries.
pub(super) struct Message {
    /// `webhook-id`.
    pub(super) id: String,
    /// `Content-Type`, and CloudEvents' attributes in binary mode.
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// The most entries of one message.
pub(super) fn most_entries(format: WebhookFormat) -> usize {
    match format {
        WebhookFormat::Structured | WebhookFormat::Binary => 1,
        WebhookFormat::Batch => 100,
    }
}

impl Message {
    /// Of entries of one stream; one, unless the format is that of batches.
    pub(super) fn new(format: WebhookFormat, app: &AppId, stream: Stream, entries: &[Entry]) -> Self {
        let events: Vec<CloudEvent> = entries.iter().map(|entry| CloudEvent::new(app, stream, entry)).collect();
        let id = match (format, &events[..]) {
            (WebhookFormat::Structured | WebhookFormat::Binary, [event, ..]) => event.id.clone(),
            _ => batch_id(&events),
        };
        let (mut headers, mut body) = (HeaderMap::new(), Vec::new());
        let kind = match format {
            WebhookFormat::Structured => {
                events.iter().for_each(|event| event.write_json(&mut body));
                "application/cloudevents+json"
            }
            WebhookFormat::Batch => {
                for (n, event) in events.iter().enumerate() {
                    body.push(if n == 0 { b'[' } else { b',' });
                    event.write_json(&mut body);
                }
                body.push(b']');
                "application/cloudevents-batch+json"
            }
            WebhookFormat::Binary => {
                for event in &events {
                    headers.extend(event.headers());
                    body.extend_from_slice(&event.data);
                }
                JSON
            }
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        Self { id, headers, body: body.into() }
    }
}

/// Says which events a batch holds: another selection has another id.
fn batch_id(events: &[CloudEvent]) -> String {
    let mut hash = Sha256::new();
    for event in events {
        hash.update(event.id.as_bytes());
        hash.update(b"\n");
    }
    format!("batch:{}", URL_SAFE_NO_PAD.encode(&hash.finalize()[..24]))
}

#[cfg(test)]
mod tests;
