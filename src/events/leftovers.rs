//! [`Leftovers`]: what was read and not yet stored when a task was dropped, for one last try before the store closes.
//!
//! Invariants: an [`Entry`] taken from the vendor is in exactly one place: with the task that insists on storing it, in
//! the store, or here. An append that was cut short may have reached the store; so before an entry from here is appended,
//! the log is compared with the store.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::lock;
use super::log::{Appended, Log};
use crate::store::{Error, NewBatch, Quarantined};

/// One thing to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// An answer for the quarantine.
    Unreadable(Quarantined),
    /// Events or a marker.
    Batch(NewBatch),
}

impl Entry {
    /// Stores it.
    pub(super) async fn store(&self, log: &Log) -> Result<Appended, Error> {
        match self {
            Self::Unreadable(answer) => {
                log.store.quarantine(&log.key, answer.clone()).await?;
                Ok(Appended::default())
            }
            Self::Batch(batch) => log.append(batch).await,
        }
    }
}

/// What dropped tasks left.
#[derive(Default)]
pub(super) struct Leftovers(Mutex<VecDeque<(Arc<Log>, Entry)>>);

impl Leftovers {
    pub(super) fn add(&self, log: &Arc<Log>, entry: Entry) {
        lock(&self.0).push_back((Arc::clone(log), entry));
    }

    /// Stores them.
    ///
    /// # Errors
    /// At the first that cannot be stored; it stays here, with those after it.
    pub(super) async fn flush(&self) -> Result<(), Error> {
        loop {
            let Some((log, entry)) = lock(&self.0).front().cloned() else { return Ok(()) };
            let unseen = log.catch_up().await?;
            let is_stored = |new: &NewBatch| unseen.contains(&(new.received_at, new.region.clone()));
            if !matches!(&entry, Entry::Batch(new) if is_stored(new)) {
                entry.store(&log).await?;
            }
            lock(&self.0).pop_front();
        }
    }
}
