//! [`Groups`]: the tasks of a gateway by when they stop, and the stop itself.
//!
//! Invariants: accept no more and answer what waits; finish reads in flight and store them; wait for requests to the
//! vendor that nobody else waits for; save cursors; close the store; and the operator's port last. All of it within the
//! grace, but for what must be stored. A stop that left something unstored is not recorded as a clean one.
//! Every few seconds it says what it waits for, and at the end of the grace what it cuts off.

mod in_hand;

use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::kernel::sync::lock;
use crate::kernel::task::Tasks;
use crate::services::Parts;
use crate::store;

use in_hand::InHand;

/// How long the operator's port and the store get to end after everything else has.
const LAST_GRACE: Duration = Duration::from_secs(5);
/// How long the store gets to take what must be stored, at least. A disk that is only slow is waited for.
const CLOSING: Duration = Duration::from_secs(30);
/// What reads of events under way get when the stop is hurried. What is not answered by then is marked in its stream.
const HURRIED_READS: Duration = Duration::from_secs(1);

/// How often a stop says what it waits for.
const TOLD_EVERY: Duration = Duration::from_secs(3);

/// Tasks by when they stop.
#[derive(Clone, Default)]
pub(super) struct Groups {
    /// Listeners and connections of callers.
    pub(super) front: Tasks,
    /// Pollers, retention, the saving of cursors.
    pub(super) events: Tasks,
    pub(super) webhooks: Tasks,
    /// What callers' requests and pollers still need while they end: resolvers.
    pub(super) work: Tasks,
    /// Exchanges with the vendor whose callers have left.
    pub(super) exchanges: Tasks,
    pub(super) store: Tasks,
    /// The operator's port, on threads of its own: probes are answered while all others are busy.
    pub(super) admin: Tasks,
}

impl Groups {
    /// Resolves when a vital task of any group has panicked.
    pub(super) async fn failed(&self) {
        tokio::select! {
            () = self.front.failed().cancelled_owned() => {}
            () = self.events.failed().cancelled_owned() => {}
            () = self.webhooks.failed().cancelled_owned() => {}
            () = self.work.failed().cancelled_owned() => {}
            () = self.exchanges.failed().cancelled_owned() => {}
            () = self.store.failed().cancelled_owned() => {}
            () = self.admin.failed().cancelled_owned() => {}
        }
    }

    fn has_failed(&self) -> bool {
        [&self.front, &self.events, &self.webhooks, &self.work, &self.exchanges, &self.store, &self.admin]
            .iter()
            .any(|group| group.failed().is_cancelled())
    }

    /// Stops everything in order. Says whether all could be stored.
    pub(super) async fn drain(&self, parts: &Parts, failed: bool, hurried: &CancellationToken) -> bool {
        let grace = parts.config.load().server.shutdown_grace;
        let until = Instant::now() + grace;
        tracing::info!(grace_seconds = grace.as_secs(), "draining");
        parts.draining.cancel();
        // What was in hand when the first of them was cut short.
        let cut: Mutex<Option<InHand>> = Mutex::default();
        let (cut, in_hand) = (&cut, || InHand::of(parts));
        let over = |last: Duration| async move {
            let cut_short = async { (hurried.cancelled().await, tokio::time::sleep(last).await) };
            let _ = tokio::time::timeout(grace, cut_short).await;
            lock(cut).get_or_insert_with(in_hand);
        };
        // Both at once: a reader that waits for events is answered while the pollers store their last reads.
        let ended = async {
            tokio::join!(
                self.front.finish_until(over(Duration::ZERO)),
                self.events.finish_until(over(HURRIED_READS)),
                self.webhooks.finish_until(over(Duration::ZERO)),
            )
        };
        let (connections, pollers, webhooks) = told(parts, until, ended).await;
        if connections + pollers + webhooks > 0 {
            lock(cut).get_or_insert_with(in_hand).tell_cut(connections, pollers, webhooks);
        }
        self.work.finish(Duration::ZERO).await;
        // What was sent goes on to its end while there is time. What is cut off is noted for the next run.
        let enough = async { drop(tokio::time::timeout_at(until, hurried.cancelled()).await) };
        told(parts, until, self.exchanges.finish_until(enough)).await;
        // A stop that left something unstored is not recorded as a clean one: the next start marks the doubt.
        let closing = async {
            match parts.events.flush().await {
                // A task that panicked may have lost what it held.
                Ok(()) if failed || self.has_failed() => Err(store::Error::Closed),
                Ok(()) => close(parts).await,
                Err(why) => Err(why),
            }
        };
        // A disk that hangs keeps no process.
        let last = until.max(Instant::now() + CLOSING);
        let closed = tokio::time::timeout_at(last, closing).await;
        let closed = closed.unwrap_or_else(|_| Err(store::Error::Io("it does not answer".to_owned())));
        let is_clean = closed.is_ok();
        if let Err(why) = closed {
            tracing::error!(%why, "not everything could be stored; this is no clean stop");
        }
        // A store that was not closed has a writer that waits for more: there is nothing to wait for.
        let left = until.saturating_duration_since(Instant::now()).max(LAST_GRACE);
        self.store.finish(if is_clean { left } else { Duration::ZERO }).await;
        self.admin.finish(Duration::ZERO).await;
        tracing::info!("stopped");
        is_clean
    }
}

/// Waits, and says every few seconds for what.
async fn told<T>(parts: &Parts, until: Instant, ended: impl Future<Output = T>) -> T {
    let mut ended = std::pin::pin!(ended);
    loop {
        match tokio::time::timeout(TOLD_EVERY, ended.as_mut()).await {
            Ok(ended) => return ended,
            Err(_) => InHand::of(parts).tell(until.saturating_duration_since(Instant::now())),
        }
    }
}

/// Records a clean stop.
async fn close(parts: &Parts) -> Result<(), store::Error> {
    parts.egress.note_stop(&*parts.store).await?;
    parts.store.close(parts.clock.wall_ms()).await
}
