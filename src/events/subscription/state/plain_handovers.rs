//! [`PlainHandovers`]: what a plain reader's `Last-Event-ID` may give again, and whether it may settle what the store
//! does not know.
//!
//! A plain reader says how far it got. After that place only those entries are given again that were handed over
//! plainly: never what was acknowledged, buried or is leased. And after a `kill -9` the store's place lies before what
//! was handed over since; a stream's word beyond that place is believed if no stream was given an entry while an
//! earlier one was in other hands: then all up to there was handed over, or it was this reader that had it.
//!
//! Invariants: only entries count that are settled, and that nobody has. There are at most [`MAX_RANGES`] ranges:
//! beyond, the two oldest become one, so that an event may come again, and none is lost; what is near the end, where
//! readers are, is exact. That a word is not to be believed is in the store before a stream is given an entry that
//! makes it so ([`PlainHandovers::owes`]); that it is, is stored with a place behind which nothing is under way.
//!
//! The note's bytes: the version (1), a byte that is 1 when a word is believed, the place up to which it is not (8
//! bytes), and the ranges, each its first entry and the one after its last (8 bytes each; all bits set: to the
//! subscription's place), big-endian. Without a note all up to the place was handed over plainly, and no word is
//! believed. It is on disk: change it only with a new version.

use std::ops::Range;

use bytes::Bytes;

/// What was handed over plainly.
#[derive(Clone, Debug)]
pub(in crate::events) struct PlainHandovers {
    /// In order; they neither overlap nor touch. No map: most subscriptions have one, and there are thousands of those.
    ranges: Vec<Range<u64>>,
    word: Word,
    /// What the store says of that, or may say.
    stored: Word,
    /// The note that is there, empty if there is none; `None` when that is not known.
    note: Option<Box<[u8]>>,
    /// Whether a stream has taken entries since the place was written last.
    is_streamed: bool,
    /// Places written since a stream was ahead of another reader.
    calm: u8,
}

/// Whether a reader's word beyond the stored place is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::events::subscription) struct Word {
    is_believed: bool,
    /// Not up to here: it may be of an earlier life of the subscription, or of another.
    stale: u64,
}

const MAX_RANGES: usize = 256;
const VERSION: u8 = 1;
const OPEN: u64 = u64::MAX;
/// After so many places written while no stream was ahead of another reader a word is believed again: where several
/// share a subscription, each change of that costs a write.
const CALM: u8 = 8;

impl PlainHandovers {
    /// Of a new subscription that a stream begins, or another reader. A reader may have a place up to `stale` from one
    /// of its name that is no more.
    pub(in crate::events) fn begun(by_stream: bool, stale: u64) -> Self {
        let word = Word { is_believed: by_stream, stale };
        Self { word, ..Self::of_old() }
    }

    /// Of one that has no note.
    pub(in crate::events) fn of_old() -> Self {
        let word = Word { is_believed: false, stale: 0 };
        let ranges = Vec::from_iter([Range { start: 0, end: OPEN }]);
        Self { ranges, word, stored: word, note: Some([].into()), is_streamed: false, calm: CALM }
    }

    /// What lies after `at`, where the subscription stands, is not settled but for these.
    pub(in crate::events::subscription) fn keep_to(&mut self, at: u64, settled: &[u64]) {
        self.remove(at.saturating_add(1)..OPEN);
        settled.iter().for_each(|&at| self.add(at..at + 1));
    }

    pub(in crate::events::subscription) fn has(&self, at: u64) -> bool {
        self.ranges.get(self.first_past(at)).is_some_and(|range| range.start <= at)
    }

    /// These were handed over plainly.
    pub(in crate::events::subscription) fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        // Those that it touches become one with it.
        let from = self.ranges.partition_point(|before| before.end < range.start);
        let to = self.ranges.partition_point(|before| before.start <= range.end);
        let touched = &self.ranges[from..to];
        let start = touched.first().map_or(range.start, |first| first.start.min(range.start));
        let end = touched.last().map_or(range.end, |last| last.end.max(range.end));
        self.ranges.splice(from..to, std::iter::once(start..end));
        self.bound();
    }

    /// These were not, or not only.
    pub(in crate::events::subscription) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (from, to) = self.that_meet(&range);
        let left = self.ranges[from..to].first().map(|first| first.start..range.start);
        let right = self.ranges[from..to].last().map(|last| range.end..last.end);
        let rest = left.into_iter().chain(right).filter(|rest| !rest.is_empty());
        self.ranges.splice(from..to, rest);
        self.bound();
    }

    fn bound(&mut self) {
        let over = self.ranges.len().saturating_sub(MAX_RANGES);
        if over > 0 {
            self.ranges[over].start = self.ranges[0].start;
            self.ranges.drain(..over);
        }
    }

    /// Where the first range stands that does not end before an entry, or at it.
    fn first_past(&self, at: u64) -> usize {
        self.ranges.partition_point(|range| range.end <= at)
    }

    /// From where to where those stand that have entries of a range.
    fn that_meet(&self, range: &Range<u64>) -> (usize, usize) {
        let from = self.first_past(range.start);
        (from, from + self.ranges[from..].partition_point(|met| met.start < range.end))
    }

    /// What was handed over plainly of a range, in order.
    pub(in crate::events::subscription) fn of(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        if range.is_empty() {
            return Vec::new();
        }
        let (from, to) = self.that_meet(range);
        self.ranges[from..to].iter().map(|run| run.start.max(range.start)..run.end.min(range.end)).collect()
    }

    /// Entries are opened, each by itself.
    pub(in crate::events::subscription) fn opened(&mut self, range: Range<u64>) {
        self.remove(range);
        // Need not be stored yet: all that a stream was given lies before them.
        (self.word.is_believed, self.calm) = (false, 0);
    }

    /// A stream takes entries; earlier ones are in other hands if it is ahead.
    pub(in crate::events::subscription) fn streams(&mut self, is_ahead: bool) {
        self.is_streamed = true;
        if is_ahead {
            (self.word.is_believed, self.calm) = (false, 0);
        }
    }

    /// Whether the store may believe more than is right: then it is written before a stream is given what it took.
    pub(in crate::events::subscription) fn owes(&self) -> bool {
        self.stored.is_believed && (!self.word.is_believed || self.word.stale > self.stored.stale)
    }

    /// Whether a reader's word is believed that it was given all up to `last`, beyond what the store knows.
    pub(in crate::events::subscription) fn believes(&self, last: u64) -> bool {
        self.word.is_believed && last > self.word.stale
    }

    /// A reader names a place up to which nobody was given anything here.
    pub(in crate::events::subscription) fn doubt_to(&mut self, last: u64) {
        self.word.stale = self.word.stale.max(last);
    }

    /// All up to a place is settled by a seek, and nothing after it; `claimed` was the last entry that was taken.
    pub(in crate::events::subscription) fn seek(&mut self, claimed: u64) {
        self.ranges.clear();
        self.doubt_to(claimed);
    }

    /// What is to be written of a subscription that stands at `low`, if the store does not say so; it counts as written
    /// from now on, see [`PlainHandovers::failed`]. `moves`: with a new place, and whether nothing behind it is under
    /// way or open. `is_all`: what lies above the place is to be said, too.
    pub(in crate::events::subscription) fn writes(
        &mut self,
        low: u64,
        moves: Option<bool>,
        is_all: bool,
    ) -> Option<(Word, Bytes)> {
        if moves == Some(true) && std::mem::take(&mut self.is_streamed) && !self.word.is_believed {
            self.calm = self.calm.saturating_add(1);
            self.word.is_believed = self.calm >= CALM;
        }
        let note = self.to_note(low, is_all);
        if self.note.as_deref() == Some(&note) {
            return None;
        }
        self.note = Some(note.as_slice().into());
        self.stored.is_believed |= self.word.is_believed;
        Some((self.word, note.into()))
    }

    /// It is in the store.
    pub(in crate::events::subscription) fn written(&mut self, word: Word) {
        self.stored = word;
    }

    /// It may not be in the store.
    pub(in crate::events::subscription) fn failed(&mut self) {
        self.note = None;
    }

    fn to_note(&self, low: u64, is_all: bool) -> Vec<u8> {
        let mut note = vec![VERSION, u8::from(self.word.is_believed)];
        note.extend_from_slice(&self.word.stale.to_be_bytes());
        let mut range = |start: u64, end: u64| {
            note.extend_from_slice(&start.to_be_bytes());
            note.extend_from_slice(&end.to_be_bytes());
        };
        for &Range { start, end } in &self.ranges {
            if start > low {
                if is_all {
                    range(start, end);
                }
            } else if end <= low {
                range(start, end);
            } else {
                range(start, OPEN);
                // What lies above is given again after a restart, but what a mark settles.
                if is_all && end > low + 1 {
                    range(low + 1, end);
                }
            }
        }
        note
    }

    /// Reads a note; `None` when it is not one.
    pub(in crate::events::subscription) fn parse(note: &[u8], at: u64) -> Option<Self> {
        let (&[version, is_believed], rest) = note.split_first_chunk::<2>()?;
        let (stale, rest_of) = rest.split_first_chunk::<8>()?;
        if version != VERSION || is_believed > 1 || !rest_of.len().is_multiple_of(16) {
            return None;
        }
        let word = Word { is_believed: is_believed == 1, stale: u64::from_be_bytes(*stale) };
        let mut plain = Self { ranges: Vec::new(), word, stored: word, ..Self::of_old() };
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n, &byte| n << 8 | u64::from(byte));
        for range in rest_of.chunks_exact(16) {
            let (start, end) = (number(&range[..8]), number(&range[8..]));
            plain.add(start..if end == OPEN { at.saturating_add(1) } else { end });
        }
        plain.note = Some(note.into());
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Add(u64, u64),
        Remove(u64, u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = (any::<bool>(), 0..200u64, 0..40u64).prop_map(|(adds, start, many)| match adds {
            true => Step::Add(start, start + many),
            false => Step::Remove(start, start + many),
        });
        prop::collection::vec(step, 0..60)
    }

    fn begun() -> PlainHandovers {
        let mut plain = PlainHandovers::begun(true, 7);
        plain.remove(0..OPEN);
        plain
    }

    fn all(plain: &PlainHandovers) -> BTreeSet<u64> {
        plain.of(&(0..OPEN)).into_iter().flatten().collect()
    }

    properties! {
        #[test]
        fn the_ranges_are_a_set_of_entries_and_so_is_what_the_note_says(
            steps in steps(), low in 0..240u64, of in (0..240u64, 0..99u64),
        ) {
            let (mut plain, mut set) = (begun(), BTreeSet::new());
            for step in steps {
                match step {
                    Step::Add(start, end) => {
                        plain.add(start..end);
                        set.extend(start..end);
                    }
                    Step::Remove(start, end) => {
                        plain.remove(start..end);
                        set.retain(|at| !(start..end).contains(at));
                    }
                }
                prop_assert_eq!(all(&plain), set.clone());
            }
            let of = of.0..of.0 + of.1;
            let some: BTreeSet<u64> = plain.of(&of).into_iter().flatten().collect();
            prop_assert!(some.iter().eq(set.range(of)));
            for is_all in [false, true] {
                let told = PlainHandovers::parse(&plain.to_note(low, is_all), low).unwrap();
                prop_assert!(all(&told).iter().eq(set.iter().filter(|&&at| is_all || at <= low)));
                prop_assert_eq!(told.word, plain.word);
            }
        }

        #[test]
        fn no_note_makes_reading_it_fail(note in prop::collection::vec(any::<u8>(), 0..100), at: u64) {
            let _ = PlainHandovers::parse(&note, at);
        }
    }

    #[test]
    fn a_plain_readers_note_stays_as_it_is_while_its_place_moves() {
        let mut plain = begun();
        plain.add(0..11);
        assert!(plain.writes(10, Some(true), false).is_some());
        plain.add(11..500);
        assert_eq!(plain.writes(499, Some(true), false), None);
        plain.remove(20..30);
        assert!(plain.writes(499, None, false).is_some());
        plain.failed();
        assert!(plain.writes(499, None, false).is_some(), "it may not be there");
    }

    #[test]
    fn beyond_so_many_ranges_the_oldest_become_one_and_nothing_is_lost() {
        let mut plain = begun();
        (0..1000).for_each(|n| plain.add(2 * n..2 * n + 1));
        assert_eq!(plain.ranges.len(), MAX_RANGES);
        assert!((0..1000).all(|n| plain.has(2 * n)));
        assert!((900..1000).all(|n| !plain.has(2 * n - 1)), "exact near the end");
    }

    #[test]
    fn a_word_is_believed_again_when_streams_were_not_ahead_of_each_other_for_some_time() {
        let mut plain = PlainHandovers::begun(true, 0);
        let (word, _) = plain.writes(0, Some(true), false).unwrap();
        plain.written(word);
        assert!(plain.believes(5) && !plain.owes());
        plain.streams(true);
        assert!(!plain.believes(5) && plain.owes(), "the store still believes it");
        let (word, _) = plain.writes(0, None, false).unwrap();
        assert!(plain.owes(), "until that is written");
        plain.written(word);
        plain.writes(1, Some(true), false);
        for n in 2..=u64::from(CALM) {
            assert!(!plain.owes() && !plain.believes(5));
            plain.writes(n, Some(true), false);
            assert!(!plain.believes(5), "nothing was streamed since");
            plain.streams(false);
            plain.writes(n, Some(false), false);
            assert!(!plain.believes(5), "something is under way");
            plain.writes(n, Some(true), false);
        }
        assert!(plain.believes(5));
        plain.doubt_to(5);
        assert!(!plain.believes(5) && plain.believes(6) && plain.owes());
    }
}
