//! The poller: reads one stream of one region from the vendor, and keeps what it reads.
//!
//! ```text
//! rest ──> store ready? ──> a place for a read ──> read, until answered or given up ──> (kept) ──> rest
//! ```
//!
//! Invariants:
//! - One read at a time, but for those given up: such a read lives on in its task, and events that still come are kept.
//! - It reads only when the store says that it can keep a batch, and only after the last batch was kept. What was read
//!   and cannot be kept now is held in memory and tried again until it is; meanwhile nothing is read.
//! - A read that was sent is never cancelled, and never sent again. When it ends in doubt a marker is written.
//! - When it is stopped it reads no more; the read in hand is finished and kept.

pub(in crate::events) mod answer;
mod pace;
mod pieces;
pub(in crate::events) mod poll_target;
pub(in crate::events) mod status;
mod under_way;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use self::answer::Outcome;
use self::pace::Pace;
pub(in crate::events) use self::poll_target::{PollTarget, Settings};
use crate::events::log::loss::Loss;

/// Reads until `stop`.
pub(in crate::events) async fn run(feed: Arc<PollTarget>, first: Option<Loss>, stop: CancellationToken) {
    if let Some(loss) = first {
        feed.keep(Outcome { loss: Some(loss), ..Outcome::default() }).await;
    }
    let mut pace = Pace::new(feed.clock.now());
    let mut full_reads = 0;
    loop {
        let Some(place) = stop.run_until_cancelled(ready(&feed, &pace)).await else { break };
        if place.waited {
            full_reads = 0;
        }
        feed.status.enter("reading");
        let began = feed.clock.now();
        let Some(read) = under_way::read(&feed, place.permit).await else { break };
        full_reads = if read.is_full() { full_reads + 1 } else { 0 };
        if full_reads == 2 {
            // 2000 events were there, as many as the vendor keeps. (A longer row is no new sign: the queue was emptied.)
            feed.overflow_suspected().await;
        }
        pace.note(&read, began, feed.clock.now(), feed.settings());
    }
    feed.status.enter("stopped");
}

/// The right to send a read.
struct Ready {
    permit: OwnedSemaphorePermit,
    /// Whether this took more than resting.
    waited: bool,
}

/// Rests, then waits until the store can keep a batch and not too many reads are under way.
async fn ready(feed: &PollTarget, pace: &Pace) -> Ready {
    feed.status.enter(if pace.is_failing() { "failing" } else { "waiting" });
    rest(feed, pace).await;
    let began = feed.clock.now();
    let permit = feed.place_for_a_read().await;
    let mut pause = Duration::from_millis(250);
    while let Err(error) = feed.store().ready().await {
        feed.status.pause(&error);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(STORE_CHECKED_EVERY);
    }
    feed.status.resume();
    Ready { permit, waited: feed.clock.now() - began > Duration::from_millis(100) }
}

/// Sleeps until the next read is due. Changed settings count at once.
async fn rest(feed: &PollTarget, pace: &Pace) {
    let mut changes = feed.changes();
    loop {
        changes.mark_unchanged();
        let due = pace.due(feed.settings());
        if tokio::time::timeout_at(due, changes.changed()).await.is_err() {
            return;
        }
    }
}

/// How often a store that is not ready is asked again, at least.
const STORE_CHECKED_EVERY: Duration = Duration::from_secs(5);
