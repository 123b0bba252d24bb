//! What regions returned and was dropped as another's copy, kept from one run to the next.
//!
//! The log says which region returned what is in it. What was dropped is in no log; without it a region that has returned
//! an event whose first copy was another's would seem, after a restart, not to have returned it, and its second equal event
//! would be dropped for the other's copy. So it is kept beside the log: with the next batch that is stored, in the same
//! commit, so that it costs no sync; where none comes, by housekeeping; and when the gateway stops in order. After a kill
//! what was dropped last may be missing. Then an equal event of that region counts as a copy: it may be lost so, but what
//! two regions returned is never in the log twice.
//!
//! | note | of kind | holds |
//! | --- | --- | --- |
//! | `seen/NUMBER` | waiting | the version (1), and for each read: the length of its region's name and the name, when it was (8 bytes, milliseconds since 1970), how many events were dropped (4 bytes), and what each is known by (16 bytes); big-endian |
//!
//! A note is never changed, and goes when all in it is older than the window. It is on disk: change it only with a new
//! version. (An older gateway passes over such notes; what they say stays true.)
//!
//! Invariants: looking ([`Dropped::plan`]) changes nothing; [`Dropped::done`] follows the commit. A commit that fails may
//! leave its note: the next has the same number, and says that and more.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::events::ingest::appender::Writer;
use crate::events::ingest::dedup::{Dedup, Fingerprint, MAX_SIGHTINGS, Past};
use crate::events::ingest::reorder_buffer::{Notes, Waiting};
use crate::events::log::Log;
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::RegionName;
use crate::store::{Batch, Content, Error, NoteKind, Sequence};

/// What was dropped of one log.
#[derive(Debug, Default)]
pub(in crate::events) struct Dropped {
    /// Not stored yet.
    fresh: Vec<Read>,
    /// How many events those are.
    count: usize,
    /// The notes there are, oldest first.
    notes: VecDeque<Note>,
    /// The number of the next.
    next: u64,
}

/// What was dropped of one read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::events) struct Read {
    pub(in crate::events) region: RegionName,
    pub(in crate::events) at: UnixMillis,
    pub(in crate::events) events: Vec<Fingerprint>,
}

/// A note in the store.
#[derive(Clone, Copy, Debug)]
struct Note {
    number: u64,
    newest: UnixMillis,
    events: usize,
}

/// What a commit changes of the notes.
#[derive(Debug, Default)]
pub(in crate::events) struct Plan {
    pub(in crate::events) notes: Notes,
    comes: Option<Note>,
    /// So many go, the oldest.
    gone: usize,
}

impl Plan {
    /// Whether the commit says what was dropped.
    pub(in crate::events) fn has_note(&self) -> bool {
        self.comes.is_some()
    }
}

impl Dropped {
    /// Takes up what earlier runs have stored, and says what that is.
    fn recall(notes: Vec<(String, Bytes)>) -> (Self, Vec<Read>) {
        let (mut dropped, mut all) = (Self::default(), Vec::new());
        for (name, note) in notes {
            let number = name.strip_prefix(SEEN).and_then(|number| u64::from_str_radix(number, 16).ok());
            let Some((number, reads)) = number.zip(parse(&note)) else {
                tracing::error!(name, "what was dropped as a copy cannot be read; it stays where it is");
                continue;
            };
            let newest = reads.iter().map(|read| read.at).max().unwrap_or_default();
            let events = reads.iter().map(|read| read.events.len()).sum();
            dropped.notes.push_back(Note { number, newest, events });
            dropped.next = dropped.next.max(number + 1);
            all.extend(reads);
        }
        (dropped, all)
    }

    /// These were dropped, and no commit says so yet.
    pub(in crate::events) fn add(&mut self, read: Read) {
        if read.events.is_empty() {
            return;
        }
        self.count += read.events.len();
        self.fresh.push(read);
        // No more than is remembered: what is older says nothing any more.
        let mut over = 0;
        while self.count > MAX_SIGHTINGS && over < self.fresh.len() {
            self.count -= self.fresh[over].events.len();
            over += 1;
        }
        self.fresh.drain(..over);
    }

    /// What a commit is to store: what was dropped and is not stored yet, and this read.
    pub(in crate::events) fn plan(&self, also: Option<&Read>) -> Plan {
        let reads: Vec<&Read> = self.fresh.iter().chain(also.filter(|read| !read.events.is_empty())).collect();
        let Some(newest) = reads.iter().map(|read| read.at).max() else { return Plan::default() };
        let events = reads.iter().map(|read| read.events.len()).sum();
        let comes = Note { number: self.next, newest, events };
        Plan { notes: vec![(name(self.next), Some(note(&reads)))], comes: Some(comes), gone: 0 }
    }

    /// As [`Dropped::plan`], and without the notes that say nothing of what was seen since then.
    fn plan_with_removals(&self, since: UnixMillis) -> Plan {
        let mut plan = self.plan(None);
        let mut held: usize = self.notes.iter().map(|note| note.events).sum::<usize>() + self.count;
        let is_over = |note: &&Note| {
            let is_over = note.newest < since || held > MAX_SIGHTINGS;
            held -= note.events;
            is_over
        };
        plan.gone = self.notes.iter().take_while(is_over).count();
        plan.notes.extend(self.notes.iter().take(plan.gone).map(|note| (name(note.number), None)));
        plan
    }

    /// The plan's commit has succeeded.
    pub(in crate::events) fn done(&mut self, plan: Plan) {
        self.notes.drain(..plan.gone.min(self.notes.len()));
        if let Some(note) = plan.comes {
            self.notes.push_back(note);
            self.next = note.number + 1;
            (self.fresh, self.count) = (Vec::new(), 0);
        }
    }
}

impl Log {
    /// Turns dropping of other regions' events on (with what is known of what was seen), off, or changes its window.
    ///
    /// # Errors
    /// When the store fails; then nothing has changed.
    pub(in crate::events) async fn set_dedup(&self, window: Option<Duration>) -> Result<(), Error> {
        let mut writer = self.writer().await;
        match (window, writer.dedup.as_mut()) {
            (Some(window), Some(dedup)) => dedup.set_window(window),
            (None, Some(_)) => {
                self.keep_dropped_in(&mut writer).await?;
                (writer.dedup, writer.dropped) = (None, Dropped::default());
            }
            (None, None) => {}
            (Some(window), None) => self.recall_sightings(&mut writer, window).await?,
        }
        Ok(())
    }

    /// Takes up from the store what was seen.
    ///
    /// # Errors
    /// When the store fails; then nothing has changed.
    pub(in crate::events) async fn recall_sightings(&self, writer: &mut Writer, window: Duration) -> Result<(), Error> {
        let notes = self.store.notes(&self.key, NoteKind::Waiting, SEEN, "", usize::MAX).await?;
        let (dropped, reads) = Dropped::recall(notes);
        let since = self.witness.older_than(window);
        let mut first = self.store.first_since(&self.key, since).await?.0;
        let (earliest, end) = self.range();
        let most_back = end.saturating_sub(MAX_SIGHTINGS as u64);
        // What is older than the window is there still, so retention has taken nothing of the window.
        let is_whole = (earliest == 1 || earliest < first) && most_back <= first;
        if !is_whole && !reads.is_empty() {
            // What a copy was one of may be as much older than the copy.
            first = self.store.first_since(&self.key, self.witness.older_than(window.saturating_mul(2))).await?.0;
        }
        let mut past = Past::new(is_whole);
        let mut after = first.max(most_back).saturating_sub(1);
        while after + 1 < end {
            let batches = self.store.read(&self.key, Sequence(after), REPLAYED_AT_ONCE).await?;
            let Some(newest) = batches.last() else { break };
            after = newest.last().0;
            batches.iter().for_each(|batch| replay(&mut past, batch));
        }
        for (batch, events) in writer.waiting.iter().flat_map(Waiting::not_taken) {
            past.stored(&batch.region, events.iter().map(|event| Fingerprint::of(event)), batch.received_at);
        }
        for Read { region, at, events } in reads {
            past.dropped(&region, events, at);
        }
        let now = self.clock.now();
        let mut dedup = Dedup::new(window);
        dedup.recall(past, since, |at| now.checked_sub(self.witness.age(at, window)).unwrap_or(now));
        (writer.dedup, writer.dropped) = (Some(dedup), dropped);
        Ok(())
    }

    /// Forgets other regions' events that are older than the window, also while none come.
    pub(in crate::events) async fn forget_sightings(&self) {
        if let Some(dedup) = &mut self.writer().await.dedup {
            dedup.forget(self.clock.now());
        }
    }

    /// Stores what was dropped and is not stored yet, and removes what is older than the window.
    ///
    /// # Errors
    /// When the store fails.
    pub(in crate::events) async fn keep_dropped(&self) -> Result<(), Error> {
        self.keep_dropped_in(&mut *self.writer().await).await
    }

    async fn keep_dropped_in(&self, writer: &mut Writer) -> Result<(), Error> {
        let Some(dedup) = &writer.dedup else { return Ok(()) };
        let mut plan = writer.dropped.plan_with_removals(self.witness.older_than(dedup.window()));
        if plan.notes.is_empty() {
            return Ok(());
        }
        self.store.keep_notes(&self.key, NoteKind::Waiting, std::mem::take(&mut plan.notes)).await?;
        writer.dropped.done(plan);
        Ok(())
    }
}

fn replay(past: &mut Past, batch: &Batch) {
    match &batch.content {
        Content::Events(events) => {
            past.stored(&batch.region, events.iter().map(|event| Fingerprint::of(&event)), batch.received_at);
        }
        Content::Damaged(_) => past.is_whole = false,
        Content::PossibleLoss(_) => {}
    }
}

fn name(number: u64) -> String {
    format!("{SEEN}{number:016x}")
}

fn note(reads: &[&Read]) -> Bytes {
    let mut note = vec![VERSION];
    for read in reads {
        let region = read.region.as_str().as_bytes();
        // A region's name is at most 64 bytes long, by its own rule; and no read brings 2^32 events.
        note.push(region.len() as u8);
        note.extend_from_slice(region);
        note.extend_from_slice(&read.at.0.to_be_bytes());
        note.extend_from_slice(&(read.events.len() as u32).to_be_bytes());
        read.events.iter().for_each(|event| note.extend_from_slice(&event.0.to_be_bytes()));
    }
    note.into()
}

/// Reads a note; `None` when it is not one.
fn parse(note: &[u8]) -> Option<Vec<Read>> {
    let (&version, mut rest) = note.split_first()?;
    let mut reads = Vec::new();
    while let Some((&length, more)) = rest.split_first() {
        let (region, more) = more.split_at_checked(length.into())?;
        let (at, more) = more.split_first_chunk::<8>()?;
        let (count, more) = more.split_first_chunk::<4>()?;
        let (events, more) = more.split_at_checked((u32::from_be_bytes(*count) as usize).checked_mul(16)?)?;
        let region = RegionName::parse(str::from_utf8(region).ok()?).ok()?;
        let events = events.as_chunks().0.iter().map(|event| Fingerprint(u128::from_be_bytes(*event))).collect();
        reads.push(Read { region, at: UnixMillis(u64::from_be_bytes(*at)), events });
        rest = more;
    }
    (version == VERSION && !reads.is_empty()).then_some(reads)
}

/// The names of the notes begin so.
const SEEN: &str = "seen/";
const VERSION: u8 = 1;
const REPLAYED_AT_ONCE: usize = 10_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    properties! {
        #[test]
        fn a_note_says_what_was_dropped(
            all in prop::collection::vec(("[a-z]{1,9}", any::<u64>(), prop::collection::vec(any::<u128>(), 1..9)), 1..9),
        ) {
            let read = |(region, at, events): (String, u64, Vec<u128>)| Read {
                region: RegionName::parse(&region).unwrap(),
                at: UnixMillis(at),
                events: events.into_iter().map(Fingerprint).collect(),
            };
            let reads: Vec<_> = all.into_iter().map(read).collect();
            let written = note(&reads.iter().collect::<Vec<_>>());
            prop_assert_eq!(parse(&written), Some(reads));
            for end in 0..written.len() {
                let _ = parse(&written[..end]);
            }
        }

        #[test]
        fn no_note_makes_reading_it_fail(mut note in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&note);
            if let Some(version) = note.first_mut() {
                *version = VERSION;
            }
            let _ = parse(&note);
        }
    }
}
