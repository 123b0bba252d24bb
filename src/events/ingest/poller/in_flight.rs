//! A read in flight: a task of its own, so that neither a poller that gives up nor anything else cuts it short.
//!
//! Invariants: the task alone keeps what the read brings, early or late. Exactly one of two things happens first: the
//! answer comes ([`AnswerRace::ended`]), or the poller gives up ([`AnswerRace::give_up`]) and notes the doubt; so a
//! doubt is counted once. A task that is dropped before an answer (the gateway is forced to stop, or it panicked)
//! leaves a marker behind for the last flush.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::answer::{Outcome, ReadFailure, judge};
use super::poll_target::{PollTarget, Summary};
use crate::events::log::loss::Loss;
use crate::kernel::task::Kind;

/// Reads once. Returns when what it brought is kept, or when it is given up and that is noted. `None`: the gateway is
/// being forced to stop.
pub(super) async fn read(target: &Arc<PollTarget>, permit: OwnedSemaphorePermit) -> Option<Summary> {
    let (race, began) = (Arc::new(AnswerRace::default()), target.clock.now());
    let (tell, mut told) = oneshot::channel();
    target.tasks.spawn(Kind::Poller, finish(Arc::clone(target), Arc::clone(&race), permit, tell));
    if let Ok(summary) = tokio::time::timeout(target.settings().give_up_after, &mut told).await {
        return summary.ok();
    }
    if !race.give_up() {
        return told.await.ok(); // It was answered and is being kept.
    }
    let error = "the vendor has not answered; the read is left to itself".to_owned();
    let failure = Some(ReadFailure::Failing);
    let doubt = Outcome { loss: Some(Loss::Timeout), error: Some(error), failure, ..Outcome::default() };
    Some(target.keep(began, doubt, &race.noted).await)
}

async fn finish(
    target: Arc<PollTarget>,
    race: Arc<AnswerRace>,
    permit: OwnedSemaphorePermit,
    tell: oneshot::Sender<Summary>,
) {
    let unanswered = Unanswered { target: &target, race: &race };
    let began = target.clock.now();
    let result = target.order_a_read().await;
    if let Ok(reply) = &result {
        target.heard(&reply.headers);
    }
    // Before the answer is judged and kept, which may take long: who gives up from here on waits for that instead, and
    // no doubt is counted twice.
    let in_time = race.ended();
    drop(unanswered);
    let mut outcome = judge(result, target.clock.wall_ms());
    if !in_time {
        if outcome.count() == 0 {
            outcome.loss = None; // It is counted already.
        }
        outcome.is_late = true;
        tracing::info!(feed = %target, events = outcome.count(), "a late answer came");
    }
    let summary = target.keep(began, outcome, &race.noted).await;
    // Not before: what a read brought is in memory until it is stored, and the permits bound that.
    drop(permit);
    // A poller that gave up does not listen.
    let _ = tell.send(summary);
}

/// Who came first: the answer, or the poller's giving up.
#[derive(Default)]
struct AnswerRace {
    state: AtomicU8,
    /// In which outage the doubt of giving up was noted.
    noted: Arc<OnceLock<u64>>,
}

impl AnswerRace {
    /// The read has ended. `false` if it was given up before.
    fn ended(&self) -> bool {
        self.settle(ENDED)
    }

    /// The poller waits no more. `false` if the read has ended before.
    fn give_up(&self) -> bool {
        self.settle(GIVEN_UP)
    }

    fn settle(&self, to: u8) -> bool {
        self.state.compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

const WAITING: u8 = 0;
const ENDED: u8 = 1;
const GIVEN_UP: u8 = 2;

/// Leaves a marker if the read is dropped before it is answered or given up.
struct Unanswered<'a> {
    target: &'a PollTarget,
    race: &'a AnswerRace,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if self.race.ended() {
            self.target.leave_marker(Loss::Stopped);
        }
    }
}
