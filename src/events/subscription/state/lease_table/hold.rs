//! [`Hold`]: on which terms entries are held.

use tokio::time::Instant;

/// On which terms entries are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::events) enum Hold {
    /// A plain read's: it ends with its response, and is no attempt, whether that arrives or not.
    Response,
    /// A lease: it ends by itself. That it was handed out counts as an attempt.
    Lease {
        until: Instant,
        /// After how many attempts an entry is given up.
        max_attempts: u32,
    },
    /// By who tries to pass them on, for as long as that takes. An attempt counts when it has failed: one that the
    /// process did not outlive is nobody's fault.
    InHand {
        /// Whether what is taken goes out as one.
        unites: bool,
    },
}

impl Hold {
    /// When it ends by itself.
    pub(super) fn until(self) -> Option<Instant> {
        match self {
            Self::Lease { until, .. } => Some(until),
            Self::Response | Self::InHand { .. } => None,
        }
    }

    /// The same, until then.
    pub(super) fn extended(self, until: Instant) -> Self {
        match self {
            Self::Lease { max_attempts, .. } => Self::Lease { until, max_attempts },
            Self::Response | Self::InHand { .. } => self,
        }
    }

    pub(super) fn max_attempts(self) -> u32 {
        match self {
            Self::Lease { max_attempts, .. } => max_attempts,
            Self::Response | Self::InHand { .. } => u32::MAX,
        }
    }

    /// Whether being taken counts as an attempt.
    pub(in crate::events) fn counts_taking(self) -> bool {
        matches!(self, Self::Lease { .. })
    }

    /// Whether failing counts as an attempt, and not being taken.
    pub(in crate::events) fn counts_failures(self) -> bool {
        matches!(self, Self::InHand { .. })
    }

    pub(super) fn unites(self) -> bool {
        matches!(self, Self::InHand { unites: true })
    }
}
