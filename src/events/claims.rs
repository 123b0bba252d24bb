//! [`Claims`]: which entries of a log a subscription has handed over, has under way, and has been given back.
//!
//! Invariants: every entry is in exactly one of four states: handed over, under way (in a response), given back (by a
//! response that failed), or fresh (not yet claimed, from `fresh` on). Ranges are half open and never empty; ranges given
//! back are merged with their neighbours. An entry claimed is claimed by one reader. [`Claims::low`] is the last entry
//! below which all are handed over: what is stored, so that a restart gives again at most what was above it.
//!
//! Handed-over ranges above the low-water mark are not kept: they are what lies between the other kinds.

use std::collections::BTreeMap;
use std::ops::Range;

/// The state of a subscription. Numbers are sequence numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claims {
    /// The first entry never claimed.
    fresh: u64,
    /// Start and end of what is under way.
    under_way: BTreeMap<u64, u64>,
    /// Start and end of what was given back.
    given_back: BTreeMap<u64, u64>,
}

impl Claims {
    /// All up to `at` handed over.
    pub(super) fn new(at: u64) -> Self {
        Self { fresh: at.saturating_add(1), under_way: BTreeMap::new(), given_back: BTreeMap::new() }
    }

    /// The last entry up to which all are handed over.
    pub(super) fn low(&self) -> u64 {
        let first = |ranges: &BTreeMap<u64, u64>| ranges.first_key_value().map_or(u64::MAX, |(&start, _)| start);
        first(&self.under_way).min(first(&self.given_back)).min(self.fresh) - 1
    }

    /// The last entry ever claimed.
    pub(super) fn claimed(&self) -> u64 {
        self.fresh - 1
    }

    /// Takes up to `limit` entries before `next`: what was given back first, then fresh ones.
    pub(super) fn take(&mut self, next: u64, limit: u64) -> Option<Range<u64>> {
        let range = match self.given_back.pop_first() {
            Some((start, end)) => {
                let cut = end.min(start.saturating_add(limit));
                if cut < end {
                    self.given_back.insert(cut, end);
                }
                start..cut
            }
            None => {
                let range = self.fresh..next.min(self.fresh.saturating_add(limit));
                self.fresh = self.fresh.max(range.end);
                range
            }
        };
        if range.is_empty() {
            return None;
        }
        self.under_way.insert(range.start, range.end);
        Some(range)
    }

    /// Says that what was taken (by its start) was handed over.
    pub(super) fn settle(&mut self, start: u64) {
        self.under_way.remove(&start);
    }

    /// Says that what was taken (by its start) was not handed over.
    pub(super) fn give_back(&mut self, start: u64) {
        if let Some(end) = self.under_way.remove(&start) {
            self.put_back(start, end);
        }
    }

    /// Gives back the part from `at` on of what was taken (by its start).
    pub(super) fn shorten(&mut self, start: u64, at: u64) {
        let Some(end) = self.under_way.get_mut(&start) else { return };
        if start < at && at < *end {
            let rest = std::mem::replace(end, at);
            self.put_back(at, rest);
        }
    }

    /// Retention removed all before `earliest`: they count as handed over. Says how many were not. What is under way is
    /// in a reader's hands already and is left alone.
    pub(super) fn cut(&mut self, earliest: u64) -> u64 {
        let mut cut = 0;
        while let Some(first) = self.given_back.first_entry() {
            let (start, end) = (*first.key(), *first.get());
            if start >= earliest {
                break;
            }
            first.remove();
            if end > earliest {
                self.given_back.insert(earliest, end);
            }
            cut += end.min(earliest) - start;
        }
        if self.fresh < earliest {
            cut += earliest - self.fresh;
            self.fresh = earliest;
        }
        cut
    }

    /// How many entries before `next` are not handed over.
    pub(super) fn lag(&self, next: u64) -> u64 {
        let waiting: u64 = self.given_back.iter().map(|(start, end)| end - start).sum();
        next.saturating_sub(self.fresh) + waiting + self.in_flight()
    }

    /// How many entries are under way.
    pub(super) fn in_flight(&self) -> u64 {
        self.under_way.iter().map(|(start, end)| end - start).sum()
    }

    fn put_back(&mut self, mut start: u64, mut end: u64) {
        if let Some((&before, &its_end)) = self.given_back.range(..start).next_back()
            && its_end == start
        {
            start = before;
        }
        if let Some(its_end) = self.given_back.remove(&end) {
            end = its_end;
        }
        if end == self.fresh {
            self.given_back.remove(&start);
            self.fresh = start;
        } else {
            self.given_back.insert(start, end);
        }
    }
}

#[cfg(test)]
mod tests;
