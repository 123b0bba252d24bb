//! What a reader says of how it acknowledges, and of what it was leased.

use std::time::Duration;

use super::InHand;
pub use super::lease_name::{LeaseName, NotALease};
use super::state::Selection;
use crate::events::Cursor;
use crate::events::log::Log;
use crate::store::Error;

/// No lease and no delay is longer, whatever is asked for.
pub const MAX_LEASE: Duration = Duration::from_secs(12 * 3600);

/// How what a read hands over is settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// By handing it over.
    #[default]
    OnHandover,
    /// By the reader's word, within a lease.
    Explicit {
        /// How long the reader has it for itself.
        lease: Duration,
        /// After so many attempts without an acknowledgement an entry goes to the dead letters. At least 1.
        max_attempts: u32,
    },
    /// By the word of who has it in hand, as long as the receipt is kept: see [`InHand`].
    InHand(InHand),
}

/// What a read was leased, or has in hand.
#[derive(Clone)]
pub struct Leased {
    /// The name to acknowledge it by.
    pub name: LeaseName,
    /// Which attempt this is for each entry, from 1, in the order of the delivery's entries. In hand: how many have
    /// failed.
    pub attempts: Vec<u32>,
    pub(in crate::events) over: tokio_util::sync::CancellationToken,
}

impl Leased {
    /// Resolves when nothing of it is held any more: settled, given back, or run out.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Whether nothing of it is held any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }
}

impl std::fmt::Debug for Leased {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Leased({} {:?})", self.name, self.attempts)
    }
}

/// What is acknowledged, given back or prolonged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holding {
    /// All that a lease holds.
    Lease(LeaseName),
    /// These entries, each by its cursor.
    Entries(Vec<Cursor>),
}

/// Why that cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// The lease is unknown: run out, given back, or never made; or an entry was not handed out to be acknowledged.
    #[error("the lease has run out, was given back, or never was")]
    LeaseExpired,
    /// This app does not have this stream.
    #[error("the stream is not read for this app")]
    NoSuchStream,
    /// The store failed: it may be acknowledged or not. Asking again is safe.
    #[error(transparent)]
    Store(#[from] Error),
}

/// Which entries of a log those are.
///
/// # Errors
/// When a cursor is of another log, or ahead of its end: nobody was given that.
pub(in crate::events) fn selection(log: &Log, what: &Holding) -> Result<Selection, AckError> {
    let cursors = match what {
        Holding::Lease(name) => return Ok(Selection::Lease(*name)),
        Holding::Entries(cursors) => cursors,
    };
    let mut entries: Vec<u64> = cursors.iter().map(|cursor| cursor.at.0).collect();
    entries.sort_unstable();
    entries.dedup();
    let next = log.range().end.0;
    if !cursors.iter().all(|&cursor| log.has_made(cursor)) || entries.last().is_some_and(|&at| at >= next) {
        return Err(AckError::LeaseExpired);
    }
    Ok(Selection::Entries(entries))
}
