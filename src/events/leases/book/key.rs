//! [`Key`]: the open entries of one user, or of one channel, that keep their order.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::events::leases::name::LeaseName;

/// A key that has open entries.
#[derive(Debug, Default)]
pub(super) struct Key {
    /// Those that wait, in order.
    pub(super) waiting: VecDeque<u64>,
    pub(super) holder: Option<LeaseName>,
    pub(super) held: u32,
    pub(super) given_up: u32,
    pub(super) listed: Option<Listed>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Listed {
    Ready(u64),
    Later(Instant),
}

impl Key {
    pub(super) fn wait(&mut self, at: u64) {
        let place = self.waiting.partition_point(|&other| other < at);
        self.waiting.insert(place, at);
    }

    pub(super) fn forget(&mut self, at: u64) {
        if let Ok(place) = self.waiting.binary_search(&at) {
            self.waiting.remove(place);
        }
    }

    pub(super) fn let_go(&mut self) {
        self.held -= 1;
        if self.held == 0 {
            self.holder = None;
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.held == 0 && self.given_up == 0
    }
}
