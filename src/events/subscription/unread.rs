//! [`UnreadRanges`]: what a subscription that is removed because nobody reads it had not read, for who comes by its
//! name again.
//!
//! Why: retention may have taken of that before, or takes it before somebody comes. What was settled out of order is
//! not lost, and what readers were still to be told of is, though the subscription's place lies behind it.
//!
//! Invariants: the runs are in order and neither overlap nor touch; the last never ends, for what the log gets from
//! then on is not read either. There are at most [`MAX_RUNS`]: beyond, the oldest become one, with what lies between.
//!
//! The note: how many more entries there are whose places are not known, then the runs, each its first entry and its
//! last (`5 8-9 12-14 20-`). Where nothing was settled out of order it is as older gateways wrote it always: one
//! number, the last entry up to which all were settled. It is on disk: change it only so that these can still be read.

use std::ops::Range;

use bytes::Bytes;

use super::state::{LostRanges, SubscriptionState};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::events) struct UnreadRanges {
    runs: Vec<Range<u64>>,
    /// So many more, wherever they were: they are gone.
    elsewhere: u64,
}

const MAX_RUNS: usize = 64;
/// Where the last run ends.
const NEVER: u64 = u64::MAX;

impl UnreadRanges {
    pub(super) fn of(state: &SubscriptionState) -> Self {
        let (mut runs, mut elsewhere): (Vec<Range<u64>>, u64) = (Vec::new(), 0);
        for missed in state.missed.all() {
            runs.extend(missed.ranges());
            elsewhere += missed.without_place();
        }
        runs.extend(state.ranges.not_handed_over());
        runs.extend(state.leases.entries().map(|at| at..at + 1));
        Self::of_runs(runs, elsewhere)
    }

    /// All after an entry.
    fn after(low: u64) -> Self {
        Self { runs: Vec::from_iter([Range { start: low.saturating_add(1), end: NEVER }]), elsewhere: 0 }
    }

    fn of_runs(mut runs: Vec<Range<u64>>, elsewhere: u64) -> Self {
        runs.retain(|run| run.start < run.end);
        runs.sort_unstable_by_key(|run| run.start);
        runs.dedup_by(|next, last| {
            let meets = next.start <= last.end;
            if meets {
                last.end = last.end.max(next.end);
            }
            meets
        });
        let over = runs.len().saturating_sub(MAX_RUNS);
        if over > 0 {
            runs[over].start = runs[0].start;
            runs.drain(..over);
        }
        Self { runs, elsewhere }
    }

    /// How many entries of a log whose next one is `next`.
    pub(super) fn count(&self, next: u64) -> u64 {
        self.elsewhere + self.before(next).map(|run| run.end - run.start).sum::<u64>()
    }

    /// What of it who begins after `at` will not be given.
    pub(super) fn up_to(&self, at: u64) -> LostRanges {
        let mut lost = LostRanges::of_number(self.elsewhere);
        self.before(at.saturating_add(1)).for_each(|run| lost.add(run));
        lost
    }

    fn before(&self, next: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        self.runs.iter().map(move |run| run.start..run.end.min(next)).filter(|run| run.start < run.end)
    }

    pub(super) fn note(&self) -> Bytes {
        if let ([run], 0) = (&*self.runs, self.elsewhere) {
            return run.start.saturating_sub(1).to_string().into();
        }
        let run = |run: &Range<u64>| match run.end {
            NEVER => format!(" {}-", run.start),
            end => format!(" {}-{}", run.start, end - 1),
        };
        let runs: String = self.runs.iter().map(run).collect();
        format!("{}{runs}", self.elsewhere).into()
    }

    /// Reads a note; `None` when it is not one.
    pub(super) fn parse(note: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(note).ok()?.split(' ');
        let number = words.next()?.parse().ok()?;
        let mut runs = Vec::new();
        for word in words {
            let (first, last) = word.split_once('-')?;
            let end = if last.is_empty() { NEVER } else { last.parse::<u64>().ok()?.checked_add(1)? };
            runs.push(first.parse().ok()?..end);
        }
        if runs.is_empty() {
            return Some(Self::after(number));
        }
        Some(Self::of_runs(runs, number))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn of(runs: &[Range<u64>], fresh: u64) -> UnreadRanges {
        UnreadRanges::of_runs(runs.iter().cloned().chain([Range { start: fresh, end: NEVER }]).collect(), 3)
    }

    properties! {
        #[test]
        fn it_is_a_set_of_entries_and_its_note_says_all_of_it(
            runs in prop::collection::vec((1..200u64, 0..20u64), 0..30), fresh in 1..220u64, at in 0..240u64,
        ) {
            let runs: Vec<_> = runs.into_iter().map(|(start, long)| start..start + long).collect();
            let unread = of(&runs, fresh);
            let set: BTreeSet<u64> = runs.iter().cloned().flatten().chain(fresh..300).collect();
            prop_assert_eq!(unread.count(at + 1), 3 + set.range(..=at).count() as u64);
            prop_assert!(unread.up_to(at).ranges().flatten().eq(set.range(..=at).copied()));
            prop_assert_eq!(unread.up_to(at).count(), unread.count(at + 1));
            prop_assert_eq!(UnreadRanges::parse(&unread.note()), Some(unread));
        }

        #[test]
        fn no_note_makes_reading_it_fail(note in prop::collection::vec(any::<u8>(), 0..100), text in "[0-9 -]{0,60}") {
            let _ = (UnreadRanges::parse(&note), UnreadRanges::parse(text.as_bytes()).map(|unread| unread.count(NEVER)));
        }
    }

    #[test]
    fn an_older_gateways_note_says_up_to_where_all_was_settled() {
        let unread = UnreadRanges::parse(b"15").unwrap();
        assert_eq!((unread.count(16), unread.count(21)), (0, 5));
        assert_eq!(UnreadRanges::parse(b"0 16-"), Some(unread.clone()));
        assert_eq!(unread.note(), "15");
    }

    #[test]
    fn of_more_runs_than_are_kept_the_oldest_are_one() {
        let runs: Vec<_> = (1..=1000).map(|n| 2 * n..2 * n + 1).collect();
        let unread = of(&runs, 5000);
        assert_eq!(unread.runs.len(), MAX_RUNS);
        assert_eq!(unread.count(2), 3);
        assert_eq!((unread.runs[0].start, unread.count(2002) - unread.count(1990)), (2, 6), "exact near the end");
    }
}
