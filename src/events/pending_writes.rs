//! [`PendingWrites`]: what was read and not yet stored when a task was dropped, for one last try before the store closes.
//!
//! Invariants: what was taken from the vendor is in exactly one place: with the task that insists on storing it, in
//! the store, or here. An append that was cut short may have reached the store; the log's writer knows of it, and does
//! not store it again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::lock;
use super::log::Log;
use super::writer::Brought;
use crate::store::Error;

/// What dropped tasks left.
#[derive(Default)]
pub(super) struct PendingWrites(Mutex<VecDeque<(Arc<Log>, Arc<Brought>)>>);

impl PendingWrites {
    pub(super) fn add(&self, log: &Arc<Log>, brought: Arc<Brought>) {
        lock(&self.0).push_back((Arc::clone(log), brought));
    }

    /// Stores them.
    ///
    /// # Errors
    /// At the first that cannot be stored; it stays here, with those after it.
    pub(super) async fn flush(&self) -> Result<(), Error> {
        loop {
            let Some((log, brought)) = lock(&self.0).front().cloned() else { return Ok(()) };
            log.keep(&brought).await?;
            lock(&self.0).pop_front();
        }
    }
}
