//! An answer's body: whole, cut, stalled, padded or in drips, and what is told when it has gone out whole.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::conn::{After, Conn};
use super::script::Shape;

/// Blanks, which JSON allows after a value.
static BLANKS: [u8; 64 * 1024] = [b' '; 64 * 1024];

/// The body of an answer.
pub(super) struct AnswerBody {
    conn: Arc<Conn>,
    shape: Shape,
    text: Bytes,
    /// Bytes still to go out, of the text and the blanks after it.
    left: usize,
    /// Bytes that may still go out before the cut.
    until_cut: usize,
    /// Told when all has gone out.
    whole: Option<Box<dyn FnOnce() + Send>>,
    pause: Option<Pin<Box<Sleep>>>,
    cut: bool,
}

impl AnswerBody {
    pub(super) fn new(conn: Arc<Conn>, shape: Shape, text: Bytes, whole: Box<dyn FnOnce() + Send>) -> Self {
        let left = text.len() + shape.pad;
        // A cut leaves at least one byte out: all of it would be no cut.
        let until_cut = shape.cut.map_or(usize::MAX, |(keep, _)| keep.min(left.saturating_sub(1)));
        let mut body = Self { conn, shape, text, left, until_cut, whole: Some(whole), pause: None, cut: false };
        if left == 0 && shape.cut.is_none() {
            // Nobody polls an empty body.
            body.gone_out();
        }
        body
    }

    fn gone_out(&mut self) {
        if let Some(whole) = self.whole.take() {
            self.conn.after_flush(After::Tell(whole));
            if self.shape.close {
                self.conn.after_flush(After::Kill);
            }
        }
    }

    fn next(&mut self) -> Bytes {
        let wanted = self.shape.drip.map_or(usize::MAX, |(bytes, _)| bytes).min(self.until_cut);
        let piece = if self.text.is_empty() {
            Bytes::from_static(&BLANKS[..self.left.min(BLANKS.len()).min(wanted)])
        } else {
            self.text.split_to(self.text.len().min(wanted))
        };
        self.left -= piece.len();
        self.until_cut -= piece.len();
        piece
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if this.until_cut == 0 {
            if let Some((_, true)) = this.shape.cut
                && !std::mem::replace(&mut this.cut, true)
            {
                this.conn.after_flush(After::Kill);
            }
            // Silence: the connection is ended, now or by the caller.
            return Poll::Pending;
        }
        if this.left == 0 {
            this.gone_out();
            return Poll::Ready(None);
        }
        if let Some(pause) = &mut this.pause {
            ready!(pause.as_mut().poll(cx));
            this.pause = None;
        }
        let piece = this.next();
        if let Some((_, every)) = this.shape.drip {
            this.pause = Some(Box::pin(tokio::time::sleep(every)));
        }
        // Of a body of known length hyper does not ask for the end (HTTP/1.1): this is the last that is heard of it.
        if this.left == 0 && !this.shape.chunked {
            this.gone_out();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0 && self.whole.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.shape.chunked { SizeHint::default() } else { SizeHint::with_exact(self.left as u64) }
    }
}
