//! [`ReadAway`]: reading away what a caller still sends when our end of its connection is closed.
//!
//! Why: the system resets a connection that is closed with bytes unread, and the reset throws away the answer that the
//! caller has not read yet.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Until the caller is silent for so long.
const SILENCE: Duration = Duration::from_secs(2);
/// And no longer than that in all.
const AT_MOST: Duration = Duration::from_secs(10);
/// Reads in one turn: a fast sender must not keep the thread to itself.
const READS: usize = 16;

#[derive(Debug)]
pub(super) struct ReadAway {
    silent: Pin<Box<Sleep>>,
    until: Instant,
}

impl ReadAway {
    pub(super) fn new() -> Self {
        Self { silent: Box::pin(tokio::time::sleep(SILENCE)), until: Instant::now() + AT_MOST }
    }

    /// Ready when the peer has ended or erred, or the time is over.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>, mut stream: impl AsyncRead + Unpin) -> Poll<()> {
        if self.silent.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut waste = [0; 4096];
        for _ in 0..READS {
            let mut buf = ReadBuf::new(&mut waste);
            match ready!(Pin::new(&mut stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {
                    self.silent.as_mut().reset(self.until.min(Instant::now() + SILENCE));
                }
                _ => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
