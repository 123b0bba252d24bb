//! A bucket: its ledger and its queue under one lock, and those who wait.
//!
//! Invariants:
//!
//! - Whoever changes something gives out what came free by it, under the same lock ([`State::deal`]). So the only thing
//!   that waiters must watch is time.
//! - The first in line sleeps until the next seat can come free, or those who were overtaken are to be judged, never longer,
//!   and then deals. Whoever becomes first is woken to set its timer. The others sleep until their own lower bound or deadline, and deal too when they wake: a
//!   first in line that nobody polls delays the others, but does not stop them, and a thousand waiters do not wake for
//!   each seat.
//! - A waiter's outcome is written under the lock, once. A waiter that is dropped looks at it under the lock: still in
//!   line, it leaves; given a seat it never took, the seat goes to the next. No seat and no wakeup is lost between.
//! - A bucket that was retired gives no seat: who waited is sent away, who comes is too, and what becomes of the seats it
//!   gave before is passed on to its heirs, which count them. Locks are taken from the elder to its heirs, never back.
//! - Of those that descend from a bucket each hears once of a seat of its, on however many ways it descends: they may
//!   part and come together again while a request is under way. Nobody is retired meanwhile ([`LINEAGE`]).
//! - Wakers are called after the lock was left, because they are foreign code.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::fair_queue::{FairQueue, Place};
use super::ledger::{Estate, GRAIN, Ledger, Origin, Settled, Whose, later};
use super::seat::Seat;
use super::{Begin, Refused, Snapshot};
use crate::config::Limit;
use crate::kernel::clock::Clock;
use crate::kernel::sync::lock;
use crate::vendor::order::Payer;

/// More orders of one client do not wait. Bounds memory; one client cannot crowd out another.
const MAX_QUEUE: usize = 10_000;

/// How often those who wait are judged because others came before them, where more than [`FEW`] wait.
pub(super) const JUDGED_EVERY: Duration = Duration::from_millis(100);

/// So few are judged whenever somebody comes before one of them.
const FEW: usize = 128;

/// Held while buckets are retired, and while those that descend from one are told of a seat. Taken before any bucket's.
static LINEAGE: Mutex<()> = Mutex::new(());

/// One limit of the vendor.
pub struct Bucket {
    clock: Clock,
    state: Mutex<State>,
}

impl Bucket {
    /// A bucket.
    #[must_use]
    pub fn new(limit: Limit, begin: Begin, clock: Clock) -> Arc<Self> {
        let ledger = Ledger::new(limit, begin, clock.now());
        let queue = FairQueue::new();
        let state = State { ledger, queue, first: None, overtaken: false, judged: None, told: Vec::new(), heirs: None };
        Arc::new(Self { clock, state: Mutex::new(state) })
    }

    /// Waits for a seat, in fair order. Dropping the future leaves the queue.
    ///
    /// A seat that is free is given whatever the deadline is. With none free the bound is judged as things stand: that
    /// everyone ahead takes its turn and that every seat given out is used.
    ///
    /// # Errors
    /// At once when no seat can come before `deadline`, and as soon as that turns out on the way: others came first, the
    /// vendor refused, or answers late. [`Refused::Moved`]: at any time.
    pub async fn seat(self: &Arc<Self>, payer: &Payer, deadline: Instant) -> Result<Seat, Refused> {
        let mut turn = match self.with(|state, now| state.ask(payer, deadline, now))? {
            Asked::Given(era) => return Ok(Seat::new(self.clone(), era)),
            Asked::Wait(waiter, place, wake_at) => Turn { bucket: self, waiter, place, wake_at, over: false },
        };
        loop {
            // Woken by word or by time: either way, look.
            let _ = timeout_at(turn.wake_at, turn.waiter.word.notified()).await;
            match turn.look() {
                Some(Outcome::Given(era)) => return Ok(Seat::new(self.clone(), era)),
                Some(Outcome::Refused(why)) => return Err(why),
                None => {}
            }
        }
    }

    /// Changes the limit of a running bucket without breaching the old or the new one. More requests: at once. Fewer:
    /// as seats come back. A longer window: no seat is given until the last request is a new window old, because
    /// what was counted before is no longer known.
    pub fn reconfigure(&self, limit: Limit) {
        self.with(|state, now| {
            if state.ledger.reconfigure(limit, now) {
                state.judge(now);
                // Seats may come sooner than the first in line knows.
                state.first = None;
                state.deal(now);
            }
        });
    }

    /// The vendor's `Retry-After` is believed for so long from now on, also one that was said before.
    pub fn believe(&self, longest: Duration) {
        self.with(|state, now| {
            if state.ledger.believe(longest) {
                state.judge(now);
                state.first = None;
                state.deal(now);
            }
        });
    }

    /// A look at it.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.with(|state, now| {
            state.deal(now);
            state.ledger.snapshot(now, state.queue.len())
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
            state.deal(now);
            let is_idle = state.queue.is_empty() && state.ledger.is_idle(now);
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
            state.ledger.advance(now);
            state.ledger.counted_until(now, under_way)
        })
    }

    /// A seat that it gave is settled now.
    pub(super) fn settle(&self, era: u64, settled: Settled) {
        let (origin, heirs) = self.with(|state, now| {
            state.settle(Whose::Own(era), settled, now);
            (state.ledger.origin(), state.heirs.clone())
        });
        let Some(heirs) = heirs else { return };
        let _lineage = lock(&LINEAGE);
        let (mut left, mut seen) = (heirs.to_vec(), HashSet::new());
        while let Some(heir) = left.pop() {
            if seen.insert(Arc::as_ptr(&heir)) {
                left.extend_from_slice(&heir.settle_inherited(origin, settled));
            }
        }
    }

    /// A seat that an elder gave is settled now. Returns those who are to be told in its place if it was retired itself.
    fn settle_inherited(&self, origin: Origin, settled: Settled) -> Arc<[Arc<Self>]> {
        self.with(|state, now| {
            if let Some(heirs) = &state.heirs {
                return heirs.clone();
            }
            state.settle(Whose::Inherited(origin), settled, now);
            Arc::default()
        })
    }

    fn inherit(&self, estate: &Estate) {
        self.with(|state, _| state.ledger.inherit(estate));
    }

    /// Runs `change` under the lock with the time as it is there, then wakes those it told.
    fn with<R>(&self, change: impl FnOnce(&mut State, Instant) -> R) -> R {
        // No section panics; if one did, counts that are off by one still serve better than a bucket that is gone.
        let mut state = lock(&self.state);
        let now = self.clock.now();
        let result = change(&mut state, now);
        let told = std::mem::take(&mut state.told);
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

/// One who waits.
#[derive(Debug)]
struct Waiter {
    deadline: Instant,
    /// Says: look.
    word: Notify,
    /// Set under the bucket's lock when it leaves the queue other than by its own will.
    outcome: OnceLock<Outcome>,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// A seat of that era is its own.
    Given(u64),
    Refused(Refused),
}

enum Asked {
    /// A seat of that era.
    Given(u64),
    /// It waits there, and is to look at that time.
    Wait(Arc<Waiter>, Place, Instant),
}

/// All that changes.
struct State {
    ledger: Ledger,
    queue: FairQueue<Arc<Waiter>>,
    /// The number of the first in line that knows it is first: its timer is set for the next seat.
    first: Option<u64>,
    /// Somebody came before others, who were not judged since.
    overtaken: bool,
    /// When all were judged last.
    judged: Option<Instant>,
    /// Those to wake when the lock is left.
    told: Vec<Arc<Waiter>>,
    /// Who takes over; `None`: nobody, it is in use.
    heirs: Option<Arc<[Arc<Bucket>]>>,
}

impl State {
    fn ask(&mut self, payer: &Payer, deadline: Instant, now: Instant) -> Result<Asked, Refused> {
        if self.heirs.is_some() {
            return Err(Refused::Moved);
        }
        self.deal(now);
        if self.queue.is_empty()
            && let Some(era) = self.ledger.take(now)
        {
            return Ok(Asked::Given(era));
        }
        if self.queue.len_of(&payer.client) >= MAX_QUEUE {
            return Err(Refused::Crowded);
        }
        let rank = self.queue.rank_of_next(&payer.client, payer.weight);
        let bound = self.ledger.when(rank, now);
        if bound > deadline {
            return Err(Refused::Spent { retry_after: bound - now });
        }
        let waiter = Arc::new(Waiter { deadline, word: Notify::new(), outcome: OnceLock::new() });
        if rank < self.queue.len() && !self.overtaken {
            self.overtaken = true;
            // Its timer is to see to it, if nothing else does.
            self.first = None;
        }
        let place = self.queue.push(&payer.client, payer.weight, waiter.clone());
        // It takes turns only from those who stand behind it, so its own bound stays.
        self.judge_overtaken(now);
        let wake_at = self.wake_at(place.number(), bound, deadline);
        self.tell_first();
        Ok(Asked::Wait(waiter, place, wake_at))
    }

    /// Brings the ledger up to now, and gives what is free to whose turn it is.
    fn deal(&mut self, now: Instant) {
        self.ledger.advance(now);
        while let Some((_, waiter)) = self.queue.first() {
            // Its own timer should have seen to it: nobody polls it. It must not be given what it will not take.
            if now.saturating_duration_since(waiter.deadline) > GRAIN {
                let retry_after = self.ledger.when(0, now) - now;
                self.drop_first(Outcome::Refused(Refused::Spent { retry_after }));
                continue;
            }
            let Some(era) = self.ledger.take(now) else { break };
            if let Some(waiter) = self.queue.pop() {
                self.tell(waiter, Outcome::Given(era));
            }
        }
        self.judge_overtaken(now);
        self.tell_first();
    }

    /// Sees that the first in line knows it.
    fn tell_first(&mut self) {
        if let Some((number, waiter)) = self.queue.first()
            && self.first != Some(number)
        {
            self.first = Some(number);
            self.told.push(waiter.clone());
        }
    }

    /// Refuses those who were overtaken for good: at once where few wait, else soon.
    fn judge_overtaken(&mut self, now: Instant) {
        let is_time = self.judged_next().is_none_or(|at| at <= now);
        if self.overtaken && (is_time || self.queue.len() <= FEW) {
            self.judge(now);
        }
    }

    /// When those who were overtaken are judged at the latest.
    fn judged_next(&self) -> Option<Instant> {
        self.overtaken.then(|| self.judged.map(|judged| judged + JUDGED_EVERY)).flatten()
    }

    fn settle(&mut self, whose: Whose, settled: Settled, now: Instant) {
        self.ledger.settle(now, whose, settled);
        match settled {
            Settled::Used | Settled::Abandoned(_) => {}
            Settled::Unused => self.deal(now),
            Settled::Refused(_) => {
                self.judge(now);
                self.deal(now);
            }
        }
    }

    fn retire(&mut self, heirs: &[Arc<Bucket>], now: Instant) {
        self.ledger.advance(now);
        let estate = self.ledger.estate();
        heirs.iter().for_each(|heir| heir.inherit(&estate));
        self.heirs = Some(heirs.into());
        while let Some(waiter) = self.queue.pop() {
            self.tell(waiter, Outcome::Refused(Refused::Moved));
        }
    }

    /// Refuses those whom no seat can reach in time any more.
    fn judge(&mut self, now: Instant) {
        (self.overtaken, self.judged) = (false, Some(now));
        let Self { ledger, queue, told, .. } = self;
        queue.retain(|waiter, rank| {
            let bound = ledger.when(rank, now);
            let stays = bound <= waiter.deadline;
            if !stays {
                let _ = waiter.outcome.set(Outcome::Refused(Refused::Spent { retry_after: bound - now }));
                told.push(waiter.clone());
            }
            stays
        });
    }

    fn drop_first(&mut self, outcome: Outcome) {
        let Some(place) = self.queue.first_place() else { return };
        if let Some(waiter) = self.queue.remove(&place) {
            self.tell(waiter, outcome);
        }
    }

    fn tell(&mut self, waiter: Arc<Waiter>, outcome: Outcome) {
        // Set once: it has just left the queue.
        let _ = waiter.outcome.set(outcome);
        self.told.push(waiter);
    }

    /// When the waiter of that number has to look. It sets its timer now, so if it is the first it need not be told.
    fn wake_at(&mut self, number: u64, bound: Instant, deadline: Instant) -> Instant {
        if self.queue.first().is_some_and(|(first, _)| first == number) {
            self.first = Some(number);
            return self.judged_next().map_or(bound, |at| at.min(bound));
        }
        // After the first, who deals to all: then they are woken in the order of the line, and once.
        later(bound, GRAIN).min(deadline)
    }
}

/// One's turn to come. Dropped before it is over, it is given up.
struct Turn<'a> {
    bucket: &'a Bucket,
    waiter: Arc<Waiter>,
    place: Place,
    wake_at: Instant,
    over: bool,
}

impl Turn<'_> {
    /// What has come of it; `None`: nothing yet, and `wake_at` is set anew.
    fn look(&mut self) -> Option<Outcome> {
        let outcome =
            self.waiter.outcome.get().copied().or_else(|| self.bucket.with(|state, now| self.wait_on(state, now)));
        self.over = outcome.is_some();
        outcome
    }

    fn wait_on(&mut self, state: &mut State, now: Instant) -> Option<Outcome> {
        state.deal(now);
        let Some(rank) = state.queue.rank(&self.place) else { return self.waiter.outcome.get().copied() };
        let bound = state.ledger.when(rank, now);
        if now >= self.waiter.deadline || bound > self.waiter.deadline {
            state.queue.remove(&self.place);
            state.deal(now);
            return Some(Outcome::Refused(Refused::Spent { retry_after: bound - now }));
        }
        self.wake_at = state.wake_at(self.place.number(), bound, self.waiter.deadline);
        None
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let given = self.bucket.with(|state, now| match self.waiter.outcome.get() {
            Some(Outcome::Given(era)) => Some(*era),
            Some(Outcome::Refused(_)) => None,
            None => {
                state.queue.remove(&self.place);
                state.deal(now);
                None
            }
        });
        if let Some(era) = given {
            self.bucket.settle(era, Settled::Unused);
        }
    }
}
