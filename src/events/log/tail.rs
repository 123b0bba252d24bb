//! [`Tail`]: the newest batches of a log in memory, one copy for all readers.
//!
//! Invariants: its batches are consecutive and end with the log's newest entry, so a reader at or after its first entry
//! is served all it may have without the store. It holds at most [`MAX_BYTES`], but always the newest batch (unless
//! retention removed it). Batches are told in order of their sequence; `earliest` and `next` never go back.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::store::{Batch, Content, Sequence};

/// The bytes of events a log keeps in memory: some 30 000 events of the usual size.
pub(super) const MAX_BYTES: usize = 4 << 20;

/// The bytes of an event while nothing is known.
const USUAL: usize = 256;

/// The newest batches, and where the log begins and ends.
#[derive(Debug)]
pub(super) struct Tail {
    /// The oldest entry kept by the log (in the store).
    earliest: Sequence,
    /// The number of the next entry.
    next: Sequence,
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
}

impl Tail {
    /// Nothing in memory of a log that begins and ends so.
    pub(super) fn new(earliest: Sequence, next: Sequence) -> Self {
        Self { earliest, next, batches: VecDeque::new(), bytes: 0 }
    }

    pub(super) fn earliest(&self) -> Sequence {
        self.earliest
    }

    pub(super) fn next(&self) -> Sequence {
        self.next
    }

    /// Adds a batch that was stored.
    pub(super) fn push(&mut self, batch: Arc<Batch>) {
        if self.batches.back().is_some_and(|newest| newest.last().next() != batch.first) {
            // A batch is missing in between: what is older comes from the store.
            self.batches.clear();
            self.bytes = 0;
        }
        self.next = self.next.max(batch.last().next());
        self.bytes += weight(&batch);
        self.batches.push_back(batch);
        while self.bytes > MAX_BYTES && self.batches.len() > 1 {
            self.forget_oldest();
        }
    }

    /// The batches that hold the entries of a range, or `None` when the store must be asked.
    pub(super) fn get(&self, range: &Range<Sequence>) -> Option<Vec<Arc<Batch>>> {
        if range.start < self.batches.front()?.first {
            return None;
        }
        // The batches are consecutive and end where the log does: if the first entry is here, so are all others.
        let from = self.batches.partition_point(|batch| batch.last() < range.start);
        Some(self.batches.range(from..).take_while(|batch| batch.first < range.end).cloned().collect())
    }

    /// The batches in memory, oldest first.
    pub(super) fn batches(&self) -> impl Iterator<Item = &Arc<Batch>> {
        self.batches.iter()
    }

    /// How many bytes an event has, as the newest say.
    pub(super) fn usual_bytes(&self) -> usize {
        let of = |batch: &Arc<Batch>| match &batch.content {
            Content::Events(events) => Some(events.text().len().div_ceil(events.len())),
            Content::PossibleLoss(_) | Content::Damaged(_) => None,
        };
        self.batches.iter().rev().find_map(of).unwrap_or(USUAL)
    }

    /// Whether the batch of an entry is in memory.
    pub(super) fn holds(&self, at: Sequence) -> bool {
        self.batches.front().is_some_and(|oldest| oldest.first <= at)
    }

    /// Retention removed all before `earliest`.
    pub(super) fn trimmed(&mut self, earliest: Sequence) {
        self.earliest = self.earliest.max(earliest);
        while self.batches.front().is_some_and(|oldest| oldest.last() < self.earliest) {
            self.forget_oldest();
        }
    }

    /// Who was given the batch keeps it: memory follows a response that is slow, not this bound.
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
    use crate::store::EventText;

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
        Some(tail.get(&(Sequence(range.start)..Sequence(range.end)))?.iter().map(|batch| batch.first.0).collect())
    }

    #[test]
    fn a_range_inside_is_served_and_one_that_begins_before_is_not() {
        let mut tail = Tail::new(Sequence(1), Sequence(11));
        assert_eq!(firsts(&tail, 10..11), None);
        for first in [11, 14, 17] {
            tail.push(batch(first, 3, 1));
        }
        assert_eq!((tail.earliest(), tail.next()), (Sequence(1), Sequence(20)));
        assert_eq!(firsts(&tail, 10..13), None);
        assert_eq!(firsts(&tail, 11..14), Some(vec![11]));
        assert_eq!(firsts(&tail, 13..15), Some(vec![11, 14]));
        assert_eq!(firsts(&tail, 16..20), Some(vec![14, 17]));
        tail.trimmed(Sequence(17));
        assert_eq!(firsts(&tail, 16..20), None);
        assert_eq!(firsts(&tail, 17..20), Some(vec![17]));
    }

    #[test]
    fn memory_is_bounded_but_the_newest_batch_stays() {
        let mut tail = Tail::new(Sequence(1), Sequence(1));
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
