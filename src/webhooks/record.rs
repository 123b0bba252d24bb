//! A [`Record`]: how far a webhook is in one stream, as it is kept in the store.
//!
//! Invariants: every entry up to `claimed` that is in none of `held` is done: delivered, or among the dead letters. A
//! record is written when something was done or failed, before a slot for the next try is free; so after a crash those
//! entries alone come again that were under way.
//!
//! Format: JSON, a note named as the webhook. Unknown members are ignored, missing ones are empty: do not rename any.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::condition::Disabled;
use crate::events::PlaceId;

/// How far a webhook is in one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    /// Which place of its subscription it is about. Of another it says nothing.
    pub(super) place: PlaceId,
    /// The last entry that was looked at.
    pub(super) claimed: u64,
    /// What of that is not done, in order.
    pub(super) held: Vec<Held>,
    /// As an older gateway wrote it: see [`Condition`](super::condition::Condition).
    #[serde(skip_serializing)]
    pub(super) disabled: Option<Disabled>,
}

/// Entries that are not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    /// The first.
    pub(super) first: u64,
    /// The last; all between were sent as one, or will be.
    pub(super) last: u64,
    /// How often they were tried in vain.
    #[serde(default)]
    pub(super) attempts: u32,
    /// When they are due, milliseconds since 1970 UTC by the clock of this machine.
    #[serde(default)]
    pub(super) due: u64,
}

impl Record {
    /// Reads a note. One that cannot be read is an empty record: then entries may come twice, and none is lost.
    pub(super) fn read(note: &[u8]) -> Self {
        serde_json::from_slice(note).unwrap_or_else(|why| {
            tracing::error!(%why, "a webhook's record cannot be read; events may be delivered again");
            Self::default()
        })
    }

    pub(super) fn to_note(&self) -> Bytes {
        // Numbers and texts can always be written.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// As far as it is about this place.
    pub(super) fn at(self, place: Option<PlaceId>) -> Self {
        let place = place.unwrap_or_default();
        if self.place == place { self } else { Self { place, ..Self::default() } }
    }

    /// What is known of an entry.
    pub(super) fn of(&self, number: u64) -> Known {
        if number > self.claimed {
            return Known::New;
        }
        let at = self.held.partition_point(|held| held.last < number);
        match self.held.get(at) {
            Some(held) if held.first <= number => Known::Held(*held),
            _ => Known::Done,
        }
    }
}

/// What a record says of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    New,
    Held(Held),
    Done,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(first: u64, last: u64) -> Held {
        Held { first, last, attempts: 1, due: 5 }
    }

    #[test]
    fn what_is_not_held_up_to_the_last_that_was_looked_at_is_done() {
        let record = Record { claimed: 10, held: vec![held(3, 3), held(5, 7)], ..Record::default() };
        let known: Vec<_> = (1..12).map(|n| record.of(n)).collect();
        use Known::{Done, Held as H, New};
        let (a, b) = (H(held(3, 3)), H(held(5, 7)));
        assert_eq!(known, [Done, Done, a, Done, b, b, b, Done, Done, Done, New]);
        assert_eq!(Record::read(&record.to_note()), record);
        assert_eq!(Record::read(b"{}"), Record::default());
    }
}
