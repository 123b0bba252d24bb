//! The body of the native form of an events read, in one answer: its entries, and the place after them.
//!
//! Invariant: the text of a batch is made once for all who keep up; what is one reader's own is written between.

use std::fmt::Display;
use std::io::Write as _;

use bytes::Bytes;
use serde::Serialize;

use crate::events::{Cursor, Delivery, LeaseName, MergedReader, Receipt, Run};
use crate::http::body::{Body, Frames};
use crate::kernel::names::Streams;
use crate::request::batch_text::{TextCache, is_shared};
use crate::request::json_text::{self, EntryOrigin, Labels, push_json};

/// Of an entry, beside the vendor's text: about.
const BYTES_OF_FRAME: usize = 256;
/// And of what one reader alone is told of it.
const BYTES_OF_LABELS: usize = 20;

/// `{"events":[…],"next":"…","lag":…}`; with `"lease":"…"`, and an `attempt` of each event, when they are leased; with
/// `"settled":…` when it is said what became of an acknowledgement that came with the read.
pub(super) fn body(delivery: &Delivery, texts: &TextCache, settled: Option<&Settled>) -> Body {
    let mut out = JsonBody::new();
    let mut attempts = delivery.leased.as_ref().map(|leased| leased.attempts.iter().copied());
    let epoch = delivery.next.epoch;
    for run in &delivery.runs {
        if is_shared(&run.batch, delivery.lag) && run.is_of_events() {
            let text = texts.of(&run.batch, epoch);
            match &mut attempts {
                None => out.share(text.slice(run.entries.clone())),
                Some(attempts) => {
                    out.bytes.reserve(text.slice(run.entries.clone()).len() + run.entries.len() * BYTES_OF_LABELS);
                    for (index, attempt) in run.entries.clone().zip(attempts) {
                        out.push_labelled(text.entry(index), Labels { stream: None, attempt: Some(attempt) });
                    }
                }
            }
            continue;
        }
        let origin = out.begin(run);
        for (index, at) in run.shown() {
            // Of damaged entries the last alone is leased, as it alone is shown: so there is an attempt for each.
            let labels = Labels { stream: None, attempt: attempts.as_mut().and_then(Iterator::next) };
            out.push(&Cursor { epoch, at }, labels, (&origin, run), index);
        }
    }
    out.end(&delivery.next, delivery.lag, delivery.leased.as_ref().map(|leased| leased.name), settled)
}

/// The same of what both streams hold, at most so many entries in the order received; each says its `stream`. What is
/// more is given back.
pub(super) fn body_of_all(reader: &mut MergedReader, limit: usize) -> (Body, Vec<Receipt>) {
    let (mut out, mut receipts, mut left) = (JsonBody::new(), Vec::new(), limit);
    while left > 0 {
        let Some(given) = reader.give(left) else { break };
        left -= given.run.entries.len();
        let origin = out.begin(&given.run);
        for (index, at) in given.run.shown() {
            let mut cursor = given.before;
            cursor.give(given.stream, Cursor { epoch: cursor.of(given.stream).epoch, at });
            let labels = Labels { stream: Some(given.stream), attempt: None };
            out.push(&cursor.text(Streams::All), labels, (&origin, &given.run), index);
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
    frames: Frames,
    /// What comes after those.
    bytes: Vec<u8>,
    /// Whether the next entry is not the first.
    owes_comma: bool,
}

impl JsonBody {
    fn new() -> Self {
        Self { frames: Frames::default(), bytes: br#"{"events":["#.to_vec(), owes_comma: false }
    }

    /// Entries of a run follow.
    fn begin(&mut self, run: &Run) -> EntryOrigin {
        self.bytes.reserve(run.bytes() + run.entries.len() * BYTES_OF_FRAME);
        EntryOrigin::of(&run.batch)
    }

    fn push(&mut self, cursor: &impl Display, labels: Labels, (origin, run): (&EntryOrigin, &Run), index: usize) {
        self.pay_comma();
        json_text::push(&mut self.bytes, cursor, labels, (origin, &run.batch), index);
        self.owes_comma = true;
    }

    /// An entry of a batch's text, with labels.
    fn push_labelled(&mut self, entry: &[u8], labels: Labels) {
        self.pay_comma();
        json_text::push_labelled(&mut self.bytes, without_comma(entry), labels);
        self.owes_comma = true;
    }

    /// Entries of a batch's text, as they are.
    fn share(&mut self, mut entries: Bytes) {
        if entries.is_empty() {
            return;
        }
        self.pay_comma();
        self.frames.share(std::mem::take(&mut self.bytes).into());
        entries.truncate(without_comma(&entries).len());
        self.frames.share(entries);
        self.owes_comma = true;
    }

    fn pay_comma(&mut self) {
        if std::mem::take(&mut self.owes_comma) {
            self.bytes.push(b',');
        }
    }

    fn end(mut self, next: &impl Display, lag: u64, lease: Option<LeaseName>, settled: Option<&Settled>) -> Body {
        // Cursors and names need no escaping, and writing to a vector cannot fail.
        let _ = write!(self.bytes, r#"],"next":"{next}","lag":{lag}"#);
        if let Some(lease) = lease {
            let _ = write!(self.bytes, r#","lease":"{lease}""#);
        }
        if let Some(settled) = settled {
            self.bytes.extend_from_slice(br#","settled":"#);
            push_json(&mut self.bytes, settled);
        }
        self.bytes.push(b'}');
        self.frames.share(self.bytes.into());
        self.frames.into_body()
    }
}

fn without_comma(entries: &[u8]) -> &[u8] {
    entries.strip_suffix(b",").unwrap_or(entries)
}
