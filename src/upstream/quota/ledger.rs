//! How many seats are in use, which cool until when, and when the next can be given. No waiting, no lock: plain counts.
//!
//! Invariants: a seat is given only while those in flight and those cooling are fewer than those in force, which are
//! never more than N. Of the requests in one window take the one whose seat was given last: when it was given, all
//! others were in flight or cooling. So there are at most N of them. Free and retired seats are not stored: they are
//! what is left, so no change of the limit has to move them.
//!
//! Seats in flight of a ledger that this one takes over from count as its own, and until a window after all that was
//! settled there no seat is given. Each is known by who gave it, and counts once, on however many ways it comes here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::penalty::{Penalty, RefusalNews, VendorRefusals};
use super::window::{cycle, later, slack, window};
use super::{Begin, Snapshot};
use crate::config::Limit;

/// How long what an earlier run has sent may be on its way after that run's death: one packet lost and sent again.
pub(super) const ON_THE_WAY: Duration = Duration::from_millis(500);

/// The seats of one bucket.
#[derive(Debug)]
pub(super) struct Ledger {
    limit: Limit,
    origin: Origin,
    in_flight: u32,
    /// Seats in flight of ledgers that this one took over from.
    inherited: BTreeMap<Origin, u32>,
    /// Seats whose exchange nobody watches any more: what was sent is counted by then, or never. Soonest first.
    abandoned: VecDeque<(Instant, Origin)>,
    /// When each cooling seat comes free, soonest first.
    cooling: VecDeque<Instant>,
    /// Everything the vendor has counted for seats that cool or have cooled, it counts by then.
    last_used: Option<Instant>,
    /// How many seats were used by then is not known: no seat is given until a window later.
    unknown_until: Option<Instant>,
    penalty: Penalty,
}

/// Which ledger gave a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Origin(u64);

impl Origin {
    fn new() -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        Self(MADE.fetch_add(1, Ordering::Relaxed))
    }
}

/// Whose seat it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Given by this ledger in that era.
    Own(u64),
    /// Given by that one, from which it took over.
    Inherited(Origin),
}

/// What became of a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeatOutcome {
    /// Nothing was sent with it.
    Unused,
    /// It was answered, or its connection is known dead, now.
    Used,
    /// Nobody watches any more: what was sent is counted by that time, or never.
    Abandoned(Instant),
    /// It was answered 429 now.
    Refused(Option<Duration>),
}

/// What a ledger leaves to those that take over from it.
#[derive(Clone, Debug)]
pub(super) struct Estate {
    in_flight: BTreeMap<Origin, u32>,
    abandoned: VecDeque<(Instant, Origin)>,
    last_used: Option<Instant>,
    opens_at: Instant,
}

impl Ledger {
    pub(super) fn new(limit: Limit, begin: Begin, now: Instant) -> Self {
        let seats = limit.requests.get();
        let used_until = match begin {
            Begin::Full => None,
            Begin::Empty => Some(later(now, ON_THE_WAY)),
            Begin::UsedUntil(until) => Some(until.max(later(now, ON_THE_WAY))),
        };
        Self {
            limit,
            origin: Origin::new(),
            in_flight: 0,
            inherited: BTreeMap::new(),
            abandoned: VecDeque::new(),
            cooling: VecDeque::new(),
            last_used: used_until,
            unknown_until: used_until,
            penalty: Penalty::none(seats, now),
        }
    }

    /// What it leaves when others take over. Call [`Ledger::advance`] first.
    pub(super) fn estate(&self) -> Estate {
        let mut in_flight = self.inherited.clone();
        in_flight.insert(self.origin, self.in_flight);
        in_flight.retain(|_, seats| *seats > 0);
        Estate {
            in_flight,
            abandoned: self.abandoned.clone(),
            last_used: self.last_used,
            opens_at: self.penalty.opens_at(),
        }
    }

    /// The vendor's `Retry-After` is believed for so long. Says whether that changes when seats come.
    pub(super) fn believe(&mut self, longest: Duration) -> bool {
        let before = self.penalty.opens_at();
        self.penalty.believe(longest);
        before != self.penalty.opens_at()
    }

    /// Takes over from another.
    pub(super) fn inherit(&mut self, estate: &Estate) {
        // What came from the same ledger is the same here and there.
        for (origin, seats) in &estate.in_flight {
            let here = self.inherited.entry(*origin).or_default();
            *here = *seats.max(here);
        }
        self.abandoned = union(&self.abandoned, &estate.abandoned);
        // What was settled is not known by number here.
        self.last_used = self.last_used.max(estate.last_used);
        self.unknown_until = self.unknown_until.max(estate.last_used);
        self.penalty.close_until(estate.opens_at);
    }

    /// That the vendor refuses although the quota is kept, as long as it does. Call [`Ledger::advance`] first.
    pub(super) fn refusals(&self, now: Instant) -> Option<VendorRefusals> {
        self.penalty.refusals(now, self.seats())
    }

    /// That it began to, or refuses no more: each told once. Call [`Ledger::advance`] first.
    pub(super) fn refusal_news(&mut self, now: Instant) -> Option<RefusalNews> {
        self.penalty.news(now, self.seats())
    }

    /// The last that is told of it: the bucket is used no more, or by another name. Call [`Ledger::advance`] first.
    pub(super) fn last_refusal_news(&mut self, now: Instant) -> Option<RefusalNews> {
        self.penalty.last_news(now, self.seats())
    }

    /// As whose its own seats are known to those that take over from it.
    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    /// Whether all that was ever sent is counted, and longer ago than a window. Call [`Ledger::advance`] first.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.busy() == 0 && self.opens_at() <= now
    }

    /// Until when what was sent may be counted, if that is later than `now`. What is under way may be until
    /// `under_way`.
    pub(super) fn counted_until(&self, now: Instant, under_way: Instant) -> Option<Instant> {
        let under_way = (self.watched() > 0).then_some(under_way);
        let until = self.last_used.max(self.abandoned.back().map(|(until, _)| *until)).max(under_way);
        until.filter(|until| *until > now)
    }

    /// Brings the books up to now: seats that have cooled, seats that grow back.
    pub(super) fn advance(&mut self, now: Instant) {
        while let Some(used) = self.abandoned.pop_front_if(|(until, _)| *until <= now) {
            self.cool(used.0);
        }
        while self.cooling.front().is_some_and(|at| *at <= now) {
            self.cooling.pop_front();
        }
        self.penalty.grow(now, self.seats(), window(self.limit));
    }

    /// Takes a seat if one is free; says in which era. Call [`Ledger::advance`] first.
    pub(super) fn take(&mut self, now: Instant) -> Option<u64> {
        // The one comparison that keeps the promise. All that changes limits only changes what is compared here.
        if now < self.opens_at() || self.busy() >= self.penalty.in_force() {
            return None;
        }
        self.in_flight += 1;
        Some(self.penalty.era())
    }

    /// A seat is settled now.
    pub(super) fn settle(&mut self, now: Instant, whose: Whose, settled: SeatOutcome) {
        let origin = match whose {
            Whose::Own(_) => {
                self.in_flight = self.in_flight.saturating_sub(1);
                self.origin
            }
            Whose::Inherited(origin) => {
                if let Some(seats) = self.inherited.get_mut(&origin) {
                    *seats = seats.saturating_sub(1);
                }
                self.inherited.retain(|_, seats| *seats > 0);
                origin
            }
        };
        match settled {
            // The vendor cannot have counted what never left.
            SeatOutcome::Unused => {}
            // When it was counted is not known, only that it was by now: the window is measured from its latest end.
            SeatOutcome::Used => self.cool(now),
            SeatOutcome::Abandoned(until) => self.abandon(until.max(now), origin),
            SeatOutcome::Refused(retry_after) => {
                self.cool(now);
                let window = window(self.limit);
                // An inherited seat was given before the first halving here.
                let era = if let Whose::Own(era) = whose { era } else { 0 };
                self.penalty.refused(now, era, retry_after, window, slack(window));
            }
        }
    }

    fn abandon(&mut self, until: Instant, origin: Origin) {
        let place = self.abandoned.partition_point(|other| *other <= (until, origin));
        self.abandoned.insert(place, (until, origin));
    }

    /// A seat that was used at that time cools from then on.
    fn cool(&mut self, used: Instant) {
        self.last_used = self.last_used.max(Some(used));
        let until = later(used, cycle(self.limit));
        // Nearly always the last. Not so after the window was shortened.
        let place = self.cooling.partition_point(|at| *at <= until);
        self.cooling.insert(place, until);
    }

    /// Changes the limit; says whether it is another.
    pub(super) fn reconfigure(&mut self, limit: Limit, now: Instant) -> bool {
        // What was due under the old limit.
        self.advance(now);
        let (old, new) = (self.limit, limit);
        self.limit = new;
        self.penalty.reseat(old.requests.get(), new.requests.get());
        // A longer window reaches back over requests whose seats have long come free. How many they were is not known.
        if new.per > old.per {
            self.unknown_until = self.last_used;
        }
        old != new
    }

    /// The soonest that somebody can be given a seat before whom `rank` others are to be served: when all of them use
    /// theirs, all that is in flight is answered now, and so is all that will be. Never late; exact for rank 0 unless
    /// seats come back unused.
    pub(super) fn when(&self, rank: usize, now: Instant) -> Instant {
        let (seats, in_force) = (self.seats(), self.penalty.in_force());
        let opens = self.opens_at().max(now);
        let (window, cycle) = (window(self.limit), cycle(self.limit));
        let seat = self.seat_at(0, now, opens);
        let start = self.penalty.grows_at(seats).map_or(seat, |at| seat.min(at.max(opens)));
        let mut left = u64::try_from(rank).unwrap_or(u64::MAX);
        let mut round = 0;
        // In each round every seat is used once. Seats that grow back during a round count as there from its start.
        loop {
            let end = later(start, cycle.saturating_mul(round + 1));
            let grown = self.penalty.grown_by(end, seats, window);
            let capacity = u64::from(in_force + grown);
            if in_force + grown == seats || round > 10_000 {
                round = round.saturating_add(u32::try_from(left / capacity).unwrap_or(u32::MAX));
                left %= capacity;
            }
            if left < capacity {
                let grown = u64::from(grown);
                let first = if left < grown { start } else { self.seat_at(left - grown, now, opens) };
                return later(first, cycle.saturating_mul(round));
            }
            left -= capacity;
            round += 1;
        }
    }

    /// When the `index`th of the seats in force can be given for the first time.
    fn seat_at(&self, index: u64, now: Instant, opens: Instant) -> Instant {
        let (busy, in_force) = (self.busy(), self.penalty.in_force());
        let spare = u64::from(in_force.saturating_sub(busy));
        if index < spare {
            return opens;
        }
        // While more are busy than in force (the limit was lowered), the first to come free are retired.
        let surplus = u64::from(busy.saturating_sub(in_force));
        let place = usize::try_from(index - spare + surplus).unwrap_or(usize::MAX);
        let answered_now = later(now, cycle(self.limit)).max(opens);
        // One that began to cool before the window was shortened may cool longer than those yet to be answered.
        if let Some(at) = self.cooling.get(place) {
            return (*at).clamp(opens, answered_now);
        }
        let watched = usize::try_from(self.watched()).unwrap_or(usize::MAX);
        let abandoned = (place - self.cooling.len()).checked_sub(watched).and_then(|place| self.abandoned.get(place));
        abandoned.map_or(answered_now, |(until, _)| later(*until, cycle(self.limit)).max(answered_now))
    }

    /// A look at the books. Call [`Ledger::advance`] first.
    pub(super) fn snapshot(&self, now: Instant, waiting: usize) -> Snapshot {
        let (busy, in_force) = (self.busy(), self.penalty.in_force());
        let spare = in_force.saturating_sub(busy);
        let open = now >= self.opens_at();
        let in_flight = busy.saturating_sub(count(&self.cooling));
        let cooling = busy - in_flight;
        Snapshot {
            limit: self.limit,
            in_force,
            free: if open { spare } else { 0 },
            in_flight,
            cooling: if open { cooling } else { cooling + spare },
            retired: self.seats().saturating_sub(busy.max(in_force)),
            waiting,
            next: self.when(0, now).saturating_duration_since(now),
        }
    }

    fn seats(&self) -> u32 {
        self.limit.requests.get()
    }

    /// No seat is given before.
    fn opens_at(&self) -> Instant {
        let known = self.unknown_until.map(|until| later(until, cycle(self.limit)));
        known.map_or(self.penalty.opens_at(), |known| known.max(self.penalty.opens_at()))
    }

    /// Seats in flight or cooling: what the vendor may still count, or has counted in the window that ends now.
    fn busy(&self) -> u32 {
        self.watched().saturating_add(count(&self.abandoned)).saturating_add(count(&self.cooling))
    }

    /// Seats in flight whose end will be told.
    fn watched(&self) -> u32 {
        self.inherited.values().fold(self.in_flight, |sum, seats| sum.saturating_add(*seats))
    }
}

fn count<T>(seats: &VecDeque<T>) -> u32 {
    u32::try_from(seats.len()).unwrap_or(u32::MAX)
}

/// What is in either, in order: what is in both is there once. (As often as it is in the one where it is more often.)
fn union<T: Ord + Copy>(one: &VecDeque<T>, other: &VecDeque<T>) -> VecDeque<T> {
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    std::iter::from_fn(|| {
        let least = match (one.peek(), other.peek()) {
            (Some(a), Some(b)) => **a.min(b),
            (Some(only), None) | (None, Some(only)) => **only,
            (None, None) => return None,
        };
        one.next_if(|next| **next == least);
        other.next_if(|next| **next == least);
        Some(least)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Pass(u64),
        Take,
        Cool,
        GiveBack,
        Refused(u64),
        Reconfigure(u32, u64),
    }

    fn any_op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0..400u64).prop_map(Op::Pass),
            8 => Just(Op::Take),
            4 => Just(Op::Cool),
            1 => Just(Op::GiveBack),
            1 => (0..3000u64).prop_map(Op::Refused),
            1 => (1..12u32, 100..1000u64).prop_map(|(requests, per)| Op::Reconfigure(requests, per)),
        ]
    }

    fn limit(requests: u32, per: u64) -> Limit {
        Limit { requests: NonZeroU32::new(requests).unwrap(), per: Duration::from_millis(per) }
    }

    properties! {
        #[test]
        fn the_bound_is_exact_for_the_first_and_never_late_for_the_others(ops in prop::collection::vec(any_op(), 0..60)) {
            let mut now = Instant::now();
            let mut ledger = Ledger::new(limit(6, 500), Begin::Full, now);
            let (mut shortened, mut shrunk) = (false, false);
            for op in ops {
                ledger.advance(now);
                match op {
                    Op::Pass(ms) => now += Duration::from_millis(ms),
                    Op::Take => drop(ledger.take(now)),
                    Op::Cool if ledger.in_flight > 0 => used(&mut ledger, now),
                    Op::GiveBack if ledger.in_flight > 0 => ledger.settle(now, Whose::Own(0), SeatOutcome::Unused),
                    Op::Refused(ms) if ledger.in_flight > 0 => {
                        let whose = Whose::Own(ledger.penalty.era());
                        ledger.settle(now, whose, SeatOutcome::Refused(Some(Duration::from_millis(ms))));
                        shrunk = true;
                    }
                    Op::Cool | Op::GiveBack | Op::Refused(_) => {}
                    Op::Reconfigure(requests, per) => {
                        shortened |= Duration::from_millis(per) < ledger.limit.per;
                        ledger.reconfigure(limit(requests, per), now);
                    }
                }
            }
            ledger.advance(now);
            let bounds: Vec<_> = (0..50).map(|rank| ledger.when(rank, now)).collect();
            prop_assert!(bounds.is_sorted());
            // All goes as fast as it can.
            while ledger.in_flight > 0 {
                used(&mut ledger, now);
            }
            for (rank, bound) in bounds.into_iter().enumerate() {
                while ledger.take(now).is_none() {
                    let next = ledger.when(0, now);
                    prop_assert!(next > now);
                    ledger.advance(next - Duration::from_nanos(1));
                    prop_assert!(shortened || ledger.take(next - Duration::from_nanos(1)).is_none(), "rank {} was late", rank);
                    now = next;
                    ledger.advance(now);
                }
                prop_assert!(bound <= now, "rank {}: {:?} late", rank, bound - now);
                prop_assert!(shortened || shrunk || bound == now, "rank {}: {:?} early", rank, now - bound);
                used(&mut ledger, now);
            }
        }
    }

    fn used(ledger: &mut Ledger, now: Instant) {
        ledger.settle(now, Whose::Own(0), SeatOutcome::Used);
    }

    #[test]
    fn absurd_limits_do_not_overflow() {
        let now = Instant::now();
        for begin in [Begin::Full, Begin::Empty] {
            let limit = Limit { requests: NonZeroU32::MAX, per: Duration::MAX };
            let mut ledger = Ledger::new(limit, begin, now);
            ledger.advance(now);
            assert_eq!(ledger.take(now).is_some(), begin == Begin::Full);
            ledger.settle(now, Whose::Own(0), SeatOutcome::Refused(Some(Duration::MAX)));
            ledger.reconfigure(Limit { requests: NonZeroU32::MIN, per: Duration::from_nanos(1) }, now);
            assert!(ledger.when(usize::MAX, now) > now);
            ledger.snapshot(now, usize::MAX);
        }
    }
}
