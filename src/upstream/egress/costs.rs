//! [`Costs`]: what orders took, for the access log; and [`WorkCosts`], of work that goes on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::kernel::clock::Clock;
use crate::kernel::sync::lock;

/// What sending an order took, for the access log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// All the time that was spent waiting for seats of a bucket.
    pub queue_wait: Duration,
    /// Waiting for the vendor.
    pub upstream_time: Duration,
    /// Requests that may have left: what the vendor can have counted.
    pub exchanges: u32,
    /// The vendor's `request_id` of the last answer, if it gave one.
    pub upstream_request_id: Option<Arc<str>>,
}

impl Costs {
    fn add(&mut self, more: &Self) {
        self.queue_wait += more.queue_wait;
        self.upstream_time += more.upstream_time;
        self.exchanges = self.exchanges.saturating_add(more.exchanges);
        if more.upstream_request_id.is_some() {
            self.upstream_request_id.clone_from(&more.upstream_request_id);
        }
    }
}

/// What one order costs: kept for its reply, and told to the work that it is part of as it comes about.
pub(super) struct OrderCosts<'a> {
    pub(super) sum: &'a mut Costs,
    work: Option<&'a WorkCosts>,
}

impl<'a> OrderCosts<'a> {
    /// Of an order that is a caller's own, or part of some work.
    pub(super) fn of(sum: &'a mut Costs, work: Option<&'a WorkCosts>) -> Self {
        Self { sum, work }
    }

    /// It waits for this from now on.
    pub(super) fn begin(&self, wait: Wait) {
        if let Some(work) = self.work {
            lock(&work.0.tally).under_way.push(wait);
        }
    }

    /// It waits for this no longer.
    pub(super) fn end(&mut self, wait: Wait, cost: &Costs) {
        self.sum.add(cost);
        if let Some(work) = self.work {
            let mut tally = lock(&work.0.tally);
            // Those that began in the same instant are alike.
            if let Some(at) = tally.under_way.iter().position(|other| *other == wait) {
                tally.under_way.swap_remove(at);
            }
            tally.ended.add(cost);
        }
    }
}

/// Something that an order waits for, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// A seat of a bucket.
    Seat(Instant),
    /// An exchange with the vendor.
    Exchange(Instant),
}

impl Wait {
    /// What it costs if it ends now. An exchange may have left.
    fn cost(self, now: Instant) -> Costs {
        match self {
            Self::Seat(began) => Costs { queue_wait: now.saturating_duration_since(began), ..Costs::default() },
            Self::Exchange(began) => {
                let upstream_time = now.saturating_duration_since(began);
                Costs { upstream_time, exchanges: 1, ..Costs::default() }
            }
        }
    }
}

/// A wait for a seat, which costs the time until it ends or is dropped.
pub(super) struct SeatWait<'a, 'w> {
    clock: &'a Clock,
    began: Instant,
    costs: &'a mut OrderCosts<'w>,
    is_over: bool,
}

impl<'a, 'w> SeatWait<'a, 'w> {
    pub(super) fn begin(clock: &'a Clock, began: Instant, costs: &'a mut OrderCosts<'w>) -> Self {
        costs.begin(Wait::Seat(began));
        Self { clock, began, costs, is_over: false }
    }

    /// It is over now. Says how long it took.
    pub(super) fn over(mut self, now: Instant) -> Duration {
        self.end(now);
        self.is_over = true;
        now.saturating_duration_since(self.began)
    }

    fn end(&mut self, now: Instant) {
        let wait = Wait::Seat(self.began);
        self.costs.end(wait, &wait.cost(now));
    }
}

impl Drop for SeatWait<'_, '_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.end(self.clock.now());
        }
    }
}

/// What a piece of work has cost up to now, added up over its orders, those under way included. Times of orders that
/// ran side by side are summed, not overlaid. Cheap to clone; clones are one.
#[derive(Clone, Debug, Default)]
pub struct WorkCosts(Arc<WorkSum>);

#[derive(Debug, Default)]
struct WorkSum {
    tally: Mutex<Tally>,
    is_shared: AtomicBool,
}

#[derive(Debug, Default)]
struct Tally {
    ended: Costs,
    under_way: Vec<Wait>,
}

impl WorkCosts {
    /// Something more was done for it, all at once.
    #[cfg(test)]
    pub(crate) fn add(&self, more: &Costs) {
        lock(&self.0.tally).ended.add(more);
    }

    /// All of it up to now: whoever leaves is told also of what it leaves under way.
    #[must_use]
    pub fn sum(&self, now: Instant) -> Costs {
        let tally = lock(&self.0.tally);
        let mut sum = tally.ended.clone();
        tally.under_way.iter().for_each(|wait| sum.add(&wait.cost(now)));
        sum
    }

    /// More than one request is told of it from now on.
    pub(crate) fn share(&self) {
        self.0.is_shared.store(true, Ordering::Relaxed);
    }

    /// Whether more than one request is told of it.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.0.is_shared.load(Ordering::Relaxed)
    }
}

/// Where a request finds what is done on its behalf, also while that goes on and after the request has ended without
/// it. Cheap to clone; clones are one.
#[derive(Clone, Debug, Default)]
pub struct Account(Arc<OnceLock<WorkCosts>>);

impl Account {
    /// This is what is done for it. The first word stands.
    pub(crate) fn charge(&self, work: &WorkCosts) {
        let _ = self.0.set(work.clone());
    }

    /// What is done for it, if anything is.
    #[must_use]
    pub fn work(&self) -> Option<&WorkCosts> {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::pass;

    const SECOND: Duration = Duration::from_secs(1);

    fn told(work: &WorkCosts) -> (u64, u64, u32) {
        let sum = work.sum(Instant::now());
        (sum.queue_wait.as_secs(), sum.upstream_time.as_secs(), sum.exchanges)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_is_told_before_it_ends_and_once() {
        let clock = Clock::system();
        let (work, mut sum) = (WorkCosts::default(), Costs::default());
        let (mut costs, mut other) = (OrderCosts::of(&mut sum, Some(&work)), Costs::default());
        let mut others = OrderCosts::of(&mut other, Some(&work));
        let wait = SeatWait::begin(&clock, clock.now(), &mut costs);
        pass(SECOND).await;
        assert_eq!(told(&work), (1, 0, 0));
        drop(wait);
        let began = clock.now();
        let exchange = Wait::Exchange(began);
        costs.begin(exchange);
        others.begin(exchange);
        pass(SECOND).await;
        assert_eq!(told(&work), (1, 2, 2));
        // Nothing was sent after all; the other goes on.
        costs.end(exchange, &Costs { upstream_time: SECOND, ..Costs::default() });
        pass(SECOND).await;
        assert_eq!(told(&work), (1, 3, 1));
        others.end(exchange, &exchange.cost(clock.now()));
        pass(SECOND).await;
        assert_eq!(told(&work), (1, 3, 1));
        assert_eq!((sum.queue_wait, sum.upstream_time, sum.exchanges), (SECOND, SECOND, 0));
        assert_eq!((other.upstream_time, other.exchanges), (2 * SECOND, 1));
    }
}
