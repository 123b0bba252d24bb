//! Bodies: what a response carries to its caller, and how a request's body is read.
//!
//! Invariants:
//! - A response body's length is known before its first byte, for its frames are all there (or, for operators, a file
//!   is); or it is [made as it goes](Body::streaming), a piece each time its caller takes more.
//!   Frames are shared buffers, so the same event text goes to a thousand readers from one copy.
//! - A body may carry an [`Ending`]. It is told "flushed" only after the body was taken whole *and* the connection has
//!   given every byte of it to the system, and what it leaves is told "acknowledged" only when the system at the other
//!   end has all of it (see [`handover`]); in every other case they are dropped.
//! - Nobody's request body is unbounded, in bytes or in time: [`read_up_to`] is the only reader.

pub mod handover;
mod inbound;
mod meter;
mod streaming;

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::Stream;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead as _, ReadBuf};

use handover::{Ending, Ticket};
use streaming::Source;

pub use self::inbound::{Inbound, Rest, Unread, read_up_to};
pub use self::meter::Meter;
pub use self::streaming::Piece;

/// A response's body.
#[derive(Debug, Default)]
pub struct Body {
    frames: std::vec::IntoIter<Bytes>,
    next: Option<Bytes>,
    /// What comes after the frames: so many bytes of a file as are left.
    file: Option<tokio::fs::File>,
    /// Or what is made as it goes.
    source: Option<Box<Source>>,
    total: u64,
    left: u64,
    /// The most that is given at a time.
    step: usize,
    /// HTTP/2: the end is taken in steps, see [`Body::bind`].
    stepwise: bool,
    /// Nothing is left, and the machinery is done with what it took.
    is_over: bool,
    ending: Option<Box<dyn Ending>>,
    ticket: Option<Ticket>,
    meter: Option<Meter>,
}

/// The most that HTTP/2 is given at a time. It keeps what it was given and the caller's window has no room for, so this
/// bounds what one stream holds there; and a caller's progress shows in steps of it.
const STEP: usize = 16 << 10;

/// Pieces below this size are copied together: a frame costs more than the copy.
const SMALL: usize = 1024;

/// Bytes of a file that are one frame.
const PIECE: usize = 64 << 10;

/// Collects a body's frames: large buffers are shared, small pieces are copied together.
#[derive(Debug, Default)]
pub struct Frames {
    done: Vec<Bytes>,
    small: BytesMut,
}

impl Frames {
    /// Adds a copy of a small piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.small.put_slice(piece);
    }

    /// Adds a shared buffer: without copying when it is large.
    pub fn share(&mut self, piece: Bytes) {
        if piece.len() < SMALL {
            return self.push(&piece);
        }
        if !self.small.is_empty() {
            self.done.push(self.small.split().freeze());
        }
        self.done.push(piece);
    }

    /// The body.
    #[must_use]
    pub fn into_body(mut self) -> Body {
        if !self.small.is_empty() {
            self.done.push(self.small.freeze());
        }
        let total = self.done.iter().map(|f| f.len() as u64).sum();
        let mut frames = self.done.into_iter();
        Body::of(frames.next(), frames, total)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        let total = bytes.len() as u64;
        Self::of((total > 0).then_some(bytes), Vec::new().into_iter(), total)
    }
}

impl Body {
    fn of(next: Option<Bytes>, frames: std::vec::IntoIter<Bytes>, total: u64) -> Self {
        let is_over = total == 0;
        let (file, source, ending, ticket, meter) = (None, None, None, None, None);
        Self {
            frames,
            next,
            file,
            source,
            total,
            left: total,
            step: usize::MAX,
            stepwise: false,
            is_over,
            ending,
            ticket,
            meter,
        }
    }

    /// A file's bytes from where it stands, which must be as many as said. If they are fewer the body ends early, and
    /// the connection with it. For operators: it carries no ending.
    #[must_use]
    pub fn from_file(file: std::fs::File, length: u64) -> Self {
        let mut body = Self::of(None, Vec::new().into_iter(), length);
        body.file = Some(tokio::fs::File::from_std(file));
        body
    }

    /// A body that is made as it goes: `source` is asked for a piece when the caller takes more, and its end is the
    /// body's. Each piece's own ending is told when the piece was flushed, or dropped.
    #[must_use]
    pub fn streaming(source: impl Stream<Item = Piece> + Send + 'static) -> Self {
        let mut body = Self::of(None, Vec::new().into_iter(), 0);
        body.source = Some(Box::new(Source::new(source)));
        body.is_over = false;
        body
    }

    /// How many bytes it has; `None` when it is made as it goes.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.source.is_none().then_some(self.total)
    }

    /// Hangs an ending on it.
    pub fn on_end(&mut self, ending: Box<dyn Ending>) {
        self.ending = Some(ending);
    }

    /// For an answer to HEAD: the bytes are not sent, and count as taken.
    pub fn withhold(&mut self) {
        self.next = None;
        self.frames = Vec::new().into_iter();
        self.file = None;
        self.source = None;
        self.left = 0;
        self.is_over = true;
    }

    /// Ties it to the connection that will carry it. One that waits for acknowledgements, or goes on for long, keeps
    /// little in the system.
    ///
    /// HTTP/1.1 has every byte of a frame in its write buffer when it takes the next, or drops the body. HTTP/2 does
    /// not: hyper takes a frame, then waits until the caller's window has room for one byte of it, then hands all of
    /// it on, then asks for the next. So there the last byte is a frame of its own, and after it the body must be
    /// asked once more before it is over: then the window has room for all of it, and the connection's next complete
    /// flush carries it.
    pub fn bind(&mut self, ticket: Ticket, http2: bool) -> Meter {
        self.stepwise = http2 && self.ending.is_some();
        self.step = if http2 { STEP } else { usize::MAX };
        if self.source.is_some() || self.ending.as_ref().is_some_and(|ending| ending.is_awaited()) {
            ticket.be_sparing();
        }
        self.ticket = Some(ticket);
        self.meter.insert(Meter::default()).clone()
    }
}

impl Body {
    /// The next piece of the file, if there is one.
    fn poll_file(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(file) = &mut self.file else { return Poll::Ready(None) };
        let mut piece = BytesMut::zeroed(usize::try_from(self.left).unwrap_or(PIECE).min(PIECE));
        let mut buffer = ReadBuf::new(&mut piece);
        let read = ready!(Pin::new(file).poll_read(cx, &mut buffer));
        let filled = buffer.filled().len();
        piece.truncate(filled);
        Poll::Ready((read.is_ok() && filled > 0).then(|| piece.freeze()))
    }

    /// The next piece of what is made as it goes. Being asked means that what went before is in the connection's
    /// buffers, whole (see [`Body::bind`]); so the next flush gives it to the system.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(source) = &mut self.source else { return Poll::Ready(None) };
        for ending in source.taken() {
            if let Some(ticket) = &self.ticket {
                ticket.part(ending);
            }
        }
        let Poll::Ready(piece) = source.poll_piece(cx, self.step) else {
            if let Some(meter) = &self.meter {
                meter.nothing_to_take();
            }
            return Poll::Pending;
        };
        match &piece {
            Some(piece) => {
                self.total += piece.len() as u64;
                if let Some(meter) = &self.meter {
                    meter.took(self.total);
                }
            }
            None => self.is_over = true,
        }
        Poll::Ready(piece)
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.source.is_some() {
            return self.poll_source(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))));
        }
        if self.next.is_none() && self.left > 0 {
            self.next = ready!(self.poll_file(cx));
        }
        let Some(mut frame) = self.next.take() else {
            self.is_over = true;
            return Poll::Ready(None);
        };
        let is_last = frame.len() as u64 == self.left;
        if self.stepwise && frame.len() > STEP {
            self.next = Some(frame.split_off(STEP));
        } else if is_last && self.stepwise && frame.len() > 1 {
            self.next = Some(frame.split_off(frame.len() - 1));
        } else {
            self.next = self.frames.next();
        }
        self.left -= frame.len() as u64;
        if let Some(meter) = &self.meter {
            meter.took(self.total - self.left);
        }
        self.is_over = self.left == 0 && !self.stepwise;
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }

    fn size_hint(&self) -> SizeHint {
        if self.source.is_some() { SizeHint::default() } else { SizeHint::with_exact(self.left) }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(ending) = &mut self.ending {
            ending.taken(self.total - self.left);
        }
        // A body of known length is not always polled to `None`: on HTTP/1.1 it is over with its last frame.
        match self.ticket.take() {
            Some(ticket) if self.is_over => ticket.taken_whole(self.ending.take()),
            // HTTP/2: what was taken may never be written.
            Some(ticket) if self.step == STEP => ticket.abandon(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt as _;
    use hyper::body::Body as _;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn take_all(body: &mut Body) -> Vec<Bytes> {
        let mut frames = Vec::new();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut *body).poll_frame(&mut cx) {
            frames.push(frame.into_data().unwrap());
        }
        frames
    }

    #[derive(Debug)]
    struct Told(Arc<AtomicBool>);
    impl Ending for Told {
        fn flushed(self: Box<Self>) -> Option<Box<dyn handover::Delivered>> {
            self.0.store(true, Ordering::SeqCst);
            None
        }
    }

    #[test]
    fn large_pieces_are_shared_and_small_ones_are_joined() {
        let large = Bytes::from(vec![b'x'; SMALL]);
        let mut frames = Frames::default();
        frames.push(b"[");
        frames.share(Bytes::from_static(b"1"));
        frames.push(b",");
        frames.share(large.clone());
        frames.push(b"]");
        let mut body = frames.into_body();
        assert_eq!(body.total(), Some(4 + SMALL as u64));
        let taken = take_all(&mut body);
        assert_eq!(taken[0], "[1,");
        assert_eq!(taken[1].as_ptr(), large.as_ptr());
        assert_eq!(taken[2], "]");
    }

    #[test]
    fn a_piece_s_ending_is_told_once_it_was_taken_and_flushed_and_never_when_the_connection_dies() {
        let told: Vec<_> = (0..3).map(|_| Arc::new(AtomicBool::new(false))).collect();
        let piece = |n: usize, bytes: &'static str| {
            let ending: Box<dyn Ending> = Box::new(Told(told[n].clone()));
            Piece { bytes: bytes.into(), ending: Some(ending) }
        };
        let (source, pieces) = (vec![piece(0, "ab"), piece(1, ""), piece(2, "cd")], std::future::pending::<Piece>());
        let pieces = futures_util::stream::iter(source).chain(futures_util::stream::once(pieces));
        let seen = || told.iter().map(|told| told.load(Ordering::SeqCst)).collect::<Vec<_>>();
        let wire = handover::Wire::new();
        let mut body = Body::streaming(pieces);
        assert_eq!((body.total(), body.size_hint().exact()), (None, None));
        let meter = body.bind(wire.ticket(), false);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut take = || Pin::new(&mut body).poll_frame(&mut cx);
        assert!(matches!(take(), Poll::Ready(Some(Ok(frame))) if frame.data_ref().unwrap() == "ab"));
        wire.flushed(0);
        wire.settle();
        assert_eq!(seen(), [false; 3], "it is not known yet that all of it was in the buffer");
        assert!(matches!(take(), Poll::Ready(Some(Ok(frame))) if frame.data_ref().unwrap() == "cd"));
        assert!(!meter.is_idle());
        wire.flushed(0);
        wire.settle();
        assert_eq!(seen(), [true, false, false]);
        assert!(take().is_pending() && meter.is_idle() && meter.taken() == 4);
        wire.close();
        wire.settle();
        drop(body);
        assert_eq!(seen(), [true, false, false]);
        assert_eq!(wire.in_hand(), 0);
    }

    #[test]
    fn an_ending_is_told_only_after_the_whole_body_was_taken_and_flushed() {
        for (take, flush, expected) in [(true, true, true), (true, false, false), (false, true, false)] {
            let told = Arc::new(AtomicBool::new(false));
            let wire = handover::Wire::new();
            let mut body = Body::from(Bytes::from_static(b"abc"));
            body.on_end(Box::new(Told(told.clone())));
            body.bind(wire.ticket(), true);
            if take {
                assert_eq!(take_all(&mut body), ["ab", "c"]);
            }
            drop(body);
            assert_eq!(wire.in_hand(), u32::from(take));
            if flush {
                wire.flushed(0);
            }
            wire.settle();
            assert_eq!(told.load(Ordering::SeqCst), expected, "taken {take}, flushed {flush}");
            wire.close();
            assert_eq!(wire.in_hand(), 0);
            assert_eq!(told.load(Ordering::SeqCst), expected, "closing tells nobody");
        }
    }
}
