//! [`SeatQueue`]: a bucket's ledger and its queue: who gets what comes free, and when those who wait have to look.
//!
//! Invariants:
//!
//! - Whoever changes something gives out what came free by it, under the same lock ([`SeatQueue::deal`]). So the only
//!   thing that waiters must watch is time.
//! - The first in line sleeps until the next seat can come free, or those who were overtaken are to be judged, never
//!   longer, and then deals. Whoever becomes first is woken to set its timer. The others sleep until their own lower
//!   bound or deadline, and deal too when they wake: a first in line that nobody polls delays the others, but does not
//!   stop them, and a thousand waiters do not wake for each seat.
//! - A waiter's outcome is written under the lock, once.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::NoSeat;
use super::client_books::{BookId, ClientBooks};
use super::fair_queue::{FairQueue, QueueEntry};
use super::ledger::{Ledger, SeatOutcome, Whose};
use super::window::{GRAIN, later};
use crate::vendor::order::Payer;

/// More orders of one client do not wait. Bounds memory; one client cannot crowd out another.
const MAX_QUEUE: usize = 10_000;

/// How often those who wait are judged because others came before them or the vendor refused, where more than [`FEW`]
/// wait: some thousands of them, the next the next time.
pub(super) const JUDGED_EVERY: Duration = Duration::from_millis(100);

/// So few are judged whenever somebody comes before one of them.
const FEW: usize = 128;

/// One who waits.
#[derive(Debug)]
pub(super) struct SeatWaiter {
    pub(super) deadline: Instant,
    book: BookId,
    pub(super) word: Notify,
    /// Set under the bucket's lock when it leaves the queue other than by its own will.
    pub(super) outcome: OnceLock<WaitOutcome>,
}

/// A seat that somebody was given.
#[derive(Clone, Copy, Debug)]
pub(super) struct GivenSeat {
    /// Which of the bucket's halvings it was given after.
    pub(super) era: u64,
    /// The book of the client in whose name it was given.
    pub(super) book: BookId,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum WaitOutcome {
    /// That seat is its own.
    Given(GivenSeat),
    Refused(NoSeat),
}

pub(super) enum SeatOffer {
    /// That seat.
    Now(GivenSeat),
    /// It waits in the queue, and is to look at `wake_at`.
    Later { waiter: Arc<SeatWaiter>, entry: QueueEntry, wake_at: Instant },
}

/// All of a bucket that changes.
pub(super) struct SeatQueue {
    pub(super) ledger: Ledger,
    pub(super) books: ClientBooks,
    pub(super) queue: FairQueue<Arc<SeatWaiter>>,
    /// The number of the first in line that knows it is first: its timer is set for the next seat.
    first: Option<u64>,
    /// When those who were overtaken were judged last.
    judged: Option<Instant>,
    /// Those to wake when the lock is left.
    pub(super) told: Vec<Arc<SeatWaiter>>,
}

impl SeatQueue {
    pub(super) fn new(ledger: Ledger, now: Instant) -> Self {
        let (books, queue) = (ClientBooks::new(now), FairQueue::new());
        Self { ledger, books, queue, first: None, judged: None, told: Vec::new() }
    }

    /// The ledger has changed in a way that lets seats come at other times than those who wait were told.
    pub(super) fn judge_anew(&mut self, now: Instant) {
        self.queue.doubt_all();
        self.judge(now);
        // Seats may come sooner than the first in line knows.
        self.first = None;
        self.deal(now);
    }

    pub(super) fn ask(&mut self, payer: &Payer, deadline: Instant, now: Instant) -> Result<SeatOffer, NoSeat> {
        self.deal(now);
        let book = self.books.of(&payer.client, now);
        // After the deal somebody waits only where nothing is free: who comes passes nobody.
        if self.queue.is_empty()
            && let Some(era) = self.ledger.take(now)
        {
            self.books.given(book);
            return Ok(SeatOffer::Now(GivenSeat { era, book }));
        }
        if self.queue.len_of(&payer.client) >= MAX_QUEUE {
            return Err(NoSeat::Crowded);
        }
        let rank = self.queue.rank_of_next(&payer.client, payer.weight);
        let bound = self.ledger.when(rank, now);
        // At once: who cannot be served in time is told so while there is time to go elsewhere.
        if bound > deadline {
            return Err(NoSeat::Spent { retry_after: bound - now });
        }
        let waiter = Arc::new(SeatWaiter { deadline, book, word: Notify::new(), outcome: OnceLock::new() });
        let was_overtaken = self.queue.is_overtaken();
        let entry = self.queue.push(&payer.client, payer.weight, waiter.clone());
        if self.queue.is_overtaken() && !was_overtaken {
            // The timer of the first in line is to see to it, if nothing else does.
            self.first = None;
        }
        self.books.came(book, now);
        // It takes turns only from those who stand behind it, so its own bound stays.
        self.judge_overtaken(now);
        let wake_at = self.wake_at(entry.number(), bound, deadline);
        self.tell_first();
        Ok(SeatOffer::Later { waiter, entry, wake_at })
    }

    /// Brings the ledger up to now, and gives what is free to whose turn it is.
    pub(super) fn deal(&mut self, now: Instant) {
        self.ledger.advance(now);
        while let Some((_, waiter)) = self.queue.first() {
            // Its own timer should have seen to it: nobody polls it. It must not be given what it will not take.
            if now.saturating_duration_since(waiter.deadline) > GRAIN {
                let retry_after = self.ledger.when(0, now) - now;
                self.drop_first(WaitOutcome::Refused(NoSeat::Spent { retry_after }), now);
                continue;
            }
            let Some(era) = self.ledger.take(now) else { break };
            if let Some(waiter) = self.queue.pop() {
                let given = GivenSeat { era, book: waiter.book };
                self.books.given(given.book);
                self.tell(waiter, WaitOutcome::Given(given), now);
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
        if self.queue.is_overtaken() && (is_time || self.queue.len() <= FEW) {
            self.judge(now);
        }
    }

    /// When those who were overtaken are judged at the latest.
    fn judged_next(&self) -> Option<Instant> {
        self.queue.is_overtaken().then(|| self.judged.map(|judged| judged + JUDGED_EVERY)).flatten()
    }

    /// A seat that this bucket gave is settled.
    pub(super) fn settle_own(&mut self, given: GivenSeat, settled: SeatOutcome, now: Instant) {
        self.books.settled(given.book, settled != SeatOutcome::Unused, now);
        self.settle(Whose::Own(given.era), settled, now);
    }

    /// A seat is settled, whoever gave it.
    pub(super) fn settle(&mut self, whose: Whose, settled: SeatOutcome, now: Instant) {
        self.ledger.settle(now, whose, settled);
        match settled {
            SeatOutcome::Used | SeatOutcome::Abandoned(_) => {}
            SeatOutcome::Unused => self.deal(now),
            SeatOutcome::Refused(_) => {
                // Of a burst of refusals each puts off all who wait: they are judged once.
                self.queue.doubt_all();
                self.first = None;
                self.deal(now);
            }
        }
    }

    /// Sends all who wait to ask again: the bucket gives no seat any more.
    pub(super) fn send_all_away(&mut self, now: Instant) {
        while let Some(waiter) = self.queue.pop() {
            self.tell(waiter, WaitOutcome::Refused(NoSeat::Moved), now);
        }
    }

    /// One that waits leaves.
    pub(super) fn leave(&mut self, entry: &QueueEntry, now: Instant) {
        if let Some(waiter) = self.queue.remove(entry) {
            self.books.left(waiter.book, now);
        }
        self.deal(now);
    }

    /// Refuses those who were overtaken and whom no seat can reach in time any more.
    fn judge(&mut self, now: Instant) {
        self.judged = Some(now);
        let Self { ledger, books, queue, told, .. } = self;
        queue.retain(|waiter, rank| {
            let bound = ledger.when(rank, now);
            let stays = bound <= waiter.deadline;
            if !stays {
                let _ = waiter.outcome.set(WaitOutcome::Refused(NoSeat::Spent { retry_after: bound - now }));
                books.left(waiter.book, now);
                told.push(waiter.clone());
            }
            stays
        });
    }

    fn drop_first(&mut self, outcome: WaitOutcome, now: Instant) {
        let Some(entry) = self.queue.first_entry() else { return };
        if let Some(waiter) = self.queue.remove(&entry) {
            self.tell(waiter, outcome, now);
        }
    }

    fn tell(&mut self, waiter: Arc<SeatWaiter>, outcome: WaitOutcome, now: Instant) {
        self.books.left(waiter.book, now);
        // Set once: it has just left the queue.
        let _ = waiter.outcome.set(outcome);
        self.told.push(waiter);
    }

    /// When the waiter of that number has to look. It sets its timer now, so if it is the first it need not be told.
    pub(super) fn wake_at(&mut self, number: u64, bound: Instant, deadline: Instant) -> Instant {
        if self.queue.first().is_some_and(|(first, _)| first == number) {
            self.first = Some(number);
            return self.judged_next().map_or(bound, |at| at.min(bound));
        }
        // After the first, who deals to all: then they are woken in the order of the line, and once.
        later(bound, GRAIN).min(deadline)
    }
}
