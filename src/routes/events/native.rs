//! The native form of an events read: each entry with its cursor, where and when it came, and the vendor's spellings
//! evened out; possible losses as entries of their own.
//!
//! Invariant: `event` is the vendor's text, byte for byte.

use std::io::Write as _;

use bytes::Bytes;
use serde::Serialize;

use crate::body::Body;
use crate::events::{Cursor, Delivery};
use crate::store::{Batch, Content};
use crate::vendor::events::facts;

/// Of an entry, beside the vendor's text: about.
const BYTES_OF_FRAME: usize = 256;

/// `{"events":[…],"next":"…","lag":…}`.
pub(super) fn body(delivery: &Delivery) -> Body {
    let entries: usize = delivery.runs.iter().map(|r| r.entries.len()).sum();
    let mut out = Vec::with_capacity(entries * 2 * BYTES_OF_FRAME);
    out.extend_from_slice(br#"{"events":["#);
    let mut first = true;
    for run in &delivery.runs {
        // Damaged entries have one marker, at the last of them.
        let is_one = matches!(run.batch.content, Content::Damaged(_));
        let last = run.entries.end.saturating_sub(1);
        for index in if is_one { last..run.entries.end } else { run.entries.clone() } {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            let at = run.batch.first.plus(index as u64);
            push_entry(&mut out, Cursor { epoch: delivery.next.epoch, at }, &run.batch, index);
        }
    }
    // Writing to a vector cannot fail.
    let _ = write!(out, r#"],"next":"{}","lag":{}}}"#, delivery.next, delivery.lag);
    Body::from(Bytes::from(out))
}

fn push_entry(out: &mut Vec<u8>, cursor: Cursor, batch: &Batch, index: usize) {
    // Cursors, times and region names need no escaping.
    let (time, region) = (batch.received_at, &batch.region);
    let _ = write!(out, r#"{{"cursor":"{cursor}","received_at":"{time}","region":"{region}","type":"#);
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
