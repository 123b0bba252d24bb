//! The poller: reads one stream of one region from the vendor, and keeps what it reads.
//!
//! ```text
//! rest ──> a permit ──> store ready? ──> read, until answered or given up ──> (kept) ──> rest
//! pace     poll_target                   in_flight ──> answer ──> poll_target
//! ```
//!
//! Invariants:
//! - One read at a time, but for those given up: such a read lives on in its task, and events that still come are kept.
//! - It reads only when the store says that it can keep a batch, and only after the last batch was kept. What was read
//!   and cannot be kept now is held in memory and tried again until it is; meanwhile nothing is read.
//! - A read that was sent is never cancelled, and never sent again. When it ends in doubt that is noted, and marked
//!   before what the next good one brings ([`outage`](crate::events::log::outage)).
//! - When it is stopped it reads no more; the read in hand is finished and kept.

pub(in crate::events) mod answer;
mod in_flight;
mod overflow_forecast;
mod pace;
mod pieces;
pub(in crate::events) mod poll_target;
pub(in crate::events) mod status;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use self::pace::{Pace, Phase};
pub(in crate::events) use self::poll_target::{PollTarget, Settings};
use crate::events::log::loss::Loss;
use crate::kernel::backoff::Backoff;
use crate::kernel::clock::UnixMillis;

/// What a poller is to know of the run before.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::events) struct EarlierRun {
    /// When it ended in order; `None` when it did not, or this is no start.
    pub(in crate::events) stopped: Option<UnixMillis>,
    /// What may have become of a read that was under way at its end.
    pub(in crate::events) doubt: Option<Loss>,
}

/// Reads until `stop`.
pub(in crate::events) async fn run(target: Arc<PollTarget>, earlier: EarlierRun, stop: CancellationToken) {
    // Dropped in a stop: the note stays where it is.
    target.recall(earlier.stopped).await;
    if stop.run_until_cancelled(target.recall_outage()).await.is_none() {
        target.leave().await;
        return target.status.enter("stopped");
    }
    if let Some(loss) = earlier.doubt {
        target.mark(loss).await;
    }
    let mut pace = Pace::new(target.clock.now(), Phase::of(&target.to_string()));
    let mut full_reads = 0;
    loop {
        let Some(place) = stop.run_until_cancelled(ready(&target, &pace)).await else { break };
        if place.waited {
            full_reads = 0;
        }
        target.status.enter("reading");
        let began = target.clock.now();
        let Some(read) = in_flight::read(&target, place.permit).await else { break };
        full_reads = if read.is_full() { full_reads + 1 } else { 0 };
        if full_reads == 2 {
            // 2000 events were there, as many as the vendor keeps. (A longer row is no new sign: the queue was
            // emptied.)
            target.mark(Loss::Overflow).await;
        }
        pace.note(&read, began, target.clock.now(), target.settings());
    }
    target.leave().await;
    target.status.enter("stopped");
}

/// The right to send a read.
struct Ready {
    permit: OwnedSemaphorePermit,
    /// Whether this took more than resting.
    waited: bool,
}

/// Rests, then waits until the store can keep a batch and not too many reads are under way.
async fn ready(target: &PollTarget, pace: &Pace) -> Ready {
    target.status.enter("waiting");
    rest(target, pace).await;
    let began = target.clock.now();
    // Before the store is asked: this may take as long as six requests time out, and the store's word would be old.
    let permit = target.place_for_a_read().await;
    let mut backoff = Backoff::new(Duration::from_millis(250), STORE_CHECKED_EVERY);
    while let Err(error) = target.store().ready().await {
        target.status.pause(&error, target.clock.wall_ms());
        tokio::time::sleep(backoff.next_wait()).await;
    }
    target.status.resume();
    Ready { permit, waited: target.clock.now() - began > Duration::from_millis(100) }
}

/// Sleeps until the next read is due. Changed settings count at once.
async fn rest(target: &PollTarget, pace: &Pace) {
    let mut changes = target.changes();
    loop {
        changes.mark_unchanged();
        let due = pace.due(target.settings());
        if tokio::time::timeout_at(due, changes.changed()).await.is_err() {
            return;
        }
    }
}

/// How often a store that is not ready is asked again, at least.
const STORE_CHECKED_EVERY: Duration = Duration::from_secs(5);
