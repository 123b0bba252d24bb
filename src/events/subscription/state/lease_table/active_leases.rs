//! [`ActiveLeases`]: the leases that hold something, by name and by when they end.
//!
//! Invariant: a lease is here from when it is begun until it holds nothing more; then whoever waits for its end is
//! told.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Hold;
use crate::events::subscription::lease_name::LeaseName;

#[derive(Debug, Default)]
pub(super) struct ActiveLeases {
    by_name: HashMap<LeaseName, ActiveLease>,
    due: BTreeSet<(Instant, LeaseName)>,
    ended: EndedLeases,
}

#[derive(Debug)]
struct ActiveLease {
    /// All that it was given; some may be settled since.
    entries: Vec<u64>,
    held: usize,
    hold: Hold,
    /// Cancelled when it ends.
    over: CancellationToken,
}

impl ActiveLeases {
    /// Begins a lease that holds these. Returns what is cancelled when it ends.
    pub(super) fn begin(&mut self, name: LeaseName, entries: Vec<u64>, hold: Hold) -> CancellationToken {
        let over = CancellationToken::new();
        self.due.extend(hold.until().map(|until| (until, name)));
        self.by_name.insert(name, ActiveLease { held: entries.len(), entries, hold, over: over.clone() });
        over
    }

    /// On which terms a lease holds its entries; `None` when there is no such lease.
    pub(super) fn hold(&self, name: LeaseName) -> Option<Hold> {
        self.by_name.get(&name).map(|lease| lease.hold)
    }

    /// What a lease was given; some of it may be settled since.
    pub(super) fn entries(&self, name: LeaseName) -> &[u64] {
        self.by_name.get(&name).map_or(&[], |lease| &lease.entries)
    }

    /// How many entries are held.
    pub(super) fn held(&self) -> usize {
        self.by_name.values().map(|lease| lease.held).sum()
    }

    /// Whether it is known that a lease was settled.
    pub(super) fn was_settled(&self, name: &LeaseName) -> bool {
        self.ended.holds(name)
    }

    /// Lets a lease run until then, or, if it may only be prolonged, for longer. Says how many entries it holds.
    pub(super) fn extend(&mut self, name: LeaseName, until: Instant, only_longer: bool) -> usize {
        let Some(lease) = self.by_name.get_mut(&name) else { return 0 };
        let Some(before) = lease.hold.until() else { return 0 };
        let until = if only_longer { until.max(before) } else { until };
        lease.hold = lease.hold.extended(until);
        self.due.remove(&(before, name));
        self.due.insert((until, name));
        lease.held
    }

    /// The lease that ends first of those that end by themselves.
    pub(super) fn first_due(&self) -> Option<(Instant, LeaseName)> {
        self.due.first().copied()
    }

    /// A lease is not to end by itself any more.
    pub(super) fn not_due(&mut self, due: (Instant, LeaseName)) {
        self.due.remove(&due);
    }

    /// One entry less under a lease; one that holds nothing more is ended.
    pub(super) fn let_go(&mut self, name: LeaseName, settled: bool) {
        let Some(lease) = self.by_name.get_mut(&name) else { return };
        lease.held -= 1;
        if lease.held > 0 {
            return;
        }
        if let Some(until) = lease.hold.until() {
            self.due.remove(&(until, name));
        }
        lease.over.cancel();
        self.by_name.remove(&name);
        if settled {
            self.ended.add(name);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty() && self.due.is_empty()
    }

    /// Tells all who wait for the end of one.
    pub(super) fn end_all(&self) {
        self.by_name.values().for_each(|lease| lease.over.cancel());
    }
}

/// The names of the newest leases that were settled: settling them once more is no fault.
#[derive(Debug, Default)]
struct EndedLeases {
    order: VecDeque<LeaseName>,
    names: HashSet<LeaseName>,
}

impl EndedLeases {
    fn add(&mut self, name: LeaseName) {
        if self.order.len() == ENDED_KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
        // Bounded: an acknowledgement is said again soon, if at all.
        self.order.push_back(name);
        self.names.insert(name);
    }

    fn holds(&self, name: &LeaseName) -> bool {
        self.names.contains(name)
    }
}

const ENDED_KNOWN: usize = 1024;
