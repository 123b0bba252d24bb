//! [`Writer`]: how what regions return goes into a log, each read once.
//!
//! Invariants: who appends holds the writer. A commit that was begun is done to its end: if who began it is dropped, the
//! next who has the writer waits for it first ([`Log::writer`]), and what follows from it (entries for readers, sightings,
//! what waits) becomes so in one step with that. So nobody ever has a writer that does not know what the store holds, and
//! what a read brought is stored once, however often that is asked for ([`Brought`]).

use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use tokio::sync::MutexGuard;

use crate::events::ingest::dedup::{Dedup, Fingerprint};
use crate::events::ingest::dropped::{self, Dropped};
use crate::events::ingest::reorder_buffer::{self, Waiting};
use crate::events::log::Log;
use crate::store::{Batch, Content, Error, EventText, Kept, NewBatch, NoteKind, Together};

/// What stands between the pollers and the log. `None`, and nothing, while there is but one region.
#[derive(Default)]
pub(in crate::events) struct Writer {
    pub(in crate::events) dedup: Option<Dedup>,
    /// What that has dropped.
    pub(in crate::events) dropped: Dropped,
    /// What waits for its turn, when there is an `order_window`.
    pub(in crate::events) waiting: Option<Waiting>,
    begun: Option<Begun>,
}

/// A commit on its way.
struct Begun {
    commit: BoxFuture<'static, Result<Vec<Arc<Batch>>, Error>>,
    then: Then,
}

/// What follows from a commit.
#[derive(Default)]
pub(in crate::events) struct Then {
    /// What is stored with it,
    brought: Option<Arc<Brought>>,
    /// and what became of that.
    appended: Appended,
    waiting: Option<reorder_buffer::Plan>,
    dropped: dropped::Plan,
    /// What was returned by which region, and what of it was dropped.
    seen: Option<(Vec<Fingerprint>, dropped::Read)>,
}

/// What a read brought, which is stored in one step.
#[derive(Debug)]
pub(in crate::events) struct Brought {
    /// Events and markers, all of one region.
    batches: Vec<NewBatch>,
    /// An answer that could not be read to its end.
    quarantined: Option<Kept>,
    /// Once it is stored.
    appended: OnceLock<Appended>,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::events) struct Appended {
    /// Events stored.
    pub(in crate::events) kept: u64,
    /// Events dropped because another region had returned them.
    pub(in crate::events) duplicates: u64,
    /// Events that came after later ones of other regions had gone into the log.
    pub(in crate::events) late: u64,
}

impl Then {
    /// What waited has gone into the log.
    pub(in crate::events) fn moved(plan: reorder_buffer::Plan) -> Self {
        Self { waiting: Some(plan), ..Self::default() }
    }
}

impl Brought {
    /// Not stored yet.
    pub(in crate::events) fn new(batches: Vec<NewBatch>, quarantined: Option<Kept>) -> Arc<Self> {
        Arc::new(Self { batches, quarantined, appended: OnceLock::new() })
    }

    pub(in crate::events) fn is_nothing(&self) -> bool {
        self.batches.is_empty() && self.quarantined.is_none()
    }
}

impl Log {
    /// Who has it appends. What was begun with it before is over.
    pub(in crate::events) async fn writer(&self) -> MutexGuard<'_, Writer> {
        let mut writer = self.appending.lock().await;
        // If that has failed nothing has changed, and who brought it will try again.
        let _ = self.finish(&mut writer).await;
        writer
    }

    /// Appends what a read brought, less what another region had returned already; or keeps it for its turn. Its entries are
    /// seen once they are stored, and all of it is stored in one step; once, however often this is called.
    ///
    /// # Errors
    /// When the store fails: nothing has changed, and the same may be tried again.
    pub(in crate::events) async fn keep(&self, brought: &Arc<Brought>) -> Result<Appended, Error> {
        let mut writer = self.writer().await;
        if let Some(appended) = brought.appended.get() {
            return Ok(*appended);
        }
        let Brought { batches, quarantined, .. } = &**brought;
        let all = Together { batches: batches.clone(), quarantined: quarantined.clone(), ..Together::default() };
        let appended = self.append(&mut writer, all, Some(Arc::clone(brought))).await?;
        drop(writer);
        self.trim_a_burst().await;
        Ok(appended)
    }

    /// [`Log::keep`], by whoever has the writer.
    pub(in crate::events) async fn append(
        &self,
        writer: &mut Writer,
        mut all: Together,
        brought: Option<Arc<Brought>>,
    ) -> Result<Appended, Error> {
        let came: u64 = all.batches.iter().map(events_in).sum();
        let region = all.batches.first().map(|batch| batch.region.clone());
        let mut then = Then { brought, ..Then::default() };
        if let (Some(dedup), Some(region)) = (&mut writer.dedup, region) {
            let prints: Vec<_> = all.batches.iter().flat_map(prints).collect();
            let fresh = dedup.fresh(&region, &prints, self.clock.now());
            all.batches = only(all.batches, &fresh);
            let copies = prints.iter().zip(fresh).filter_map(|(&event, fresh)| (!fresh).then_some(event)).collect();
            then.seen = Some((prints, dropped::Read { region, at: self.clock.wall_ms(), events: copies }));
        }
        let kept = all.batches.iter().map(events_in).sum();
        then.appended = Appended { kept, duplicates: came - kept, late: 0 };
        // Most reads bring nothing, or nothing that another region had not returned.
        if all.is_empty() {
            return Ok(self.follows(writer, then, Vec::new()));
        }
        then.dropped = writer.dropped.plan(then.seen.as_ref().map(|(_, copies)| copies));
        let mut notes = std::mem::take(&mut then.dropped.notes);
        if let Some(waiting) = &mut writer.waiting {
            let mut plan = waiting.take_in(&all.batches, self.range().1, self.clock.now());
            then.appended.late = plan.late;
            all.batches = std::mem::take(&mut plan.batches);
            // Those are of the same kind: see `dropped`.
            notes.append(&mut plan.notes);
            then.waiting = Some(plan);
        }
        all.notes = (!notes.is_empty()).then_some((NoteKind::Waiting, notes));
        let appended = self.commit(writer, all, then).await?;
        if writer.waiting.is_some() {
            self.sequencer.something_comes();
        }
        Ok(appended)
    }

    /// Commits, by whoever has the writer.
    pub(in crate::events) async fn commit(
        &self,
        writer: &mut Writer,
        all: Together,
        then: Then,
    ) -> Result<Appended, Error> {
        let (store, key) = (Arc::clone(&self.store), self.key.clone());
        let commit = Box::pin(async move { store.commit(&key, all).await });
        writer.begun = Some(Begun { commit, then });
        self.finish(writer).await
    }

    /// Waits for what was begun, if anything was.
    async fn finish(&self, writer: &mut Writer) -> Result<Appended, Error> {
        let Some(begun) = &mut writer.begun else { return Ok(Appended::default()) };
        let stored = begun.commit.as_mut().await;
        // From here on to the end there is nothing to wait for, so all of it becomes so or none.
        let then = std::mem::take(&mut begun.then);
        writer.begun = None;
        Ok(self.follows(writer, then, stored?))
    }

    /// Makes so what follows from a commit.
    fn follows(&self, writer: &mut Writer, then: Then, stored: Vec<Arc<Batch>>) -> Appended {
        let Then { brought, appended, waiting, dropped, seen } = then;
        if let (Some(waiting), Some(plan)) = (&mut writer.waiting, waiting) {
            waiting.done(plan);
        }
        let is_noted = dropped.has_note();
        writer.dropped.done(dropped);
        if let (Some(dedup), Some((prints, copies))) = (&mut writer.dedup, seen) {
            dedup.record(&copies.region, &prints, self.clock.now());
            if !is_noted {
                writer.dropped.add(copies);
            }
        }
        stored.into_iter().for_each(|batch| self.publish(batch));
        if let Some(brought) = brought {
            brought.appended.get_or_init(|| appended);
        }
        appended
    }
}

/// How many events a batch has.
fn events_in(batch: &NewBatch) -> u64 {
    if let Content::Events(events) = &batch.content { events.len() as u64 } else { 0 }
}

/// What the events of a batch are known by.
fn prints(batch: &NewBatch) -> Vec<Fingerprint> {
    let Content::Events(events) = &batch.content else { return Vec::new() };
    events.iter().map(|event| Fingerprint::of(&event)).collect()
}

/// The batches with those events alone that are fresh.
fn only(batches: Vec<NewBatch>, fresh: &[bool]) -> Vec<NewBatch> {
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
