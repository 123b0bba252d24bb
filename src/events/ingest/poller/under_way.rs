//! A read under way: a task of its own, so that neither a poller that gives up nor anything else cuts it short.
//!
//! Invariants: the task alone keeps what the read brings, early or late. Exactly one of two things happens first: the
//! answer comes ([`Turn::ended`]), or the poller gives up ([`Turn::give_up`]) and writes the marker; so a doubt is marked
//! once. A task that is dropped before an answer (the gateway is forced to stop, or it panicked) leaves a marker behind
//! for the last flush.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::answer::{Outcome, judge};
use super::poll_target::{PollTarget, Summary};
use crate::events::log::loss::Loss;
use crate::kernel::task::Kind;

/// Reads once. Returns when what it brought is kept, or when it is given up and that is marked. `None`: the gateway is
/// being forced to stop.
pub(super) async fn read(feed: &Arc<PollTarget>, permit: OwnedSemaphorePermit) -> Option<Summary> {
    let turn = Arc::new(Turn::default());
    let (tell, mut told) = oneshot::channel();
    feed.tasks.spawn(Kind::Poller, finish(Arc::clone(feed), Arc::clone(&turn), permit, tell));
    if let Ok(summary) = tokio::time::timeout(feed.settings().give_up_after, &mut told).await {
        return summary.ok();
    }
    if !turn.give_up() {
        return told.await.ok(); // It was answered and is being kept.
    }
    let error = "the vendor has not answered; the read is left to itself".to_owned();
    let doubt = Outcome { loss: Some(Loss::Timeout), error: Some(error), ..Outcome::default() };
    Some(feed.keep(doubt).await)
}

async fn finish(feed: Arc<PollTarget>, turn: Arc<Turn>, permit: OwnedSemaphorePermit, tell: oneshot::Sender<Summary>) {
    let unanswered = Unanswered { feed: &feed, turn: &turn };
    let result = feed.order_a_read().await;
    let in_time = turn.ended();
    drop(unanswered);
    let mut outcome = judge(result, feed.clock.wall_ms());
    if !in_time {
        outcome.loss = None; // The marker stands already.
        tracing::info!(feed = %feed, events = outcome.count(), "a late answer came");
    }
    let summary = feed.keep(outcome).await;
    drop(permit);
    // A poller that gave up does not listen.
    let _ = tell.send(summary);
}

/// Who came first: the answer, or the poller's giving up.
#[derive(Default)]
struct Turn(AtomicU8);

impl Turn {
    /// The read has ended. `false` if it was given up before.
    fn ended(&self) -> bool {
        self.settle(ENDED)
    }

    /// The poller waits no more. `false` if the read has ended before.
    fn give_up(&self) -> bool {
        self.settle(GIVEN_UP)
    }

    fn settle(&self, to: u8) -> bool {
        self.0.compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

const WAITING: u8 = 0;
const ENDED: u8 = 1;
const GIVEN_UP: u8 = 2;

/// Leaves a marker if the read is dropped before it is answered or given up.
struct Unanswered<'a> {
    feed: &'a PollTarget,
    turn: &'a Turn,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if self.turn.ended() {
            self.feed.leave_marker(Loss::Stopped);
        }
    }
}
