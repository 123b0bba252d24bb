//! [`CopyFilter`]: drops what another region has returned already, and remembers over a restart what that was.
//!
//! What counts is the rule of [`Dedup`]; what a later run must know of it is in the log and in the notes of
//! [`DroppedCopies`].
//!
//! Invariants: looking ([`CopyFilter::sift`], [`CopyFilter::plan`]) changes nothing that counts; [`CopyFilter::done`]
//! follows the commit. So an append that fails can be tried again.

use std::time::Duration;

use tokio::time::Instant;

use super::dedup::{Dedup, Fingerprint, MAX_SIGHTINGS, PastSightings};
use super::dropped_copies::{CopiesPlan, DroppedCopies, ReadCopies};
use super::reorder_buffer::ReorderBuffer;
use crate::events::log::Log;
use crate::events::log::age_guard::AgeGuard;
use crate::kernel::clock::UnixMillis;
use crate::store::{Batch, Content, Error, EventText, NewBatch, NoteKind, Sequence};

/// Drops what another region has returned already.
#[derive(Debug)]
pub(super) struct CopyFilter {
    dedup: Dedup,
    dropped: DroppedCopies,
}

/// What one read returned, and what of it was dropped.
#[derive(Debug)]
pub(super) struct ReadSightings {
    all: Vec<Fingerprint>,
    copies: ReadCopies,
}

impl CopyFilter {
    /// Takes up from the store what was seen within the window.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn recall(
        log: &Log,
        ages: &AgeGuard,
        reorder: Option<&ReorderBuffer>,
        window: Duration,
        now: Instant,
    ) -> Result<Self, Error> {
        let (dropped, reads) = DroppedCopies::recall(log).await?;
        let since = ages.older_than(window);
        let mut first = log.store().first_since(log.key(), since).await?;
        let range = log.range();
        let most_back = range.end.minus(MAX_SIGHTINGS as u64);
        // What is older than the window is there still, so retention has taken nothing of the window.
        let is_whole = (range.start == Sequence::FIRST || range.start < first) && most_back <= first;
        if !is_whole && !reads.is_empty() {
            // What a copy was one of may be as much older than the copy.
            let older_than = ages.older_than(window.saturating_mul(2));
            first = log.store().first_since(log.key(), older_than).await?;
        }
        let mut past = PastSightings::new(is_whole);
        let mut after = first.max(most_back).previous();
        while after.next() < range.end {
            let batches = log.store().read(log.key(), after, REPLAYED_AT_ONCE).await?;
            let Some(newest) = batches.last() else { break };
            after = newest.last();
            batches.iter().for_each(|batch| replay(&mut past, batch));
        }
        for (batch, events) in reorder.into_iter().flat_map(ReorderBuffer::not_taken) {
            past.add_stored(&batch.region, events.iter().map(|event| Fingerprint::of(event)), batch.received_at);
        }
        for ReadCopies { region, at, events } in reads {
            past.add_dropped(&region, events, at);
        }
        let mut dedup = Dedup::new(window);
        dedup.recall(past, since, |at| now.checked_sub(ages.age(at, window)).unwrap_or(now));
        Ok(Self { dedup, dropped })
    }

    pub(super) fn set_window(&mut self, window: Duration) {
        self.dedup.set_window(window);
    }

    /// The batches of one read with those events alone that no other region has returned; and what is to be remembered
    /// of it, if it brought anything.
    pub(super) fn sift(
        &mut self,
        batches: Vec<NewBatch>,
        now: Instant,
        wall: UnixMillis,
    ) -> (Vec<NewBatch>, Option<ReadSightings>) {
        let Some(first) = batches.first() else { return (batches, None) };
        let region = first.region.clone();
        let all: Vec<_> = batches.iter().flat_map(fingerprints).collect();
        let fresh = self.dedup.fresh(&region, &all, now);
        let batches = only_fresh(batches, &fresh);
        let events = all.iter().zip(fresh).filter_map(|(&event, fresh)| (!fresh).then_some(event)).collect();
        (batches, Some(ReadSightings { all, copies: ReadCopies { region, at: wall, events } }))
    }

    /// What a commit is to say of what was dropped: in this read, and since the last commit that did.
    pub(super) fn plan(&self, read: Option<&ReadSightings>) -> CopiesPlan {
        self.dropped.plan(read.map(|read| &read.copies))
    }

    /// The commit has succeeded, or there was nothing to commit.
    pub(super) fn done(&mut self, plan: CopiesPlan, read: Option<ReadSightings>, now: Instant) {
        let is_noted = plan.has_note();
        self.dropped.done(plan);
        let Some(ReadSightings { all, copies }) = read else { return };
        self.dedup.record(&copies.region, &all, now);
        if !is_noted {
            self.dropped.add(copies);
        }
    }

    /// Forgets what is older than the window.
    pub(super) fn forget(&mut self, now: Instant) {
        self.dedup.forget(now);
    }

    /// Stores what was dropped and is not stored yet, and removes what is older than the window.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn save(&mut self, log: &Log, ages: &AgeGuard) -> Result<(), Error> {
        let mut plan = self.dropped.plan_with_removals(ages.older_than(self.dedup.window()));
        if plan.notes.is_empty() {
            return Ok(());
        }
        log.store().keep_notes(log.key(), NoteKind::Waiting, std::mem::take(&mut plan.notes)).await?;
        self.dropped.done(plan);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn sightings(&self) -> usize {
        self.dedup.sightings()
    }
}

fn replay(past: &mut PastSightings, batch: &Batch) {
    match &batch.content {
        Content::Events(events) => {
            past.add_stored(&batch.region, events.iter().map(|event| Fingerprint::of(&event)), batch.received_at);
        }
        Content::Damaged(_) => past.is_whole = false,
        Content::PossibleLoss(_) => {}
    }
}

/// What the events of a batch are known by.
fn fingerprints(batch: &NewBatch) -> Vec<Fingerprint> {
    let Content::Events(events) = &batch.content else { return Vec::new() };
    events.iter().map(|event| Fingerprint::of(&event)).collect()
}

/// The batches with those events alone that are fresh.
fn only_fresh(batches: Vec<NewBatch>, fresh: &[bool]) -> Vec<NewBatch> {
    let mut rest = fresh;
    let fresh_of = |batch: NewBatch| {
        let Content::Events(events) = &batch.content else { return Some(batch) };
        let fresh = rest.split_off(..events.len()).unwrap_or_default();
        if fresh.iter().all(|&fresh| fresh) {
            return Some(batch);
        }
        let kept: Vec<_> = events.iter().zip(fresh).filter_map(|(event, &fresh)| fresh.then_some(event)).collect();
        let kept = EventText::join(kept.iter().map(|event| &event[..]))?;
        Some(NewBatch { content: Content::Events(kept), ..batch })
    };
    batches.into_iter().filter_map(fresh_of).collect()
}

/// Entries. All of the window at once could be more than there is memory for.
const REPLAYED_AT_ONCE: usize = 10_000;
