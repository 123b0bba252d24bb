//! [`Writes`]: what of the state is not in the store yet, on its way there in one step.
//!
//! Invariant: that an entry is settled is written with whatever says why: with the letter of one that was buried, with
//! the end of the letter of one that was acknowledged. So no kill finds one without the other.

use std::collections::BTreeSet;

use bytes::Bytes;
use tokio::time::Instant;

use super::letter_index::LetterChanges;
use super::plain_handovers::Word;
use super::{SubscriptionState, ack_bitmap, segment_numbers};
use crate::events::subscription::notes;
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::SubscriptionName;
use crate::store::{NoteKind, PlaceChange, Sequence};

pub(in crate::events::subscription) struct Writes {
    low: u64,
    segments: Vec<u64>,
    needless: Vec<u64>,
    letters: LetterChanges,
    /// After how many changes this is missed.
    missed: Option<u64>,
    /// After how many changes this was lost.
    lost: Option<u64>,
    word: Option<Word>,
    is_new_place: bool,
}

impl Writes {
    /// The last entry up to which all are settled.
    pub(in crate::events::subscription) fn low(&self) -> u64 {
        self.low
    }

    /// The dead letters that are none any more: they were acknowledged when they were handed out again.
    pub(in crate::events::subscription) fn acknowledged(&self) -> impl Iterator<Item = u64> + '_ {
        self.letters.acknowledged()
    }

    /// The dead letters that are new, or say something new. One that was acknowledged may have died again since.
    pub(in crate::events::subscription) fn letters(&self) -> impl Iterator<Item = u64> + '_ {
        self.letters.new.keys().copied()
    }

    /// What is to be written of a state, when the store's cursor is `stored`. It counts as written from now on: see
    /// [`Writes::failed`].
    pub(in crate::events::subscription) fn of(
        state: &mut SubscriptionState,
        name: &SubscriptionName,
        stored: Option<u64>,
        now: (Instant, UnixMillis),
    ) -> (Self, Vec<PlaceChange>) {
        let low = state.settle_low();
        let moves = (stored != Some(low)).then(|| state.ranges.claimed() == low);
        let plain = state.plain.writes(low, moves, !state.acks.is_empty());
        let (missed, lost) = (state.missed.unsaved(now), state.lost.unsaved());
        let writes = Self {
            low,
            segments: state.take_dirty(),
            needless: state.acks.take_needless(low),
            letters: state.letters.take_changes(),
            missed: missed.as_ref().map(|&(changes, ..)| changes),
            lost: lost.as_ref().map(|&(changes, _)| changes),
            word: plain.as_ref().map(|&(word, _)| word),
            is_new_place: std::mem::take(&mut state.is_new_place),
        };
        let of = name.as_str();
        let mut waits = Vec::new();
        for &segment in &writes.segments {
            let delays = segment_numbers::note(delayed(state, segment, now));
            if delays.is_some() || state.delays_stored.contains(&segment) {
                state.delays_stored.insert(segment);
                waits.push((notes::delayed(of, segment), delays));
            }
            let units = segment_numbers::note(state.leases.united(ack_bitmap::entries(segment)));
            if units.is_some() || state.units_stored.contains(&segment) {
                state.units_stored.insert(segment);
                waits.push((notes::united(of, segment), units));
            }
        }
        let needless =
            |stored: &BTreeSet<u64>| writes.needless.iter().copied().filter(|n| stored.contains(n)).collect();
        let (delays, units): (Vec<u64>, Vec<u64>) = (needless(&state.delays_stored), needless(&state.units_stored));
        waits.extend(delays.into_iter().map(|segment| (notes::delayed(of, segment), None)));
        waits.extend(units.into_iter().map(|segment| (notes::united(of, segment), None)));
        let acks = writes.segments.iter().map(|&segment| (notes::segment(of, segment), segment_note(state, segment)));
        let needless = writes.needless.iter().map(|&segment| (notes::segment(of, segment), None));
        let put_back = |at| state.leases.known(at).map_or(Bytes::new(), |known| notes::RetryState::of(known).note(now));
        let put_again = writes.letters.again_new.iter().map(|&at| (notes::again(of, at), Some(put_back(at))));
        let done = writes.letters.ended.iter().map(|closed| (notes::again(of, closed.at), None));
        let missed = missed
            .into_iter()
            .flat_map(|(_, missed, telling)| [(notes::missed(of), missed), (notes::telling(of), telling)]);
        let place = writes.is_new_place.then(|| (notes::place(of), Some(state.place.note().into())));
        let plain = plain.map(|(_, note)| (notes::plain(of), Some(note)));
        let lost = lost.map(|(_, note)| (notes::lost(of), Some(note)));
        let told = missed.chain(lost).chain(place).chain(plain);
        let notes = acks.chain(needless).chain(waits).chain(put_again).chain(done).chain(told);
        let forgotten = writes.acknowledged().map(|at| (notes::letter(name, at), None));
        // After those: one that was acknowledged may have died again since.
        let new = writes.letters.new.iter().map(|(&at, letter)| (notes::letter(name, at), Some(letter.clone())));
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
    pub(in crate::events::subscription) fn written(&self, state: &mut SubscriptionState) {
        state.letters.written(&self.letters);
        if let Some(missed) = self.missed {
            state.missed.saved(missed);
        }
        if let Some(lost) = self.lost {
            state.lost.saved(lost);
        }
        if let Some(word) = self.word {
            state.plain.written(word);
        }
        for segment in &self.needless {
            state.delays_stored.remove(segment);
            state.units_stored.remove(segment);
        }
    }

    /// These may not be in the store.
    pub(in crate::events::subscription) fn failed(self, state: &mut SubscriptionState) {
        state.missed.doubt();
        state.lost.doubt();
        state.plain.failed();
        state.acks.failed(&self.segments);
        // Their notes count as there again: they are removed with the next write, wherever the cursor stands then.
        self.needless.iter().for_each(|&segment| state.acks.noted(segment));
        state.acks.failed(&self.needless);
        state.letters.failed(self.letters);
        state.is_new_place |= self.is_new_place;
    }
}

impl SubscriptionState {
    /// The segments whose notes are to be written: those of which there is something to say, or was.
    fn take_dirty(&mut self) -> Vec<u64> {
        let Self { acks, leases, unopened, .. } = self;
        acks.take_dirty(|acks, segment| {
            let range = ack_bitmap::entries(segment);
            let was_tried = leases.attempted(range.clone()).chain(unopened.attempted(range.clone())).next().is_some();
            let waits = || leases.delayed(range.clone()).chain(unopened.delayed(range.clone())).next().is_some();
            let goes_as_one = || leases.united(range.clone()).next().is_some();
            acks.has(segment) || was_tried || waits() || goes_as_one()
        })
    }
}

/// Until when entries of a segment are not to be handed out, by the wall clock.
fn delayed(
    state: &SubscriptionState,
    segment: u64,
    (now, wall): (Instant, UnixMillis),
) -> impl Iterator<Item = (u64, u64)> {
    let range = ack_bitmap::entries(segment);
    let mut delays: Vec<_> = state.leases.delayed(range.clone()).chain(state.unopened.delayed(range)).collect();
    delays.sort_unstable();
    delays.into_iter().map(move |(at, until)| (at, wall.after(until.saturating_duration_since(now)).0))
}

/// A segment's note; `None` when there is nothing to say.
fn segment_note(state: &SubscriptionState, segment: u64) -> Option<Bytes> {
    let range = ack_bitmap::entries(segment);
    let mut attempts: Vec<_> = state.leases.attempted(range.clone()).chain(state.unopened.attempted(range)).collect();
    attempts.sort_unstable();
    if attempts.is_empty() && !state.acks.has(segment) {
        return None;
    }
    Some(state.acks.note(segment, attempts.into_iter()))
}
