//! [`ReorderTask`]: moves what waits in the reorder buffer into the log when its turn has come.
//!
//! Invariants: one task for each log that has ever had an `order_window`; it holds the log's pipeline while it moves. A
//! move that fails is tried again until it succeeds: the store is as it was, and pollers do not read meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::appender::{Appender, STORE_RETRY};
use crate::kernel::task::{Kind, Tasks};

/// The task of one appender.
#[derive(Default)]
pub(super) struct ReorderTask {
    is_started: AtomicBool,
    /// Something waits that did not.
    comes: Notify,
}

impl ReorderTask {
    /// Starts the task, if it does not run yet.
    pub(super) fn start(&self, appender: &Arc<Appender>, tasks: &Tasks) {
        if !self.is_started.swap(true, Ordering::AcqRel) {
            tasks.spawn(Kind::ReorderTask, run(Arc::clone(appender), tasks.stopping()));
        }
    }

    /// More waits than before.
    pub(super) fn wake(&self) {
        self.comes.notify_one();
    }
}

async fn run(appender: Arc<Appender>, stop: CancellationToken) {
    let mut backoff = STORE_RETRY;
    loop {
        let due = match appender.move_due().await {
            Ok(due) => {
                backoff.reset();
                due
            }
            Err(error) => {
                let key = appender.log().key();
                tracing::warn!(app = %key.app, stream = %key.stream, %error, "events whose turn has come could not be stored yet");
                Some(appender.clock().now() + backoff.next_wait())
            }
        };
        let is_due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = is_due => {}
            // Nothing that comes is due before what waits; but the window may have been made shorter.
            () = appender.reorder_task().comes.notified() => {}
        }
    }
}
