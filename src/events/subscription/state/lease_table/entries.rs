//! What the table says of an entry, and what it is asked and told of entries.

use std::fmt;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Hold;
use crate::events::subscription::lease_name::LeaseName;

/// An entry that is open.
#[derive(Debug)]
pub(super) struct OpenEntry {
    pub(super) key: u64,
    pub(super) attempts: u32,
    /// Whether somebody may have it: it was on its way, though perhaps it did not arrive.
    pub(super) was_sent: bool,
    pub(super) unit: Option<u64>,
    /// Whether it is no part of what goes out as one: an operator put it back.
    pub(super) alone: bool,
    pub(super) state: EntryState,
}

/// Where an open entry is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryState {
    Waiting(Option<Instant>),
    Held(LeaseName),
    /// Its attempts are spent; it waits to be buried.
    GivenUp,
}

/// An entry that comes into the table.
#[derive(Clone, Copy, Debug)]
pub(in crate::events) struct NewEntry {
    pub(in crate::events) at: u64,
    /// Whose it is: those of one key come in order.
    pub(in crate::events) key: u64,
    /// How often it was handed out before.
    pub(in crate::events) attempts: u32,
    pub(in crate::events) delay_until: Option<Instant>,
    /// Whether it is no part of what goes out as one.
    pub(in crate::events) alone: bool,
}

/// Entries that were taken, with the attempt that this is for each.
#[derive(Clone, Debug)]
pub(in crate::events) struct LeaseGrant {
    pub(in crate::events) lease: LeaseName,
    pub(in crate::events) entries: Vec<(u64, u32)>,
    /// Cancelled when the lease ends.
    pub(in crate::events) over: CancellationToken,
}

/// Why an entry was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::events) enum GiveUpReason {
    RanOut,
    GivenBack,
}

/// How a hold on entries ends that are not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HoldEnd {
    /// It did not arrive: that was no attempt, and nothing has changed.
    Unsent,
    /// It was an attempt in vain.
    Failed(GiveUpReason),
}

/// What a lease's holder asks about.
#[derive(Clone, Debug)]
pub(in crate::events) enum Selection {
    Lease(LeaseName),
    Entries(Vec<u64>),
}

/// The lease is not known: it has run out, was given back, or never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::events) struct UnknownLease;

impl OpenEntry {
    /// It is held from now on. Says by how many there are more that were tried.
    pub(super) fn hold(&mut self, lease: LeaseName, hold: Hold) -> usize {
        (self.state, self.was_sent) = (EntryState::Held(lease), true);
        if !hold.counts_taking() {
            return 0;
        }
        self.attempts = self.attempts.saturating_add(1);
        usize::from(self.attempts == 1)
    }

    /// Whether it goes by itself where others go out as one: it did before, or is to.
    pub(super) fn goes_alone(&self) -> bool {
        self.alone || self.attempts > 0
    }

    pub(super) fn is_delayed(&self, now: Instant) -> bool {
        matches!(self.state, EntryState::Waiting(Some(until)) if until > now)
    }
}

impl fmt::Display for GiveUpReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RanOut => "its last lease ran out",
            Self::GivenBack => "its last reader gave it back",
        })
    }
}
