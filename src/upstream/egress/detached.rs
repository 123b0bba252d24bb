//! Exchanges that nobody waits for any more.
//!
//! Invariants: an exchange that was sent ends by its answer, by its own end, or after its time; never because its
//! caller left. One that was not sent yet ends with its caller, and its seat is free at once. Their number is bounded
//! by the seats they hold, and by [`MAX_DETACHED`]: one that leaves when so many wait is dropped, and its seat stays
//! taken as long as it could have lasted, because the vendor may still count it. On a stop they are waited for; what
//! the grace cuts off is dropped so, too.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::Response;
use hyper::body::Incoming;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::kernel::task::{Kind, Tasks};
use crate::upstream::pool::{Exchange, Fault};

/// Most exchanges without a caller.
const MAX_DETACHED: usize = 4096;

/// Hands exchanges to the task that waits for them.
pub(super) struct DetachedExchanges {
    /// Not bounded by itself: each that is sent holds one of `permits`.
    sender: UnboundedSender<DetachedExchange>,
    permits: Arc<Semaphore>,
}

struct DetachedExchange {
    exchange: Box<Exchange>,
    _permit: OwnedSemaphorePermit,
}

/// An exchange its caller waits for. Dropped before the answer came, it lingers, if it was sent.
pub(super) struct Flight<'a> {
    exchange: Option<Box<Exchange>>,
    detached: &'a DetachedExchanges,
}

/// What came of waiting for a head.
pub(super) enum Head {
    /// The exchange has its end.
    Came(Result<Response<Incoming>, Fault>),
    /// It did not come in time.
    Late {
        /// Whether the request may have left.
        sent: bool,
    },
}

impl DetachedExchanges {
    pub(super) fn start(tasks: &Tasks) -> Self {
        let (sender, receiver) = unbounded_channel();
        let stop = tasks.stopping();
        tasks.spawn(Kind::Linger, wait(receiver, stop));
        Self { sender, permits: Arc::new(Semaphore::new(MAX_DETACHED)) }
    }

    /// How many nobody waits for.
    pub(super) fn waiting(&self) -> usize {
        MAX_DETACHED - self.permits.available_permits()
    }

    /// Watches over an exchange, which is given up when it says so at the latest.
    pub(super) fn watch(&self, exchange: Exchange) -> Flight<'_> {
        Flight { exchange: Some(Box::new(exchange)), detached: self }
    }
}

impl Flight<'_> {
    /// Waits for the head of the answer: until `limit`, and no longer than `first_byte` after there was a connection.
    /// What has been sent by then lingers; what has not ends.
    pub(super) async fn head(&mut self, limit: Instant, first_byte: Duration) -> Head {
        let limit = self.exchange.as_ref().map_or(limit, |exchange| limit.min(exchange.until()));
        let timer = tokio::time::sleep_until(limit);
        tokio::pin!(timer);
        let head = std::future::poll_fn(|cx| {
            let Some(exchange) = self.exchange.as_mut() else { return Poll::Ready(None) };
            if let Poll::Ready(head) = Pin::new(&mut *exchange).poll(cx) {
                return Poll::Ready(Some(head));
            }
            let first = exchange.connected().and_then(|at| at.checked_add(first_byte));
            let until = first.map_or(limit, |first| first.min(limit));
            if timer.deadline() != until {
                timer.as_mut().reset(until);
            }
            timer.as_mut().poll(cx).map(|()| None)
        });
        match head.await {
            Some(head) => {
                self.exchange = None;
                Head::Came(head)
            }
            None => Head::Late { sent: self.exchange.as_ref().is_some_and(|e| e.connected().is_some()) },
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        // What has not left ends here and costs no seat; what has may be counted by the vendor until its answer comes.
        if let Some(exchange) = self.exchange.take().and_then(|exchange| exchange.unless_sent())
            && let Ok(permits) = self.detached.permits.clone().try_acquire_owned()
        {
            // The task is gone only when the gateway has stopped: then the exchange is dropped here, as it would be
            // there.
            let _ = self.detached.sender.send(DetachedExchange { exchange, _permit: permits });
        }
    }
}

async fn wait(mut arrivals: UnboundedReceiver<DetachedExchange>, stop: CancellationToken) {
    let mut waiting = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            arrival = arrivals.recv() => match arrival {
                // An answer's body is of no use to anyone: the exchange settled its seat, dropping it ends the rest.
                Some(DetachedExchange { exchange, _permit: permits }) => waiting.push(async move {
                    let ended = timeout_at(exchange.until(), exchange).await;
                    drop(permits);
                    ended
                }),
                None => break,
            },
            Some(ended) = waiting.next() => if ended.is_err() {
                tracing::debug!("an exchange without a caller was given up");
            },
            // Those who could leave more behind have ended before.
            () = stop.cancelled(), if waiting.is_empty() => return,
        }
    }
    while waiting.next().await.is_some() {}
}
