//! A [`LeasedReader`]: what one caller reads of a stream and acknowledges one by one or by lease, batch by batch.
//!
//! Invariant: its caller has at most `limit` events that it has not settled: the next batch is leased when one before
//! it is over. What was not acknowledged comes again by itself.

use std::time::Duration;

use futures_util::future::select_all;
use tokio_util::sync::CancellationToken;

use super::{Delivery, ReadRequest};
use crate::events::log::ReadError;
use crate::events::{Events, Leased};
use crate::kernel::names::{AppId, Stream};

/// What one caller has under leases, and may have yet.
pub(crate) struct LeasedReader {
    events: Events,
    app: AppId,
    stream: Stream,
    /// What each read asks; its limit is the most events that are out at a time.
    request: ReadRequest,
    /// What was read and not yet given.
    next: Option<Delivery>,
    /// What is out, and how many events of each.
    out: Vec<Leased>,
    /// Cancelled when the gateway stops: then nothing waits any more.
    stopping: CancellationToken,
}

impl LeasedReader {
    /// Reads by these requests until it is to stop.
    pub(crate) fn new(
        events: Events,
        app: AppId,
        stream: Stream,
        request: ReadRequest,
        stopping: CancellationToken,
    ) -> Self {
        Self { events, app, stream, request, next: None, out: Vec::new(), stopping }
    }

    pub(crate) fn stream(&self) -> Stream {
        self.stream
    }

    /// Whether there is something to give.
    pub(crate) fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// Waits until there is something to give or room for more; at most so long. Also ends when it is to stop.
    pub(crate) async fn has_room(&mut self, patience: Duration) -> bool {
        let late = tokio::time::sleep(patience);
        tokio::pin!(late);
        while self.next.is_none() && self.room() == 0 {
            // Any of them makes room: by its reader's word, which comes on another connection, or by its time.
            let over = select_all(self.out.iter().map(|leased| Box::pin(leased.over())));
            tokio::select! {
                _ = over => {}
                () = &mut late => return false,
                () = self.stopping.cancelled() => return true,
            }
        }
        true
    }

    /// Leases what there is room for; waits for something. Leaves off at the deadline, and when it is to stop.
    pub(crate) async fn fill(&mut self, wait: Duration) -> Result<(), ReadError> {
        let read = ReadRequest { limit: self.room(), wait, ..self.request.clone() };
        let delivery = tokio::select! {
            delivery = self.events.read_in_stream(&self.app, self.stream, read, None) => delivery?,
            () = self.stopping.cancelled() => return Ok(()),
        };
        self.next = delivery.leased.is_some().then_some(delivery);
        Ok(())
    }

    /// What is next, which is out from now on.
    pub(crate) fn give(&mut self) -> Option<(Delivery, &Leased)> {
        let mut delivery = self.next.take()?;
        self.out.push(delivery.leased.take()?);
        Some((delivery, self.out.last()?))
    }

    /// How many events more may be out.
    fn room(&mut self) -> usize {
        self.out.retain(|leased| !leased.is_over());
        let out: usize = self.out.iter().map(|leased| leased.attempts.len()).sum();
        self.request.limit.saturating_sub(out)
    }
}
