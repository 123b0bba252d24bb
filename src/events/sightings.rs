//! What other regions returned, from one run to the next.
//!
//! What is in the log says who returned it. What was dropped is kept as notes when the gateway stops in order, and only
//! then: so it costs no write while events flow. After another end it is in doubt: see [`Dedup`].
//!
//! | note | of kind | holds |
//! | --- | --- | --- |
//! | `seen/NUMBER` | waiting | what was dropped of one region: the version (1), the length of the region's name and the name, and for each event when it was (8 bytes, in milliseconds since 1970) and what it is known by (16 bytes), big-endian |
//!
//! The notes stay until the next stop in order; what they say stays true. They are on disk: change them only so that what
//! is there can still be read.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::dedup::{Dedup, Fingerprint, How, MOST_SIGHTINGS};
use super::log::Log;
use super::waiting::Waiting;
use crate::clock::UnixMillis;
use crate::names::RegionName;
use crate::store::{Error, NoteKind, Sequence};

impl Log {
    /// Turns dropping of other regions' events on (with what is known of what was seen), off, or changes its window.
    /// `in_doubt`: an earlier run did not stop in order.
    ///
    /// # Errors
    /// When the store fails; then nothing has changed.
    pub(super) async fn set_dedup(&self, window: Option<Duration>, in_doubt: bool) -> Result<(), Error> {
        let mut writer = self.writer.lock().await;
        match (window, writer.dedup.as_mut()) {
            (Some(window), Some(dedup)) => dedup.set_window(window),
            (None, before) => {
                let was_on = before.is_some();
                writer.dedup = None;
                writer.has_forgotten |= was_on;
            }
            (Some(window), None) => {
                let how = if in_doubt || writer.has_forgotten { How::InDoubt } else { How::Stored };
                let mut dedup = Dedup::new(window);
                self.replay(&mut dedup, window, how).await?;
                for (batch, events) in writer.waiting.iter().flat_map(Waiting::not_taken) {
                    let prints: Vec<_> = events.iter().map(|event| (Fingerprint::of(event), how)).collect();
                    dedup.record(&batch.region, prints, self.came_at(batch.received_at, window));
                }
                for (_, note) in self.store.notes(&self.key, NoteKind::Waiting, SEEN, "", usize::MAX).await? {
                    let Some((region, events)) = parse(&note) else {
                        tracing::error!(app = %self.key.app, stream = %self.key.stream, "what was dropped is not understood");
                        continue;
                    };
                    for (at, event) in events {
                        dedup.record(&region, [(event, How::Dropped)], self.came_at(at, window));
                    }
                }
                dedup.put_in_order();
                writer.dedup = Some(dedup);
            }
        }
        Ok(())
    }

    async fn replay(&self, dedup: &mut Dedup, window: Duration, how: How) -> Result<(), Error> {
        let since = self.store.first_since(&self.key, self.witness.older_than(window)).await?.0;
        let end = self.range().1;
        let mut after = since.max(end.saturating_sub(MOST_SIGHTINGS as u64)).saturating_sub(1);
        while after + 1 < end {
            let batches = self.store.read(&self.key, Sequence(after), REPLAYED_AT_ONCE).await?;
            let Some(newest) = batches.last() else { break };
            after = newest.last().0;
            batches.iter().for_each(|batch| dedup.replay(batch, self.came_at(batch.received_at, window), how));
        }
        Ok(())
    }

    /// When something came, at the latest, by the monotonic clock.
    fn came_at(&self, at: UnixMillis, window: Duration) -> Instant {
        let (now, age) = (self.clock.now(), self.witness.age(at, window));
        now.checked_sub(age).unwrap_or(now)
    }

    /// Forgets other regions' events that are older than the window, also while none come.
    pub(super) async fn forget_sightings(&self) {
        if let Some(dedup) = &mut self.writer.lock().await.dedup {
            dedup.forget(self.clock.now());
        }
    }

    /// Stores what was dropped: for a stop in order.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn keep_sightings(&self) -> Result<(), Error> {
        let mut writer = self.writer.lock().await;
        let Some(dedup) = &mut writer.dedup else { return Ok(()) };
        let (now, wall) = (self.clock.now(), self.clock.wall_ms());
        dedup.forget(now);
        let mut regions: BTreeMap<&RegionName, Vec<(UnixMillis, Fingerprint)>> = BTreeMap::new();
        for (region, event, at) in dedup.dropped() {
            regions.entry(region).or_default().push((wall.before(now.saturating_duration_since(at)), event));
        }
        let chunks =
            regions.iter().flat_map(|(region, events)| events.chunks(IN_A_NOTE).map(|some| note(region, some)));
        let mut notes: BTreeMap<String, Option<Bytes>> =
            chunks.enumerate().map(|(n, note)| (format!("{SEEN}{n:05}"), Some(note))).collect();
        for (name, _) in self.store.notes(&self.key, NoteKind::Waiting, SEEN, "", usize::MAX).await? {
            notes.entry(name).or_default();
        }
        if notes.is_empty() {
            return Ok(());
        }
        self.store.keep_notes(&self.key, NoteKind::Waiting, notes.into_iter().collect()).await
    }
}

/// What becomes of events that are fresh, or are not.
pub(super) fn how(fresh: Vec<bool>) -> impl Iterator<Item = How> {
    fresh.into_iter().map(|fresh| if fresh { How::Stored } else { How::Dropped })
}

fn note(region: &RegionName, events: &[(UnixMillis, Fingerprint)]) -> Bytes {
    let name = region.as_str().as_bytes();
    // A region's name is short.
    let mut note = vec![VERSION, u8::try_from(name.len()).unwrap_or(0)];
    note.extend_from_slice(name);
    for (at, event) in events {
        note.extend_from_slice(&at.0.to_be_bytes());
        note.extend_from_slice(&event.0.to_be_bytes());
    }
    note.into()
}

/// Reads a note; `None` when it is not one.
fn parse(note: &[u8]) -> Option<(RegionName, Vec<(UnixMillis, Fingerprint)>)> {
    let (&[version, length], rest) = note.split_first_chunk::<2>()?;
    let (name, events) = rest.split_at_checked(length.into())?;
    if version != VERSION || !events.len().is_multiple_of(24) {
        return None;
    }
    let region = RegionName::parse(std::str::from_utf8(name).ok()?).ok()?;
    let number = |bytes: &[u8]| bytes.iter().fold(0, |n, &byte| n << 8 | u128::from(byte));
    let events = events.chunks_exact(24).map(|event| {
        let at = event[..8].iter().fold(0, |n, &byte| n << 8 | u64::from(byte));
        (UnixMillis(at), Fingerprint(number(&event[8..])))
    });
    Some((region, events.collect()))
}

/// The names of the notes begin so.
const SEEN: &str = "seen/";
const VERSION: u8 = 1;
/// Events in a note, at most: 96 KiB.
const IN_A_NOTE: usize = 4096;
const REPLAYED_AT_ONCE: usize = 10_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_note_says_what_was_dropped(events in prop::collection::vec(any::<(u64, u128)>(), 0..20)) {
            let region = RegionName::parse("eu").unwrap();
            let events: Vec<_> = events.into_iter().map(|(at, event)| (UnixMillis(at), Fingerprint(event))).collect();
            prop_assert_eq!(parse(&note(&region, &events)), Some((region, events)));
        }

        #[test]
        fn no_note_makes_reading_it_fail(note in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&note);
        }
    }
}
