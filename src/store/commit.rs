//! [`Commit`]: what is stored of a log in one step.

use bytes::Bytes;

use super::{Content, NewBatch, QuarantineRecord, Sequence};
use crate::kernel::names::SubscriptionName;

/// Notes by their names, to keep or, with `None`, to remove.
pub type Notes = Vec<(String, Option<Bytes>)>;

/// What is stored of a log in one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Appended, in this order.
    pub batches: Vec<NewBatch>,
    /// As [`Store::keep_notes`](super::Store::keep_notes) keeps them.
    pub notes: Option<(NoteKind, Notes)>,
    /// What changes of its subscriptions, in this order.
    pub places: Vec<PlaceChange>,
    pub quarantined: Option<QuarantineRecord>,
    /// More of a quarantined response are delivered: its number, and how many are by now.
    pub redelivered: Option<(u64, u64)>,
}

impl Commit {
    /// Whether there is nothing to store.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_of_places() && self.places.is_empty()
    }

    /// Whether only subscriptions change.
    #[must_use]
    pub fn is_of_places(&self) -> bool {
        let Self { batches, notes, places: _, quarantined, redelivered } = self;
        batches.is_empty() && notes.is_none() && quarantined.is_none() && redelivered.is_none()
    }

    /// The bytes of text that it brings.
    #[must_use]
    pub fn size(&self) -> usize {
        let Self { batches, notes, places, quarantined, redelivered: _ } = self;
        let of_batch = |batch: &NewBatch| match &batch.content {
            Content::Events(events) => events.text().len(),
            Content::PossibleLoss(_) | Content::Damaged(_) => 0,
        };
        let notes = notes.iter().flat_map(|(_, notes)| notes).map(|(_, note)| note.as_ref().map_or(0, Bytes::len));
        batches.iter().map(of_batch).sum::<usize>()
            + notes.sum::<usize>()
            + places.iter().map(PlaceChange::size).sum::<usize>()
            + quarantined.as_ref().map_or(0, |kept| kept.response.body.len())
    }
}

/// What a note is about. Do not renumber: it is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum NoteKind {
    /// What a subscription is beside its cursor.
    Subscription = 1,
    /// An event that was given up for a subscription.
    DeadLetter = 2,
    /// What holds for a webhook as a whole; and how far it was, as older gateways kept that.
    Webhook = 3,
    /// Events that wait for their turn, and how many of them the log has; what was dropped as another region's copy;
    /// outages that have not ended; when regions were read last whose reads failed at a stop.
    Waiting = 4,
}

impl NoteKind {
    /// The kinds whose notes are about a subscription, and begin with its name.
    #[must_use]
    pub const fn of_subscriptions() -> [Self; 2] {
        [Self::Subscription, Self::DeadLetter]
    }
}

/// A change to what is kept of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaceChange {
    /// All up to there is settled.
    Cursor(SubscriptionName, Sequence),
    /// A note on it, of one of the kinds [`NoteKind::of_subscriptions`]; `None` removes it.
    Note(NoteKind, String, Option<Bytes>),
    /// It is no more: its cursor goes, and all notes on it.
    Removed(SubscriptionName),
}

impl PlaceChange {
    /// The bytes of text that it brings.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Note(_, _, Some(note)) => note.len(),
            Self::Note(_, _, None) | Self::Cursor(..) | Self::Removed(_) => 0,
        }
    }
}
