//! What a job's exchanges cost, added up. Waits of pages that ran side by side are summed, not overlaid.

use std::sync::Mutex;

use crate::kernel::sync::lock;
use crate::upstream::egress::Costs;

/// A sum that many pages add to.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Costs>);

impl Tally {
    pub(super) fn add(&self, more: &Costs) {
        let mut sum = lock(&self.0);
        sum.queue_wait += more.queue_wait;
        sum.upstream_time += more.upstream_time;
        sum.exchanges += more.exchanges;
        if more.upstream_request_id.is_some() {
            sum.upstream_request_id.clone_from(&more.upstream_request_id);
        }
    }

    pub(super) fn sum(&self) -> Costs {
        lock(&self.0).clone()
    }
}
