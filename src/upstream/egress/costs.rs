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

/// What one order of a piece of work costs: added to it when the order has ended or was dropped.
pub(super) struct OrderCosts<'a> {
    pub(super) costs: Costs,
    work: &'a WorkCosts,
}

impl<'a> OrderCosts<'a> {
    pub(super) fn of(work: &'a WorkCosts) -> Self {
        Self { costs: Costs::default(), work }
    }
}

impl Drop for OrderCosts<'_> {
    fn drop(&mut self) {
        self.work.add(&self.costs);
    }
}

/// A wait for a seat, which costs the time until it ends or is dropped.
pub(super) struct SeatWait<'a> {
    pub(super) clock: &'a Clock,
    pub(super) began: Instant,
    pub(super) costs: &'a mut Costs,
}

impl SeatWait<'_> {
    /// How long it has taken up to now.
    pub(super) fn time(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.began)
    }
}

impl Drop for SeatWait<'_> {
    fn drop(&mut self) {
        self.costs.queue_wait += self.time();
    }
}

/// What a piece of work has cost up to now, added up over its orders. Times of orders that ran side by side are summed,
/// not overlaid. Cheap to clone; clones are one.
#[derive(Clone, Debug, Default)]
pub struct WorkCosts(Arc<WorkSum>);

#[derive(Debug, Default)]
struct WorkSum {
    sum: Mutex<Costs>,
    is_shared: AtomicBool,
}

impl WorkCosts {
    /// Something more was done for it.
    pub(crate) fn add(&self, more: &Costs) {
        let mut sum = lock(&self.0.sum);
        sum.queue_wait += more.queue_wait;
        sum.upstream_time += more.upstream_time;
        sum.exchanges = sum.exchanges.saturating_add(more.exchanges);
        if more.upstream_request_id.is_some() {
            sum.upstream_request_id.clone_from(&more.upstream_request_id);
        }
    }

    /// All of it up to now.
    #[must_use]
    pub fn sum(&self) -> Costs {
        lock(&self.0.sum).clone()
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
