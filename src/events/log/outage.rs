//! [`Outage`]: reads of one stream of one region that ended in doubt, since the last that did not.
//!
//! Invariants: an outage is on stable storage, as a note, before the next read is sent, and each doubt adds to the
//! note. It ends as one marker, in the commit that removes the note: before the first events that are stored after it.
//! A stop leaves the note, and the next run goes on with it. Where nobody will read the region any more (it is gone
//! from the configuration), it ends at once. There is one [`OutageBook`] for each stream and region, whoever reads it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::loss::{Loss, MarkedOutage, Marker};
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::RegionName;
use crate::store::{Error, LogKey, NoteKind, Store};

/// What is known of the outages of one stream of one region. Pollers that follow one another (a region that is taken
/// out and put back while its last read is under way) have the same.
#[derive(Debug, Default)]
pub(in crate::events) struct OutageBook {
    /// The outage that has not ended.
    pub(in crate::events) open: Mutex<OpenOutage>,
    /// Who has it stores. Whether the note of an earlier run was taken up.
    pub(in crate::events) turn: tokio::sync::Mutex<bool>,
}

/// The outage that has not ended, if there is one.
#[derive(Debug, Default)]
pub(in crate::events) struct OpenOutage {
    pub(in crate::events) outage: Option<Outage>,
    /// How many have ended: a doubt is of the outage that was open when it was noted.
    pub(in crate::events) ended: u64,
}

/// An outage that has not ended. It is on disk: members may be added, none changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::events) struct Outage {
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
    pub(in crate::events) fn new(loss: Loss, now: UnixMillis) -> Self {
        let reason = loss.as_str().to_owned();
        Self { count: 1, reasons: BTreeMap::from([(reason.clone(), 1)]), reason, from: now.0 }
    }

    /// One that an earlier run left. `None` when there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub(in crate::events) async fn recall(
        store: &dyn Store,
        log: &LogKey,
        region: &RegionName,
    ) -> Result<Option<Self>, Error> {
        let note = store.note(log, NoteKind::Waiting, &note_name(region)).await?;
        Ok(note.map(|note| {
            serde_json::from_slice(&note).unwrap_or_else(|error| {
                tracing::error!(app = %log.app, stream = %log.stream, %region, %error, "the note of an outage cannot be read");
                Self::new(Loss::UncleanStop, UnixMillis(0))
            })
        }))
    }

    /// Another read ended in doubt.
    pub(in crate::events) fn add(&mut self, loss: Loss) {
        self.count += 1;
        *self.reasons.entry(loss.as_str().to_owned()).or_default() += 1;
    }

    /// Without one of its reads that was given up (a time-out), and whose answer has come after all; `None` when that
    /// was the only one.
    pub(in crate::events) fn without_a_timeout(mut self) -> Option<Self> {
        let times = self.reasons.get_mut(Loss::Timeout.as_str()).filter(|times| **times > 0);
        let Some(times) = times else { return Some(self) };
        *times -= 1;
        self.count -= 1;
        self.reasons.retain(|_, times| *times > 0);
        if !self.reasons.contains_key(&self.reason) {
            self.reason = self.reasons.keys().next()?.clone();
        }
        Some(self)
    }

    /// The marker, if it ends now.
    pub(in crate::events) fn marker(&self, now: UnixMillis) -> Marker {
        let Self { reason, count, reasons, from } = self.clone();
        Marker { reason, outage: Some(MarkedOutage { count, reasons, from: UnixMillis(from), to: now }) }
    }

    pub(in crate::events) fn note(&self) -> Bytes {
        serde_json::to_vec(self).expect("numbers and texts can be written").into()
    }

    pub(in crate::events) fn status(&self) -> OutageStatus {
        let from = UnixMillis(self.from).to_string();
        OutageStatus { from, doubts: self.count, reasons: self.reasons.clone() }
    }
}

/// The regions of whose outages there are notes.
///
/// # Errors
/// When the store fails.
pub(in crate::events) async fn noted(store: &dyn Store, log: &LogKey) -> Result<Vec<RegionName>, Error> {
    let notes = store.notes(log, NoteKind::Waiting, OUTAGE, "", usize::MAX).await?;
    Ok(notes.iter().filter_map(|(name, _)| RegionName::parse(name.strip_prefix(OUTAGE)?).ok()).collect())
}

/// What the names of outages' notes begin with.
const OUTAGE: &str = "outage/";

/// The name of a region's note, among those of [`NoteKind::Waiting`].
pub(in crate::events) fn note_name(region: &RegionName) -> String {
    format!("{OUTAGE}{region}")
}
