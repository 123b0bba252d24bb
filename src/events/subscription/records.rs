//! How far webhooks were, as older gateways kept it: a record of each beside the state of its subscription. It becomes
//! a part of that state, and is no more.
//!
//! Invariants: what a record says is taken over in one step, and the record removed in the same: a start that is cut
//! short does it again. A record says nothing of another place of its subscription than the one it names, nor of a
//! subscription that is gone. What an even older gateway wrote into it, that the webhook is disabled, is left where it
//! is, for the webhook to read.
//!
//! A record's bytes: JSON, a note of the kind `Webhook`, named as the webhook. Every entry up to `claimed` that is in
//! none of `held` was delivered, or was a dead letter.

use std::collections::HashMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::PlaceId;
use super::notes::{self, Remainders, SubscriptionRecords};
use super::state::{SubscriptionState, Writes, take_over_record};
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::{SubscriptionName, WebhookName};
use crate::store::{Error, LogKey, NoteKind, PlaceChange, Store};

/// How far a webhook was in one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct WebhookRecord {
    place: PlaceId,
    /// The last entry that was looked at.
    pub(super) claimed: u64,
    /// What of that was not done, in order.
    pub(super) held: Vec<HeldRange>,
    disabled: Value,
}

/// Entries that were not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct HeldRange {
    pub(super) first: u64,
    /// The last; all between were sent as one, or would have been.
    pub(super) last: u64,
    /// How often they were tried in vain.
    #[serde(default)]
    pub(super) attempts: u32,
    /// When they are due, milliseconds since 1970 UTC by the clock of this machine.
    #[serde(default)]
    pub(super) due: u64,
}

/// All subscriptions of a log, whose last entry is `last`, with what records say of them: see [`notes::all`].
///
/// # Errors
/// When the store fails: some records may be taken over.
pub(in crate::events) async fn recall(
    store: &dyn Store,
    log: &LogKey,
    last: u64,
    now: (UnixMillis, Instant),
) -> Result<(HashMap<SubscriptionName, SubscriptionRecords>, Remainders), Error> {
    let (mut all, left) = notes::all(store, log, now).await?;
    let is_as_it_was = !take_over(store, log, &mut all, last, now.0).await?;
    if is_as_it_was { Ok((all, left)) } else { notes::all(store, log, now).await }
}

/// Takes records over. Says whether there were any: then the store says something else of these subscriptions, which
/// are not among the others any more.
async fn take_over(
    store: &dyn Store,
    log: &LogKey,
    all: &mut HashMap<SubscriptionName, SubscriptionRecords>,
    last: u64,
    wall: UnixMillis,
) -> Result<bool, Error> {
    let (mut any, mut after) = (false, String::new());
    loop {
        let notes = store.notes(log, NoteKind::Webhook, "", &after, AT_ONCE).await?;
        let Some((name, _)) = notes.last() else { return Ok(any) };
        after.clone_from(name);
        for (name, note) in &notes {
            // What else there is of a webhook has a name with a slash.
            let Ok(webhook) = WebhookName::parse(name) else { continue };
            let mut record: WebhookRecord = serde_json::from_slice(note).unwrap_or_else(|why| {
                tracing::error!(app = %log.app, webhook = name, %why, "not understood: its events may be delivered again");
                WebhookRecord::default()
            });
            let left = (!record.disabled.is_null()).then(|| json!({ "disabled": record.disabled }).to_string());
            if left.as_ref().is_some_and(|left| left.as_bytes() == note) {
                continue;
            }
            record.claimed = record.claimed.min(last);
            let subscription = SubscriptionName::from(&webhook);
            let recalled = all.remove(&subscription).filter(|recalled| recalled.place == record.place);
            let mut changes = recalled.map_or_else(Vec::new, |recalled| {
                let now = (recalled.now, wall);
                let mut state = SubscriptionState::new(recalled);
                take_over_record(&mut state, &record, now);
                Writes::of(&mut state, &subscription, None, now).1
            });
            changes.push(PlaceChange::Note(NoteKind::Webhook, name.clone(), left.map(Bytes::from)));
            store.change_places(log, changes).await?;
            any = true;
        }
    }
}

const AT_ONCE: usize = 1000;
