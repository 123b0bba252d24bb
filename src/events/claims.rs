//! [`Claims`]: which entries of a log a subscription has handed over, has under way, and has been given back.
//!
//! Invariants: every entry is in exactly one of four states: handed over, under way (in a response), given back (by a
//! response that failed), or fresh (not yet claimed, from `fresh` on). Ranges are half open and never empty. An entry
//! claimed is claimed by one reader. What different responses gave back is never merged, nor taken as one: so that a
//! reader who comes back and says how far it got ([`Claims::resume`]) speaks for nobody else's entries. [`Claims::low`] is
//! the last entry below which all are handed over: what is stored, so that a restart gives again at most what was above
//! it.
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
    /// Start and end of what each response gave back.
    given_back: BTreeMap<u64, u64>,
}

impl Claims {
    /// All up to `at` handed over.
    pub(super) fn new(at: u64) -> Self {
        Self { fresh: at.saturating_add(1), under_way: BTreeMap::new(), given_back: BTreeMap::new() }
    }

    /// All up to `at` handed over, and these entries after it, given in order; up to the last of them the others are given
    /// back.
    pub(super) fn with_gaps(at: u64, handed_over: impl Iterator<Item = u64>) -> Self {
        let mut claims = Self::new(at);
        for entry in handed_over {
            if claims.fresh < entry {
                claims.given_back.insert(claims.fresh, entry);
            }
            claims.fresh = entry + 1;
        }
        claims
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

    /// Takes up to `limit` entries before `next`: of what one response gave back, if there is any, else fresh ones.
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
            self.given_back.insert(start, end);
        }
    }

    /// Gives back the part from `at` on of what was taken (by its start). No response held it.
    pub(super) fn shorten(&mut self, start: u64, at: u64) {
        let Some(end) = self.under_way.get_mut(&start) else { return };
        if start < at && at < *end {
            let rest = std::mem::replace(end, at);
            if rest == self.fresh {
                self.fresh = at;
            } else {
                self.given_back.insert(at, rest);
            }
        }
    }

    /// A reader says that it has all up to `last` that it was given. So of what one response gave back, that part is
    /// handed over if `last` lies in it; and what counts as handed over after `last` is given back: the reader, whose
    /// responses end at `last`, did not get it, or another reader gets it twice.
    pub(super) fn resume(&mut self, last: u64) {
        let after = last.saturating_add(1);
        if let Some((&start, &end)) = self.given_back.range(..after).next_back()
            && last < end
        {
            self.given_back.remove(&start);
            if after < end {
                self.given_back.insert(after, end);
            }
        }
        self.give_again_after(last);
    }

    /// Gives back what counts as handed over after `last`.
    pub(super) fn give_again_after(&mut self, last: u64) {
        let mut at = last.saturating_add(1);
        let mut again = Vec::new();
        // What holds `after`, and all that follows, in order: between them lies what was handed over.
        while at < self.fresh {
            let (start, end) = self.held_from(at).unwrap_or((self.fresh, self.fresh));
            if at < start {
                again.push((at, start));
            }
            at = end;
        }
        self.given_back.extend(again);
    }

    /// Whether an entry is not handed over.
    pub(super) fn holds(&self, at: u64) -> bool {
        at >= self.fresh || self.held_from(at).is_some_and(|(start, _)| start <= at)
    }

    /// Whether a response has given back what nobody has taken since.
    pub(super) fn has_given_back(&self) -> bool {
        !self.given_back.is_empty()
    }

    /// Whether entries before `earliest` wait to be taken.
    pub(super) fn is_before(&self, earliest: u64) -> bool {
        self.fresh < earliest || self.given_back.first_key_value().is_some_and(|(&start, _)| start < earliest)
    }

    /// Of what is under way or given back, the first that ends after `at`.
    fn held_from(&self, at: u64) -> Option<(u64, u64)> {
        let first = |ranges: &BTreeMap<u64, u64>| {
            let holds = ranges.range(..=at).next_back().filter(|&(_, &end)| at < end);
            holds.or_else(|| ranges.range(at..).next()).map(|(&start, &end)| (start, end))
        };
        [first(&self.under_way), first(&self.given_back)].into_iter().flatten().min()
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
}

#[cfg(test)]
mod tests;
