//! [`PlaceId`]: which place of a subscription something is about.

use serde::{Deserialize, Serialize};

/// Names a subscription's place: another after each seek, and another when a subscription of that name is made again.
/// What was taken, or noted, at another place says nothing about this one. 0 in what older gateways have stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::events) struct PlaceId(u64);

impl PlaceId {
    /// One that no other has.
    pub(in crate::events::subscription) fn random() -> Self {
        Self(rand::random_range(1..=u64::MAX))
    }

    pub(in crate::events::subscription) fn note(self) -> String {
        self.0.to_string()
    }

    pub(in crate::events::subscription) fn of_note(number: u64) -> Self {
        Self(number)
    }
}
