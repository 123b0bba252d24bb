//! [`KeyQueue`]: the open entries of one user, or of one channel, that keep their order.

use std::collections::{BTreeSet, VecDeque};

use tokio::time::Instant;

use crate::events::subscription::lease_name::LeaseName;

/// A key that has open entries.
#[derive(Debug, Default)]
pub(super) struct KeyQueue {
    /// Those that wait, in order; each with the number of its unit, or its own: what went out as one has its turn as
    /// one, by its first entry.
    pub(super) waiting: VecDeque<(u64, u64)>,
    pub(super) holder: Option<LeaseName>,
    pub(super) held: u32,
    pub(super) given_up: u32,
    pub(super) listed: Option<Listing>,
    /// The unit that the first of those that wait is in.
    pub(super) unit: Option<u64>,
}

/// Where a key, or a unit, is listed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Listing {
    Ready(u64),
    Later(Instant),
}

/// Which keys are listed where: each once, by the entry or unit that comes first in it, or by when that is over its
/// delay. To take the oldest that can be had, or the first whose delay is over, is to look at the beginning of one.
#[derive(Debug, Default)]
pub(super) struct Listings {
    ready: BTreeSet<(u64, u64)>,
    later: BTreeSet<(Instant, u64)>,
}

impl Listings {
    pub(super) fn enlist(&mut self, listed: Listing, key: u64) {
        match listed {
            Listing::Ready(at) => self.ready.insert((at, key)),
            Listing::Later(until) => self.later.insert((until, key)),
        };
    }

    pub(super) fn unlist(&mut self, listed: Listing, key: u64) {
        match listed {
            Listing::Ready(at) => self.ready.remove(&(at, key)),
            Listing::Later(until) => self.later.remove(&(until, key)),
        };
    }

    /// The oldest that can be taken, and its key.
    pub(super) fn ready(&self) -> Option<(u64, u64)> {
        self.ready.first().copied()
    }

    /// How many keys can be taken from.
    pub(super) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// When the first delay is over, and whose it is.
    pub(super) fn later(&self) -> Option<(Instant, u64)> {
        self.later.first().copied()
    }
}

impl KeyQueue {
    pub(super) fn wait(&mut self, entry: (u64, u64)) {
        let place = self.waiting.partition_point(|&other| other < entry);
        self.waiting.insert(place, entry);
    }

    pub(super) fn forget(&mut self, entry: (u64, u64)) {
        if let Ok(place) = self.waiting.binary_search(&entry) {
            self.waiting.remove(place);
        }
    }

    pub(super) fn let_go(&mut self) {
        self.held -= 1;
        if self.held == 0 {
            self.holder = None;
        }
    }

    /// Whether its first can be taken, as far as the others of it go.
    pub(super) fn is_free(&self) -> bool {
        self.holder.is_none() && self.given_up == 0
    }

    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.held == 0 && self.given_up == 0
    }
}
