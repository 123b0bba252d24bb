//! [`Tail`]: the newest batches of a log in memory, one copy for all readers.
//!
//! Invariants: its batches are consecutive and end with the log's newest entry, so a reader at or after its first entry
//! is served all it may have without the store. It holds at most [`MAX_BYTES`], but always the newest batch (unless
//! retention removed it). Batches are told in order of their sequence; `earliest` and `next` never go back.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::store::{Batch, Content};

/// The bytes of events a log keeps in memory: some 30 000 events of the usual size.
pub(in crate::events) const MAX_BYTES: usize = 4 << 20;

/// The bytes of an event while nothing is known.
const USUAL: usize = 256;

/// The newest batches, and where the log begins and ends.
#[derive(Debug)]
pub(in crate::events) struct Tail {
    /// The oldest entry kept by the log (in the store).
    earliest: u64,
    /// The number of the next entry.
    next: u64,
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
}

impl Tail {
    /// Nothing in memory of a log that begins and ends so.
    pub(in crate::events) fn new(earliest: u64, next: u64) -> Self {
        Self { earliest, next, batches: VecDeque::new(), bytes: 0 }
    }

    pub(in crate::events) fn earliest(&self) -> u64 {
        self.earliest
    }

    pub(in crate::events) fn next(&self) -> u64 {
        self.next
    }

    /// Adds a batch that was stored.
    pub(in crate::events) fn push(&mut self, batch: Arc<Batch>) {
        if self.batches.back().is_some_and(|newest| newest.last().0 + 1 != batch.first.0) {
            // A batch is missing in between: what is older comes from the store.
            self.batches.clear();
            self.bytes = 0;
        }
        self.next = self.next.max(batch.last().0 + 1);
        self.bytes += weight(&batch);
        self.batches.push_back(batch);
        while self.bytes > MAX_BYTES && self.batches.len() > 1 {
            self.forget_oldest();
        }
    }

    /// The batches that hold the entries of a range, or `None` when the store must be asked.
    pub(in crate::events) fn get(&self, range: &Range<u64>) -> Option<Vec<Arc<Batch>>> {
        if range.start < self.batches.front()?.first.0 {
            return None;
        }
        let from = self.batches.partition_point(|batch| batch.last().0 < range.start);
        Some(self.batches.range(from..).take_while(|batch| batch.first.0 < range.end).cloned().collect())
    }

    /// How many bytes an event has, as the newest say.
    pub(in crate::events) fn usual_bytes(&self) -> usize {
        let of = |batch: &Arc<Batch>| match &batch.content {
            Content::Events(events) => Some(events.text().len().div_ceil(events.len())),
            Content::PossibleLoss(_) | Content::Damaged(_) => None,
        };
        self.batches.iter().rev().find_map(of).unwrap_or(USUAL)
    }

    /// Whether the batch of an entry is in memory.
    pub(in crate::events) fn holds(&self, at: u64) -> bool {
        self.batches.front().is_some_and(|oldest| oldest.first.0 <= at)
    }

    /// Retention removed all before `earliest`.
    pub(in crate::events) fn trimmed(&mut self, earliest: u64) {
        self.earliest = self.earliest.max(earliest);
        while self.batches.front().is_some_and(|oldest| oldest.last().0 < self.earliest) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.batches.pop_front() {
            self.bytes -= weight(&oldest);
        }
    }
}

/// About the memory of a batch.
fn weight(batch: &Batch) -> usize {
    let content = match &batch.content {
        Content::Events(events) => events.text().len() + 4 * events.len(),
        Content::PossibleLoss(reason) => reason.len(),
        Content::Damaged(_) => 0,
    };
    content + 128
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::clock::UnixMillis;
    use crate::kernel::names::RegionName;
    use crate::store::{EventText, Sequence};

    fn batch(first: u64, events: usize, size: usize) -> Arc<Batch> {
        let event = vec![b'1'; size];
        Arc::new(Batch {
            first: Sequence(first),
            received_at: UnixMillis(0),
            region: RegionName::parse("cn").unwrap(),
            content: Content::Events(EventText::join(std::iter::repeat_n(&event[..], events)).unwrap()),
        })
    }

    fn firsts(tail: &Tail, range: Range<u64>) -> Option<Vec<u64>> {
        Some(tail.get(&range)?.iter().map(|batch| batch.first.0).collect())
    }

    #[test]
    fn a_range_inside_is_served_and_one_that_begins_before_is_not() {
        let mut tail = Tail::new(1, 11);
        assert_eq!(firsts(&tail, 10..11), None);
        for first in [11, 14, 17] {
            tail.push(batch(first, 3, 1));
        }
        assert_eq!((tail.earliest(), tail.next()), (1, 20));
        assert_eq!(firsts(&tail, 10..13), None);
        assert_eq!(firsts(&tail, 11..14), Some(vec![11]));
        assert_eq!(firsts(&tail, 13..15), Some(vec![11, 14]));
        assert_eq!(firsts(&tail, 16..20), Some(vec![14, 17]));
        tail.trimmed(17);
        assert_eq!(firsts(&tail, 16..20), None);
        assert_eq!(firsts(&tail, 17..20), Some(vec![17]));
    }

    #[test]
    fn memory_is_bounded_but_the_newest_batch_stays() {
        let mut tail = Tail::new(1, 1);
        for n in 0..10 {
            tail.push(batch(1 + n, 1, MAX_BYTES / 4));
        }
        assert!(tail.bytes <= MAX_BYTES);
        assert_eq!(firsts(&tail, 8..11), Some(vec![8, 9, 10]));
        tail.push(batch(11, 1, 2 * MAX_BYTES));
        assert_eq!(firsts(&tail, 11..12), Some(vec![11]));
        assert_eq!(firsts(&tail, 10..12), None);
    }
}
