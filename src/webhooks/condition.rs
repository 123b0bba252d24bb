//! [`Condition`]: what holds for a webhook as a whole, whatever streams it is sent, as it is kept in the store.
//!
//! Format: JSON, one note, `NAME/condition`, in the log of the app's user events. Unknown members are ignored, missing
//! ones are empty: do not rename any. Older gateways kept whether it was disabled in a note of each stream, named as
//! the webhook; that is read where there is no condition yet.
//!
//! Invariant: what is stored is never older than what was stored before, whoever stores it; and who leaves while it is
//! being stored leaves it to the next.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
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
    /// Tries in vain since the last delivery.
    pub(super) consecutive_failures: u32,
    /// When the endpoint took a request last, milliseconds since 1970 UTC; 0: never. What the store says of it may be
    /// [`SUCCESS_KEPT_EVERY`] old, and after a stop in order is exact.
    pub(super) last_success: u64,
}

/// Since when, and why, nothing is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Disabled {
    /// Milliseconds since 1970 UTC.
    pub(super) since: u64,
    /// `gone` (the endpoint answered 410) or `operator`.
    pub(super) why: String,
}

/// What became of a try in vain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Fault {
    /// Milliseconds since 1970 UTC.
    pub(super) at: u64,
    /// For operators; at most [`MAX_WHY`] bytes, nothing of an answer's body and no address.
    pub(super) why: String,
    /// Which try of what was sent it was. 0: an older gateway did not say.
    pub(super) attempt: u32,
    /// The answer's status, if there was an answer.
    pub(super) status: Option<u16>,
}

impl Fault {
    /// That came of the try of this number.
    pub(super) fn new(at: UnixMillis, outcome: &Outcome, attempt: u32) -> Self {
        let mut why = outcome.to_string();
        why.truncate(why.floor_char_boundary(MAX_WHY));
        Self { at: at.0, why, attempt, status: outcome.status() }
    }
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
    /// The last success that this version, or one before it, says.
    kept_success: u64,
}

/// How often it is stored that an endpoint takes what it is sent: a commit more for each request would cost more than
/// it tells.
const SUCCESS_KEPT_EVERY: Duration = Duration::from_secs(60);

/// Bytes of what is kept of an error.
const MAX_WHY: usize = 512;

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
        let kept_success = condition.last_success;
        let now = Mutex::new(Now { condition, version: 0, kept_success });
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
        now.kept_success = now.condition.last_success;
    }

    /// A request was taken, and `ends_quiet` if the endpoint may be sent many again. Mostly nothing is to be stored for
    /// that: when the last one was taken goes along with what else changes, or once in a while.
    pub(super) fn succeeded(&self, at: UnixMillis, ends_quiet: bool) {
        let mut now = self.now();
        now.condition.last_success = at.0;
        let is_news = ends_quiet || now.condition.consecutive_failures > 0;
        if is_news || at.since(UnixMillis(now.kept_success)) >= SUCCESS_KEPT_EVERY {
            now.condition.consecutive_failures = 0;
            if ends_quiet {
                now.condition.quiet_until = 0;
            }
            now.version += 1;
            now.kept_success = at.0;
        }
    }

    /// Stores all of it, also when the last request was taken. Durable on return.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn keep_all(&self) -> Result<(), Error> {
        {
            let mut now = self.now();
            if now.kept_success != now.condition.last_success {
                now.kept_success = now.condition.last_success;
                now.version += 1;
            }
        }
        self.keep().await
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::memory::MemoryStore;

    const MINUTE: u64 = 60_000;

    async fn recall(store: &Arc<MemoryStore>) -> Arc<StoredCondition> {
        let (app, name) = (AppId::parse("a").unwrap(), WebhookName::parse("crm").unwrap());
        StoredCondition::recall(Arc::clone(store) as Arc<dyn Store>, &app, &name).await.unwrap()
    }

    #[tokio::test]
    async fn a_success_is_stored_once_in_a_while_and_at_once_where_it_ends_something() {
        let store = Arc::new(MemoryStore::default());
        let condition = recall(&store).await;
        let stored = async || recall(&store).await.get().last_success;
        for (at, kept) in [(MINUTE, MINUTE), (MINUTE + 1, MINUTE), (2 * MINUTE - 1, MINUTE), (2 * MINUTE, 2 * MINUTE)] {
            condition.succeeded(UnixMillis(at), false);
            condition.keep().await.unwrap();
            assert_eq!((stored().await, condition.get().last_success), (kept, at));
        }
        let fault = Fault::new(UnixMillis(2 * MINUTE + 1), &Outcome::Refused(500), 3);
        condition.change(|condition| (condition.fault, condition.consecutive_failures) = (Some(fault), 1));
        condition.succeeded(UnixMillis(2 * MINUTE + 2), false);
        condition.keep().await.unwrap();
        let kept = recall(&store).await.get();
        assert_eq!((kept.last_success, kept.consecutive_failures), (2 * MINUTE + 2, 0));
        assert_eq!(kept.fault.map(|fault| (fault.attempt, fault.status)), Some((3, Some(500))));
        // A stop in order leaves nothing out.
        condition.succeeded(UnixMillis(2 * MINUTE + 3), false);
        condition.keep_all().await.unwrap();
        assert_eq!(stored().await, 2 * MINUTE + 3);
    }

    #[test]
    fn of_an_error_no_more_is_kept_than_is_worth_it() {
        let fault = Fault::new(UnixMillis(1), &Outcome::Unreachable("ä".repeat(1000)), 1);
        assert!((MAX_WHY - 1..=MAX_WHY).contains(&fault.why.len()));
    }

    #[test]
    fn what_an_older_gateway_stored_is_read() {
        let condition: Condition =
            serde_json::from_str(r#"{"disabled":null,"quiet_until":5,"fault":{"at":7,"why":"no"}}"#).unwrap();
        let fault = Fault { at: 7, why: "no".to_owned(), ..Fault::default() };
        assert_eq!(condition, Condition { quiet_until: 5, fault: Some(fault), ..Condition::default() });
    }
}
