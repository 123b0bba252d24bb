//! What an entry of a log says, whatever form it is given in.

use bytes::Bytes;

use crate::events::log::loss::{Loss, Marker};
use crate::store::{Batch, Content};

/// What an entry says.
pub(crate) enum EntryContent {
    /// An event, as the vendor wrote it.
    Event(Bytes),
    /// Events may have been lost here, and why.
    PossibleLoss(Marker),
}

impl EntryContent {
    /// Of one of a batch's entries.
    pub(crate) fn of(batch: &Batch, index: usize) -> Self {
        match &batch.content {
            Content::Events(events) => Self::Event(events.slice(index..index + 1)),
            Content::PossibleLoss(reason) => Self::PossibleLoss(Marker::read(reason)),
            Content::Damaged(_) => Self::PossibleLoss(Marker::of(Loss::Damaged)),
        }
    }
}
