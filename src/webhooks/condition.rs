//! [`Condition`]: what holds for a webhook as a whole, whatever streams it is sent, as it is kept in the store.
//!
//! Format: JSON, one note, `NAME/condition`, in the log of the app's user events. Unknown members are ignored, missing ones
//! are empty: do not rename any. Older gateways kept whether it was disabled with how far it was in each stream; that is
//! read where there is no condition yet.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::UnixMillis;
use crate::names::{AppId, Stream, WebhookName};
use crate::store::{Error, LogKey, NoteKind, Store};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Condition {
    /// Since when, and why, nothing is sent.
    pub(super) disabled: Option<Disabled>,
    /// Until when nothing is sent because the endpoint has asked for that, milliseconds since 1970 UTC.
    pub(super) quiet_until: u64,
    /// The last fault.
    pub(super) fault: Option<Fault>,
}

/// Since when, and why, nothing is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Disabled {
    /// Milliseconds since 1970 UTC.
    pub(super) since: u64,
    /// `gone` (the endpoint answered 410) or `operator`.
    pub(super) why: String,
}

/// What became of a try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fault {
    /// Milliseconds since 1970 UTC.
    pub(super) at: u64,
    pub(super) why: String,
}

impl Disabled {
    pub(super) fn new(since: UnixMillis, why: &str) -> Self {
        Self { since: since.0, why: why.to_owned() }
    }
}

impl Condition {
    /// As it is in the store, if it is there.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn recall(store: &dyn Store, app: &AppId, name: &WebhookName) -> Result<Option<Self>, Error> {
        let note = store.note(&log(app), NoteKind::Webhook, &note(name)).await?;
        Ok(note.map(|note| {
            serde_json::from_slice(&note).unwrap_or_else(|why| {
                tracing::error!(%app, webhook = %name, %why, "a webhook's condition cannot be read; it counts as enabled");
                Self::default()
            })
        }))
    }

    /// Stores it. Durable on return.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn keep(&self, store: &dyn Store, app: &AppId, name: &WebhookName) -> Result<(), Error> {
        // Numbers and texts can always be written.
        let text = Bytes::from(serde_json::to_vec(self).unwrap_or_default());
        store.keep_notes(&log(app), NoteKind::Webhook, vec![(note(name), Some(text))]).await
    }
}

fn log(app: &AppId) -> LogKey {
    LogKey { app: app.clone(), stream: Stream::UserEvents }
}

fn note(name: &WebhookName) -> String {
    format!("{name}/condition")
}
