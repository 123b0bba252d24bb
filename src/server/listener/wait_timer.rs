//! What a connection without a request in hand is waited for, and how long.
//!
//! | waited for | for at most |
//! | --- | --- |
//! | the first request, from the connection's beginning to the end of its head | `server.header_read_timeout` |
//! | the rest of a later head, from its first byte | `server.header_read_timeout` |
//! | the next request | `server.idle_timeout` |
//!
//! Invariant: each wait is measured from when it began; a byte now and then does not begin it anew.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::header::HeaderValue;
use tokio::time::{Instant, Sleep};

/// What a connection is waited for. Numbers tell one wait from the next of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AwaitedPart {
    /// Nothing: it is our turn.
    Nothing,
    First,
    /// The end of a head that has begun, after so many.
    Head(u64),
    /// The next request, after so many.
    Next(u64),
}

/// Measures the waits of one connection. In a box: it holds a timer.
#[derive(Debug)]
pub(super) struct WaitTimer {
    now: AwaitedPart,
    timer: Pin<Box<Sleep>>,
    head: Duration,
    idle: Duration,
}

impl WaitTimer {
    pub(super) fn new(head: Duration, idle: Duration) -> Self {
        Self { now: AwaitedPart::First, timer: Box::pin(tokio::time::sleep(head)), head, idle }
    }

    /// Ready when what is waited for did not come in time.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>, awaited: AwaitedPart) -> Poll<()> {
        if awaited != self.now {
            self.now = awaited;
            match awaited {
                AwaitedPart::Nothing => {}
                AwaitedPart::First | AwaitedPart::Head(_) => self.reset(self.head),
                AwaitedPart::Next(_) => self.reset(self.idle),
            }
        }
        if awaited == AwaitedPart::Nothing { Poll::Pending } else { self.timer.as_mut().poll(cx) }
    }

    fn reset(&mut self, time: Duration) {
        self.timer.as_mut().reset(Instant::now() + time);
    }
}

/// What `Keep-Alive` says of a connection that may be idle for so long: a little less, so that a caller that believes
/// it gives the connection up before we do. `None` when that is no whole second.
pub(super) fn keep_alive(idle: Duration) -> Option<HeaderValue> {
    let margin = (idle / 20).clamp(Duration::from_secs(1), Duration::from_secs(5));
    let seconds = idle.saturating_sub(margin).as_secs();
    if seconds == 0 {
        return None;
    }
    HeaderValue::try_from(format!("timeout={seconds}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_told_a_little_less_than_is_kept() {
        let said = |idle| keep_alive(Duration::from_millis(idle)).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(said(120_000).as_deref(), Some("timeout=115"));
        assert_eq!(said(10_000).as_deref(), Some("timeout=9"));
        assert_eq!(said(2_500).as_deref(), Some("timeout=1"));
        assert_eq!(said(1_900), None);
        assert_eq!(said(0), None);
    }
}
