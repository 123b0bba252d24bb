//! The native form of an events read: each entry with its cursor, where and when it came, and the vendor's spellings
//! evened out; possible losses as entries of their own.
//!
//! Invariant: `event` is the vendor's text, byte for byte.

use std::fmt::Display;
use std::io::Write as _;

use bytes::Bytes;
use serde::Serialize;

use super::merged_reader::MergedReader;
use crate::events::{Cursor, Delivery, LeaseName, Receipt, Run};
use crate::http::body::Body;
use crate::kernel::names::{Stream, Streams};
use crate::store::{Batch, Content, Sequence};
use crate::vendor::events::facts;

/// Of an entry, beside the vendor's text: about.
const BYTES_OF_FRAME: usize = 256;

/// `{"events":[…],"next":"…","lag":…}`; with `"lease":"…"`, and an `attempt` of each event, when they are leased.
pub(super) fn body(delivery: &Delivery) -> Body {
    let mut out = Out::new(delivery.runs.iter().map(|run| run.entries.len()).sum());
    let mut attempts = delivery.leased.iter().flat_map(|leased| leased.attempts.iter().copied());
    for run in &delivery.runs {
        let id = |at| Cursor { epoch: delivery.next.epoch, at };
        out.push_run(run, id, None, &mut attempts);
    }
    if let Some(leased) = &delivery.leased {
        out.lease(leased.name);
    }
    out.end(&delivery.next, delivery.lag)
}

/// The same of what both streams hold, at most so many entries in the order received; each says its `stream`. What is more
/// is given back.
pub(super) fn body_of_all(feed: &mut MergedReader, limit: usize) -> (Body, Vec<Receipt>) {
    let (mut out, mut receipts, mut left) = (Out::new(0), Vec::new(), limit);
    while left > 0 {
        let Some(given) = feed.give(left) else { break };
        left -= given.run.entries.len();
        let id = |at| {
            let mut marks = given.marks;
            marks.give(given.stream, Cursor { epoch: marks.of(given.stream).epoch, at });
            marks.text(Streams::All)
        };
        out.push_run(&given.run, id, Some(given.stream), &mut std::iter::empty());
        receipts.extend(given.receipt);
    }
    receipts.extend(feed.give_back());
    (out.end(&feed.marks().text(Streams::All), feed.lag()), receipts)
}

struct Out {
    bytes: Vec<u8>,
    is_first: bool,
    lease: Option<LeaseName>,
}

impl Out {
    fn new(entries: usize) -> Self {
        let mut bytes = Vec::with_capacity(entries * 2 * BYTES_OF_FRAME);
        bytes.extend_from_slice(br#"{"events":["#);
        Self { bytes, is_first: true, lease: None }
    }

    fn push_run<C: Display>(
        &mut self,
        run: &Run,
        id: impl Fn(Sequence) -> C,
        stream: Option<Stream>,
        attempts: &mut dyn Iterator<Item = u32>,
    ) {
        // Damaged entries have one marker, at the last of them.
        let is_one = matches!(run.batch.content, Content::Damaged(_));
        let last = run.entries.end.saturating_sub(1);
        for index in if is_one { last..run.entries.end } else { run.entries.clone() } {
            if !std::mem::take(&mut self.is_first) {
                self.bytes.push(b',');
            }
            let cursor = id(run.batch.first.plus(index as u64));
            push_entry(&mut self.bytes, &cursor, (stream, attempts.next()), &run.batch, index);
        }
    }

    fn lease(&mut self, name: LeaseName) {
        self.lease = Some(name);
    }

    fn end(mut self, next: &impl Display, lag: u64) -> Body {
        // Writing to a vector cannot fail.
        let _ = write!(self.bytes, r#"],"next":"{next}","lag":{lag}"#);
        if let Some(lease) = self.lease {
            let _ = write!(self.bytes, r#","lease":"{lease}""#);
        }
        self.bytes.push(b'}');
        Body::from(Bytes::from(self.bytes))
    }
}

fn push_entry(
    out: &mut Vec<u8>,
    cursor: &impl Display,
    (stream, attempt): (Option<Stream>, Option<u32>),
    batch: &Batch,
    index: usize,
) {
    // Cursors, times and names need no escaping.
    let (time, region) = (batch.received_at, &batch.region);
    let _ = write!(out, r#"{{"cursor":"{cursor}","#);
    if let Some(stream) = stream {
        let _ = write!(out, r#""stream":"{stream}","#);
    }
    if let Some(attempt) = attempt {
        let _ = write!(out, r#""attempt":{attempt},"#);
    }
    let _ = write!(out, r#""received_at":"{time}","region":"{region}","type":"#);
    match &batch.content {
        Content::Events(events) => {
            let text = events.slice(index..index + 1);
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
        Content::PossibleLoss(reason) => {
            out.extend_from_slice(br#""possible_loss","reason":"#);
            push_json(out, reason);
        }
        Content::Damaged(_) => out.extend_from_slice(br#""possible_loss","reason":"damaged""#),
    }
    out.push(b'}');
}

fn push_json(out: &mut Vec<u8>, value: &impl Serialize) {
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.extend_from_slice(b"null");
    }
}
