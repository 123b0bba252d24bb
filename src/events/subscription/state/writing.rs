//! What of the state is not in the store yet, and what is written of it, in one step.
//!
//! Invariant: that an entry is settled is written with whatever says why: with the letter of one that was buried, with the
//! end of the letter of one that was acknowledged. So no kill finds one without the other.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tokio::time::Instant;

use super::plain_handovers::Word;
use super::{Closing, SubscriptionState, ack_bitmap, segment_numbers};
use crate::events::subscription::notes;
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::SubscriptionName;
use crate::store::{NoteKind, PlaceChange, Sequence};

/// What is being written.
pub(in crate::events::subscription) struct Writes {
    low: u64,
    segments: Vec<u64>,
    needless: Vec<u64>,
    again_new: BTreeSet<u64>,
    again_done: Vec<Closing>,
    letters: BTreeMap<u64, Bytes>,
    /// After how many changes this is missed.
    missed: Option<u64>,
    word: Option<Word>,
    owed: u64,
    is_new_place: bool,
}

impl Writes {
    /// The last entry up to which all are settled.
    pub(in crate::events::subscription) fn low(&self) -> u64 {
        self.low
    }

    /// The dead letters that are none any more: they were acknowledged when they were handed out again.
    pub(in crate::events::subscription) fn acknowledged(&self) -> impl Iterator<Item = u64> + '_ {
        self.again_done.iter().filter(|closed| closed.is_acknowledged).map(|closed| closed.at)
    }

    /// The dead letters that are new, or say something new. One that was acknowledged may have died again since.
    pub(in crate::events::subscription) fn letters(&self) -> impl Iterator<Item = u64> + '_ {
        self.letters.keys().copied()
    }
}

impl SubscriptionState {
    /// Whether there is something to write beside the cursor.
    pub(in crate::events::subscription) fn has_writes(&self) -> bool {
        !self.acks.is_clean()
            || !self.again_new.is_empty()
            || !self.again_done.is_empty()
            || !self.buried.is_empty()
            || self.missed.is_unsaved()
            || self.is_new_place
    }

    /// What is to be written, when the store's cursor is `stored`. It counts as written from now on: see
    /// [`SubscriptionState::failed`].
    pub(in crate::events::subscription) fn writes(
        &mut self,
        name: &SubscriptionName,
        stored: Option<u64>,
        now: (Instant, UnixMillis),
    ) -> (Writes, Vec<PlaceChange>) {
        let low = self.settle_low();
        let moves = (stored != Some(low)).then(|| self.ranges.claimed() == low);
        let plain = self.plain.writes(low, moves, !self.acks.is_empty());
        let missed = self.missed.unsaved(now);
        let writes = Writes {
            low,
            segments: self.acks.take_dirty(),
            needless: self.acks.take_needless(low),
            again_new: std::mem::take(&mut self.again_new),
            again_done: std::mem::take(&mut self.again_done),
            letters: std::mem::take(&mut self.buried),
            missed: missed.as_ref().map(|&(changes, ..)| changes),
            word: plain.as_ref().map(|&(word, _)| word),
            owed: self.owed,
            is_new_place: std::mem::take(&mut self.is_new_place),
        };
        let of = name.as_str();
        let mut waits = Vec::new();
        for &segment in &writes.segments {
            let delays = segment_numbers::note(self.delayed(segment, now));
            if delays.is_some() || self.delays_stored.contains(&segment) {
                self.delays_stored.insert(segment);
                waits.push((notes::delayed(of, segment), delays));
            }
            let units = segment_numbers::note(self.leases.united(ack_bitmap::entries(segment)));
            if units.is_some() || self.units_stored.contains(&segment) {
                self.units_stored.insert(segment);
                waits.push((notes::united(of, segment), units));
            }
        }
        let needless =
            |stored: &BTreeSet<u64>| writes.needless.iter().copied().filter(|n| stored.contains(n)).collect();
        let (delays, units): (Vec<u64>, Vec<u64>) = (needless(&self.delays_stored), needless(&self.units_stored));
        waits.extend(delays.into_iter().map(|segment| (notes::delayed(of, segment), None)));
        waits.extend(units.into_iter().map(|segment| (notes::united(of, segment), None)));
        let acks = writes.segments.iter().map(|&segment| (notes::segment(of, segment), self.note(segment)));
        let needless = writes.needless.iter().map(|&segment| (notes::segment(of, segment), None));
        let put_back = |at| self.leases.known(at).map_or(Bytes::new(), |known| notes::RetryState::of(known).note(now));
        let put_again = writes.again_new.iter().map(|&at| (notes::again(of, at), Some(put_back(at))));
        let done = writes.again_done.iter().map(|closed| (notes::again(of, closed.at), None));
        let missed = missed
            .into_iter()
            .flat_map(|(_, missed, telling)| [(notes::missed(of), missed), (notes::telling(of), telling)]);
        let place = writes.is_new_place.then(|| (notes::place(of), Some(self.place.note().into())));
        let plain = plain.map(|(_, note)| (notes::plain(of), Some(note)));
        let notes =
            acks.chain(needless).chain(waits).chain(put_again).chain(done).chain(missed).chain(place).chain(plain);
        let forgotten = writes.acknowledged().map(|at| (notes::letter(name, at), None));
        // After those: one that was acknowledged may have died again since.
        let new = writes.letters.iter().map(|(&at, letter)| (notes::letter(name, at), Some(letter.clone())));
        let letters = forgotten.chain(new);
        let cursor = (stored != Some(low)).then(|| PlaceChange::Cursor(name.clone(), Sequence(low)));
        let note = |kind| move |(name, note)| PlaceChange::Note(kind, name, note);
        let changes = cursor
            .into_iter()
            .chain(notes.map(note(NoteKind::Subscription)))
            .chain(letters.map(note(NoteKind::DeadLetter)))
            .collect();
        (writes, changes)
    }

    /// These are in the store.
    pub(in crate::events::subscription) fn written(&mut self, writes: &Writes) {
        self.owed_stored = self.owed_stored.max(writes.owed);
        if let Some(missed) = writes.missed {
            self.missed.saved(missed);
        }
        if let Some(word) = writes.word {
            self.plain.written(word);
        }
        for segment in &writes.needless {
            self.delays_stored.remove(segment);
            self.units_stored.remove(segment);
        }
    }

    /// These may not be in the store.
    pub(in crate::events::subscription) fn failed(&mut self, writes: Writes) {
        self.missed.doubt();
        self.plain.failed();
        self.acks.failed(&writes.segments);
        self.acks.failed(&writes.needless);
        self.again_new.extend(writes.again_new.into_iter().filter(|at| self.again.contains(at)));
        for (at, letter) in writes.letters {
            // It may have been acknowledged meanwhile, or have died again.
            if !self.again_done.iter().any(|closed| closed.at == at && closed.is_acknowledged) {
                self.buried.entry(at).or_insert(letter);
            }
        }
        self.again_done.extend(writes.again_done);
        self.is_new_place |= writes.is_new_place;
    }

    /// Until when entries of a segment are not to be handed out, by the wall clock.
    fn delayed(&self, segment: u64, (now, wall): (Instant, UnixMillis)) -> impl Iterator<Item = (u64, u64)> {
        let range = ack_bitmap::entries(segment);
        let unread = self.delays.range(range.clone()).map(|(&at, &until)| (at, until));
        let mut delays: Vec<_> = self.leases.delayed(range).chain(unread).collect();
        delays.sort_unstable();
        delays.into_iter().map(move |(at, until)| (at, wall.after(until.saturating_duration_since(now)).0))
    }

    /// A segment's note; `None` when there is nothing to say.
    fn note(&self, segment: u64) -> Option<Bytes> {
        let range = ack_bitmap::entries(segment);
        let unread = self.attempts.range(range.clone()).map(|(&at, &attempts)| (at, attempts));
        let mut attempts: Vec<_> = self.leases.attempted(range).chain(unread).collect();
        attempts.sort_unstable();
        if attempts.is_empty() && !self.acks.has(segment) {
            return None;
        }
        Some(self.acks.note(segment, attempts.into_iter()))
    }
}
