//! [`CursorWriter`]: writes what has changed of subscriptions to the store, off the readers' path.
//!
//! Invariants: a hand-over never waits for a write. A subscription that changes is listed once; a round writes the
//! latest of all that are listed, of whatever logs, in one step, so that it costs the syncs of one commit whatever
//! their number. What a filter passed over is given to nobody, so to pass over it once more after a kill is not seen:
//! it waits longer. What could not be written stays listed and is tried again. A stop writes all once more, after the
//! last hand-over and before the store is closed.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Subscription;
use super::persistence::PendingSave;
use crate::kernel::sync::lock;
use crate::store::{Commit, Error, LogKey, Store};

/// The list of cursors to write. Cheap to clone.
#[derive(Clone)]
pub(in crate::events) struct CursorWriter(Arc<WriteQueue>);

struct WriteQueue {
    store: Arc<dyn Store>,
    /// Weak, since subscriptions know their saver: logs own them.
    listed: Mutex<Vec<Weak<Subscription>>>,
    wake: Notify,
    later: Mutex<DeferredWrites>,
    wake_later: Notify,
}

/// Subscriptions that may wait.
#[derive(Default)]
struct DeferredWrites {
    listed: Vec<Weak<Subscription>>,
    /// When the first of them is to be written.
    due: Option<Instant>,
}

impl CursorWriter {
    pub(in crate::events) fn new(store: Arc<dyn Store>) -> Self {
        let (listed, later) = (Mutex::default(), Mutex::default());
        Self(Arc::new(WriteQueue { store, listed, wake: Notify::new(), later, wake_later: Notify::new() }))
    }

    /// The subscription's cursor has moved.
    pub(in crate::events) fn list(&self, subscription: &Arc<Subscription>) {
        if !subscription.listed.swap(true, Ordering::AcqRel) {
            lock(&self.0.listed).push(Arc::downgrade(subscription));
            self.0.wake.notify_one();
        }
    }

    /// The subscription's cursor has moved past what nobody was given.
    pub(in crate::events) fn list_for_later(&self, subscription: &Arc<Subscription>, now: Instant) {
        // It is written with what cannot wait, if there is any.
        if subscription.listed.load(Ordering::Acquire) || subscription.listed_for_later.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut later = lock(&self.0.later);
        later.listed.push(Arc::downgrade(subscription));
        if later.due.is_none() {
            later.due = Some(now + PASSED_OVER);
            self.0.wake_later.notify_one();
        }
    }

    /// Writes round after round until stopped: the first at once, the next not sooner than [`BETWEEN_ROUNDS`]. A round
    /// that has begun is finished.
    pub(in crate::events) async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(self.next()).await.is_some() {
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

    /// Waits until there is something to write.
    async fn next(&self) {
        loop {
            let due = lock(&self.0.later).due;
            let is_due = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.0.wake.notified() => return,
                () = self.0.wake_later.notified() => {}
                () = is_due => {
                    let DeferredWrites { listed, .. } = std::mem::take(&mut *lock(&self.0.later));
                    for subscription in listed.iter().filter_map(Weak::upgrade) {
                        subscription.listed_for_later.store(false, Ordering::Release);
                        self.list(&subscription);
                    }
                }
            }
        }
    }

    /// Writes what has changed of these subscriptions.
    ///
    /// # Errors
    /// The first failure, when not all could be written.
    pub(in crate::events) async fn save(&self, subscriptions: &[Arc<Subscription>]) -> Result<(), Error> {
        let (busy, mut saved) = self.save_together(subscriptions).await;
        for subscription in busy {
            // What was being written may be older than what is to be.
            saved = saved.and(subscription.save(&*self.0.store).await);
        }
        saved
    }

    async fn round(&self) -> Result<(), Error> {
        let listed = std::mem::take(&mut *lock(&self.0.listed));
        let listed: Vec<_> = listed.iter().filter_map(Weak::upgrade).collect();
        let (busy, saved) = self.save_together(&listed).await;
        // Somebody writes them now; what has moved meanwhile is for the next round.
        busy.into_iter().for_each(|subscription| self.list(subscription));
        saved
    }

    /// Writes what has changed of those that nobody else writes now. Gives the others.
    async fn save_together<'s>(
        &self,
        subscriptions: &'s [Arc<Subscription>],
    ) -> (Vec<&'s Arc<Subscription>>, Result<(), Error>) {
        let (mut busy, mut saved) = (Vec::new(), Ok(()));
        for some in subscriptions.chunks(AT_ONCE) {
            let (mut savings, mut changes) = (Vec::new(), BTreeMap::<LogKey, Commit>::new());
            for subscription in some {
                // Taken off before its place is read: a move during the write lists it again.
                subscription.listed.store(false, Ordering::Release);
                match PendingSave::begin_now(subscription) {
                    Some(Some((saving, more))) => {
                        savings.push(saving);
                        changes.entry(subscription.log().clone()).or_default().places.extend(more);
                    }
                    Some(None) => {}
                    None => busy.push(subscription),
                }
            }
            if changes.is_empty() {
                continue;
            }
            match self.0.store.commit_all(changes.into_iter().collect()).await {
                Ok(_) => savings.into_iter().for_each(PendingSave::done),
                // They list themselves again.
                Err(why) => saved = saved.and(Err(why)),
            }
        }
        (busy, saved)
    }
}

/// How long what needs no answer waits to be written with others: so much at most is given again after `kill -9`.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(250);

/// How long what a filter passed over waits.
const PASSED_OVER: Duration = Duration::from_secs(5);

const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Subscriptions that are written in one step, at most.
const AT_ONCE: usize = 16 * 1024;
