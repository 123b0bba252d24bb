//! [`BufferedBatch`]: a batch, part of which waits for its turn; and how parts of many become one row.
//!
//! Invariant: its entries are numbered as they came, and taken in order of their times; those of equal time as they
//! came.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::store::{Content, EventText, NewBatch};
use crate::vendor::events::facts;

/// How far the vendor's clock may be ahead of ours. A time beyond would make every other event late.
const AHEAD: Duration = Duration::from_secs(60);

/// A batch, part of which waits.
#[derive(Clone, Debug)]
pub(super) struct BufferedBatch {
    pub(super) batch: NewBatch,
    /// The time before its first entry.
    pub(super) before: u64,
    /// Its entries by time: the time, and which one.
    pub(super) order: Vec<(u64, u32)>,
    /// How many of them, in this order, the log has.
    pub(super) taken: usize,
    pub(super) due: Instant,
}

impl BufferedBatch {
    pub(super) fn new(batch: NewBatch, before: u64, due: Instant) -> Self {
        let mut last = before;
        let mut order: Vec<_> = match &batch.content {
            Content::Events(events) => {
                let mut time = |event: Bytes| {
                    last = own_time(&event, &batch).unwrap_or(last);
                    last
                };
                (0..).zip(events.iter()).map(|(index, event)| (time(event), index)).collect()
            }
            // One thing, with however many entries.
            Content::PossibleLoss(_) | Content::Damaged(_) => vec![(before, 0)],
        };
        order.sort_unstable();
        Self { batch, before, order, taken: 0, due }
    }

    pub(super) fn is_spent(&self) -> bool {
        self.taken >= self.order.len()
    }

    /// The time of the entry that came last.
    pub(super) fn last(&self) -> u64 {
        self.order.iter().max_by_key(|(_, index)| *index).map_or(self.before, |(time, _)| *time)
    }

    /// The events that the log has not; `None` of a marker.
    pub(super) fn not_taken(&self) -> Option<Vec<Bytes>> {
        let Content::Events(events) = &self.batch.content else { return None };
        Some(self.order[self.taken..].iter().map(|&(_, index)| one(events, index)).collect())
    }

    /// The memory it takes, about.
    pub(super) fn bytes(&self) -> usize {
        let text = match &self.batch.content {
            Content::Events(events) => events.text().len() + 20 * events.len(),
            Content::PossibleLoss(reason) => reason.len(),
            Content::Damaged(_) => 0,
        };
        text + 256
    }
}

/// The time that an event says and that may be believed.
pub(super) fn own_time(event: &[u8], batch: &NewBatch) -> Option<u64> {
    let ahead = u64::try_from(AHEAD.as_millis()).unwrap_or(u64::MAX);
    facts(event).ms.filter(|ms| *ms <= batch.received_at.0.saturating_add(ahead))
}

/// The entries in order of (time, number of their batch, place in it), neighbours from one batch together.
pub(super) fn merge<'a>(mut turns: Vec<(u64, u64, u32)>, batch: impl Fn(u64) -> &'a NewBatch) -> Vec<NewBatch> {
    turns.sort_unstable();
    let run = |run: &[(u64, u64, u32)]| {
        let whole = batch(run[0].1);
        let content = match &whole.content {
            Content::Events(events) => {
                let texts: Vec<_> = run.iter().map(|&(_, _, index)| one(events, index)).collect();
                let some = EventText::join(texts.iter().map(|text| &text[..]));
                Content::Events(some.expect("a part of a batch is not empty, nor larger than the batch"))
            }
            other => other.clone(),
        };
        NewBatch { content, ..whole.clone() }
    };
    turns.chunk_by(|a, b| a.1 == b.1).map(run).collect()
}

fn one(events: &EventText, index: u32) -> Bytes {
    let index = index as usize;
    events.slice(index..index + 1)
}
