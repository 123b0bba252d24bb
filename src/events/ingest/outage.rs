//! [`Outage`]: reads of one stream of one region that ended in doubt, since the last that did not.
//!
//! Invariants: an outage is on stable storage, as a note, before the next read is sent, and each doubt adds to the
//! note. It ends as one marker, in the commit that removes the note: before the first events that are stored after it.
//! A stop leaves the note, and the next run goes on with it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::events::log::loss::{Loss, MarkedOutage, Marker};
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::RegionName;
use crate::store::{Error, LogKey, NoteKind, Store};

/// An outage that has not ended. It is on disk: members may be added, none changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outage {
    /// The first.
    reason: String,
    count: u64,
    reasons: BTreeMap<String, u64>,
    from: u64,
}

/// What the admin API shows of an outage.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct OutageStatus {
    /// When the first of its reads ended.
    pub from: String,
    /// How many reads ended in doubt.
    pub doubts: u64,
    /// How often each reason came up.
    pub reasons: BTreeMap<String, u64>,
}

impl Outage {
    /// Began with a read that ended so, now.
    pub(super) fn new(loss: Loss, now: UnixMillis) -> Self {
        let reason = loss.as_str().to_owned();
        Self { count: 1, reasons: BTreeMap::from([(reason.clone(), 1)]), reason, from: now.0 }
    }

    /// One that an earlier run left. `None` when there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn recall(store: &dyn Store, log: &LogKey, region: &RegionName) -> Result<Option<Self>, Error> {
        let note = store.note(log, NoteKind::Waiting, &note_name(region)).await?;
        Ok(note.map(|note| {
            serde_json::from_slice(&note).unwrap_or_else(|error| {
                tracing::error!(app = %log.app, stream = %log.stream, %region, %error, "the note of an outage cannot be read");
                Self::new(Loss::UncleanStop, UnixMillis(0))
            })
        }))
    }

    /// Another read ended in doubt.
    pub(super) fn add(&mut self, loss: Loss) {
        self.count += 1;
        *self.reasons.entry(loss.as_str().to_owned()).or_default() += 1;
    }

    /// Without one of its reads that was given up (a time-out), and whose answer has come after all; `None` when that
    /// was the only one.
    pub(super) fn without_one(mut self) -> Option<Self> {
        self.count -= 1;
        if let Some(times) = self.reasons.get_mut(Loss::Timeout.as_str()) {
            *times -= 1;
        }
        self.reasons.retain(|_, times| *times > 0);
        if !self.reasons.contains_key(&self.reason) {
            self.reason = self.reasons.keys().next()?.clone();
        }
        Some(self)
    }

    /// The marker, if it ends now.
    pub(super) fn marker(&self, now: UnixMillis) -> Marker {
        let Self { reason, count, reasons, from } = self.clone();
        Marker { reason, outage: Some(MarkedOutage { count, reasons, from: UnixMillis(from), to: now }) }
    }

    pub(super) fn note(&self) -> Bytes {
        serde_json::to_vec(self).expect("numbers and texts can be written").into()
    }

    pub(super) fn status(&self) -> OutageStatus {
        let from = UnixMillis(self.from).to_string();
        OutageStatus { from, doubts: self.count, reasons: self.reasons.clone() }
    }
}

/// The name of a region's note, among those of [`NoteKind::Waiting`].
pub(super) fn note_name(region: &RegionName) -> String {
    format!("outage/{region}")
}
