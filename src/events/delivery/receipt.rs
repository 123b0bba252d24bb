//! A [`Receipt`]: what stands for entries on their way to a reader.
//!
//! Invariant: entries are settled when their receipt is told that they were handed over, and given again when it is
//! dropped instead, whatever the reason.

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::events::subscription::{Claim, Held, LossMarker};
use crate::http::body::handover::{Delivered, Ending};
use crate::store::Sequence;

/// Stands for entries on their way to a reader.
#[derive(Debug)]
#[must_use]
pub struct Receipt(Option<Reservation>);

#[derive(Debug)]
enum Reservation {
    Claim(Claim),
    Held(Held),
    LossMarker(LossMarker),
}

impl Receipt {
    /// Stands for nothing: nobody has taken anything.
    pub(crate) fn of_nothing() -> Self {
        Self(None)
    }

    pub(in crate::events) fn claim(claim: Claim) -> Self {
        Self(Some(Reservation::Claim(claim)))
    }

    pub(in crate::events) fn held(held: Held) -> Self {
        Self(Some(Reservation::Held(held)))
    }

    /// What stands for the marker of what retention has cut off, of a delivery in hand that begins with one: it is
    /// passed on by itself. Also says until when it is to wait. The entries are what this stands for from now on.
    pub(crate) fn split_marker(&mut self) -> (Self, Option<Instant>) {
        match &mut self.0 {
            Some(Reservation::Held(held)) => {
                let cut_off = held.split_cut_off();
                let until = cut_off.tried().delay_until;
                (Self(Some(Reservation::LossMarker(cut_off))), until)
            }
            Some(Reservation::Claim(_) | Reservation::LossMarker(_)) | None => (Self(None), None),
        }
    }

    /// What this stands for, if that is such a marker.
    pub(in crate::events) fn marker(&mut self) -> Option<&mut LossMarker> {
        match &mut self.0 {
            Some(Reservation::LossMarker(cut_off)) => Some(cut_off),
            Some(Reservation::Claim(_) | Reservation::Held(_)) | None => None,
        }
    }

    /// Cancelled when nobody is to be told any more of what retention took, if this stands for the marker of that.
    pub(crate) fn marker_over(&self) -> Option<&CancellationToken> {
        match &self.0 {
            Some(Reservation::LossMarker(cut_off)) => Some(cut_off.over()),
            Some(Reservation::Claim(_) | Reservation::Held(_)) | None => None,
        }
    }

    /// Only the entries before `at` are on their way, `left` events fewer than there were; the others are given back.
    /// `None`: nothing is on its way.
    #[must_use]
    pub fn only_before(self, at: Sequence, left: u64) -> Option<Self> {
        let mut taken = self.0?;
        let some_are_kept = match &mut taken {
            Reservation::Claim(claim) => claim.keep_before(at.0, left),
            Reservation::Held(held) => held.keep_before(at.0, left),
            Reservation::LossMarker(_) => true,
        };
        some_are_kept.then_some(Self(Some(taken)))
    }

    /// The reader has all of it: the subscription's cursor moves, or the reader is to acknowledge it.
    pub fn handed_over(self) {
        match self.0 {
            Some(Reservation::Claim(claim)) => claim.settle(),
            Some(Reservation::Held(held)) => held.handed_over(),
            Some(Reservation::LossMarker(mut cut_off)) => cut_off.told(),
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
