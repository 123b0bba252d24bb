//! [`Appender`]: puts what regions return into a log: each event once, and in the vendor's order where that is asked
//! for.
//!
//! ```text
//! AppendRequest ──> CopyFilter ──> ReorderBuffer (with an order_window) ──> one commit ──> Log::publish
//! ```
//!
//! Invariants: who appends holds the [`Pipeline`]. A commit that was begun is done to its end: if who began it is
//! dropped, the next who has the pipeline waits for it first ([`Appender::pipeline`]), and what follows from it
//! (entries for readers, sightings, what waits) becomes so in one step with that. So nobody ever has a pipeline that
//! does not know what the store holds, and what a read brought is stored once, however often that is asked for
//! ([`AppendRequest`]).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::MutexGuard;
use tokio::time::Instant;

use super::copy_filter::{CopyFilter, ReadSightings};
use super::dropped_copies::CopiesPlan;
use super::reorder_buffer::{ReorderBuffer, ReorderPlan};
use super::reorder_task::ReorderTask;
use crate::events::log::Log;
use crate::events::log::age_guard::AgeGuard;
use crate::kernel::backoff::Backoff;
use crate::kernel::clock::Clock;
use crate::kernel::task::Tasks;
use crate::store::{Batch, Commit, Content, Error, NewBatch, NoteKind, Notes, QuarantineRecord};

/// How long to wait before what the store did not take is brought again.
pub(in crate::events) const STORE_RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// Puts what regions return into one log.
pub(in crate::events) struct Appender {
    log: Arc<Log>,
    clock: Clock,
    ages: Arc<AgeGuard>,
    /// Locked by [`Appender::pipeline`] alone.
    pipeline: tokio::sync::Mutex<Pipeline>,
    reorder_task: ReorderTask,
}

/// What stands between the pollers and the log: nothing, while there is but one region.
#[derive(Default)]
pub(in crate::events) struct Pipeline {
    copies: Option<CopyFilter>,
    reorder: Option<ReorderBuffer>,
    in_flight: Option<CommitInFlight>,
}

/// A commit on its way to the store. It lives here and not in the future of who began it, so that it outlives that.
struct CommitInFlight {
    commit: BoxFuture<'static, Result<Vec<Arc<Batch>>, Error>>,
    effects: CommitEffects,
}

/// What follows from a commit.
#[derive(Default)]
struct CommitEffects {
    request: Option<Arc<AppendRequest>>,
    outcome: AppendOutcome,
    reorder: Option<ReorderPlan>,
    copies: CopiesPlan,
    sightings: Option<ReadSightings>,
}

/// What one read brought, to be stored in one step, once.
#[derive(Debug)]
pub(in crate::events) struct AppendRequest {
    /// Events and markers, all of one region.
    batches: Vec<NewBatch>,
    /// An answer that could not be read to its end.
    quarantined: Option<QuarantineRecord>,
    /// Of the kind [`NoteKind::Waiting`].
    notes: Notes,
    /// Set when it is stored.
    outcome: OnceLock<AppendOutcome>,
}

/// What became of the events of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::events) struct AppendOutcome {
    pub(in crate::events) stored: u64,
    /// Dropped because another region had returned them.
    pub(in crate::events) duplicates: u64,
    /// Stored after later ones of other regions had gone into the log.
    pub(in crate::events) late: u64,
}

impl AppendRequest {
    pub(in crate::events) fn new(batches: Vec<NewBatch>, quarantined: Option<QuarantineRecord>) -> Arc<Self> {
        Self::with_notes(batches, quarantined, Notes::new())
    }

    /// With notes of the kind [`NoteKind::Waiting`], to be kept or removed in the same step.
    pub(in crate::events) fn with_notes(
        batches: Vec<NewBatch>,
        quarantined: Option<QuarantineRecord>,
        notes: Notes,
    ) -> Arc<Self> {
        Arc::new(Self { batches, quarantined, notes, outcome: OnceLock::new() })
    }

    pub(in crate::events) fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.quarantined.is_none() && self.notes.is_empty()
    }
}

impl Appender {
    /// Appends to this log whatever comes, until [`Appender::set_dedup`] or [`Appender::set_order_window`] says
    /// otherwise.
    pub(in crate::events) fn new(log: Arc<Log>, clock: Clock, ages: Arc<AgeGuard>) -> Arc<Self> {
        let (pipeline, reorder_task) = Default::default();
        Arc::new(Self { log, clock, ages, pipeline, reorder_task })
    }

    /// Appends what a read brought, less what another region had returned already; or keeps it for its turn. Its
    /// entries are seen once they are stored, and all of it is stored in one step; once, however often this is called.
    ///
    /// # Errors
    /// When the store fails: nothing has changed, and the same may be tried again.
    pub(in crate::events) async fn append(&self, request: &Arc<AppendRequest>) -> Result<AppendOutcome, Error> {
        let mut pipeline = self.pipeline().await;
        // A call that was dropped may have begun the commit; its end was waited for just now.
        if let Some(outcome) = request.outcome.get() {
            return Ok(*outcome);
        }
        let AppendRequest { batches, quarantined, notes, .. } = &**request;
        let notes = (!notes.is_empty()).then(|| (NoteKind::Waiting, notes.clone()));
        let all = Commit { batches: batches.clone(), notes, quarantined: quarantined.clone(), ..Commit::default() };
        self.append_locked(&mut pipeline, all, Some(Arc::clone(request))).await
    }

    /// Who has it appends. What was begun with it before is over.
    pub(in crate::events) async fn pipeline(&self) -> MutexGuard<'_, Pipeline> {
        let mut pipeline = self.pipeline.lock().await;
        // If that has failed nothing has changed, and who brought it will try again.
        let _ = self.finish(&mut pipeline).await;
        pipeline
    }

    /// [`Appender::append`] of whatever is to be stored with the batches, by whoever has the pipeline.
    pub(in crate::events) async fn append_locked(
        &self,
        pipeline: &mut Pipeline,
        mut all: Commit,
        request: Option<Arc<AppendRequest>>,
    ) -> Result<AppendOutcome, Error> {
        let came = count_events(&all.batches);
        let mut effects = CommitEffects { request, ..CommitEffects::default() };
        if let Some(copies) = &mut pipeline.copies {
            let batches = std::mem::take(&mut all.batches);
            (all.batches, effects.sightings) = copies.sift(batches, self.clock.now(), self.clock.wall_ms());
        }
        let stored = count_events(&all.batches);
        effects.outcome = AppendOutcome { stored, duplicates: came - stored, late: 0 };
        // Most reads bring nothing, or nothing that another region had not returned.
        if all.is_empty() {
            return Ok(self.take_effect(pipeline, effects, Vec::new()));
        }
        // What was dropped since the last commit goes with this one, so it costs no sync of its own.
        if let Some(copies) = &pipeline.copies {
            effects.copies = copies.plan(effects.sightings.as_ref());
        }
        let mut notes = all.notes.take().map(|(_, notes)| notes).unwrap_or_default();
        notes.append(&mut effects.copies.notes);
        if let Some(reorder) = &mut pipeline.reorder {
            let mut plan = reorder.take_in(&all.batches, self.log.range().end, self.clock.now());
            effects.outcome.late = plan.late;
            all.batches = std::mem::take(&mut plan.batches);
            // All of these are of the same kind: see `dropped_copies`.
            notes.append(&mut plan.notes);
            effects.reorder = Some(plan);
        }
        all.notes = (!notes.is_empty()).then_some((NoteKind::Waiting, notes));
        let outcome = self.commit(pipeline, all, effects).await?;
        if pipeline.reorder.is_some() {
            self.reorder_task.wake();
        }
        Ok(outcome)
    }

    async fn commit(
        &self,
        pipeline: &mut Pipeline,
        all: Commit,
        effects: CommitEffects,
    ) -> Result<AppendOutcome, Error> {
        let log = Arc::clone(&self.log);
        let commit = Box::pin(async move { log.store().commit(log.key(), all).await });
        pipeline.in_flight = Some(CommitInFlight { commit, effects });
        self.finish(pipeline).await
    }

    /// Waits for the commit in flight, if there is one.
    async fn finish(&self, pipeline: &mut Pipeline) -> Result<AppendOutcome, Error> {
        let Some(in_flight) = &mut pipeline.in_flight else { return Ok(AppendOutcome::default()) };
        let stored = in_flight.commit.as_mut().await;
        // From here on to the end there is nothing to wait for, so all of it becomes so or none.
        let effects = std::mem::take(&mut in_flight.effects);
        pipeline.in_flight = None;
        Ok(self.take_effect(pipeline, effects, stored?))
    }

    /// Makes so what follows from a commit. No `async fn`: a caller that is dropped must not stop halfway.
    fn take_effect(&self, pipeline: &mut Pipeline, effects: CommitEffects, stored: Vec<Arc<Batch>>) -> AppendOutcome {
        let CommitEffects { request, outcome, reorder, copies, sightings } = effects;
        if let (Some(buffer), Some(plan)) = (&mut pipeline.reorder, reorder) {
            buffer.done(plan);
        }
        if let Some(filter) = &mut pipeline.copies {
            filter.done(copies, sightings, self.clock.now());
        }
        stored.into_iter().for_each(|batch| self.log.publish(batch));
        if let Some(request) = request {
            request.outcome.get_or_init(|| outcome);
        }
        outcome
    }

    /// Turns dropping of other regions' events on (with what is known of what was seen), off, or changes its window.
    ///
    /// # Errors
    /// When the store fails; then nothing has changed.
    pub(in crate::events) async fn set_dedup(&self, window: Option<Duration>) -> Result<(), Error> {
        let mut pipeline = self.pipeline().await;
        let Pipeline { copies, reorder, .. } = &mut *pipeline;
        match (window, copies) {
            (Some(window), Some(copies)) => copies.set_window(window),
            (Some(window), none) => {
                *none =
                    Some(CopyFilter::recall(&self.log, &self.ages, reorder.as_ref(), window, self.clock.now()).await?);
            }
            (None, some) => {
                if let Some(copies) = some {
                    copies.save(&self.log, &self.ages).await?;
                }
                *some = None;
            }
        }
        Ok(())
    }

    /// Forgets other regions' events that are older than the window, also while none come.
    pub(in crate::events) async fn forget_sightings(&self) {
        if let Some(copies) = &mut self.pipeline().await.copies {
            copies.forget(self.clock.now());
        }
    }

    /// Stores what was dropped and is not stored yet, and removes what is older than the window.
    ///
    /// # Errors
    /// When the store fails.
    pub(in crate::events) async fn save_dropped_copies(&self) -> Result<(), Error> {
        match &mut self.pipeline().await.copies {
            Some(copies) => copies.save(&self.log, &self.ages).await,
            None => Ok(()),
        }
    }

    /// Turns waiting on (with what waited in an earlier run), changes its window, or turns it off: then all that waits
    /// goes into the log first.
    ///
    /// # Errors
    /// When the store fails; then nothing has changed.
    pub(in crate::events) async fn set_order_window(
        self: &Arc<Self>,
        window: Option<Duration>,
        tasks: &Tasks,
    ) -> Result<(), Error> {
        let mut pipeline = self.pipeline().await;
        if pipeline.reorder.is_none() {
            let recalled = ReorderBuffer::recall(&self.log, window.unwrap_or_default(), self.clock.now()).await?;
            // What an earlier run with a window left is to be moved without one, too.
            pipeline.reorder = recalled.or_else(|| window.map(ReorderBuffer::new));
        }
        let Some(reorder) = &mut pipeline.reorder else { return Ok(()) };
        let Some(window) = window else {
            reorder.hurry(self.clock.now());
            self.move_due_locked(&mut pipeline).await?;
            if let Some(notes) = pipeline.reorder.as_ref().and_then(ReorderBuffer::farewell) {
                self.log.store().keep_notes(self.log.key(), NoteKind::Waiting, notes).await?;
            }
            pipeline.reorder = None;
            return Ok(());
        };
        reorder.set_window(window);
        self.reorder_task.start(self, tasks);
        Ok(())
    }

    /// Moves what is due from the reorder buffer into the log. Returns when the next is.
    ///
    /// # Errors
    /// When the store fails; what was not moved waits as before.
    pub(super) async fn move_due(&self) -> Result<Option<Instant>, Error> {
        let mut pipeline = self.pipeline().await;
        self.move_due_locked(&mut pipeline).await?;
        Ok(pipeline.reorder.as_ref().and_then(|reorder| reorder.next_due(self.clock.now())))
    }

    async fn move_due_locked(&self, pipeline: &mut Pipeline) -> Result<(), Error> {
        let due = |pipeline: &Pipeline| pipeline.reorder.as_ref()?.due(self.log.range().end, self.clock.now());
        while let Some(mut plan) = due(pipeline) {
            let (batches, notes) = (std::mem::take(&mut plan.batches), std::mem::take(&mut plan.notes));
            let all = Commit { batches, notes: Some((NoteKind::Waiting, notes)), ..Commit::default() };
            let effects = CommitEffects { reorder: Some(plan), ..CommitEffects::default() };
            self.commit(pipeline, all, effects).await?;
        }
        Ok(())
    }

    pub(in crate::events) fn log(&self) -> &Log {
        &self.log
    }

    pub(in crate::events) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn reorder_task(&self) -> &ReorderTask {
        &self.reorder_task
    }

    /// How many sightings are remembered.
    #[cfg(test)]
    pub(in crate::events) async fn sightings(&self) -> usize {
        self.pipeline().await.copies.as_ref().map_or(0, CopyFilter::sightings)
    }
}

fn count_events(batches: &[NewBatch]) -> u64 {
    let of = |batch: &NewBatch| if let Content::Events(events) = &batch.content { events.len() as u64 } else { 0 };
    batches.iter().map(of).sum()
}
