//! [`Condition`]: what holds for a webhook as a whole, whatever streams it is sent, as it is kept in the store.
//!
//! Format: JSON, one note, `NAME/condition`, in the log of the app's user events. Unknown members are ignored, missing
//! ones are empty: do not rename any. Older gateways kept whether it was disabled in a note of each stream, named as
//! the webhook; that is read where there is no condition yet.
//!
//! Invariant: what is stored is never older than what was stored before, whoever stores it; and who leaves while it is
//! being stored leaves it to the next.

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::kernel::clock::UnixMillis;
use crate::kernel::names::{AppId, Stream, WebhookName};
use crate::kernel::sync::lock;
use crate::store::{Error, LogKey, NoteKind, Store};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Condition {
    /// Since when, and why, nothing is sent.
    pub(super) disabled: Option<Disabled>,
    /// Until when nothing is sent because the endpoint has asked for that, milliseconds since 1970 UTC; then one
    /// request at a time. 0: it has not, or has taken one since.
    pub(super) quiet_until: u64,
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

/// The condition, and the store that keeps it.
pub(super) struct StoredCondition {
    store: Arc<dyn Store>,
    app: AppId,
    name: WebhookName,
    now: Mutex<Now>,
    /// Which version is stored. Held while one is being stored.
    stored: tokio::sync::Mutex<u64>,
}

#[derive(Default)]
struct Now {
    condition: Condition,
    version: u64,
}

impl StoredCondition {
    /// As it is in the store.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn recall(store: Arc<dyn Store>, app: &AppId, name: &WebhookName) -> Result<Arc<Self>, Error> {
        let condition = match store.note(&log(app), NoteKind::Webhook, &note(name)).await? {
            Some(note) => parse(&note, app, name),
            None => Condition { disabled: of_old(&*store, app, name).await?, ..Condition::default() },
        };
        let now = Mutex::new(Now { condition, version: 0 });
        Ok(Arc::new(Self { store, app: app.clone(), name: name.clone(), now, stored: tokio::sync::Mutex::default() }))
    }

    pub(super) fn get(&self) -> Condition {
        self.now().condition.clone()
    }

    /// Changes it, for the next who stores it.
    pub(super) fn change(&self, change: impl FnOnce(&mut Condition)) {
        let mut now = self.now();
        change(&mut now.condition);
        now.version += 1;
    }

    /// Stores it as it is now, if that is not done. Durable on return.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn keep(&self) -> Result<(), Error> {
        // Held until it is stored: whoever comes after stores what is newer, or nothing.
        let mut stored = self.stored.lock().await;
        let (condition, version) = {
            let now = self.now();
            (now.condition.clone(), now.version)
        };
        if *stored != version {
            // Numbers and texts can always be written.
            let text = Bytes::from(serde_json::to_vec(&condition).unwrap_or_default());
            let notes = vec![(note(&self.name), Some(text))];
            self.store.keep_notes(&log(&self.app), NoteKind::Webhook, notes).await?;
            *stored = version;
        }
        Ok(())
    }

    /// Sections are short and do not panic.
    fn now(&self) -> MutexGuard<'_, Now> {
        lock(&self.now)
    }
}

/// Whether an older gateway had disabled it, as it wrote that.
async fn of_old(store: &dyn Store, app: &AppId, name: &WebhookName) -> Result<Option<Disabled>, Error> {
    #[derive(Deserialize)]
    struct Old {
        disabled: Option<Disabled>,
    }
    for stream in Stream::ALL {
        let log = LogKey { app: app.clone(), stream };
        let note = store.note(&log, NoteKind::Webhook, name.as_str()).await?;
        let old = note.and_then(|note| serde_json::from_slice(&note).ok());
        if let Some(Old { disabled: Some(disabled) }) = old {
            return Ok(Some(disabled));
        }
    }
    Ok(None)
}

fn parse(note: &[u8], app: &AppId, name: &WebhookName) -> Condition {
    serde_json::from_slice(note).unwrap_or_else(|why| {
        tracing::error!(%app, webhook = %name, %why, "a webhook's condition cannot be read; it counts as enabled");
        Condition::default()
    })
}

fn log(app: &AppId) -> LogKey {
    LogKey { app: app.clone(), stream: Stream::UserEvents }
}

fn note(name: &WebhookName) -> String {
    format!("{name}/condition")
}
