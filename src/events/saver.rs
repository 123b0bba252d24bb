//! [`Saver`]: writes subscriptions' cursors to the store, off the readers' path.
//!
//! Invariants: a hand-over never waits for a write. A cursor that moves is listed once; a round writes the latest place
//! of all that are listed, together, so that they share a sync. What could not be written stays listed and is tried
//! again. A stop writes all once more, after the last hand-over and before the store is closed.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::lock;
use super::subscription::Subscription;
use crate::store::{Error, Store};

/// The list of cursors to write. Cheap to clone.
#[derive(Clone)]
pub(super) struct Saver(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    /// Weak, since subscriptions know their saver: logs own them.
    listed: Mutex<Vec<Weak<Subscription>>>,
    wake: Notify,
}

impl Saver {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self(Arc::new(Inner { store, listed: Mutex::default(), wake: Notify::new() }))
    }

    /// The subscription's cursor has moved.
    pub(super) fn list(&self, subscription: &Arc<Subscription>) {
        if !subscription.listed.swap(true, Ordering::AcqRel) {
            lock(&self.0.listed).push(Arc::downgrade(subscription));
            self.0.wake.notify_one();
        }
    }

    /// Writes round after round until stopped: the first at once, the next not sooner than [`BETWEEN_ROUNDS`]. A round
    /// that has begun is finished.
    pub(super) async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(self.0.wake.notified()).await.is_some() {
            let pause = match self.round().await {
                Ok(()) => BETWEEN_ROUNDS,
                Err(error) => {
                    tracing::warn!(%error, "cursors could not be stored; trying again");
                    self.0.wake.notify_one();
                    AFTER_FAILURE
                }
            };
            let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
    }

    /// Writes the cursors of these subscriptions, as far as they have moved.
    ///
    /// # Errors
    /// The first failure, when not all could be written.
    pub(super) async fn save(&self, subscriptions: &[Arc<Subscription>]) -> Result<(), Error> {
        let saves = subscriptions.iter().map(|subscription| async {
            // Taken off before its place is read: a move during the write lists it again.
            subscription.listed.store(false, Ordering::Release);
            let saved = subscription.save(&*self.0.store).await;
            if saved.is_err() {
                self.list(subscription);
            }
            saved
        });
        join_all(saves).await.into_iter().collect()
    }

    async fn round(&self) -> Result<(), Error> {
        let listed = std::mem::take(&mut *lock(&self.0.listed));
        let listed: Vec<_> = listed.iter().filter_map(Weak::upgrade).collect();
        self.save(&listed).await
    }
}

/// Waits between rounds, so that steady hand-overs do not sync without pause.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(20);

const AFTER_FAILURE: Duration = Duration::from_secs(1);
