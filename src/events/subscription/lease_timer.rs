//! [`LeaseTimer`]: ends leases and delays when they are over, for all subscriptions, by one task.
//!
//! Invariants: a subscription that has a lease or a delay is armed for the first of them, or for an earlier time; so a
//! reader need not watch the time. What fires too early (a lease was settled or extended) does no harm.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::events::subscription::Subscription;
use crate::kernel::sync::lock;

/// What is armed. Cheap to clone.
#[derive(Clone, Default)]
pub(in crate::events) struct LeaseTimer(Arc<TimerQueue>);

#[derive(Default)]
struct TimerQueue {
    armed: Mutex<Armed>,
    wake: Notify,
}

#[derive(Default)]
struct Armed {
    /// How many there were.
    count: u64,
    /// By time, and by a number of their own. Weak, since subscriptions know their timer: logs own them.
    by_time: BTreeMap<(Instant, u64), Weak<Subscription>>,
}

impl LeaseTimer {
    /// Has a subscription looked at then.
    pub(in crate::events) fn arm(&self, at: Instant, subscription: &Arc<Subscription>) {
        let mut armed = lock(&self.0.armed);
        armed.count += 1;
        let number = armed.count;
        let is_first = armed.by_time.first_key_value().is_none_or(|(&(first, _), _)| at < first);
        armed.by_time.insert((at, number), Arc::downgrade(subscription));
        drop(armed);
        // Otherwise the task wakes in time by itself.
        if is_first {
            self.0.wake.notify_one();
        }
    }

    /// Fires until stopped.
    pub(in crate::events) async fn run(self, stop: CancellationToken) {
        loop {
            let first = lock(&self.0.armed).by_time.first_key_value().map(|(&(at, _), _)| at);
            let due = async {
                match first {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.wake.notified() => {}
                () = due => self.fire(first),
            }
        }
    }

    fn fire(&self, now: Option<Instant>) {
        let Some(now) = now else { return };
        loop {
            let due = {
                let mut armed = lock(&self.0.armed);
                match armed.by_time.first_entry() {
                    Some(first) if first.key().0 <= now => first.remove(),
                    _ => return,
                }
            };
            // Without the lock: it arms itself for what is next.
            if let Some(subscription) = due.upgrade() {
                subscription.fired(now);
            }
        }
    }
}
