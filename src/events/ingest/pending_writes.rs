//! [`PendingWrites`]: what was read and not yet stored when a task was dropped, for one last try before the store
//! closes.
//!
//! Invariants: what was taken from the vendor is in exactly one place: with the task that insists on storing it, in the
//! store, or here. An append that was cut short may have reached the store; the log's appender knows of it, and does
//! not store it again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::events::app_stream::AppStream;
use crate::events::append::AppendRequest;
use crate::kernel::sync::lock;
use crate::store::Error;

/// What dropped tasks left unstored.
#[derive(Default)]
pub(in crate::events) struct PendingWrites(Mutex<VecDeque<(Arc<AppStream>, Arc<AppendRequest>)>>);

impl PendingWrites {
    pub(in crate::events) fn add(&self, stream: &Arc<AppStream>, request: Arc<AppendRequest>) {
        lock(&self.0).push_back((Arc::clone(stream), request));
    }

    /// Stores them.
    ///
    /// # Errors
    /// At the first that cannot be stored; it stays here, with those after it.
    pub(in crate::events) async fn flush(&self) -> Result<(), Error> {
        loop {
            let Some((stream, request)) = lock(&self.0).front().cloned() else { return Ok(()) };
            stream.append(&request).await?;
            lock(&self.0).pop_front();
        }
    }
}
