//! [`Found`]: the entries of a range that a reader wants.
//!
//! Invariant: it looks at entries in order and without a gap, and says how far it looked; a hole in what it is given
//! ends it.

use std::ops::Range;
use std::sync::Arc;

use super::filter::Filter;
use super::judge::{CHUNK, Judging};
use crate::events::log::{Room, Run};
use crate::kernel::names::ClientName;
use crate::store::{Batch, Content, EventText, Sequence};

/// Which entries are wanted, and by whom.
pub(in crate::events) struct ReadFilter {
    /// Whether markers are wanted, too. (A reader of the vendor's form has no use for them.)
    pub(in crate::events) markers: bool,
    pub(in crate::events) filter: Arc<Filter>,
    /// To whom the cost of the filter is charged.
    pub(in crate::events) client: ClientName,
}

impl ReadFilter {
    /// Whether all events are wanted.
    pub(in crate::events) fn admits_all(&self) -> bool {
        self.filter.is_all()
    }
}

/// The entries of a range that a reader wants.
pub(in crate::events) struct Found {
    pub(in crate::events) runs: Vec<Run>,
    /// How many of them are events.
    pub(in crate::events) events: u64,
    /// The number after the last entry looked at.
    pub(in crate::events) end: Sequence,
}

impl Found {
    /// Looks at batches, in order; `judging` says what the filter admits, if there is one.
    pub(super) async fn in_batches(
        batches: &[Arc<Batch>],
        wanted: &Range<Sequence>,
        filter: &ReadFilter,
        mut room: Room,
        mut judging: Option<&mut Judging<'_>>,
    ) -> Self {
        let mut found = Self { runs: Vec::new(), events: 0, end: wanted.start };
        for batch in batches {
            let start = found.end;
            let end = wanted.end.min(batch.last().next());
            if batch.first > start {
                break; // A gap: the next read finds it at its beginning.
            }
            if end <= start {
                continue;
            }
            // Both fit: a batch has less than 2^32 entries.
            let entries = start.since(batch.first) as usize..end.since(batch.first) as usize;
            match (&batch.content, &mut judging) {
                (Content::Events(events), None) => {
                    // The first event goes however large it is, or its reader would never get past it.
                    if found.events > 0 && events.bytes(entries.start..entries.start + 1) > room.bytes {
                        break;
                    }
                    let fits = entries.len().min(events.fit(entries.start, room.bytes));
                    let run = Run { batch: Arc::clone(batch), entries: entries.start..entries.start + fits };
                    room.take(fits, run.bytes());
                    found.events += fits as u64;
                    found.runs.push(run);
                    found.end = start.plus(fits as u64);
                }
                (Content::Events(events), Some(judging)) => {
                    // In a box: the usual case has no filter, and should not hold room for one.
                    let looking = Box::pin(found.push_admitted(batch, events, entries, (judging, &mut room)));
                    let looked_at = looking.await;
                    found.end = batch.first.plus(looked_at as u64);
                }
                _ if filter.markers => {
                    room.take(1, 0);
                    found.runs.push(Run { batch: Arc::clone(batch), entries });
                    found.end = end;
                }
                _ => found.end = end,
            }
            if room.is_full() || found.end < end {
                break;
            }
        }
        found
    }

    /// Adds those of a batch's entries that a filter admits, neighbours as one run, until there is no room for more.
    /// Returns the entry after the last one looked at.
    async fn push_admitted(
        &mut self,
        batch: &Arc<Batch>,
        events: &EventText,
        entries: Range<usize>,
        (judging, room): (&mut Judging<'_>, &mut Room),
    ) -> usize {
        let mut run = entries.start..entries.start;
        let runs = &mut self.runs;
        let mut push = |run: &mut Range<usize>, next: usize| {
            let ended = std::mem::replace(run, next..next);
            if !ended.is_empty() {
                runs.push(Run { batch: Arc::clone(batch), entries: ended });
            }
        };
        let mut looked_at = entries.start;
        let (mut chunk, mut admitted) = (usize::MAX, 0);
        while looked_at < entries.end && !room.is_full() {
            let index = looked_at;
            if chunk != index / CHUNK {
                chunk = index / CHUNK;
                admitted = judging.chunk(batch.first, events, chunk).await;
            }
            if (admitted >> (index % CHUNK)) & 1 == 1 {
                let bytes = events.bytes(index..index + 1);
                if self.events > 0 && bytes > room.bytes {
                    room.bytes = 0;
                    break;
                }
                looked_at += 1;
                run.end = looked_at;
                room.take(1, bytes);
                self.events += 1;
            } else {
                looked_at += 1;
                push(&mut run, looked_at);
            }
        }
        push(&mut run, looked_at);
        looked_at
    }
}
