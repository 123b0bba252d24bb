//! [`Source`]: what a body that is made as it goes is made of.
//!
//! Invariants: a piece's ending is kept until the piece was given away whole, and given away at the next question. An
//! empty piece is never given away; its ending goes with the piece after it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;

use super::handover::Ending;

/// A piece of a body that is made as it goes.
#[derive(Debug)]
pub struct Piece {
    pub bytes: Bytes,
    /// Told when they were given to the system; dropped when they will not be.
    pub ending: Option<Box<dyn Ending>>,
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, ending: None }
    }
}

pub(super) struct Source {
    stream: Pin<Box<dyn Stream<Item = Piece> + Send>>,
    /// Of the piece that is being given away, what is left.
    rest: Bytes,
    endings: Vec<Box<dyn Ending>>,
}

impl Source {
    pub(super) fn new(stream: impl Stream<Item = Piece> + Send + 'static) -> Self {
        Self { stream: Box::pin(stream), rest: Bytes::new(), endings: Vec::new() }
    }

    /// The ending of the piece that was given away last, if it was given away whole.
    pub(super) fn taken(&mut self) -> Vec<Box<dyn Ending>> {
        if self.rest.is_empty() { std::mem::take(&mut self.endings) } else { Vec::new() }
    }

    /// The next bytes, at most `most`.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<Option<Bytes>> {
        while self.rest.is_empty() {
            let Some(piece) = ready!(self.stream.as_mut().poll_next(cx)) else { return Poll::Ready(None) };
            self.rest = piece.bytes;
            self.endings.extend(piece.ending);
        }
        Poll::Ready(Some(self.rest.split_to(self.rest.len().min(most))))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({} bytes left of a piece)", self.rest.len())
    }
}
