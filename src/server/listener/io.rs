//! The bytes of one connection, watched in both directions.
//!
//! Invariants:
//! - The connection's [`Wire`] learns of every write and every flush, in order.
//! - hyper answers by itself, with an empty 400, 414 or 431, what it cannot parse. While no request is in hand
//!   nothing else can be on its way out, so a `4xx` written then is such an answer: it is replaced by one that says
//!   what every answer of ours says. (Where an earlier answer still sits in the same buffer hyper's own goes out.)
//! - A quotation mark in a request line reaches hyper as `%22`. Nothing else of what comes in is changed; where it
//!   cannot be believed any more (see `framing::FeedResult`) it ends.
//! - A caller that does not take what is written to it is cut when our [`MinDataRate`] is over. Taken is what the
//!   system has taken; on a connection with events, what the system at the other end has acknowledged.
//! - The acknowledgements are looked at with each flush, each read and when the connection's driver has waited
//!   (`ack_timer`), as long as something waits for them; and a last time before the connection is let go of.
//! - A caller that is cut off in the middle of sending a request gets to read the answer: after our end of the
//!   connection is closed, what still comes is read away for a while. Otherwise the system would reset the connection
//!   and the answer with it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::ack_timer::LastAckTimer;
use super::framing::{Framing, Protocol, Watch};
use super::min_data_rate::MinDataRate;
use super::read_away::ReadAway;
use super::tcp::Arrives;
use crate::http::body::handover::Wire;
use crate::http::request_id::RequestId;
use crate::kernel::conn::Peer;
use crate::request::refusal::Refusal;

/// How long a caller that was refused before it began is listened to.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// Bytes that are read at once of HTTP/1.1, and to tell the protocols apart: as many as hyper's buffer has room for at
/// first. No more also when it has: hyper looks between two reads whether a head is too large, and reads twice as much
/// each time, so a head could be nearly twice as large as allowed before it looks.
const AT_ONCE: usize = 8 << 10;

/// After so many requests a connection is busy, and its reader's buffer may be larger. hyper has 8 KiB free at each
/// read, and reads while a request is served, to see its caller leave. What the request holds of the buffer is not free
/// before its end, so one of 8 KiB is made anew, and wiped, for each request; one of 16 KiB for every twentieth or so.
/// A buffer that has not as much free is doubled if it holds something, so then the first byte of a head comes alone.
const BUSY: u64 = 4;

/// A connection's stream.
#[derive(Debug)]
pub(super) struct Io<S: Arrives> {
    stream: S,
    peer: Peer,
    wire: Wire,
    watch: Watch,
    framing: Framing,
    /// Our answer in place of hyper's, not yet written.
    own: Bytes,
    /// What came in and, escaped, had no room in the reader's buffer.
    held: Bytes,
    /// Whether the reader reads to tell HTTP/1.1 from HTTP/2.
    is_telling: bool,
    /// Nothing more is read: why.
    broken: Option<&'static str>,
    patience: MinDataRate,
    /// How many bytes were acknowledged when last looked, once that counts. Where it is not known all that was flushed
    /// is.
    seen: Option<u64>,
    /// How many bytes were written when we began to wait for the caller: it has kept up once they are acknowledged,
    /// however much was written since.
    owed: u64,
    parting: Option<LastAckTimer>,
    read_away: Option<ReadAway>,
}

impl<S: AsyncRead + AsyncWrite + Arrives + Unpin> Io<S> {
    pub(super) fn new(stream: S, peer: Peer, wire: Wire, watch: Watch, write_timeout: Duration) -> Self {
        let framing = Framing::new(watch.clone());
        let patience = MinDataRate::new(write_timeout);
        let (own, held) = (Bytes::new(), Bytes::new());
        let (seen, owed, parting, read_away) = (None, 0, None, None);
        let is_telling = false;
        Self {
            stream,
            peer,
            wire,
            watch,
            framing,
            own,
            held,
            is_telling,
            broken: None,
            patience,
            seen,
            owed,
            parting,
            read_away,
        }
    }

    /// For a reader that reads first to tell the protocols apart, and takes a read that brings nothing for HTTP/1.1.
    /// That is what it is given, and all that came is held for the next read: a reader of HTTP/1.1 that is given what
    /// the other has read and then the rest makes its buffer twice as large as it need be, for as long as the
    /// connection lasts.
    pub(super) fn telling_protocols_apart(mut self) -> Self {
        self.is_telling = true;
        self
    }

    /// The first read, whole. Says whether the reader is to be given it.
    fn poll_read_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        // Not on the stack: it may hold a secret, and what is freed is wiped.
        let mut first = vec![0; AT_ONCE];
        let mut buf = ReadBuf::new(&mut first);
        ready!(self.poll_read_new(cx, &mut buf))?;
        if self.held.is_empty() {
            let length = buf.filled().len();
            first.truncate(length);
            self.held = first.into();
        }
        self.is_telling = self.watch.protocol() == Protocol::Unknown;
        Poll::Ready(Ok(self.watch.protocol() != Protocol::Http1))
    }

    /// Whether these bytes are an answer of hyper's own; ours takes its place then.
    fn replaces(&mut self, bytes: &[u8]) -> bool {
        let unasked = self.wire.in_hand() == 0 && self.watch.protocol() == Protocol::Http1;
        let refusal = match bytes.get(..12) {
            Some(b"HTTP/1.1 400" | b"HTTP/1.0 400") if unasked => Refusal::bad("the request is not well-formed HTTP"),
            Some(b"HTTP/1.1 431" | b"HTTP/1.0 431" | b"HTTP/1.1 414" | b"HTTP/1.0 414") if unasked => {
                Refusal::HeadersTooLarge
            }
            _ => return false,
        };
        self.own = answer(&refusal, self.peer);
        true
    }

    /// What the stream said, unless the caller has kept it waiting for too long.
    fn in_time<T>(&mut self, cx: &mut Context<'_>, said: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if said.is_pending() {
            self.look();
            ready!(self.poll_patience(cx))?;
        }
        said
    }

    /// An error when the caller has kept us waiting for too long.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.patience.poll_over(cx));
        if self.seen.is_some() {
            // It would wait for the caller in the system, and be given again all the same.
            self.stream.give_up();
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the caller does not take its answer")))
    }

    /// Looks at what is acknowledged, where that counts.
    fn look(&mut self) {
        let (Some(seen), Some(acknowledged)) = (&mut self.seen, self.stream.acknowledged()) else { return };
        if acknowledged > *seen {
            self.patience.took(acknowledged - *seen);
            *seen = acknowledged;
        }
        if acknowledged >= self.owed {
            self.patience.took_all();
            self.owed = self.stream.written();
        }
        self.wire.acknowledged(acknowledged);
    }

    fn poll_write_own(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.own.is_empty() {
            let said = Pin::new(&mut self.stream).poll_write(cx, &self.own);
            let n = ready!(self.in_time(cx, said))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.own.advance(n);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what comes. What has to be escaped is held instead.
    fn poll_read_new(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if let Some(why) = self.broken {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        let most = match self.watch.protocol() {
            Protocol::Http1 if buf.remaining() <= AT_ONCE && self.framing.begins_head_after(BUSY) => 1,
            Protocol::Http1 => AT_ONCE,
            Protocol::Unknown | Protocol::Http2 => usize::MAX,
        };
        ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut (&mut *buf).limit(most)))?;
        // Who asks again, or leaves, has acknowledged what it has.
        if self.wire.is_awaiting() {
            self.look();
        }
        let fed = self.framing.feed(&buf.filled()[before..]);
        if let Some((at, why)) = fed.broken {
            self.broken = Some(why);
            buf.set_filled(before + at);
            // Nothing read would mean the end of the input, which is no fault.
            if at == 0 {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
            }
        }
        if !fed.quotes.is_empty() {
            self.held = escaped(&buf.filled()[before..], &fed.quotes);
            buf.set_filled(before);
        }
        Poll::Ready(Ok(()))
    }
}

/// An answer as bytes of HTTP/1.1, for what never became a request.
pub(super) fn answer(refusal: &Refusal, peer: Peer) -> Bytes {
    let id = RequestId::random();
    let status = refusal.status();
    tracing::info!(request_id = %id, %peer, status = status.as_u16(), "refused what is not a request");
    let body = refusal.body(&id);
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nx-request-id: {id}\r\n\
         x-rtm-origin: gateway\r\nconnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat().into()
}

impl<S: AsyncRead + AsyncWrite + Arrives + Unpin> AsyncRead for Io<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.held.is_empty() {
            if this.is_telling {
                if !ready!(this.poll_read_first(cx))? {
                    return Poll::Ready(Ok(()));
                }
            } else {
                ready!(this.poll_read_new(cx, buf))?;
            }
        }
        if !this.held.is_empty() {
            let room = this.held.len().min(buf.remaining());
            buf.put_slice(&this.held.split_to(room));
        }
        Poll::Ready(Ok(()))
    }
}

/// The bytes, with those at `quotes` percent-encoded.
fn escaped(bytes: &[u8], quotes: &[usize]) -> Bytes {
    let mut escaped = Vec::with_capacity(bytes.len() + 2 * quotes.len());
    let mut from = 0;
    for &at in quotes {
        escaped.extend_from_slice(&bytes[from..at]);
        escaped.extend_from_slice(b"%22");
        from = at + 1;
    }
    escaped.extend_from_slice(&bytes[from..]);
    escaped.into()
}

impl<S: AsyncRead + AsyncWrite + Arrives + Unpin> AsyncWrite for Io<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.wire.wrote();
        if this.seen.is_none() && this.wire.is_sparing() {
            this.stream.be_sparing();
            this.seen = this.stream.acknowledged();
        }
        ready!(this.poll_write_own(cx))?;
        if let [first, ..] = bufs
            && this.replaces(first)
        {
            return Poll::Ready(Ok(bufs.iter().map(|b| b.len()).sum()));
        }
        let said = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        let taken = ready!(this.in_time(cx, said))?;
        if this.seen.is_none() {
            this.patience.took(taken as u64);
        }
        this.framing.wrote(taken);
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write_own(cx))?;
        let said = Pin::new(&mut this.stream).poll_flush(cx);
        ready!(this.in_time(cx, said))?;
        this.wire.flushed(this.seen.map_or(0, |_| this.stream.written()));
        if !this.wire.is_awaiting() {
            this.patience.took_all();
            return Poll::Ready(Ok(()));
        }
        this.look();
        if !this.wire.is_awaiting() {
            this.patience.took_all();
        } else if this.wire.is_late()
            && let Poll::Ready(over) = this.poll_patience(cx)
        {
            return Poll::Ready(over);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write_own(cx))?;
        if this.read_away.is_none() {
            // All was flushed before. A caller that has its answer and closes with our end (of TLS, too) unread resets
            // the connection, and an acknowledgement that its system put off never comes. So that is waited for first.
            this.wire.settle();
            this.look();
            while this.wire.is_awaiting()
                && !this.stream.is_reset()
                && ready!(this.parting.get_or_insert_default().poll_look(cx))
            {
                this.look();
            }
            let said = Pin::new(&mut this.stream).poll_shutdown(cx);
            ready!(this.in_time(cx, said))?;
            // On HTTP/2 frames come until the peer has read our GOAWAY; hyper has seen to that before.
            if this.watch.protocol() != Protocol::Http1 || this.watch.is_between_requests() {
                return Poll::Ready(Ok(()));
            }
        }
        let read_away = this.read_away.get_or_insert_with(ReadAway::new);
        read_away.poll_over(cx, &mut this.stream).map(Ok)
    }
}

/// What is acknowledged by now is handed over.
impl<S: Arrives> Drop for Io<S> {
    fn drop(&mut self) {
        if let (true, Some(acknowledged)) = (self.wire.is_awaiting(), self.stream.acknowledged()) {
            self.wire.acknowledged(acknowledged);
        }
    }
}
