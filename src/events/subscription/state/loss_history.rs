//! [`LossHistory`]: what retention took of a subscription before it was read, for operators: how much so far, and when.
//!
//! Invariants: each entry counts once, whatever becomes of this process. It is stored with the cursor that has passed
//! what it counts; until then a start finds the same entries lost anew, and what lies before `through` was counted
//! before. Readers being told changes nothing of it. It is bounded, and leaves none out: of many cuts those are put
//! together that were closest in time.
//!
//! Its note: JSON. Unknown members are ignored, missing ones are empty: do not rename any.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::delivery_ranges::LostRanges;
use crate::kernel::clock::UnixMillis;

/// What retention took of a subscription. Most have lost nothing, and there are thousands of those.
#[derive(Clone, Debug, Default)]
pub(in crate::events) struct LossHistory(Option<Box<History>>);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct History {
    /// How many entries, ever.
    events: u64,
    /// Before this entry all that was lost is counted.
    through: u64,
    cuts: VecDeque<LossSpan>,
    /// How often it has changed.
    #[serde(skip)]
    changes: u64,
    /// After how many changes it is as the store says; no number of changes when that is not known.
    #[serde(skip)]
    stored: u64,
    /// When it was last told to be stored though nobody reads.
    #[serde(skip)]
    kept_at: UnixMillis,
}

/// Entries that were lost one after another, as retention came to them, or shortly after one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::events) struct LossSpan {
    /// The first of them.
    pub(in crate::events) first: u64,
    /// The last of them.
    pub(in crate::events) last: u64,
    /// How many: others between were read.
    pub(in crate::events) events: u64,
    /// When the first was removed, milliseconds since 1970 UTC; when that was found, after a crash.
    pub(in crate::events) from: u64,
    /// When the last was removed.
    pub(in crate::events) to: u64,
}

/// Cuts that are kept of a subscription.
const MAX_CUTS: usize = 32;

/// The newest stay apart: readers may come again that have more of them than is known.
const NEWEST: usize = 8;

/// Of a subscription that nobody reads the cuts go on; so often, at most, that is worth storing. What is not stored of
/// it follows from the cursor, but for the times.
const KEPT_EVERY: std::time::Duration = std::time::Duration::from_secs(3600);

impl LossHistory {
    /// As a note says. `None` when it is not one.
    pub(in crate::events::subscription) fn parse(note: &[u8]) -> Option<Self> {
        let mut history: Box<History> = serde_json::from_slice(note).ok()?;
        history.kept_at = UnixMillis(history.cuts.back().map_or(0, |last| last.to));
        Some(Self(Some(history)))
    }

    /// How many entries were lost so far.
    pub(in crate::events) fn events(&self) -> u64 {
        self.0.as_ref().map_or(0, |history| history.events)
    }

    /// The last cuts, oldest first.
    pub(in crate::events) fn spans(&self) -> impl Iterator<Item = LossSpan> + '_ {
        self.0.iter().flat_map(|history| history.cuts.iter().copied())
    }

    /// Retention took these, and all before `earliest`. Says whether that is worth storing though nothing else is.
    pub(super) fn cut(&mut self, lost: &LostRanges, earliest: u64, wall: UnixMillis) -> bool {
        let through = self.0.as_ref().map_or(0, |history| history.through);
        let new = || lost.ranges().map(|run| run.start.max(through)..run.end).filter(|run| !run.is_empty());
        let events: u64 = new().map(|run| run.end - run.start).sum();
        let (first, last) = (new().map(|run| run.start).min(), new().map(|run| run.end - 1).max());
        let Some((first, last)) = first.zip(last) else { return false };
        let history = self.0.get_or_insert_default();
        history.through = through.max(earliest);
        history.add(first..last + 1, events, wall);
        let is_due =
            wall.since(history.kept_at) >= KEPT_EVERY || history.cuts.back().is_some_and(|cut| cut.from == wall.0);
        if is_due {
            history.kept_at = wall;
        }
        is_due
    }

    /// These were handed over before, or told, and did not arrive, and are gone. What lies in a cut that is known is
    /// counted.
    pub(super) fn gone(&mut self, lost: &LostRanges, wall: UnixMillis) {
        let is_counted =
            |range: &Range<u64>| self.spans().any(|cut| cut.first <= range.start && range.start <= cut.last);
        let new: Vec<_> = lost.ranges().filter(|range| !is_counted(range)).collect();
        for range in new {
            let events = range.end - range.start;
            self.0.get_or_insert_default().add(range, events, wall);
        }
    }

    /// A reader says that it had these before they were gone.
    pub(super) fn had(&mut self, ranges: &[Range<u64>]) {
        let Some(history) = &mut self.0 else { return };
        let before = history.events;
        for range in ranges {
            for cut in &mut history.cuts {
                let both = range.end.min(cut.last + 1).saturating_sub(range.start.max(cut.first)).min(cut.events);
                cut.events -= both;
                history.events = history.events.saturating_sub(both);
            }
        }
        if history.events != before {
            history.cuts.retain(|cut| cut.events > 0);
            history.changes += 1;
        }
    }

    /// What the store is to say, when that is something new, and after how many changes.
    pub(super) fn unsaved(&self) -> Option<(u64, Bytes)> {
        let history = self.0.as_ref().filter(|history| history.stored != history.changes)?;
        // Numbers can always be written.
        Some((history.changes, serde_json::to_vec(history).unwrap_or_default().into()))
    }

    /// The store may say anything.
    pub(super) fn doubt(&mut self) {
        if let Some(history) = &mut self.0 {
            history.stored = u64::MAX;
        }
    }

    /// The store says what was so after so many changes.
    pub(super) fn saved(&mut self, changes: u64) {
        if let Some(history) = &mut self.0 {
            history.stored = changes;
        }
    }
}

impl History {
    fn add(&mut self, range: Range<u64>, events: u64, wall: UnixMillis) {
        self.events = self.events.saturating_add(events);
        self.changes += 1;
        match self.cuts.back_mut() {
            // Nothing was read between: it is the same loss, which goes on.
            Some(cut) if cut.last + 1 == range.start => {
                cut.last = range.end - 1;
                cut.events = cut.events.saturating_add(events);
                cut.to = cut.to.max(wall.0);
            }
            _ => {
                if self.cuts.len() >= MAX_CUTS {
                    self.unite();
                }
                let (first, last) = (range.start, range.end - 1);
                self.cuts.push_back(LossSpan { first, last, events, from: wall.0, to: wall.0 });
            }
        }
    }
}

impl History {
    /// Makes one cut of two neighbours: of those that are one shortest, so that what was lost in a night can be told
    /// from what was lost the day before.
    fn unite(&mut self) {
        let last = self.cuts.len().saturating_sub(NEWEST);
        let lasts = |at: &usize| self.cuts[*at].to.saturating_sub(self.cuts[*at - 1].from);
        let Some(at) = (1..last).min_by_key(lasts) else { return };
        let Some(second) = self.cuts.remove(at) else { return };
        let first = &mut self.cuts[at - 1];
        first.first = second.first.min(first.first);
        first.last = second.last.max(first.last);
        first.events = first.events.saturating_add(second.events);
        first.to = second.to.max(first.to);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each run's beginning and its end.
    fn lost(runs: &[(u64, u64)]) -> LostRanges {
        let mut lost = LostRanges::default();
        runs.iter().for_each(|&(start, end)| lost.add(start..end));
        lost
    }

    fn span(first: u64, last: u64, events: u64, from: u64, to: u64) -> LossSpan {
        LossSpan { first, last, events, from, to }
    }

    fn spans(history: &LossHistory) -> Vec<LossSpan> {
        history.spans().collect()
    }

    #[test]
    fn a_loss_that_goes_on_is_one_and_one_after_something_was_read_is_another() {
        let mut history = LossHistory::default();
        assert!(!history.cut(&lost(&[]), 5, UnixMillis(1)) && history.unsaved().is_none());
        assert!(history.cut(&lost(&[(5, 8)]), 8, UnixMillis(10)));
        assert!(!history.cut(&lost(&[(8, 10), (12, 13)]), 20, UnixMillis(20)), "not each time that retention passes");
        assert_eq!(spans(&history), [span(5, 12, 6, 10, 20)]);
        assert!(history.cut(&lost(&[(30, 31)]), 31, UnixMillis(30)));
        assert_eq!((spans(&history).len(), history.events()), (2, 7));
        let hour = 3_600_000;
        assert!(history.cut(&lost(&[(31, 32)]), 32, UnixMillis(30 + hour)), "but once an hour");
    }

    #[test]
    fn of_a_long_night_of_many_cuts_none_is_left_out_and_the_times_are_told_apart() {
        let mut history = LossHistory::default();
        // Half a minute apart, for eight hours, from a reader that is too slow; and two days later once more.
        for n in 0..960 {
            history.cut(&lost(&[(10 * n, 10 * n + 5)]), 10 * n + 5, UnixMillis(30_000 * n));
        }
        let later = 30_000 * 960 + 2 * 24 * 3_600_000;
        history.cut(&lost(&[(9_600, 9_607)]), 9_607, UnixMillis(later));
        let spans = spans(&history);
        assert!(spans.len() <= MAX_CUTS);
        assert_eq!(history.events(), 960 * 5 + 7);
        assert_eq!(spans.iter().map(|span| span.events).sum::<u64>(), 960 * 5 + 7);
        assert_eq!((spans[0].first, spans[0].from), (0, 0));
        assert_eq!(spans.last(), Some(&span(9_600, 9_606, 7, later, later)));
        let hour = 3_600_000;
        assert!(spans.iter().all(|span| span.to - span.from <= hour), "{spans:?}");
        assert!(spans.windows(2).all(|two| two[0].to < two[1].from && two[0].last < two[1].first), "{spans:?}");
    }

    #[test]
    fn what_a_reader_had_all_the_same_is_not_lost_and_what_it_did_not_get_is_once() {
        let mut history = LossHistory::default();
        history.cut(&lost(&[(11, 21)]), 21, UnixMillis(10));
        history.had(&[5..8, 11..16]);
        assert_eq!((history.events(), spans(&history)), (5, vec![span(11, 20, 5, 10, 10)]));
        // Told of it, and that did not arrive; and of what was handed over before.
        history.gone(&lost(&[(16, 21), (5, 8)]), UnixMillis(20));
        assert_eq!((history.events(), history.spans().count()), (8, 2));
        history.had(&[5..8, 16..21]);
        assert_eq!((history.events(), history.spans().count()), (0, 0));
    }

    #[test]
    fn a_start_that_finds_the_same_lost_again_counts_only_what_is_new() {
        let mut history = LossHistory::default();
        history.cut(&lost(&[(11, 101)]), 101, UnixMillis(10));
        let (changes, note) = history.unsaved().unwrap();
        history.saved(changes);
        assert!(history.unsaved().is_none());
        let mut recalled = LossHistory::parse(&note).unwrap();
        assert!(recalled.unsaved().is_none());
        recalled.cut(&lost(&[(11, 101)]), 101, UnixMillis(50));
        assert_eq!((recalled.events(), spans(&recalled)), (90, vec![span(11, 100, 90, 10, 10)]));
        recalled.cut(&lost(&[(11, 111)]), 111, UnixMillis(60));
        assert_eq!((recalled.events(), spans(&recalled)), (100, vec![span(11, 110, 100, 10, 60)]));
        assert!(LossHistory::parse(b"nonsense").is_none());
    }

    properties! {
        /// Whenever it was stored last, and however often it starts anew from there: all that is lost counts once.
        #[test]
        fn every_lost_entry_counts_once(cuts in prop::collection::vec((1..20u64, any::<bool>(), any::<bool>()), 1..60)) {
            let (mut history, mut stored, mut earliest) = (LossHistory::default(), None::<Bytes>, 1);
            for (by, is_stored, starts_anew) in cuts {
                if starts_anew {
                    // The cursor that is stored has passed nothing of it: all is found lost again.
                    history = stored.as_ref().map_or_else(LossHistory::default, |note| LossHistory::parse(note).unwrap());
                    history.cut(&lost(&[(1, earliest)]), earliest, UnixMillis(1));
                }
                let before = earliest;
                earliest += by;
                history.cut(&lost(&[(before, earliest)]), earliest, UnixMillis(1));
                if is_stored {
                    stored = history.unsaved().map(|(_, note)| note).or(stored);
                }
                prop_assert_eq!(history.events(), earliest - 1);
                prop_assert!(history.spans().count() <= MAX_CUTS);
                prop_assert_eq!(history.spans().map(|span| span.events).sum::<u64>(), earliest - 1);
            }
        }
    }
}
