//! Moving what waits into the log when its turn has come: see [`reorder_buffer`](super::reorder_buffer) for the rule.
//!
//! Invariants: one task for each log that has ever had an `order_window`; it holds the log's writer while it moves. A move that fails is tried again until it succeeds: the store is as it
//! was, and pollers do not read meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::events::ingest::appender::{Then, Writer};
use crate::events::ingest::reorder_buffer::{BATCHES, MARK, Waiting};
use crate::events::log::Log;
use crate::kernel::task::{Kind, Tasks};
use crate::store::{Error, NoteKind, Together};

/// A log's task that moves.
#[derive(Default)]
pub(in crate::events) struct ReorderTask {
    runs: AtomicBool,
    /// Something waits.
    comes: Notify,
}

impl ReorderTask {
    /// More waits than before.
    pub(in crate::events) fn something_comes(&self) {
        self.comes.notify_one();
    }
}

impl Log {
    /// Turns waiting on (with what waited in an earlier run), changes its window, or turns it off: then all that waits
    /// goes into the log first.
    ///
    /// # Errors
    /// When the store fails; then nothing has changed.
    pub(in crate::events) async fn set_order_window(
        self: &Arc<Self>,
        window: Option<Duration>,
        tasks: &Tasks,
    ) -> Result<(), Error> {
        let mut writer = self.writer().await;
        if writer.waiting.is_none() {
            let (found, is_new) = self.recall(window.unwrap_or_default()).await?;
            // What an earlier run with a window left is to be moved without one, too.
            writer.waiting = (window.is_some() || !is_new).then_some(found);
        }
        let Some(waiting) = &mut writer.waiting else { return Ok(()) };
        let Some(window) = window else {
            waiting.hurry(self.clock.now());
            self.move_due(&mut writer).await?;
            if let Some(notes) = writer.waiting.as_ref().and_then(Waiting::farewell) {
                self.store.keep_notes(&self.key, NoteKind::Waiting, notes).await?;
            }
            writer.waiting = None;
            return Ok(());
        };
        waiting.set_window(window);
        if !self.sequencer.runs.swap(true, Ordering::AcqRel) {
            tasks.spawn(Kind::ReorderTask, Arc::clone(self).keep_order(tasks.stopping()));
        }
        Ok(())
    }

    async fn keep_order(self: Arc<Self>, stop: CancellationToken) {
        let mut pause = FIRST_RETRY;
        loop {
            let due = match self.move_all_due().await {
                Ok(due) => {
                    pause = FIRST_RETRY;
                    due
                }
                Err(error) => {
                    tracing::warn!(app = %self.key.app, stream = %self.key.stream, %error, "events whose turn has come could not be stored yet");
                    let again = self.clock.now() + pause;
                    pause = (pause * 2).min(LAST_RETRY);
                    Some(again)
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
                () = self.sequencer.comes.notified() => {}
            }
        }
    }

    /// Returns when the next is due.
    async fn move_all_due(&self) -> Result<Option<Instant>, Error> {
        let mut writer = self.writer().await;
        self.move_due(&mut writer).await?;
        Ok(writer.waiting.as_ref().and_then(|waiting| waiting.next_due(self.clock.now())))
    }

    async fn move_due(&self, writer: &mut Writer) -> Result<(), Error> {
        let due = |writer: &Writer| writer.waiting.as_ref()?.due(self.range().1, self.clock.now());
        while let Some(mut plan) = due(writer) {
            let (batches, notes) = (std::mem::take(&mut plan.batches), std::mem::take(&mut plan.notes));
            let all = Together { batches, notes: Some((NoteKind::Waiting, notes)), ..Together::default() };
            self.commit(writer, all, Then::moved(plan)).await?;
        }
        Ok(())
    }

    /// What waits by the store, and whether nothing ever did.
    async fn recall(&self, window: Duration) -> Result<(Waiting, bool), Error> {
        let notes = |prefix| self.store.notes(&self.key, NoteKind::Waiting, prefix, "", usize::MAX);
        let (batches, mark) = (notes(BATCHES).await?, notes(MARK).await?);
        let mark: Option<&Bytes> = mark.first().map(|(_, mark)| mark);
        let end = self.store.log_state(&self.key).await?.next.0;
        let is_new = batches.is_empty() && mark.is_none();
        Ok((Waiting::recall(window, &batches, mark, end, self.clock.now()), is_new))
    }
}

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);
