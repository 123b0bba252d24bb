//! [`Hold`]: the vendor asked that an endpoint be left alone (503 with `Retry-After`).
//!
//! Invariants: until that time, or until a success of an order that was sent after it was asked, one order in
//! [`PROBE_EVERY`] is let through, and none while the last of these is under way. Reads of events pass: they have their
//! own pace. Pure: time comes in as an argument.

use std::time::Duration;

use tokio::time::Instant;

/// While the vendor wants to be left alone one order in so long finds out whether it still does.
pub(super) const PROBE_EVERY: Duration = Duration::from_secs(5);

/// What an endpoint is held by, if it is.
#[derive(Debug)]
pub(super) struct Hold {
    request: Option<HoldRequest>,
    /// An order that was let through in spite of it is under way.
    is_probing: bool,
    /// The longest that the vendor is believed, also in what it said before.
    max: Duration,
    /// How often it has asked so far: tells a success of an order that was sent before the last time from one after.
    number: u64,
}

/// The vendor's wish.
#[derive(Clone, Copy, Debug)]
struct HoldRequest {
    at: Instant,
    pause: Duration,
    /// When one order may be sent all the same.
    probe_at: Instant,
}

/// Of a hold that is not over: how long it lasts, and how long until one order is let through all the same.
#[derive(Debug)]
pub(super) struct HoldLeft {
    pub(super) left: Duration,
    pub(super) next_try: Duration,
}

/// As what an order passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HoldEntry {
    number: u64,
    is_probe: bool,
}

impl HoldRequest {
    /// What is left of it at `at` if it is believed for `max`.
    fn left(&self, max: Duration, at: Instant) -> Duration {
        self.pause.min(max).saturating_sub(at.saturating_duration_since(self.at))
    }
}

impl Hold {
    pub(super) fn new(max: Duration) -> Self {
        Self { request: None, is_probing: false, max, number: 0 }
    }

    pub(super) fn believe(&mut self, max: Duration) {
        self.max = max;
    }

    /// What would be left of it at `at`; `None`: an order may go out.
    pub(super) fn look(&self, at: Instant) -> Option<Duration> {
        let request = self.request.filter(|request| self.is_probing || at < request.probe_at)?;
        Some(request.left(self.max, at)).filter(|left| !left.is_zero())
    }

    /// An order goes out now, if it may.
    pub(super) fn enter(&mut self, is_read: bool, now: Instant) -> Option<HoldEntry> {
        let mut is_probe = false;
        if let Some(request) = &mut self.request
            && !request.left(self.max, now).is_zero()
            && !is_read
        {
            if self.is_probing || now < request.probe_at {
                return None;
            }
            request.probe_at = now + PROBE_EVERY;
            is_probe = true;
        }
        self.is_probing |= is_probe;
        Some(HoldEntry { number: self.number, is_probe })
    }

    /// The vendor asked to be left alone for so long.
    pub(super) fn begin(&mut self, pause: Duration, now: Instant) {
        self.number += 1;
        // A shorter wish, of an answer that was under way, does not take back a longer one.
        let before = self.request.map(|request| (request.left(self.max, now), request.probe_at));
        let before = before.filter(|(left, _)| !left.is_zero());
        let probe_at = before.map_or(now + PROBE_EVERY, |(_, probe_at)| probe_at);
        let pause = before.map_or(pause, |(left, _)| left.max(pause));
        self.request = Some(HoldRequest { at: now, pause, probe_at });
    }

    /// An order that went out has ended; `is_well`: it was answered as it should be.
    pub(super) fn ended(&mut self, entry: HoldEntry, is_well: bool) {
        if entry.is_probe {
            self.is_probing = false;
        }
        // What was sent before the vendor asked may be answered after it, and says nothing of now.
        if is_well && entry.number == self.number {
            self.request = None;
        }
    }

    /// What is left of it.
    pub(super) fn left(&self, now: Instant) -> Option<HoldLeft> {
        let request = self.request?;
        let left = request.left(self.max, now);
        let next_try = request.probe_at.saturating_duration_since(now).min(left);
        (!left.is_zero()).then_some(HoldLeft { left, next_try })
    }
}
