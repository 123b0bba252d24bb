//! [`Subscription`]: a reader's place in a log, shared by all who name it.
//!
//! Invariants: the state changes under one short lock, never held across an await. A [`Claim`] stands for the entries it
//! took: it ends by [`Claim::settle`] or gives them back when it is dropped, whatever the reason. The stored cursor
//! follows the low-water mark of [`Claims`] and is never ahead of it.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;

use super::claims::Claims;
use super::lock;
use super::saver::Saver;
use crate::metrics::{Metrics, SubscriptionLabels};
use crate::names::SubscriptionName;
use crate::store::{Error, LogKey, Sequence, Store};

/// A subscription of a log.
pub(super) struct Subscription {
    name: SubscriptionName,
    log: LogKey,
    state: Mutex<State>,
    /// Wakes waiting readers when entries were given back.
    pub(super) given_back: Notify,
    /// What is in the store; locked while it is being written.
    stored: tokio::sync::Mutex<Option<u64>>,
    /// Whether it was ever in the store.
    is_stored: AtomicBool,
    /// Whether the saver has it on its list.
    pub(super) listed: AtomicBool,
    saver: Saver,
    meters: Meters,
}

struct State {
    claims: Claims,
    /// How often it was set to another place: claims from before then say nothing any more.
    seeks: u64,
    /// How many entries retention has cut off that no reader was told of yet.
    cut_off: u64,
}

struct Meters {
    delivered: Counter,
    given_again: Counter,
    cut_off: Counter,
    lag: Gauge,
}

/// What a subscription looks like now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) low: u64,
    pub(super) lag: u64,
    pub(super) in_flight: u64,
}

impl Subscription {
    /// A subscription that has handed over all up to `at`. `stored`: that is what the store says.
    pub(super) fn new(name: SubscriptionName, log: &LogKey, at: u64, stored: bool, saver: &Saver) -> Arc<Self> {
        let meters = Meters::new(saver.metrics(), log, &name);
        Arc::new(Self {
            name,
            log: log.clone(),
            state: Mutex::new(State { claims: Claims::new(at), seeks: 0, cut_off: 0 }),
            given_back: Notify::new(),
            stored: tokio::sync::Mutex::new(stored.then_some(at)),
            is_stored: AtomicBool::new(stored),
            listed: AtomicBool::new(false),
            saver: saver.clone(),
            meters,
        })
    }

    pub(super) fn name(&self) -> &SubscriptionName {
        &self.name
    }

    /// Takes up to `limit` entries of a log that holds `earliest..next`.
    pub(super) fn claim(self: &Arc<Self>, earliest: u64, next: u64, limit: u64) -> Option<Claim> {
        self.cut(earliest);
        let mut state = lock(&self.state);
        let range = state.claims.take(next, limit)?;
        let cut_off = std::mem::take(&mut state.cut_off);
        let seeks = state.seeks;
        Some(Claim { subscription: Arc::clone(self), range, seeks, events: 0, cut_off, settled: false })
    }

    /// A reader says that it has all up to `last` that it was given: see [`Claims::resume`].
    pub(super) fn resume(self: &Arc<Self>, last: u64) {
        self.change(|state| state.claims.resume(last));
        self.given_back.notify_waiters();
    }

    /// A reader says that it was given nothing after `last`: see [`Claims::give_again_after`].
    pub(super) fn give_again_after(self: &Arc<Self>, last: u64) {
        self.change(|state| state.claims.give_again_after(last));
        self.given_back.notify_waiters();
    }

    /// Goes to another place: all up to `at` is handed over, and nothing after it. What is under way is of no account
    /// any more, whatever becomes of it. Durable on return.
    ///
    /// # Errors
    /// When the store fails. Then the place has changed until the gateway ends.
    pub(super) async fn seek(self: &Arc<Self>, at: u64, store: &dyn Store) -> Result<(), Error> {
        {
            let mut state = lock(&self.state);
            state.seeks += 1;
            state.claims = Claims::new(at);
            state.cut_off = 0;
        }
        self.given_back.notify_waiters();
        let saved = self.save(store).await;
        if saved.is_err() {
            self.saver.list(self);
        }
        saved
    }

    /// The last entry ever claimed.
    pub(super) fn claimed(&self) -> u64 {
        lock(&self.state).claims.claimed()
    }

    /// Retention removed all before `earliest`.
    pub(super) fn cut(self: &Arc<Self>, earliest: u64) {
        self.change(|state| {
            let lost = state.claims.cut(earliest);
            state.cut_off += lost;
            self.meters.cut_off.inc_by(lost);
        });
    }

    /// What it looks like in a log whose next entry is `next`. Sets the metric too.
    pub(super) fn observe(&self, next: u64) -> Standing {
        let state = lock(&self.state);
        let lag = state.claims.lag(next);
        self.meters.lag.set(i64::try_from(lag).unwrap_or(i64::MAX));
        Standing { low: state.claims.low(), lag, in_flight: state.claims.in_flight() }
    }

    /// Makes sure that a new subscription outlives a restart, so that it keeps where it began.
    pub(super) async fn make_durable(&self, store: &dyn Store) -> Result<(), Error> {
        if self.is_stored.load(Ordering::Acquire) { Ok(()) } else { self.save(store).await }
    }

    /// Stores the cursor if it has moved. Two savers cannot overtake each other.
    pub(super) async fn save(&self, store: &dyn Store) -> Result<(), Error> {
        let mut stored = self.stored.lock().await;
        let low = lock(&self.state).claims.low();
        if *stored != Some(low) {
            store.save_cursor(&self.log, &self.name, Sequence(low)).await?;
            *stored = Some(low);
            self.is_stored.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn change(self: &Arc<Self>, change: impl FnOnce(&mut State)) {
        let moved = {
            let mut state = lock(&self.state);
            let before = state.claims.low();
            change(&mut state);
            state.claims.low() != before
        };
        if moved {
            self.saver.list(self);
        }
    }
}

impl Meters {
    fn new(metrics: &Metrics, log: &LogKey, name: &SubscriptionName) -> Self {
        let labels = SubscriptionLabels {
            app: log.app.to_string(),
            stream: log.stream.to_string(),
            subscription: name.to_string(),
        };
        Self {
            delivered: metrics.events_delivered.get_or_create_owned(&labels),
            given_again: metrics.events_given_again.get_or_create_owned(&labels),
            cut_off: metrics.events_cut_off.get_or_create_owned(&labels),
            lag: metrics.subscription_lag.get_or_create_owned(&labels),
        }
    }
}

/// Entries that one reader has taken and no other gets, until it gives them back.
pub(super) struct Claim {
    subscription: Arc<Subscription>,
    range: Range<u64>,
    /// Of which place of the subscription: see [`State::seeks`].
    seeks: u64,
    /// Events on their way in a response.
    events: u64,
    /// Of how many entries that retention cut off before these its reader is told.
    cut_off: u64,
    settled: bool,
}

impl Claim {
    pub(super) fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// How many entries were cut off by retention before these that no reader was told of yet.
    pub(super) fn cut_off(&self) -> u64 {
        self.cut_off
    }

    /// Gives back the entries from `at` on.
    pub(super) fn shorten(&mut self, at: u64) {
        if self.range.start < at && at < self.range.end {
            let mut state = lock(&self.subscription.state);
            if state.seeks == self.seeks {
                state.claims.shorten(self.range.start, at);
            }
            drop(state);
            self.range.end = at;
            self.subscription.given_back.notify_waiters();
        }
    }

    /// Gives back the entries from `at` on, `left` events among them. Whether any are kept.
    pub(super) fn keep_before(&mut self, at: u64, left: u64) -> bool {
        self.events = self.events.saturating_sub(left);
        self.shorten(at);
        self.range.start < at
    }

    /// A response with so many events is on its way.
    pub(super) fn under_way(&mut self, events: u64) {
        self.events = events;
    }

    /// The entries were handed over, or hold nothing that this reader wants.
    pub(super) fn settle(mut self) {
        self.settled = true;
        let (seeks, start) = (self.seeks, self.range.start);
        self.subscription.change(|state| {
            if state.seeks == seeks {
                state.claims.settle(start);
            }
        });
        self.subscription.meters.delivered.inc_by(self.events);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        {
            let mut state = lock(&self.subscription.state);
            if state.seeks == self.seeks {
                state.claims.give_back(self.range.start);
                state.cut_off += self.cut_off;
            }
        }
        self.subscription.meters.given_again.inc_by(self.events);
        self.subscription.given_back.notify_waiters();
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claim({} {:?})", self.subscription.name, self.range)
    }
}
