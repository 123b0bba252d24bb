//! The body of the native form of an events read: each entry with its cursor, where and when it came, and the vendor's
//! spellings evened out; possible losses as entries of their own.
//!
//! Invariant: `event` is the vendor's text, byte for byte.

use std::fmt::Display;
use std::io::Write as _;

use bytes::Bytes;
use serde::Serialize;

use crate::events::{Cursor, Delivery, EntryContent, LeaseName, MergedReader, Receipt};
use crate::http::body::Body;
use crate::kernel::names::{Stream, Streams};
use crate::store::Batch;
use crate::vendor::events::facts;

/// Of an entry, beside the vendor's text: about.
const BYTES_OF_FRAME: usize = 256;

/// `{"events":[…],"next":"…","lag":…}`; with `"lease":"…"`, and an `attempt` of each event, when they are leased; with
/// `"settled":…` when it is said what became of an acknowledgement that came with the read.
pub(super) fn body(delivery: &Delivery, settled: Option<&Settled>) -> Body {
    let mut out = JsonBody::new(delivery.runs.iter().map(|run| run.entries.len()).sum());
    let mut attempts = delivery.leased.iter().flat_map(|leased| leased.attempts.iter().copied());
    for run in &delivery.runs {
        for (index, at) in run.shown() {
            let cursor = Cursor { epoch: delivery.next.epoch, at };
            // Of damaged entries the last alone is leased, as it alone is shown: so there is an attempt for each.
            out.push(&cursor, Labels { stream: None, attempt: attempts.next() }, &run.batch, index);
        }
    }
    out.end(&delivery.next, delivery.lag, delivery.leased.as_ref().map(|leased| leased.name), settled)
}

/// The same of what both streams hold, at most so many entries in the order received; each says its `stream`. What is
/// more is given back.
pub(super) fn body_of_all(reader: &mut MergedReader, limit: usize) -> (Body, Vec<Receipt>) {
    let (mut out, mut receipts, mut left) = (JsonBody::new(0), Vec::new(), limit);
    while left > 0 {
        let Some(given) = reader.give(left) else { break };
        left -= given.run.entries.len();
        for (index, at) in given.run.shown() {
            let mut cursor = given.before;
            cursor.give(given.stream, Cursor { epoch: cursor.of(given.stream).epoch, at });
            let labels = Labels { stream: Some(given.stream), attempt: None };
            out.push(&cursor.text(Streams::All), labels, &given.run.batch, index);
        }
        receipts.extend(given.receipt);
    }
    receipts.extend(reader.give_back());
    (out.end(&reader.cursor().text(Streams::All), reader.lag(), None, None), receipts)
}

/// What became of an acknowledgement that came with a read.
#[derive(Debug, Serialize)]
#[serde(tag = "result", rename_all = "lowercase")]
pub(super) enum Settled {
    /// It is durable: so many events were not settled before.
    Success { events: u64 },
    /// Nothing was settled, and why: as the refusal would have said alone.
    Failed { status: u16, code: &'static str, detail: String },
}

/// A body that is being written.
struct JsonBody {
    bytes: Vec<u8>,
    is_first: bool,
}

/// What an entry says of itself beside what the log has.
struct Labels {
    stream: Option<Stream>,
    attempt: Option<u32>,
}

impl JsonBody {
    fn new(entries: usize) -> Self {
        let mut bytes = Vec::with_capacity(entries * 2 * BYTES_OF_FRAME);
        bytes.extend_from_slice(br#"{"events":["#);
        Self { bytes, is_first: true }
    }

    fn push(&mut self, cursor: &impl Display, labels: Labels, batch: &Batch, index: usize) {
        if !std::mem::take(&mut self.is_first) {
            self.bytes.push(b',');
        }
        let out = &mut self.bytes;
        // Cursors, times and names need no escaping, and writing to a vector cannot fail.
        let (time, region) = (batch.received_at, &batch.region);
        let _ = write!(out, r#"{{"cursor":"{cursor}","#);
        if let Some(stream) = labels.stream {
            let _ = write!(out, r#""stream":"{stream}","#);
        }
        if let Some(attempt) = labels.attempt {
            let _ = write!(out, r#""attempt":{attempt},"#);
        }
        let _ = write!(out, r#""received_at":"{time}","region":"{region}","type":"#);
        match EntryContent::of(batch, index) {
            EntryContent::Event(text) => {
                let facts = facts(&text);
                push_json(out, &facts.kind);
                out.extend_from_slice(br#","user_id":"#);
                push_json(out, &facts.user_id);
                out.extend_from_slice(br#","group_id":"#);
                push_json(out, &facts.group_id);
                out.extend_from_slice(br#","ms":"#);
                push_json(out, &facts.ms);
                out.extend_from_slice(br#","event":"#);
                out.extend_from_slice(&text);
            }
            EntryContent::PossibleLoss(record) => {
                out.extend_from_slice(br#""possible_loss","#);
                // Its members, without the braces around them.
                let members = serde_json::to_string(&record).unwrap_or_default();
                out.extend_from_slice(members.trim_matches(['{', '}']).as_bytes());
            }
        }
        out.push(b'}');
    }

    fn end(mut self, next: &impl Display, lag: u64, lease: Option<LeaseName>, settled: Option<&Settled>) -> Body {
        let _ = write!(self.bytes, r#"],"next":"{next}","lag":{lag}"#);
        if let Some(lease) = lease {
            let _ = write!(self.bytes, r#","lease":"{lease}""#);
        }
        if let Some(settled) = settled {
            self.bytes.extend_from_slice(br#","settled":"#);
            push_json(&mut self.bytes, settled);
        }
        self.bytes.push(b'}');
        Body::from(Bytes::from(self.bytes))
    }
}

fn push_json(out: &mut Vec<u8>, value: &impl Serialize) {
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.extend_from_slice(b"null");
    }
}
