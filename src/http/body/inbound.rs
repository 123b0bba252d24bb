//! [`Inbound`]: a request's body on its way in, how a handler reads it, and what it leaves of it.
//!
//! Invariant: after the answer is made, the connection knows whether the body was read to its end ([`Rest`]). On
//! HTTP/1.1 the next request begins behind it: a connection whose body was left unread cannot be kept, and its caller
//! is to know. On HTTP/2 the stream of a body that was left unread is reset while the rest of it is on its way.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};

use crate::kernel::sync::lock;

/// A request's body.
#[derive(Debug)]
pub struct Inbound {
    /// Taken out only when it is dropped.
    body: Option<Incoming>,
    rest: Option<Rest>,
    was_asked: bool,
    is_over: bool,
    /// It broke off: where it ends, and the next request begins, is not known.
    is_broken: bool,
}

/// What is left of a body.
#[derive(Clone, Debug, Default)]
pub struct Rest(Arc<Mutex<UnreadBody>>);

#[derive(Debug, Default)]
enum UnreadBody {
    /// The handler has it still, or never ended; or it broke off.
    #[default]
    Unknown,
    Nothing,
    /// This; and whether any of it was asked for.
    Some(Incoming, bool),
}

impl Inbound {
    /// A body, and how to know what is left of it; `None` when it is empty.
    #[must_use]
    pub fn watched(body: Incoming) -> (Self, Option<Rest>) {
        let is_over = body.is_end_stream();
        let rest = (!is_over).then(Rest::default);
        (Self { body: Some(body), rest: rest.clone(), was_asked: false, is_over, is_broken: false }, rest)
    }
}

impl hyper::body::Body for Inbound {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.was_asked = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *body).poll_frame(cx);
        let is_over = match &polled {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(_))) => body.is_end_stream(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        self.is_over |= is_over;
        self.is_broken |= matches!(polled, Poll::Ready(Some(Err(_))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Incoming::size_hint)
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        if let (Some(rest), Some(body)) = (&self.rest, self.body.take()) {
            *rest.left() = match (self.is_broken, self.is_over) {
                (true, _) => UnreadBody::Unknown,
                (false, true) => UnreadBody::Nothing,
                (false, false) => UnreadBody::Some(body, self.was_asked),
            };
        }
    }
}

impl Rest {
    /// Whether the body was read to its end.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(*self.left(), UnreadBody::Nothing)
    }

    /// Reads away what is left, if it is at most so many bytes and comes within a time. Says whether nothing is left
    /// then.
    ///
    /// A caller that waits to be told to send its body (`Expect: 100-continue`) and was not is not told so now.
    pub async fn read_away(self, most: u64, time: Duration, waits_for_word: bool) -> bool {
        let left = std::mem::take(&mut *self.left());
        let mut body = match left {
            UnreadBody::Nothing => return true,
            UnreadBody::Unknown => return false,
            UnreadBody::Some(_, was_asked) if waits_for_word && !was_asked => return false,
            UnreadBody::Some(body, _) => body,
        };
        // Its length may say already that reading it away costs more than a new connection.
        if body.size_hint().lower() > most {
            return false;
        }
        let read = async {
            let mut bytes = 0;
            while let Some(frame) = body.frame().await {
                bytes += frame.ok()?.data_ref().map_or(0, Bytes::len) as u64;
                if bytes > most {
                    return None;
                }
            }
            Some(())
        };
        tokio::time::timeout(time, read).await.is_ok_and(|read| read.is_some())
    }

    fn left(&self) -> MutexGuard<'_, UnreadBody> {
        lock(&self.0)
    }
}

/// Why a request's body could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// More bytes than allowed.
    #[error("the body is larger than the limit")]
    TooLarge,
    /// It did not come in time.
    #[error("the body did not come in time")]
    TooSlow,
    /// The connection broke, or the body's framing did; or it has a trailer.
    #[error("the body ended early")]
    Broken,
    /// There is no memory for more of it.
    #[error("there is no room for the body")]
    NoRoom,
}

/// Reads a body of at most `limit` bytes within `time`. Each piece that comes is kept only if `room` has room for it.
///
/// # Errors
/// See [`Unread`]. A body whose stated length is over the limit is refused before a byte of it is read.
pub async fn read_up_to(
    mut body: Inbound,
    limit: usize,
    time: Duration,
    mut room: impl FnMut(usize) -> bool,
) -> Result<Bytes, Unread> {
    let at_least = body.size_hint().lower();
    // By what the head says of its length, so that a caller with `Expect: 100-continue` is refused before it sends.
    if at_least > limit as u64 {
        return Err(Unread::TooLarge);
    }
    let read = async {
        let mut first = Bytes::new();
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let data = match frame.map_err(|_| Unread::Broken)?.into_data() {
                Ok(data) => data,
                // A trailer means nothing to us, and some readers take it for a header (RFC 9110, 6.5.1). On HTTP/2 its
                // parser does not tell one with pseudo-headers in it (RFC 9113, 8.1) from another.
                Err(_) => return Err(Unread::Broken),
            };
            if first.len() + whole.len() + data.len() > limit {
                return Err(Unread::TooLarge);
            }
            if !room(data.len()) {
                return Err(Unread::NoRoom);
            }
            // Most bodies are one frame, which then is not copied.
            if first.is_empty() && whole.is_empty() {
                first = data;
                continue;
            }
            whole.extend_from_slice(&std::mem::take(&mut first));
            whole.extend_from_slice(&data);
        }
        Ok(if whole.is_empty() { first } else { whole.freeze() })
    };
    tokio::time::timeout(time, read).await.unwrap_or(Err(Unread::TooSlow))
}
