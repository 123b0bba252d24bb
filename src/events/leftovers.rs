//! [`Leftovers`]: what was read and not yet stored when a task was dropped, for one last try before the store closes.
//!
//! Invariants: what was taken from the vendor is in exactly one place: with the task that insists on storing it, in
//! the store, or here. An append that was cut short may have reached the store; so before one from here is made,
//! the log is compared with the store.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::lock;
use super::log::{Brought, Log};
use crate::store::{Error, NewBatch};

/// What dropped tasks left.
#[derive(Default)]
pub(super) struct Leftovers(Mutex<VecDeque<(Arc<Log>, Brought)>>);

impl Leftovers {
    pub(super) fn add(&self, log: &Arc<Log>, brought: Brought) {
        lock(&self.0).push_back((Arc::clone(log), brought));
    }

    /// Stores them.
    ///
    /// # Errors
    /// At the first that cannot be stored; it stays here, with those after it.
    pub(super) async fn flush(&self) -> Result<(), Error> {
        loop {
            let Some((log, brought)) = lock(&self.0).front().cloned() else { return Ok(()) };
            let unseen = log.catch_up().await?;
            // One step stored all of it, or nothing.
            let is_stored = |new: &NewBatch| unseen.contains(&(new.received_at, new.region.clone()));
            if !brought.batches.iter().any(is_stored) {
                log.keep(&brought).await?;
            }
            lock(&self.0).pop_front();
        }
    }
}
