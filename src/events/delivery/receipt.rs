//! A [`Receipt`]: what stands for entries on their way to a reader.
//!
//! Invariant: entries are settled when their receipt is told that they were handed over, and given again when it is
//! dropped instead, whatever the reason.

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::events::subscription::{Claim, LeasedEntries, LogRange, LossMarker};
use crate::http::body::handover::{Delivered, Ending};
use crate::store::Sequence;

/// Stands for entries on their way to a reader.
#[derive(Debug)]
#[must_use]
pub struct Receipt(Option<Reservation>);

#[derive(Debug)]
enum Reservation {
    Range(Claim<LogRange>),
    Leased(Claim<LeasedEntries>),
    Marker(LossMarker),
}

impl Receipt {
    /// Stands for nothing: nobody has taken anything.
    pub(crate) fn of_nothing() -> Self {
        Self(None)
    }

    pub(in crate::events) fn of_range(claim: Claim<LogRange>) -> Self {
        Self(Some(Reservation::Range(claim)))
    }

    pub(in crate::events) fn of_leased(claim: Claim<LeasedEntries>) -> Self {
        Self(Some(Reservation::Leased(claim)))
    }

    /// What stands for the marker of what retention has cut off, of a delivery in hand that begins with one: it is
    /// passed on by itself. Also says until when it is to wait. The entries are what this stands for from now on.
    pub(crate) fn split_marker(&mut self) -> (Self, Option<Instant>) {
        match &mut self.0 {
            Some(Reservation::Leased(claim)) => {
                let marker = claim.split_loss();
                let until = marker.tried().delay_until;
                (Self(Some(Reservation::Marker(marker))), until)
            }
            Some(Reservation::Range(_) | Reservation::Marker(_)) | None => (Self(None), None),
        }
    }

    /// What this stands for, if that is such a marker.
    pub(in crate::events) fn marker(&mut self) -> Option<&mut LossMarker> {
        match &mut self.0 {
            Some(Reservation::Marker(marker)) => Some(marker),
            Some(Reservation::Range(_) | Reservation::Leased(_)) | None => None,
        }
    }

    /// Cancelled when nobody is to be told any more of what retention took, if this stands for the marker of that.
    pub(crate) fn marker_over(&self) -> Option<&CancellationToken> {
        match &self.0 {
            Some(Reservation::Marker(marker)) => Some(marker.over()),
            Some(Reservation::Range(_) | Reservation::Leased(_)) | None => None,
        }
    }

    /// Only the entries before `at` are on their way, `left` events fewer than there were; the others are given back.
    /// `None`: nothing is on its way.
    #[must_use]
    pub fn only_before(self, at: Sequence, left: u64) -> Option<Self> {
        let mut taken = self.0?;
        let some_are_kept = match &mut taken {
            Reservation::Range(claim) => claim.keep_before(at, left),
            Reservation::Leased(claim) => claim.keep_before(at, left),
            Reservation::Marker(_) => true,
        };
        some_are_kept.then_some(Self(Some(taken)))
    }

    /// The reader has all of it: the subscription's cursor moves, or the reader is to acknowledge it.
    pub fn handed_over(self) {
        match self.0 {
            Some(Reservation::Range(claim)) => claim.handed_over(),
            Some(Reservation::Leased(claim)) => claim.handed_over(),
            Some(Reservation::Marker(mut marker)) => marker.told(),
            None => {}
        }
    }
}

/// As the end of a part of a response, which holds just these entries.
impl Ending for Receipt {
    fn flushed(self: Box<Self>) -> Option<Box<dyn Delivered>> {
        Some(self)
    }
}

impl Delivered for Receipt {
    fn acknowledged(self: Box<Self>) {
        self.handed_over();
    }
}
