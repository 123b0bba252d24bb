//! A [`Lane`]: a stream as it is read from one place for a webhook. Its number is that of the engine's lane.

use super::intake::Intake;
use crate::events::{From, Place};
use crate::names::{ClientName, Stream, SubscriptionName, WebhookName};

/// See the module.
pub(super) struct Lane {
    pub(super) stream: Stream,
    pub(super) intake: Intake,
    /// Whether a read is under way.
    pub(super) is_read: bool,
    /// The stream is read from another place now, in another lane.
    pub(super) is_closed: bool,
}

impl Lane {
    pub(super) fn new(stream: Stream, intake: Intake) -> Self {
        Self { stream, intake, is_read: false, is_closed: false }
    }
}

/// Of its own subscription, which no caller can name.
pub(super) fn place(name: &WebhookName, from: From) -> Place {
    Place::Subscription { name: SubscriptionName::from(name), from }
}

/// Each endpoint reads on its own account.
pub(super) fn account(name: &WebhookName) -> ClientName {
    ClientName::parse(&format!("webhook.{name}")).expect("a webhook's name is short, and of characters of a client's")
}
