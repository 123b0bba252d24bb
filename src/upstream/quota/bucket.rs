//! A bucket: its ledger and its queue under one lock ([`SeatQueue`]), and those who wait.
//!
//! Invariants:
//!
//! - A waiter that is dropped looks at its outcome under the lock: still in line, it leaves; given a seat it never
//!   took, the seat goes to the next. No seat and no wakeup is lost between.
//! - A bucket that was retired gives no seat: who waited is sent away, who comes is too, and what becomes of the seats
//!   it gave before is passed on to its heirs, which count them. Locks are taken from the elder to its heirs, never
//!   back.
//! - Of those that descend from a bucket each hears once of a seat of its, on however many ways it descends: they may
//!   part and come together again while a request is under way. Nobody is retired meanwhile ([`LINEAGE`]).
//! - Wakers are called after the lock was left, because they are foreign code.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::client_books::{BucketLabel, ClientUse};
use super::fair_queue::QueueEntry;
use super::ledger::{Estate, Ledger, Origin, SeatOutcome, Whose};
use super::penalty::{RefusalNews, VendorRefusals};
use super::seat::Seat;
use super::seat_queue::{GivenSeat, SeatOffer, SeatQueue, SeatWaiter, WaitOutcome};
use super::{Begin, NoSeat, Snapshot};
use crate::config::Limit;
use crate::kernel::clock::Clock;
use crate::kernel::sync::lock;
use crate::vendor::order::Payer;

/// Held while buckets are retired, and while those that descend from one are told of a seat. Taken before any bucket's.
static LINEAGE: Mutex<()> = Mutex::new(());

/// One limit of the vendor.
pub struct Bucket {
    clock: Clock,
    state: Mutex<BucketState>,
}

/// All that changes.
struct BucketState {
    seats: SeatQueue,
    /// Who takes over; `None`: nobody, it is in use.
    heirs: Option<Arc<[Arc<Bucket>]>>,
}

impl BucketState {
    fn retire(&mut self, heirs: &[Arc<Bucket>], now: Instant) {
        self.seats.ledger.advance(now);
        let estate = self.seats.ledger.estate();
        heirs.iter().for_each(|heir| heir.inherit(&estate));
        self.heirs = Some(heirs.into());
        self.seats.send_all_away(now);
    }
}

impl Bucket {
    /// A bucket.
    #[must_use]
    pub fn new(limit: Limit, begin: Begin, clock: Clock) -> Arc<Self> {
        let now = clock.now();
        let state = BucketState { seats: SeatQueue::new(Ledger::new(limit, begin, now), now), heirs: None };
        Arc::new(Self { clock, state: Mutex::new(state) })
    }

    /// Waits for a seat, in fair order. Dropping the future leaves the queue.
    ///
    /// A seat that is free is given whatever the deadline is. With none free the bound is judged as things stand: that
    /// everyone ahead takes its turn and that every seat given out is used.
    ///
    /// # Errors
    /// At once when no seat can come before `deadline`, and as soon as that turns out on the way: others came first,
    /// the vendor refused, or answers late. [`NoSeat::Moved`]: at any time.
    pub async fn seat(self: &Arc<Self>, payer: &Payer, deadline: Instant) -> Result<Seat, NoSeat> {
        let offer = self.with(|state, now| match state.heirs {
            Some(_) => Err(NoSeat::Moved),
            None => state.seats.ask(payer, deadline, now),
        });
        let mut turn = match offer? {
            SeatOffer::Now(given) => return Ok(Seat::new(self.clone(), given)),
            SeatOffer::Later { waiter, entry, wake_at } => Turn { bucket: self, waiter, entry, wake_at, over: false },
        };
        loop {
            // Woken by word or by time: either way, look.
            let _ = timeout_at(turn.wake_at, turn.waiter.word.notified()).await;
            match turn.look() {
                Some(WaitOutcome::Given(given)) => return Ok(Seat::new(self.clone(), given)),
                Some(WaitOutcome::Refused(why)) => return Err(why),
                None => {}
            }
        }
    }

    /// Changes the limit of a running bucket without breaching the old or the new one. More requests: at once. Fewer:
    /// as seats come back. A longer window: no seat is given until the last request is a new window old, because
    /// what was counted before is no longer known.
    pub fn reconfigure(&self, limit: Limit) {
        self.with(|state, now| {
            if state.seats.ledger.reconfigure(limit, now) {
                state.seats.judge_anew(now);
            }
        });
    }

    /// The vendor's `Retry-After` is believed for so long from now on, also one that was said before.
    pub fn believe(&self, longest: Duration) {
        self.with(|state, now| {
            if state.seats.ledger.believe(longest) {
                state.seats.judge_anew(now);
            }
        });
    }

    /// A look at it.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.with(|state, now| {
            state.seats.deal(now);
            state.seats.ledger.snapshot(now, state.seats.queue.len())
        })
    }

    /// Counts its clients' seats in these series from now on.
    pub(crate) fn show_as(&self, label: BucketLabel) {
        self.with(|state, now| state.seats.books.show_as(label, now));
    }

    /// What each client has used of it since its series began: who used most in the last minute first.
    #[must_use]
    pub fn clients(&self) -> Vec<ClientUse> {
        self.with(|state, now| state.seats.books.look(now))
    }

    /// Brings the clients' series up to now.
    pub(crate) fn refresh_clients(&self) {
        self.with(|state, now| state.seats.books.advance(now));
    }

    /// That the vendor refuses although the quota is kept, as long as it does.
    #[must_use]
    pub fn refusals(&self) -> Option<VendorRefusals> {
        self.with(|state, now| {
            state.seats.ledger.advance(now);
            state.seats.ledger.refusals(now)
        })
    }

    /// That the vendor began to refuse, or refuses no more: each told once. Of a bucket that was retired nothing is:
    /// its heirs count what is refused.
    pub(crate) fn refusal_news(&self) -> Option<RefusalNews> {
        self.with(|state, now| {
            state.seats.ledger.advance(now);
            if state.heirs.is_some() { None } else { state.seats.ledger.refusal_news(now) }
        })
    }

    /// The last that is told of it, if it was told that the vendor began to refuse: it is used no more, or by another
    /// name.
    pub(crate) fn last_refusal_news(&self) -> Option<RefusalNews> {
        self.with(|state, now| {
            state.seats.ledger.advance(now);
            state.seats.ledger.last_refusal_news(now)
        })
    }

    /// Gives no seat from now on: `heirs`, which nobody has used yet, take over what is under way.
    pub fn retire(&self, heirs: &[Arc<Self>]) {
        let _lineage = lock(&LINEAGE);
        self.with(|state, now| state.retire(heirs, now));
    }

    /// Retires it if all that was ever sent is counted longer ago than a window, so that nobody has to take over.
    pub fn retire_if_idle(&self) -> bool {
        let _lineage = lock(&LINEAGE);
        self.with(|state, now| {
            state.seats.deal(now);
            let is_idle = state.seats.queue.is_empty() && state.seats.ledger.is_idle(now);
            if is_idle {
                state.retire(&[], now);
            }
            is_idle
        })
    }

    /// Until when the vendor may count what was sent, if that is later than now. What is under way it may count until
    /// `under_way`.
    #[must_use]
    pub fn counted_until(&self, under_way: Instant) -> Option<Instant> {
        self.with(|state, now| {
            state.seats.ledger.advance(now);
            state.seats.ledger.counted_until(now, under_way)
        })
    }

    /// A seat that it gave is settled now.
    pub(super) fn settle(&self, given: GivenSeat, settled: SeatOutcome) {
        let (origin, heirs) = self.with(|state, now| {
            state.seats.settle_own(given, settled, now);
            (state.seats.ledger.origin(), state.heirs.clone())
        });
        let Some(heirs) = heirs else { return };
        // After our own lock is gone: `retire` takes this one first, so the other order could wait for itself.
        let _lineage = lock(&LINEAGE);
        let (mut left, mut seen) = (heirs.to_vec(), HashSet::new());
        while let Some(heir) = left.pop() {
            if seen.insert(Arc::as_ptr(&heir)) {
                left.extend_from_slice(&heir.settle_inherited(origin, settled));
            }
        }
    }

    /// A seat that an elder gave is settled now. Returns those who are to be told in its place if it was retired
    /// itself.
    fn settle_inherited(&self, origin: Origin, settled: SeatOutcome) -> Arc<[Arc<Self>]> {
        self.with(|state, now| {
            if let Some(heirs) = &state.heirs {
                return heirs.clone();
            }
            state.seats.settle(Whose::Inherited(origin), settled, now);
            Arc::default()
        })
    }

    fn inherit(&self, estate: &Estate) {
        self.with(|state, _| state.seats.ledger.inherit(estate));
    }

    /// Runs `change` under the lock with the time as it is there, then wakes those it told.
    fn with<R>(&self, change: impl FnOnce(&mut BucketState, Instant) -> R) -> R {
        // No section panics; if one did, counts that are off by one still serve better than a bucket that is gone.
        let mut state = lock(&self.state);
        let now = self.clock.now();
        let result = change(&mut state, now);
        let told = std::mem::take(&mut state.seats.told);
        drop(state);
        for waiter in told {
            waiter.word.notify_one();
        }
        result
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").finish_non_exhaustive()
    }
}

/// One's turn to come. Dropped before it is over, it is given up.
struct Turn<'a> {
    bucket: &'a Bucket,
    waiter: Arc<SeatWaiter>,
    entry: QueueEntry,
    wake_at: Instant,
    over: bool,
}

impl Turn<'_> {
    /// What has come of it; `None`: nothing yet, and `wake_at` is set anew.
    fn look(&mut self) -> Option<WaitOutcome> {
        let outcome =
            self.waiter.outcome.get().copied().or_else(|| self.bucket.with(|state, now| self.wait_on(state, now)));
        self.over = outcome.is_some();
        outcome
    }

    fn wait_on(&mut self, state: &mut BucketState, now: Instant) -> Option<WaitOutcome> {
        state.seats.deal(now);
        let Some(rank) = state.seats.queue.rank(&self.entry) else { return self.waiter.outcome.get().copied() };
        let bound = state.seats.ledger.when(rank, now);
        if now >= self.waiter.deadline || bound > self.waiter.deadline {
            state.seats.leave(&self.entry, now);
            return Some(WaitOutcome::Refused(NoSeat::Spent { retry_after: bound - now }));
        }
        self.wake_at = state.seats.wake_at(self.entry.number(), bound, self.waiter.deadline);
        None
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let given = self.bucket.with(|state, now| match self.waiter.outcome.get() {
            Some(WaitOutcome::Given(given)) => Some(*given),
            Some(WaitOutcome::Refused(_)) => None,
            None => {
                state.seats.leave(&self.entry, now);
                None
            }
        });
        if let Some(given) = given {
            self.bucket.settle(given, SeatOutcome::Unused);
        }
    }
}
