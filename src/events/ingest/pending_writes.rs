//! [`PendingWrites`]: what was read and not yet stored when a task was dropped, for one last try before the store closes.
//!
//! Invariants: what was taken from the vendor is in exactly one place: with the task that insists on storing it, in
//! the store, or here. An append that was cut short may have reached the store; the log's writer knows of it, and does
//! not store it again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::events::ingest::appender::Brought;
use crate::events::lock;
use crate::events::log::Log;
use crate::store::Error;

/// What dropped tasks left.
#[derive(Default)]
pub(in crate::events) struct PendingWrites(Mutex<VecDeque<(Arc<Log>, Arc<Brought>)>>);

impl PendingWrites {
    pub(in crate::events) fn add(&self, log: &Arc<Log>, brought: Arc<Brought>) {
        lock(&self.0).push_back((Arc::clone(log), brought));
    }

    /// Stores them.
    ///
    /// # Errors
    /// At the first that cannot be stored; it stays here, with those after it.
    pub(in crate::events) async fn flush(&self) -> Result<(), Error> {
        loop {
            let Some((log, brought)) = lock(&self.0).front().cloned() else { return Ok(()) };
            log.keep(&brought).await?;
            lock(&self.0).pop_front();
        }
    }
}
