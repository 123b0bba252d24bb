//! [`Saver`]: writes what has changed of subscriptions to the store, off the readers' path.
//!
//! Invariants: a hand-over never waits for a write. A subscription that changes is listed once; a round writes the latest
//! of all that are listed, those of one log in one step, so that it costs a sync whatever their number. What could not
//! be written stays listed and is tried again. A stop writes all once more, after the last hand-over and before the store
//! is closed.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::lock;
use super::subscription::{Saving, Subscription};
use crate::store::{Error, LogKey, Store};

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

    /// Writes what has changed of these subscriptions.
    ///
    /// # Errors
    /// The first failure, when not all could be written.
    pub(super) async fn save(&self, subscriptions: &[Arc<Subscription>]) -> Result<(), Error> {
        let saves = subscriptions.iter().map(|subscription| {
            // Taken off before its place is read: a move during the write lists it again.
            subscription.listed.store(false, Ordering::Release);
            subscription.save(&*self.0.store)
        });
        join_all(saves).await.into_iter().collect()
    }

    async fn round(&self) -> Result<(), Error> {
        let listed = std::mem::take(&mut *lock(&self.0.listed));
        let mut logs: BTreeMap<LogKey, Vec<Arc<Subscription>>> = BTreeMap::new();
        for subscription in listed.iter().filter_map(Weak::upgrade) {
            logs.entry(subscription.log().clone()).or_default().push(subscription);
        }
        let together = logs.iter().map(|(log, subscriptions)| self.save_together(log, subscriptions));
        join_all(together).await.into_iter().collect()
    }

    async fn save_together(&self, log: &LogKey, subscriptions: &[Arc<Subscription>]) -> Result<(), Error> {
        let mut saved = Ok(());
        for some in subscriptions.chunks(AT_ONCE) {
            let (mut savings, mut changes) = (Vec::new(), Vec::new());
            for subscription in some {
                subscription.listed.store(false, Ordering::Release);
                match subscription.saving_now() {
                    Some(Some((saving, more))) => {
                        savings.push(saving);
                        changes.extend(more);
                    }
                    Some(None) => {}
                    // Somebody writes it now; what has moved meanwhile is for the next round.
                    None => self.list(subscription),
                }
            }
            let one = if changes.is_empty() { Ok(()) } else { self.0.store.change_places(log, changes).await };
            match one {
                Ok(()) => savings.into_iter().for_each(Saving::done),
                // They list themselves again.
                Err(why) => saved = Err(why),
            }
        }
        saved
    }
}

/// How long what needs no answer waits to be written with others: so much at most is given again after `kill -9`.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(250);

const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Subscriptions that are written in one step, at most.
const AT_ONCE: usize = 1024;
