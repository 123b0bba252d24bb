//! What the reorder buffer keeps in the store, as it stands there. It is on disk: members may be added, none changed.
//!
//! | note | holds |
//! |---|---|
//! | `wait/NUMBER` | a batch as it came: one line of JSON ([`BatchHead`]), a line feed, its text |
//! | `mark` | [`Mark`], as JSON |
//!
//! Invariant: what [`encode`] writes [`decode`] reads; whatever else is there makes neither fail.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::buffered_batch::BufferedBatch;
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::RegionName;
use crate::store::{Content, EventText, NewBatch};

/// The names of batches' notes begin so.
pub(super) const BATCHES: &str = "wait/";
/// The mark's name.
pub(super) const MARK: &str = "mark";

/// How far the log is with the batches that wait, so that each entry goes there once.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The number after the log's last entry.
    pub(super) end: u64,
    /// The number of the next batch.
    pub(super) next: u64,
    pub(super) now: Progress,
    /// What holds if the log is shorter than `end`.
    pub(super) before: Progress,
}

/// What was taken of the batches, by one mark.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The latest time in the log.
    pub(super) high: u64,
    /// Of each batch that waits, how many entries the log has.
    pub(super) taken: Vec<(u64, usize)>,
}

/// What a batch's note says before its text.
#[derive(Serialize, Deserialize)]
struct BatchHead {
    received_at: u64,
    region: String,
    before: u64,
    /// Where each event ends in the text; none for a marker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ends: Vec<u32>,
}

impl Mark {
    pub(super) fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("numbers can be written").into()
    }
}

/// The name of a batch's note. In hexadecimal and of one length, so that names sort as numbers do.
pub(super) fn note_name(number: u64) -> String {
    format!("{BATCHES}{number:016x}")
}

/// One line of JSON, then the text of the events or the marker's reason.
pub(super) fn encode(waiting: &BufferedBatch) -> Bytes {
    let (ends, text) = match &waiting.batch.content {
        Content::Events(events) => (events.ends().to_vec(), events.text().clone()),
        Content::PossibleLoss(reason) => (Vec::new(), Bytes::copy_from_slice(reason.as_bytes())),
        Content::Damaged(_) => (Vec::new(), Bytes::new()),
    };
    let (received_at, region) = (waiting.batch.received_at.0, waiting.batch.region.to_string());
    let head = BatchHead { received_at, region, before: waiting.before, ends };
    let mut note = BytesMut::from(&serde_json::to_vec(&head).expect("numbers and names can be written")[..]);
    note.extend_from_slice(b"\n");
    note.extend_from_slice(&text);
    note.freeze()
}

/// The batch, and the time before it.
pub(super) fn decode(note: &Bytes) -> Option<(NewBatch, u64)> {
    let line = note.iter().position(|&byte| byte == b'\n')?;
    let head: BatchHead = serde_json::from_slice(&note[..line]).ok()?;
    let text = note.slice(line + 1..);
    let content = if head.ends.is_empty() {
        Content::PossibleLoss(String::from_utf8(text.to_vec()).ok()?)
    } else {
        Content::Events(EventText::from_parts(text, head.ends.into())?)
    };
    let region = RegionName::parse(&head.region).ok()?;
    Some((NewBatch { received_at: UnixMillis(head.received_at), region, content }, head.before))
}
