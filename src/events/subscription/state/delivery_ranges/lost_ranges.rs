//! [`LostRanges`]: entries that retention took before they were handed over, until a reader is told.
//!
//! Invariants: what is lost keeps in which response it was last, or that which told of it: a reader's word settles it
//! as it settles what is given back. What waits to be told has at most [`MAX_RUNS`] runs with their places; of older
//! ones it is only known how many entries they had, and those are told, whatever a reader says of them.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use super::{ResponseRun, heard, speaker, taken_to};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::events) struct LostRanges {
    runs: BTreeMap<u64, ResponseRun>,
    /// So many more are lost, wherever they were.
    elsewhere: u64,
}

const MAX_RUNS: usize = 256;

impl LostRanges {
    /// So many entries, of which the places are not known.
    pub(in crate::events) fn of_number(entries: u64) -> Self {
        Self { runs: BTreeMap::new(), elsewhere: entries }
    }

    /// How many entries.
    pub(in crate::events) fn count(&self) -> u64 {
        self.elsewhere + self.runs.iter().map(|(start, run)| run.end - start).sum::<u64>()
    }

    /// How many of them have no place that is known.
    pub(in crate::events) fn without_place(&self) -> u64 {
        self.elsewhere
    }

    /// These are lost, too; no response had them.
    pub(in crate::events) fn add(&mut self, range: Range<u64>) {
        let Range { mut start, end } = range;
        if start >= end {
            return;
        }
        if let Some((&before, &run)) = self.runs.range(..start).next_back()
            && run == ResponseRun::of_nobody(start)
        {
            start = before;
        }
        self.insert(start, ResponseRun::of_nobody(end));
    }

    pub(super) fn insert(&mut self, start: u64, run: ResponseRun) {
        self.runs.insert(start, run);
    }

    /// Which they are, as far as that is known.
    pub(in crate::events) fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.runs.iter().map(|(&start, run)| start..run.end)
    }

    /// All of another's are lost, too. Beyond so many runs the oldest are only counted.
    pub(in crate::events) fn append(&mut self, other: Self) {
        self.elsewhere += other.elsewhere;
        for (start, run) in other.runs {
            if run == ResponseRun::of_nobody(run.end) { self.add(start..run.end) } else { self.insert(start, run) }
        }
        while self.runs.len() > MAX_RUNS
            && let Some((start, run)) = self.runs.pop_first()
        {
            self.elsewhere += run.end - start;
        }
    }

    /// It was told by a response, and before what that had taken.
    pub(in crate::events) fn was_told_with(&mut self, taken: Speaker) {
        for run in self.runs.values_mut() {
            *run =
                ResponseRun { end: run.end, order: taken.0.order.saturating_sub(1), is_of_response: true, ..taken.0 };
        }
    }

    /// Which response had an entry.
    pub(in crate::events) fn speaker(&self, last: u64) -> Option<Speaker> {
        speaker(&self.runs, last).map(Speaker)
    }

    /// As [`DeliveryRanges::hear`](super::DeliveryRanges::hear).
    pub(in crate::events) fn hear(&mut self, last: u64, by: Speaker) -> Vec<Range<u64>> {
        heard(&mut self.runs, last, by.0)
    }

    /// What of it lies up to `last` is lost to nobody. Says what that was.
    pub(in crate::events) fn settle_to(&mut self, last: u64) -> Vec<Range<u64>> {
        taken_to(&mut self.runs, last)
    }

    /// The note on all of these; `None` when there is nothing to say.
    pub(in crate::events) fn note<'l>(all: impl Iterator<Item = &'l Self>) -> Option<Bytes> {
        let (mut count, mut places) = (0, BTreeMap::new());
        for lost in all {
            count += lost.count();
            places.extend(lost.runs.iter().map(|(&start, run)| (start, run.end)));
        }
        let places = places.into_iter().map(|(start, end)| format!(" {start}-{}", end - 1));
        (count > 0).then(|| (count.to_string() + &places.collect::<String>()).into())
    }

    /// Reads a note; `None` when it is not one. An older gateway's says no places.
    pub(in crate::events) fn parse(note: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(note).ok()?.split(' ');
        let count: u64 = words.next()?.parse().ok()?;
        let mut lost = Self::default();
        for place in words {
            let (first, last) = place.split_once('-')?;
            lost.add(first.parse().ok()?..last.parse::<u64>().ok()?.checked_add(1)?);
        }
        lost.elsewhere += count.checked_sub(lost.count())?;
        Some(lost)
    }
}

/// What a response had taken.
#[derive(Clone, Copy, Debug)]
pub(in crate::events) struct Speaker(pub(super) ResponseRun);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    properties! {
        #[test]
        fn a_note_says_how_many_are_lost_and_where(
            runs in prop::collection::vec((0..50u64, 0..9u64), 0..400), elsewhere in 0..3u64, last in 0..9999u64,
        ) {
            let (mut lost, mut at) = (LostRanges::of_number(elsewhere), 0);
            for (gap, long) in runs {
                at += gap + 1;
                lost.add(at..at + long);
                at += long;
            }
            let note = LostRanges::note([&lost].into_iter());
            let mut told = note.map_or(LostRanges::default(), |note| LostRanges::parse(&note).unwrap());
            prop_assert_eq!(&told, &lost);
            let before = lost.count();
            let settled: u64 = lost.settle_to(last).iter().map(|run| run.end - run.start).sum();
            prop_assert_eq!(lost.count() + settled, before);
            told.settle_to(last);
            prop_assert_eq!(told, lost);
        }

        #[test]
        fn no_note_makes_reading_it_fail(note in prop::collection::vec(any::<u8>(), 0..100), text in "[0-9 -]{0,60}") {
            let _ = (LostRanges::parse(&note), LostRanges::parse(text.as_bytes()));
        }
    }

    #[test]
    fn of_more_runs_than_are_kept_the_oldest_are_counted() {
        let (mut all, mut lost) = (LostRanges::default(), LostRanges::default());
        (1..=1000).for_each(|n| lost.add(2 * n..2 * n + 1));
        all.append(lost);
        assert_eq!((all.count(), all.ranges().count()), (1000, MAX_RUNS));
        assert_eq!(all.settle_to(1999).len(), MAX_RUNS - 1);
        assert_eq!(all.count(), 1000 + 1 - MAX_RUNS as u64);
    }

    #[test]
    fn an_older_gateways_note_says_no_places() {
        assert_eq!(LostRanges::parse(b"15"), Some(LostRanges::of_number(15)));
    }
}
