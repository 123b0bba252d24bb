//! [`LossNotices`]: what retention took before a subscription was given it, until a reader was told.
//!
//! Invariants: each entry is told once, or again when the response that told it did not arrive; and what a reader says
//! that it has is not told. It is stored with the cursor that has passed these entries; until then it follows from the
//! stored cursor and from where the log begins, so a cut writes nothing.

use std::ops::Range;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::delivery_ranges::{LostRanges, Speaker};
use crate::events::subscription::notes::RetryState;
use crate::kernel::clock::UnixMillis;
use crate::store::Sequence;

/// What readers are to be told of.
#[derive(Debug)]
pub(in crate::events::subscription) struct LossNotices {
    /// `None` as long as there is nothing: most subscriptions miss nothing, and there are thousands of those.
    lists: Option<Box<Lists>>,
    /// How often it has changed.
    changes: u64,
    /// After how many changes it is as the store says; no number of changes when that is not known.
    stored: u64,
}

#[derive(Debug, Default)]
struct Lists {
    waiting: LostRanges,
    /// In responses on their way.
    under_way: Vec<LostRanges>,
    /// How often it was told in vain, by who passes that on.
    tried: RetryState,
    /// Cancelled when nobody is to be told of it any more.
    over: CancellationToken,
}

/// What a response is to tell, mostly nothing: it takes little room where streams wait by the thousand.
pub(in crate::events::subscription) type LossNotice = Option<Box<LostRanges>>;

/// How many entries that are, and the first of them where that is known.
pub(in crate::events::subscription) fn count(taken: &LossNotice) -> (u64, Option<Sequence>) {
    let first = |lost: &LostRanges| lost.ranges().next().map(|first| Sequence(first.start));
    taken.as_ref().map_or((0, None), |lost| (lost.count(), first(lost)))
}

impl LossNotices {
    /// These at the beginning, how often that was told in vain, and whether the store says so.
    pub(in crate::events::subscription) fn new(waiting: LostRanges, tried: RetryState, is_stored: bool) -> Self {
        let is_nothing = waiting.count() == 0;
        let lists = (!is_nothing).then(|| Box::new(Lists { waiting, tried, ..Lists::default() }));
        Self { lists, changes: 0, stored: if is_stored || is_nothing { 0 } else { u64::MAX } }
    }

    /// More is gone.
    pub(in crate::events::subscription) fn add(&mut self, lost: LostRanges) {
        if lost.count() > 0 {
            self.changes += 1;
            self.lists.get_or_insert_default().waiting.append(lost);
        }
    }

    /// All that nobody was told yet, for a response.
    pub(in crate::events::subscription) fn take(&mut self) -> LossNotice {
        let lists = self.lists.as_mut().filter(|lists| lists.waiting.count() > 0)?;
        // Kept here, too: a seek or a removal must find what is on its way.
        let taken = std::mem::take(&mut lists.waiting);
        lists.under_way.push(taken.clone());
        Some(Box::new(taken))
    }

    /// A reader was told of this, that was taken. Says whether it was still to be told.
    pub(in crate::events::subscription) fn told(&mut self, taken: LossNotice) -> bool {
        let is_back = taken.is_some_and(|taken| self.is_back(&taken));
        if is_back {
            self.lists.iter_mut().for_each(|lists| lists.tried = RetryState::default());
            self.changed();
        }
        is_back
    }

    /// How often it was told in vain.
    pub(in crate::events::subscription) fn tried(&self) -> RetryState {
        self.lists.as_ref().map_or_else(RetryState::default, |lists| lists.tried)
    }

    /// It is to be told by then, however often that was done in vain.
    pub(in crate::events::subscription) fn wait_no_longer_than(&mut self, latest: Instant) {
        for until in self.lists.iter_mut().filter_map(|lists| lists.tried.delay_until.as_mut()) {
            *until = latest.min(*until);
        }
    }

    /// Cancelled when nobody is to be told any more of what was taken.
    pub(in crate::events::subscription) fn over(&self) -> CancellationToken {
        self.lists.as_ref().map(|lists| lists.over.clone()).unwrap_or_default()
    }

    /// That was taken, and told in vain, so often by now.
    pub(in crate::events::subscription) fn failed(&mut self, taken: &LossNotice, tried: RetryState) {
        let is_under_way =
            |lists: &&mut Box<Lists>| taken.as_ref().is_some_and(|taken| lists.under_way.contains(taken));
        if let Some(lists) = self.lists.as_mut().filter(is_under_way) {
            lists.tried = tried;
            self.changes += 1;
        }
    }

    /// The response with this, that was taken, did not arrive; `with` what it had taken beside that, if it was on its
    /// way.
    pub(in crate::events::subscription) fn give_back(&mut self, taken: LossNotice, with: Option<Speaker>) {
        if let Some(mut taken) = taken.filter(|taken| self.is_back(taken)) {
            with.into_iter().for_each(|with| taken.was_told_with(with));
            self.lists.get_or_insert_default().waiting.append(*taken);
        }
    }

    fn is_back(&mut self, taken: &LostRanges) -> bool {
        let Some(lists) = &mut self.lists else { return false };
        let at = lists.under_way.iter().position(|lost| lost == taken);
        at.map(|at| lists.under_way.swap_remove(at)).is_some()
    }

    /// Which response told of an entry, or had it.
    pub(in crate::events::subscription) fn speaker(&self, last: u64) -> Option<Speaker> {
        self.lists.as_ref()?.waiting.speaker(last)
    }

    /// A reader has had what that response told of, or had, up to `last`. Says which that is.
    pub(in crate::events::subscription) fn hear(&mut self, last: u64, by: Speaker) -> Vec<Range<u64>> {
        self.heard(|waiting| waiting.hear(last, by))
    }

    /// A reader has had all up to `last`. Says which that is.
    pub(in crate::events::subscription) fn settle_to(&mut self, last: u64) -> Vec<Range<u64>> {
        self.heard(|waiting| waiting.settle_to(last))
    }

    fn heard(&mut self, hear: impl FnOnce(&mut LostRanges) -> Vec<Range<u64>>) -> Vec<Range<u64>> {
        let had = self.lists.as_mut().map_or_else(Vec::new, |lists| hear(&mut lists.waiting));
        if !had.is_empty() {
            self.changed();
        }
        had
    }

    /// All of which no reader was told for sure.
    pub(in crate::events::subscription) fn all(&self) -> impl Iterator<Item = &LostRanges> {
        self.lists.iter().flat_map(|lists| lists.under_way.iter().chain([&lists.waiting]))
    }

    /// The first of those, where that is known.
    pub(in crate::events::subscription) fn first(&self) -> Option<Sequence> {
        self.all().flat_map(LostRanges::ranges).map(|run| Sequence(run.start)).min()
    }

    fn changed(&mut self) {
        self.changes += 1;
        self.lists.take_if(|lists| lists.under_way.is_empty() && lists.waiting.count() == 0);
    }

    /// Nobody is to be told of anything any more.
    pub(in crate::events::subscription) fn clear(&mut self) {
        self.changes += 1;
        if let Some(lists) = self.lists.take() {
            lists.over.cancel();
        }
    }

    /// Whether the store is to say something new.
    pub(in crate::events::subscription) fn is_unsaved(&self) -> bool {
        self.stored != self.changes
    }

    /// What the store is to say, when that is something new, after how many changes: what is missed, and how often that
    /// was told in vain.
    pub(in crate::events::subscription) fn unsaved(
        &self,
        now: (Instant, UnixMillis),
    ) -> Option<(u64, Option<Bytes>, Option<Bytes>)> {
        let telling =
            || Some(self.tried()).filter(|&tried| tried != RetryState::default()).map(|tried| tried.note(now));
        self.is_unsaved().then(|| (self.changes, LostRanges::note(self.all()), telling()))
    }

    /// The store may say anything.
    pub(in crate::events::subscription) fn doubt(&mut self) {
        self.stored = u64::MAX;
    }

    /// The store says what was so after so many changes.
    pub(in crate::events::subscription) fn saved(&mut self, changes: u64) {
        self.stored = changes;
    }
}
