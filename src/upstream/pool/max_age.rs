//! Connections that grow old are left, so that a change in the DNS is followed by those in constant use too.
//!
//! Invariants: an old connection is only taken out of the pool, after an answer has begun to come through it; it is
//! never cut, so no exchange is put in doubt. (Idle ones are closed by the pool long before.) The name is looked up
//! anew for each new connection.

use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{CaptureConnection, Connected, Connection};
use tokio::time::Instant;

/// A connection is used no longer than this, a tenth more or less.
pub(super) const MAX_AGE: Duration = Duration::from_secs(300);

/// When a connection is too old.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until(Instant);

impl Until {
    /// Takes an exchange's connection out of the pool if it is too old by now. Says whether it did.
    pub(super) fn leave_if_over(self, connection: &CaptureConnection, now: Instant) -> bool {
        let is_over = now >= self.0;
        if is_over && let Some(connected) = &*connection.connection_metadata() {
            connected.poison();
        }
        is_over
    }
}

/// A connection with an end.
pub(super) struct AgingStream<S> {
    stream: S,
    until: Until,
}

impl<S> AgingStream<S> {
    /// One that was made now. Many made at a time do not all end at a time.
    pub(super) fn new(stream: S, now: Instant, max_age: Duration) -> Self {
        Self { stream, until: Until(now + max_age.mul_f64(rand::random_range(0.9..=1.1))) }
    }
}

impl<S: Connection> Connection for AgingStream<S> {
    fn connected(&self) -> Connected {
        self.stream.connected().extra(self.until)
    }
}

impl<S: Read + Unpin> Read for AgingStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<Result<(), std::io::Error>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: Write + Unpin> Write for AgingStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize, std::io::Error>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize, std::io::Error>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}
