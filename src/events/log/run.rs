//! A [`Run`]: entries of one batch that go to a reader; and the [`Room`] that its read has for more; and which of them
//! a reader is shown.

use std::ops::Range;
use std::sync::Arc;

use crate::store::{Batch, Content, Sequence};

/// A run of a batch's entries.
#[derive(Clone, Debug)]
pub struct Run {
    /// Shared with the log and with all others who read it.
    pub batch: Arc<Batch>,
    /// Which of its entries.
    pub entries: Range<usize>,
}

impl Run {
    /// Those of its entries that a reader is shown, each with the number that it has in the log.
    pub(crate) fn shown(&self) -> impl Iterator<Item = (usize, Sequence)> + use<> {
        let first = self.batch.first;
        shown(&self.batch.content, self.entries.clone()).map(move |index| (index, first.plus(index as u64)))
    }

    /// Whether its entries are events, and none is a marker.
    pub(crate) fn is_of_events(&self) -> bool {
        matches!(self.batch.content, Content::Events(_))
    }

    /// The bytes of its events.
    pub(crate) fn bytes(&self) -> usize {
        match &self.batch.content {
            Content::Events(events) => events.bytes(self.entries.clone()),
            Content::PossibleLoss(_) | Content::Damaged(_) => 0,
        }
    }

    /// Leaves the other events of its batch alone, if they are most of it and nobody else holds them in memory.
    pub(in crate::events) fn keep_apart(&mut self) {
        let Content::Events(events) = &self.batch.content else { return };
        if 2 * self.bytes() >= events.text().len() {
            return;
        }
        if let Some(apart) = events.apart(self.entries.clone()) {
            let Batch { first, received_at, ref region, .. } = *self.batch;
            let (first, region) = (first.plus(self.entries.start as u64), region.clone());
            self.batch = Arc::new(Batch { first, received_at, region, content: Content::Events(apart) });
            self.entries = 0..self.entries.len();
        }
    }
}

/// How much more one read hands over.
#[derive(Clone, Copy, Debug)]
pub(in crate::events) struct Room {
    pub(in crate::events) entries: usize,
    pub(in crate::events) bytes: usize,
}

impl Room {
    /// For all that there is.
    pub(in crate::events) const ALL: Self = Self { entries: usize::MAX, bytes: usize::MAX };

    pub(in crate::events) fn is_full(&self) -> bool {
        self.entries == 0 || self.bytes == 0
    }

    /// So much of it is taken.
    pub(in crate::events) fn take(&mut self, entries: usize, bytes: usize) {
        self.entries = self.entries.saturating_sub(entries);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// How many entries of a batch from one on there is room for; one at least.
    pub(in crate::events) fn fits(&self, content: &Content, from: usize) -> usize {
        match content {
            Content::Events(events) => events.fit(from, self.bytes),
            Content::PossibleLoss(_) | Content::Damaged(_) => usize::MAX,
        }
    }

    /// Leaves of these runs what there is room for. Says which entry is the first that is left out, if one is.
    pub(in crate::events) fn cut(mut self, runs: &mut Vec<Run>) -> Option<u64> {
        for n in 0..runs.len() {
            let run = &mut runs[n];
            let (start, many) = (run.entries.start, self.fits(&run.batch.content, run.entries.start));
            let left_out = run.batch.first.0 + start as u64;
            if n > 0 && self.is_full() {
                runs.truncate(n);
                return Some(left_out);
            }
            if many < run.entries.len() {
                run.entries.end = start + many;
                runs.truncate(n + 1);
                return Some(left_out + many as u64);
            }
            self.take(runs[n].entries.len(), runs[n].bytes());
        }
        None
    }
}

/// Which of these entries of a batch a reader is shown. Damaged entries have one marker, at the last of them: thousands
/// that all say the same would tell nobody more, and a place after the last is where reading goes on.
pub(crate) fn shown(content: &Content, entries: Range<usize>) -> Range<usize> {
    match content {
        Content::Damaged(_) => entries.end.saturating_sub(1)..entries.end,
        Content::Events(_) | Content::PossibleLoss(_) => entries,
    }
}
