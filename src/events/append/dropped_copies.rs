//! [`DroppedCopies`]: what regions returned and was dropped as another's copy, kept from one run to the next.
//!
//! The log says which region returned what is in it. What was dropped is in no log. Without it a region that has
//! returned an event whose first copy was another's would seem, after a restart, not to have returned it, and its
//! second equal event would be dropped for the other's copy. So it is kept beside the log: with the next batch that is
//! stored, in the same commit, so that it costs no sync; where none comes, by housekeeping; and when the gateway stops
//! in order. After a kill what was dropped last may be missing. Then an equal event of that region counts as a copy: it
//! may be lost so, but what two regions returned is never in the log twice.
//!
//! It is kept in notes `seen/NUMBER`, of the kind *waiting*. A note holds its version (1), and then for each read,
//! big-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | the length of its region's name |
//! | so many | the name |
//! | 8 | when it was, in milliseconds since 1970 |
//! | 4 | how many events were dropped |
//! | 16 for each | what the event is known by |
//!
//! A note is never changed, and goes when all in it is older than the window. It is on disk: change it only with a new
//! version. (An older gateway passes over such notes; what they say stays true.)
//!
//! Invariants: looking ([`DroppedCopies::plan`]) changes nothing; [`DroppedCopies::done`] follows the commit. A commit
//! that fails may leave its note: the next has the same number, and says that and more.

use std::collections::VecDeque;

use bytes::Bytes;

use super::dedup::{Fingerprint, MAX_SIGHTINGS};
use crate::events::log::Log;
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::RegionName;
use crate::store::{Error, NoteKind, Notes};

/// What was dropped before one log.
#[derive(Debug, Default)]
pub(super) struct DroppedCopies {
    /// Not stored yet.
    unsaved: Vec<ReadCopies>,
    /// How many events those are.
    count: usize,
    /// The notes in the store, oldest first.
    notes: VecDeque<NoteSummary>,
    /// The next note's number.
    next: u64,
}

/// What was dropped of one read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReadCopies {
    pub(super) region: RegionName,
    pub(super) at: UnixMillis,
    pub(super) events: Vec<Fingerprint>,
}

/// A note in the store.
#[derive(Clone, Copy, Debug)]
struct NoteSummary {
    number: u64,
    newest: UnixMillis,
    events: usize,
}

/// What a commit changes of the notes.
#[derive(Debug, Default)]
pub(super) struct CopiesPlan {
    pub(super) notes: Notes,
    comes: Option<NoteSummary>,
    /// So many go, the oldest.
    gone: usize,
}

impl CopiesPlan {
    /// Whether the commit says what was dropped.
    pub(super) fn has_note(&self) -> bool {
        self.comes.is_some()
    }
}

impl DroppedCopies {
    /// Takes up what earlier runs have stored, and says what that is.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn recall(log: &Log) -> Result<(Self, Vec<ReadCopies>), Error> {
        let notes = log.store().notes(log.key(), NoteKind::Waiting, SEEN, "", usize::MAX).await?;
        let (mut dropped, mut all) = (Self::default(), Vec::new());
        for (name, note) in notes {
            let number = name.strip_prefix(SEEN).and_then(|number| u64::from_str_radix(number, 16).ok());
            let Some((number, reads)) = number.zip(parse(&note)) else {
                tracing::error!(name, "what was dropped as a copy cannot be read; it stays where it is");
                continue;
            };
            let newest = reads.iter().map(|read| read.at).max().unwrap_or_default();
            let events = reads.iter().map(|read| read.events.len()).sum();
            dropped.notes.push_back(NoteSummary { number, newest, events });
            dropped.next = dropped.next.max(number + 1);
            all.extend(reads);
        }
        Ok((dropped, all))
    }

    /// These were dropped, and no commit says so yet.
    pub(super) fn add(&mut self, read: ReadCopies) {
        if read.events.is_empty() {
            return;
        }
        self.count += read.events.len();
        self.unsaved.push(read);
        // No more than is remembered: what is older says nothing any more.
        let mut over = 0;
        while self.count > MAX_SIGHTINGS && over < self.unsaved.len() {
            self.count -= self.unsaved[over].events.len();
            over += 1;
        }
        self.unsaved.drain(..over);
    }

    /// What a commit is to store: what was dropped and is not stored yet, and this read.
    pub(super) fn plan(&self, also: Option<&ReadCopies>) -> CopiesPlan {
        let reads: Vec<&ReadCopies> = self.unsaved.iter().chain(also.filter(|read| !read.events.is_empty())).collect();
        let Some(newest) = reads.iter().map(|read| read.at).max() else { return CopiesPlan::default() };
        let events = reads.iter().map(|read| read.events.len()).sum();
        let comes = NoteSummary { number: self.next, newest, events };
        CopiesPlan { notes: vec![(name(self.next), Some(note(&reads)))], comes: Some(comes), gone: 0 }
    }

    /// As [`DroppedCopies::plan`], and without the notes that say nothing of what was seen since then.
    pub(super) fn plan_with_removals(&self, since: UnixMillis) -> CopiesPlan {
        let mut plan = self.plan(None);
        let mut held: usize = self.notes.iter().map(|note| note.events).sum::<usize>() + self.count;
        let is_over = |note: &&NoteSummary| {
            let is_over = note.newest < since || held > MAX_SIGHTINGS;
            held -= note.events;
            is_over
        };
        plan.gone = self.notes.iter().take_while(is_over).count();
        plan.notes.extend(self.notes.iter().take(plan.gone).map(|note| (name(note.number), None)));
        plan
    }

    /// The plan's commit has succeeded.
    pub(super) fn done(&mut self, plan: CopiesPlan) {
        self.notes.drain(..plan.gone.min(self.notes.len()));
        if let Some(note) = plan.comes {
            self.notes.push_back(note);
            self.next = note.number + 1;
            (self.unsaved, self.count) = (Vec::new(), 0);
        }
    }
}

fn name(number: u64) -> String {
    format!("{SEEN}{number:016x}")
}

fn note(reads: &[&ReadCopies]) -> Bytes {
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
fn parse(note: &[u8]) -> Option<Vec<ReadCopies>> {
    let (&version, mut rest) = note.split_first()?;
    let mut reads = Vec::new();
    while let Some((&length, more)) = rest.split_first() {
        let (region, more) = more.split_at_checked(length.into())?;
        let (at, more) = more.split_first_chunk::<8>()?;
        let (count, more) = more.split_first_chunk::<4>()?;
        let (events, more) = more.split_at_checked((u32::from_be_bytes(*count) as usize).checked_mul(16)?)?;
        let region = RegionName::parse(str::from_utf8(region).ok()?).ok()?;
        let events = events.as_chunks().0.iter().map(|event| Fingerprint(u128::from_be_bytes(*event))).collect();
        reads.push(ReadCopies { region, at: UnixMillis(u64::from_be_bytes(*at)), events });
        rest = more;
    }
    (version == VERSION && !reads.is_empty()).then_some(reads)
}

/// The names of the notes begin so.
const SEEN: &str = "seen/";
const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    properties! {
        #[test]
        fn a_note_says_what_was_dropped(
            all in prop::collection::vec(("[a-z]{1,9}", any::<u64>(), prop::collection::vec(any::<u128>(), 1..9)), 1..9),
        ) {
            let read = |(region, at, events): (String, u64, Vec<u128>)| ReadCopies {
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
