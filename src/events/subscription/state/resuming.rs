//! What a plain reader takes, and what it says of that when it comes again.
//!
//! Invariant: what is given again is not settled any more, in memory and in the store: it lies above the low-water
//! mark, and no mark is on it. What lies between and is settled for good is marked instead.

use std::ops::Range;

use super::super::claim::MAX_AHEAD;
use super::loss_notices::LossNotice;
use super::{LostRanges, SubscriptionState};
use crate::events::subscription::StreamNumber;
use crate::kernel::clock::UnixMillis;

impl SubscriptionState {
    /// Takes up to `limit` entries before `next`, for a stream if that is said. Also says whether something must be
    /// stored before it is given them.
    pub(in super::super) fn take(
        &mut self,
        next: u64,
        limit: u64,
        stream: Option<StreamNumber>,
    ) -> Option<(Range<u64>, bool)> {
        let range = self.ranges.take(next, limit, stream)?;
        self.recalled_to = None;
        let Some(stream) = stream else { return Some((range, false)) };
        let low = self.settle_low();
        let is_behind_an_open_one = self.leases.first_after(low).is_some_and(|first| first < range.start);
        self.plain.streams(is_behind_an_open_one || self.ranges.is_of_others_before(range.start, stream));
        Some((range, self.plain.owes()))
    }

    /// A reader has all up to `last` that it was given. What is settled by that was given back by the response that
    /// ended there; or by a restart, when the store knows that this reader's word is good.
    pub(in super::super) fn hear(&mut self, last: u64) {
        let is_of_earlier_run = self.recalled_to.is_some_and(|to| last <= to);
        if is_of_earlier_run && self.plain.believes(last) && self.unopened.is_empty() {
            self.ranges.settle_to(last).into_iter().for_each(|range| self.handed_over(range));
            let had = self.missed.settle_to(last);
            self.had(had);
        } else if last > self.ranges.claimed() {
            self.plain.doubt_to(last);
        } else if let Some(by) = self.ranges.speaker(last).or_else(|| self.missed.speaker(last)) {
            self.ranges.hear(last, by).into_iter().for_each(|range| self.handed_over(range));
            let had = self.missed.hear(last, by);
            self.had(had);
        }
    }

    /// A reader had these before retention took them, though their hand-over was not known: it is not told of them. Who
    /// comes again with an earlier place is.
    fn had(&mut self, ranges: Vec<Range<u64>>) {
        self.lost.had(&ranges);
        ranges.into_iter().for_each(|range| self.plain.add(range));
    }

    /// A plain reader was told that these are lost. So it passed them, and who comes again with an earlier place passes
    /// them once more: that one has not heard of them.
    pub(in super::super) fn told_plainly(&mut self, cut_off: LossNotice) {
        cut_off.iter().flat_map(|lost| lost.ranges()).for_each(|range| self.plain.add(range));
        self.missed.told(cut_off);
    }

    /// These were handed over plainly. What of them lies behind others that are not settled is marked, or a restart
    /// would give it again; but for what is so far ahead that there would be too much to mark.
    pub(in super::super) fn handed_over(&mut self, range: Range<u64>) {
        let low = self.settle_low();
        self.acks.mark_all(range.start.max(low + 1)..range.end.min(low.saturating_add(MAX_AHEAD)));
        self.letters.handed_over(range.clone());
        self.plain.add(range);
    }

    /// Gives again what was handed over plainly after `last`, and of `unheard`, in order. What of that lay before
    /// `earliest` is gone: readers are told. Says how much.
    pub(in super::super) fn give_again(
        &mut self,
        last: u64,
        unheard: &[Range<u64>],
        earliest: u64,
        wall: UnixMillis,
    ) -> u64 {
        let low = self.settle_low();
        let after = last.saturating_add(1);
        let all = unheard
            .iter()
            .map(|run| run.start..run.end.min(after))
            .chain(std::iter::once(after..self.ranges.claimed() + 1));
        let (mut lost, mut again) = (LostRanges::default(), Vec::new());
        for wanted in all {
            let first = self.first_to_give_again(wanted.start.max(earliest), low);
            for gone in self.plain.of(&(wanted.start..first.min(wanted.end.max(earliest)))) {
                lost.add(gone.clone());
                self.plain.remove(gone);
            }
            for run in self.plain.of(&(first..wanted.end)) {
                self.plain.remove(run.clone());
                again.extend(self.ranges.give_again(run));
            }
        }
        let count = lost.count();
        self.lost.gone(&lost, wall);
        self.missed.add(lost);
        again.sort_unstable_by_key(|run: &Range<u64>| run.start);
        // The low-water mark lies before them now: what is settled for good between them must be marked.
        let mut at = self.settle_low() + 1;
        for run in &again {
            self.acks.mark_all(at..run.start.min(low + 1));
            self.acks.unmark(run.clone());
            at = at.max(run.end);
        }
        if !again.is_empty() {
            self.acks.mark_all(at..low + 1);
        }
        count
    }

    /// From where on a reader is given again what it wants from `after` on: nothing is so far back that there would be
    /// too much to mark.
    fn first_to_give_again(&self, after: u64, low: u64) -> u64 {
        let plain: u64 = self.plain.of(&(after..low + 1)).iter().map(|range| range.end - range.start).sum();
        let to_mark = (low + 1).saturating_sub(after).saturating_sub(plain);
        if to_mark > MAX_AHEAD { low + 1 - MAX_AHEAD } else { after }
    }
}
