//! [`Work`]: what rests on a proof, and how much of it ended because the proof did.
//!
//! Invariant: a piece of work is counted once, when it is told that its proof has ended, however many of its parts ask;
//! what ends for another reason, or goes on, is not counted.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::{Basis, Ended};
use crate::kernel::metrics::EndedWorkLabels;

/// Where it is counted what ended.
pub type EndedWork = Family<EndedWorkLabels, Counter>;

/// What rests on a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A stream of events (SSE), with or without leases.
    Stream,
    /// A read of events, which may wait for some.
    Poll,
    /// History line by line.
    Export,
    /// A history query, one that was promised a result, or a fetch.
    History,
    Count,
    /// A message that waits for its seat.
    Message,
}

impl Work {
    /// All of them.
    pub(super) const ALL: [Self; 6] =
        [Self::Stream, Self::Poll, Self::Export, Self::History, Self::Count, Self::Message];

    /// Its name, as a metric has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Poll => "poll",
            Self::Export => "export",
            Self::History => "history",
            Self::Count => "count",
            Self::Message => "message",
        }
    }
}

/// One piece of work that rests on a proof.
pub(super) struct Piece {
    work: Work,
    is_counted: AtomicBool,
    counts: EndedWork,
}

/// All that may end, and how it may.
pub(super) fn endings() -> impl Iterator<Item = EndedWorkLabels> {
    let named = |work: Work, how: Ended| EndedWorkLabels { work: work.as_str().into(), reason: how.as_str().into() };
    Work::ALL.into_iter().flat_map(move |work| Ended::ALL.map(|how| named(work, how)))
}

impl Piece {
    pub(super) fn new(work: Work, counts: EndedWork) -> Self {
        Self { work, is_counted: AtomicBool::new(false), counts }
    }

    /// It was told that its proof has ended.
    pub(super) fn told(&self, how: Ended, basis: &Basis) {
        if self.is_counted.swap(true, Ordering::Relaxed) {
            return;
        }
        let (work, reason) = (self.work.as_str(), how.as_str());
        self.counts.get_or_create(&EndedWorkLabels { work: work.into(), reason: reason.into() }).inc();
        tracing::debug!(work, reason, client = %basis.client, app = %basis.app, "ended with its proof");
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.work.fmt(f)
    }
}
