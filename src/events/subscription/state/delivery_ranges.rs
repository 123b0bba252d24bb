//! [`DeliveryRanges`]: which entries of a log a subscription has handed over, has under way, and has been given back.
//!
//! Invariants: every entry is in exactly one of four states: handed over, under way (in a response), given back (by a
//! response that failed), or fresh (not yet claimed, from `fresh` on). Ranges are half open and never empty. An entry
//! claimed is claimed by one reader. What different responses gave back is never merged, nor taken as one: so that a
//! reader who comes back and says how far it got ([`DeliveryRanges::hear`]) speaks for nobody else's entries; and of
//! what no response of this run gave back its word settles nothing. [`DeliveryRanges::low`] is the last entry below
//! which all are handed over: what is stored, so that a restart gives again at most what was above it.
//!
//! Handed-over ranges above the low-water mark are not kept: they are what lies between the other kinds.

mod lost_ranges;

use std::collections::BTreeMap;
use std::ops::Range;

pub(in crate::events) use self::lost_ranges::{LostRanges, Speaker};
use crate::events::subscription::StreamNumber;

/// The state of a subscription. Numbers are sequence numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::events) struct DeliveryRanges {
    /// The first entry never claimed.
    fresh: u64,
    /// Start of what is under way.
    under_way: BTreeMap<u64, ResponseRun>,
    /// Start of what each response gave back.
    given_back: BTreeMap<u64, ResponseRun>,
    /// How often entries were taken.
    taken: u64,
}

/// Entries from a start on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ResponseRun {
    /// The entry after the last.
    end: u64,
    /// In which stream it is under way, or was until that gave it back.
    stream: Option<StreamNumber>,
    /// After how many others it was taken: a stream has its runs in this order.
    order: u64,
    /// A response had it that gave it back: not a restart, nor a reader's word.
    is_of_response: bool,
}

impl ResponseRun {
    /// What no response had.
    fn of_nobody(end: u64) -> Self {
        Self { end, stream: None, order: 0, is_of_response: false }
    }
}

impl DeliveryRanges {
    /// All up to `at` handed over.
    pub(in crate::events) fn new(at: u64) -> Self {
        Self { fresh: at.saturating_add(1), under_way: BTreeMap::new(), given_back: BTreeMap::new(), taken: 0 }
    }

    /// All up to `at` handed over, and these entries after it, given in order; up to the last of them the others are
    /// given back.
    pub(in crate::events) fn with_gaps(at: u64, handed_over: impl Iterator<Item = u64>) -> Self {
        let mut ranges = Self::new(at);
        for entry in handed_over {
            if ranges.fresh < entry {
                ranges.given_back.insert(ranges.fresh, ResponseRun::of_nobody(entry));
            }
            ranges.fresh = entry + 1;
        }
        ranges
    }

    /// The last entry up to which all are handed over.
    pub(in crate::events) fn low(&self) -> u64 {
        let first =
            |ranges: &BTreeMap<u64, ResponseRun>| ranges.first_key_value().map_or(u64::MAX, |(&start, _)| start);
        first(&self.under_way).min(first(&self.given_back)).min(self.fresh) - 1
    }

    /// The last entry ever claimed.
    pub(in crate::events) fn claimed(&self) -> u64 {
        self.fresh - 1
    }

    /// Takes up to `limit` entries before `next`: of what one response gave back, if there is any, else fresh ones.
    /// They are for a stream, if that is said.
    pub(in crate::events) fn take(
        &mut self,
        next: u64,
        limit: u64,
        stream: Option<StreamNumber>,
    ) -> Option<Range<u64>> {
        let mut is_of_response = false;
        // The oldest first. And never together with what follows: a reader's word on it is that of one response.
        let range = match self.given_back.pop_first() {
            Some((start, run)) => {
                let cut = run.end.min(start.saturating_add(limit));
                if cut < run.end {
                    self.given_back.insert(cut, run);
                }
                is_of_response = run.is_of_response;
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
        self.taken += 1;
        self.under_way.insert(range.start, ResponseRun { end: range.end, stream, order: self.taken, is_of_response });
        Some(range)
    }

    /// Says that what was taken (by its start) was handed over.
    pub(in crate::events) fn settle(&mut self, start: u64) {
        self.under_way.remove(&start);
    }

    /// Says that what was taken (by its start) was not handed over, and whether a response had it.
    pub(in crate::events) fn give_back(&mut self, start: u64, in_response: bool) {
        if let Some(mut run) = self.under_way.remove(&start) {
            run.is_of_response |= in_response;
            self.given_back.insert(start, run);
        }
    }

    /// Gives back the part from `at` on of what was taken (by its start), and says whether a response had it.
    pub(in crate::events) fn shorten(&mut self, start: u64, at: u64, in_response: bool) {
        let Some(run) = self.under_way.get_mut(&start) else { return };
        if start < at && at < run.end {
            let rest = std::mem::replace(run, ResponseRun { end: at, ..*run });
            // Nobody claimed anything since: then it is as if this had not been claimed, and is taken with what
            // follows.
            if rest.end == self.fresh {
                self.fresh = at;
            } else {
                let is_of_response = rest.is_of_response || in_response;
                self.given_back.insert(at, ResponseRun { is_of_response, ..rest });
            }
        }
    }

    /// Which response gave back an entry that a reader names as the last that it has.
    pub(in crate::events) fn speaker(&self, last: u64) -> Option<Speaker> {
        speaker(&self.given_back, last).map(Speaker)
    }

    /// What a response had taken (by its start) that is under way.
    pub(in crate::events) fn told(&self, start: u64) -> Option<Speaker> {
        self.under_way.get(&start).copied().map(Speaker)
    }

    /// A reader says that it has all up to `last` that it was given, by that response or one of the same stream. So of
    /// what the one gave back, that part is handed over; and of what the stream gave back, what it was given before
    /// that. Says which that is.
    pub(in crate::events) fn hear(&mut self, last: u64, by: Speaker) -> Vec<Range<u64>> {
        heard(&mut self.given_back, last, by.0)
    }

    /// All up to `last` is handed over that is given back or was never claimed. Says what that was.
    pub(in crate::events) fn settle_to(&mut self, last: u64) -> Vec<Range<u64>> {
        let after = last.saturating_add(1);
        let mut settled = taken_to(&mut self.given_back, last);
        if self.fresh < after {
            settled.push(self.fresh..after);
            self.fresh = after;
        }
        settled
    }

    /// Gives back what of a range counts as handed over. Says what that is.
    pub(in crate::events) fn give_again(&mut self, range: Range<u64>) -> Vec<Range<u64>> {
        let (mut at, to) = (range.start, range.end.min(self.fresh));
        let mut again = Vec::new();
        // What holds `at`, and all that follows, in order: between them lies what was handed over.
        while at < to {
            let (start, end) = self.held_from(at).unwrap_or((to, to));
            if at < start {
                again.push(at..start.min(to));
            }
            at = end;
        }
        self.given_back.extend(again.iter().map(|range| (range.start, ResponseRun::of_nobody(range.end))));
        again
    }

    /// Whether an entry before `at` is under way to another than this stream.
    pub(in crate::events) fn is_of_others_before(&self, at: u64, stream: StreamNumber) -> bool {
        self.under_way.range(..at).any(|(_, run)| run.stream != Some(stream))
    }

    /// Gives back entries, in order, that count as handed over; neighbours together.
    pub(in crate::events) fn take_back(&mut self, entries: impl Iterator<Item = u64>) {
        let mut run: Option<Range<u64>> = None;
        for at in entries {
            match &mut run {
                Some(run) if run.end == at => run.end += 1,
                _ => self
                    .given_back
                    .extend(run.replace(at..at + 1).map(|run| (run.start, ResponseRun::of_nobody(run.end)))),
            }
        }
        self.given_back.extend(run.map(|run| (run.start, ResponseRun::of_nobody(run.end))));
    }

    /// Whether an entry is not handed over.
    pub(in crate::events) fn holds(&self, at: u64) -> bool {
        at >= self.fresh || self.held_from(at).is_some_and(|(start, _)| start <= at)
    }

    /// What is not handed over, in any order. What was never claimed has no end.
    pub(in crate::events) fn not_handed_over(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let runs = self.under_way.iter().chain(&self.given_back).map(|(&start, run)| start..run.end);
        runs.chain(std::iter::once(self.fresh..u64::MAX))
    }

    /// Whether a response has given back what nobody has taken since.
    pub(in crate::events) fn has_given_back(&self) -> bool {
        !self.given_back.is_empty()
    }

    /// Whether entries before `earliest` wait to be taken.
    pub(in crate::events) fn is_before(&self, earliest: u64) -> bool {
        self.fresh < earliest || self.given_back.first_key_value().is_some_and(|(&start, _)| start < earliest)
    }

    /// Of what is under way or given back, the first that ends after `at`.
    fn held_from(&self, at: u64) -> Option<(u64, u64)> {
        let first = |ranges: &BTreeMap<u64, ResponseRun>| {
            let holds = ranges.range(..=at).next_back().filter(|(_, run)| at < run.end);
            holds.or_else(|| ranges.range(at..).next()).map(|(&start, run)| (start, run.end))
        };
        [first(&self.under_way), first(&self.given_back)].into_iter().flatten().min()
    }

    /// Retention removed all before `earliest`: they count as handed over. Says which were not. What is under way is in
    /// a reader's hands already and is left alone.
    pub(in crate::events) fn cut(&mut self, earliest: u64) -> LostRanges {
        let mut cut = LostRanges::default();
        while let Some(first) = self.given_back.first_entry() {
            let (start, run) = (*first.key(), *first.get());
            if start >= earliest {
                break;
            }
            first.remove();
            if run.end > earliest {
                self.given_back.insert(earliest, run);
            }
            cut.insert(start, ResponseRun { end: run.end.min(earliest), ..run });
        }
        if self.fresh < earliest {
            cut.add(self.fresh..earliest);
            self.fresh = earliest;
        }
        cut
    }

    /// How many entries before `next` are not handed over.
    pub(in crate::events) fn lag(&self, next: u64) -> u64 {
        let waiting: u64 = self.given_back.iter().map(|(start, run)| run.end - start).sum();
        next.saturating_sub(self.fresh) + waiting + self.in_flight()
    }

    /// How many entries are under way.
    pub(in crate::events) fn in_flight(&self) -> u64 {
        self.under_way.iter().map(|(start, run)| run.end - start).sum()
    }
}

/// Which response an entry was in that a reader names as the last that it has.
fn speaker(runs: &BTreeMap<u64, ResponseRun>, last: u64) -> Option<ResponseRun> {
    let (_, run) = runs.range(..last.saturating_add(1)).next_back()?;
    (last < run.end && run.is_of_response).then_some(*run)
}

/// Takes out what a reader has that was given all up to `last` by this response: that part of what it had, and what the
/// same stream was given before it.
fn heard(runs: &mut BTreeMap<u64, ResponseRun>, last: u64, by: ResponseRun) -> Vec<Range<u64>> {
    let after = last.saturating_add(1);
    // Retention may have taken what one response had piece by piece.
    let was_before = |_: &u64, other: &mut ResponseRun| {
        let is_earlier = other.order < by.order || (other.order == by.order && other.end <= after);
        other.is_of_response && by.stream.is_some() && other.stream == by.stream && is_earlier
    };
    let mut heard: Vec<Range<u64>> = runs.extract_if(.., was_before).map(|(start, run)| start..run.end).collect();
    if let Some((&start, &run)) = runs.range(..after).next_back()
        && last < run.end
        && run.is_of_response
    {
        runs.remove(&start);
        if after < run.end {
            runs.insert(after, run);
        }
        heard.push(start..after);
    }
    heard
}

/// Takes out all up to `last`.
fn taken_to(runs: &mut BTreeMap<u64, ResponseRun>, last: u64) -> Vec<Range<u64>> {
    let after = last.saturating_add(1);
    let rest = runs.split_off(&after);
    let mut taken: Vec<Range<u64>> = Vec::new();
    for (start, run) in std::mem::replace(runs, rest) {
        taken.push(start..run.end.min(after));
        if after < run.end {
            runs.insert(after, run);
        }
    }
    taken
}

#[cfg(test)]
mod tests;
