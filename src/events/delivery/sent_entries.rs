//! [`SentEntries`]: what a stream of a subscription was given of one of the app's streams, and what of that is on its
//! way.

use std::collections::VecDeque;
use std::ops::Range;

use crate::events::{Cursor, Receipt};
use crate::store::Sequence;

/// How many runs of entries a stream remembers. A reader that is alone and wants all has one run; where others take of
/// the same subscription, or a filter passes over whole reads, there are gaps.
const MAX_REMEMBERED: usize = 64;

#[derive(Debug, Default)]
pub(super) struct SentEntries {
    /// What is on its way, in order: all but the last are flushed.
    pub(super) in_flight: VecDeque<InFlightRead>,
    /// What was given before: runs of entries, the last at the end.
    delivered: Vec<Range<u64>>,
}

/// A read of the log on its way to the caller.
#[derive(Debug)]
pub(super) struct InFlightRead {
    pub(super) number: u64,
    pub(super) entries: Range<u64>,
    pub(super) receipt: Receipt,
    pub(super) progress: ReadProgress,
}

/// How far a read has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadProgress {
    /// Not all of it was given to the connection.
    Partial,
    /// All of it was; it is not known to be flushed.
    Written,
    /// All of it is with the system.
    Flushed,
}

impl SentEntries {
    /// Takes out a read, if it is on its way still.
    pub(super) fn take(&mut self, number: u64) -> Option<InFlightRead> {
        let at = self.in_flight.iter().position(|read| read.number == number)?;
        self.in_flight.remove(at)
    }

    /// These have arrived.
    pub(super) fn remember(&mut self, entries: Range<u64>) {
        match self.delivered.last_mut() {
            Some(last) if last.end == entries.start => last.end = entries.end,
            _ => {
                if self.delivered.len() == MAX_REMEMBERED {
                    self.delivered.remove(0);
                }
                self.delivered.push(entries);
            }
        }
    }

    /// What it has on its way is settled up to an entry, if it was given that, and the rest given back. Says what it
    /// was given for good and the caller was not.
    pub(super) fn yield_to(mut self, at: Option<u64>) -> Vec<Range<u64>> {
        let unheard = self.after(at);
        // The caller has what came before its last event. What is dropped is given back.
        if let Some(at) = at
            && let Some(last) = self.in_flight.iter().position(|read| read.entries.contains(&at))
        {
            self.in_flight.drain(..last).for_each(|read| read.receipt.handed_over());
            if let Some(InFlightRead { entries, receipt, .. }) = self.in_flight.pop_front() {
                let left = entries.end - (at + 1);
                receipt.only_before(Sequence(at + 1), left).into_iter().for_each(Receipt::handed_over);
            }
        }
        unheard
    }

    /// What it was given for good after an entry; all, if it was not given that.
    fn after(&self, at: Option<u64>) -> Vec<Range<u64>> {
        if at.is_some_and(|at| self.in_flight.iter().any(|read| read.entries.contains(&at))) {
            return Vec::new();
        }
        let holds = at.and_then(|at| Some((at, self.delivered.iter().rposition(|entries| entries.contains(&at))?)));
        let Some((at, index)) = holds else { return self.delivered.clone() };
        let rest = at + 1..self.delivered[index].end;
        std::iter::once(rest).chain(self.delivered[index + 1..].iter().cloned()).collect()
    }

    /// Whether each run that it was given lies after those before, and after where it began.
    pub(super) fn is_in_order(&self, began: Option<Cursor>) -> bool {
        let began = began.map_or(0, |began| began.at.0);
        let runs = self.delivered.iter().chain(self.in_flight.iter().map(|read| &read.entries));
        runs.scan(began, |before, run| Some(std::mem::replace(before, run.end - 1) < run.start))
            .all(|is_after| is_after)
    }

    /// Whether it was given this entry.
    pub(super) fn has(&self, at: u64) -> bool {
        self.in_flight.iter().map(|read| &read.entries).chain(&self.delivered).any(|entries| entries.contains(&at))
    }
}
