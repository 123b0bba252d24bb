//! The futures of one connection's HTTP/2 streams: where hyper puts them, and when one is cut.
//!
//! Invariants: they are polled by the connection's own task, so that dropping it drops all of them. A stream whose
//! answer its caller does not take, because its window stays shut, ends when our [`MinDataRate`] with it is over: it is
//! dropped, which resets it (RST_STREAM) and gives its events back; the connection's other streams go on.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::Executor;

use super::min_data_rate::MinDataRate;
use crate::http::body::Meter;
use crate::kernel::sync::lock;

type BoxedFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where hyper puts the futures of streams. Cheap to clone.
#[derive(Clone)]
pub(super) struct StreamExecutor {
    write_timeout: Duration,
    new: Arc<Mutex<Vec<Http2Stream>>>,
    answered: Arc<Mutex<Option<Meter>>>,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, work: F) {
        let patience = MinDataRate::new(self.write_timeout);
        let answered = self.answered.clone();
        let stream = Http2Stream { work: Box::pin(work), answered, meter: None, seen: 0, patience };
        lock(&self.new).push(stream);
    }
}

impl StreamExecutor {
    pub(super) fn new(write_timeout: Duration) -> Self {
        Self { write_timeout, new: Arc::default(), answered: Arc::default() }
    }

    /// Those that came since it was last asked.
    pub(super) fn take(&self) -> Vec<Http2Stream> {
        std::mem::take(&mut lock(&self.new))
    }

    /// The stream that is being polled has its answer. Streams are polled one after another, so it is clear which.
    pub(super) fn answered(&self, meter: Meter) {
        *lock(&self.answered) = Some(meter);
    }
}

/// One stream: its handler, then its answer.
pub(super) struct Http2Stream {
    work: BoxedFuture,
    answered: Arc<Mutex<Option<Meter>>>,
    /// Once it has an answer.
    meter: Option<Meter>,
    /// Bytes of the answer taken when last looked.
    seen: u64,
    patience: MinDataRate,
}

impl Future for Http2Stream {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.work.as_mut().poll(cx).is_ready() {
            lock(&this.answered).take();
            return Poll::Ready(());
        }
        if this.meter.is_none() {
            this.meter = lock(&this.answered).take();
        }
        // Before there is an answer it is not the caller who is waited for. After, it is, unless it took all that was
        // made.
        let Some(meter) = &this.meter else { return Poll::Pending };
        if meter.is_idle() {
            this.seen = meter.taken();
            this.patience.took_all();
            return Poll::Pending;
        }
        let taken = meter.taken();
        if taken > this.seen {
            this.patience.took(taken - this.seen);
            this.seen = taken;
        }
        ready!(this.patience.poll_over(cx));
        tracing::debug!(taken, "a caller does not take its answer: stream reset");
        Poll::Ready(())
    }
}
