//! [`EndedLeases`]: leases that are known to be settled.

use std::collections::{HashSet, VecDeque};

use crate::events::subscription::lease_name::LeaseName;

/// The names of the newest leases that were settled: settling them once more is no fault.
#[derive(Debug, Default)]
pub(super) struct EndedLeases {
    order: VecDeque<LeaseName>,
    names: HashSet<LeaseName>,
}

impl EndedLeases {
    pub(super) fn add(&mut self, name: LeaseName) {
        if self.order.len() == ENDED_KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
        self.order.push_back(name);
        self.names.insert(name);
    }

    pub(super) fn holds(&self, name: &LeaseName) -> bool {
        self.names.contains(name)
    }
}

const ENDED_KNOWN: usize = 1024;
