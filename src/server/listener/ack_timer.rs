//! When acknowledgements are looked at while nothing else makes us look.
//!
//! Invariants: nobody waits for an acknowledgement but who is about to close, and that for a moment only
//! ([`LastAckTimer`]). A connection from which none is awaited has no timer running.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::http::body::handover::Wire;

/// After how long the first look is due: systems put off an acknowledgement for 40 ms or so (RFC 1122, 4.2.3.2 lets
/// them for half a second).
const FIRST_LOOK: Duration = Duration::from_millis(50);
/// And each after that.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a connection that is about to close waits for the acknowledgement of events: a round trip and what systems
/// put off.
const PARTING: Duration = Duration::from_secs(1);
/// And how soon it looks.
const PARTING_LOOK: Duration = Duration::from_millis(1);

/// The looks of one connection.
#[derive(Debug, Default)]
pub(super) struct AckTimer {
    /// Made when first needed.
    timer: Option<Pin<Box<Sleep>>>,
    is_set: bool,
}

impl AckTimer {
    /// Ready when it is time for a look. To be asked after each turn of the HTTP machinery, which looks as well.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>, wire: &Wire) -> Poll<()> {
        if !self.is_set {
            if !wire.is_awaiting() {
                wire.set_late(false);
                return Poll::Pending;
            }
            let due = Instant::now() + if wire.is_late() { LOOK_EVERY } else { FIRST_LOOK };
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            timer.as_mut().reset(due);
            self.is_set = true;
        }
        let Some(timer) = &mut self.timer else { return Poll::Pending };
        ready!(timer.as_mut().poll(cx));
        self.is_set = false;
        wire.set_late(wire.is_awaiting());
        Poll::Ready(())
    }
}

/// The looks of a connection that is about to close.
#[derive(Debug)]
pub(super) struct LastAckTimer {
    timer: Pin<Box<Sleep>>,
    pause: Duration,
    until: Instant,
}

impl Default for LastAckTimer {
    fn default() -> Self {
        Self { timer: Box::pin(tokio::time::sleep(PARTING_LOOK)), pause: PARTING_LOOK, until: Instant::now() + PARTING }
    }
}

impl LastAckTimer {
    /// Ready when it is time for the next look; false when there is no time for another.
    pub(super) fn poll_look(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        ready!(self.timer.as_mut().poll(cx));
        let now = Instant::now();
        self.pause *= 2;
        self.timer.as_mut().reset(self.until.min(now + self.pause));
        Poll::Ready(now < self.until)
    }
}
