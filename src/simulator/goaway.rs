//! HTTP/2's GOAWAY, written beside the library: it says of requests that did come that they were not processed, which
//! the library's own never does.
//!
//! Invariants: a frame is written only between two of the library's, when all it has written is flushed. What is turned
//! away is neither counted nor answered; what came before it on the connection is. Then the client ends the connection:
//! an end of the server's own could overtake what it has said. A request's stream is known by its number, which holds
//! as long as the library has refused none for being too many: that is a violation, and told as such.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::conn::Conn;
use super::lock;
use super::streams::OpenStreams;

/// The stream of a connection's `number`th request (from 1): a client's streams are odd and rise.
fn stream_of(number: u32) -> u32 {
    number.saturating_mul(2).saturating_sub(1)
}

/// GOAWAY: the streams after that of the `last` request are not processed. No error.
fn frame(last: u32) -> [u8; 17] {
    const HEAD: [u8; 9] = [0, 0, 8, 7, 0, 0, 0, 0, 0];
    let mut frame = [0; 17];
    frame[..9].copy_from_slice(&HEAD);
    frame[9..13].copy_from_slice(&stream_of(last).to_be_bytes());
    frame
}

/// A connection's bytes, shared by the library and whoever writes beside it.
pub(super) struct GoAwayStream<S>(Arc<Mutex<GoAwayStreamState<S>>>);

struct GoAwayStreamState<S> {
    io: S,
    between_frames: bool,
    waits: Option<Waker>,
    streams: OpenStreams,
}

impl<S> Clone for GoAwayStream<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> GoAwayStream<S> {
    pub(super) fn new(io: S, streams: OpenStreams) -> Self {
        Self(Arc::new(Mutex::new(GoAwayStreamState { io, between_frames: false, waits: None, streams })))
    }

    /// Tells the client each time that more of its requests are turned away. Ends when it cannot be told.
    pub(super) async fn turn_away(&self, conn: &Conn) {
        let mut told = None;
        loop {
            let last = conn.last_processed();
            if last != told
                && let Some(last) = last
            {
                if self.write(&frame(last)).await.is_err() {
                    return;
                }
                // Only now that it was flushed: a client that has not been told may still count on those streams.
                lock(&self.0).streams.went_away(stream_of(last));
                told = Some(last);
            } else {
                conn.turning.notified().await;
            }
        }
    }

    async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut written = 0;
        std::future::poll_fn(|cx| {
            let mut inner = lock(&self.0);
            // Within a frame of the library's these bytes would be taken for its payload (RFC 9113 section 4.1).
            if !inner.between_frames {
                inner.waits = Some(cx.waker().clone());
                return Poll::Pending;
            }
            while written < bytes.len() {
                written += ready!(Pin::new(&mut inner.io).poll_write(cx, &bytes[written..]))?;
            }
            Pin::new(&mut inner.io).poll_flush(cx)
        })
        .await
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GoAwayStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *lock(&self.0);
        let before = buf.filled().len();
        ready!(Pin::new(&mut inner.io).poll_read(cx, buf))?;
        inner.streams.came(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GoAwayStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let inner = &mut *lock(&self.0);
        inner.between_frames = false;
        let written = ready!(Pin::new(&mut inner.io).poll_write(cx, buf))?;
        inner.streams.sent(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = &mut *lock(&self.0);
        inner.between_frames = false;
        let written = ready!(Pin::new(&mut inner.io).poll_write_vectored(cx, bufs))?;
        // What was written may end in the middle of any of them.
        let mut left = written;
        for buf in bufs {
            let part = left.min(buf.len());
            inner.streams.sent(&buf[..part]);
            left -= part;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        lock(&self.0).io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        ready!(Pin::new(&mut inner.io).poll_flush(cx))?;
        // The library flushes whole frames only, so there is no open one now.
        inner.between_frames = true;
        if let Some(waits) = inner.waits.take() {
            waits.wake();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).io).poll_shutdown(cx)
    }
}
