//! [`State`]: all that changes of a subscription, one value.
//!
//! An entry is *claimed* as part of a run by [`Claims`], or *open* by itself in the [`Book`] (then it counts as handed over
//! in the claims), or settled. [`State::low`] is the last entry up to which all are settled.
//!
//! Invariants: an open entry at or below `floor` was settled once and put back by an operator: it does not hold the
//! low-water mark, and the store knows of it by a note of its own. Settled lie above the low-water mark.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tokio::time::Instant;

use super::recalled::{self, Recalled};
use crate::events::claims::Claims;
use crate::events::leases::{Book, Settled, settled};

/// What changes of a subscription.
pub(super) struct State {
    pub(super) claims: Claims,
    pub(super) book: Book,
    pub(super) marks: Settled,
    /// The low-water mark as it was last seen.
    floor: u64,
    /// How often entries were handed out that are not in the book yet, as an earlier run has stored it.
    attempts: BTreeMap<u64, u32>,
    /// Open entries that an operator put back.
    again: BTreeSet<u64>,
    /// Of those, the ones that are settled since, and whether they were acknowledged: not stored yet.
    again_done: Vec<(u64, bool)>,
    /// How often it was set to another place: claims from before then say nothing any more.
    pub(super) seeks: u64,
    /// Retention has cut so many entries off, and no reader was told yet.
    pub(super) cut_off: u64,
    /// Before this, nothing is left to cut.
    earliest: u64,
    /// When the timer looks at it, at the latest.
    armed: Option<Instant>,
}

/// What is to be written.
pub(super) struct Writes {
    pub(super) low: u64,
    pub(super) notes: Vec<(String, Option<Bytes>)>,
    /// Dead letters that are none any more.
    pub(super) letters: Vec<u64>,
    segments: Vec<u64>,
    needless: Vec<u64>,
    again_done: Vec<(u64, bool)>,
}

impl State {
    /// As it was recalled.
    pub(super) fn new(recalled: Recalled) -> Self {
        let Recalled { at, segments, again, now, .. } = recalled;
        let mut marks = Settled::default();
        let mut attempts = BTreeMap::new();
        for (segment, stored) in &segments {
            marks.recall(*segment, stored);
            attempts.extend(stored.attempts.iter().copied());
        }
        let claims = Claims::with_gaps(at, marks.iter().filter(|&settled| settled > at));
        let mut book = Book::default();
        book.admit(again.iter().map(|&entry| (entry, own_key(entry), 0)), now);
        let mut state = Self {
            claims,
            book,
            marks,
            floor: at,
            attempts,
            again,
            again_done: Vec::new(),
            seeks: 0,
            cut_off: 0,
            earliest: 0,
            armed: None,
        };
        state.settle_low();
        state
    }

    /// The last entry up to which all are settled.
    pub(super) fn low(&self) -> u64 {
        let open = self.book.first_after(self.floor).map_or(u64::MAX, |first| first - 1);
        self.claims.low().min(open)
    }

    /// Looks at the low-water mark, and forgets what lies below it.
    pub(super) fn settle_low(&mut self) -> u64 {
        let low = self.low();
        if low != self.floor {
            self.floor = low;
            self.marks.settled_to(low);
            if self.attempts.first_key_value().is_some_and(|(&at, _)| at <= low) {
                self.attempts = self.attempts.split_off(&(low + 1));
            }
        }
        low
    }

    /// Entries that are open from now on.
    pub(super) fn admit(&mut self, entries: &[(u64, u64)], now: Instant) {
        for &(at, key) in entries {
            let attempts = self.attempts.remove(&at).unwrap_or_default();
            self.book.admit([(at, key, attempts)], now);
        }
    }

    /// Entries that were settled, and are open once more.
    pub(super) fn put_back(&mut self, entries: &[u64], now: Instant) {
        for &at in entries {
            self.again.insert(at);
            self.book.admit([(at, own_key(at), 0)], now);
        }
    }

    /// Whether an entry was put back by an operator, and is open.
    pub(super) fn is_again(&self, at: u64) -> bool {
        self.again.contains(&at)
    }

    /// These were taken out of the book: they are settled. Acknowledged, or given up.
    pub(super) fn settled(&mut self, entries: &[u64], acknowledged: bool) {
        let low = self.settle_low();
        for &at in entries {
            if at > low {
                self.marks.mark(at);
            }
            if self.again.remove(&at) {
                self.again_done.push((at, acknowledged));
            }
        }
    }

    /// These are settled, whoever settled them, and are kept as such: what a plain reader was handed over above the
    /// low-water mark comes again after a restart otherwise.
    pub(super) fn keep(&mut self, entries: &[u64]) {
        let low = self.settle_low();
        for &at in entries {
            if at > low && !self.marks.is_marked(at) {
                self.marks.mark(at);
            }
        }
    }

    /// When the timer is to be armed, if it is not for so early a time.
    pub(super) fn arm(&mut self) -> Option<Instant> {
        let due = self.book.next_due()?;
        if self.armed.is_some_and(|armed| armed <= due) {
            return None;
        }
        self.armed = Some(due);
        self.armed
    }

    /// The timer has fired.
    pub(super) fn fired(&mut self, now: Instant) {
        self.armed = self.armed.filter(|&armed| armed > now);
        self.book.advance(now);
    }

    /// Whether an entry was never handed out: nobody can have it.
    pub(super) fn is_unseen(&self, at: u64) -> bool {
        self.claims.holds(at) || self.book.attempts(at) == Some(0)
    }

    /// Whether there is nothing left to cut before `earliest`.
    pub(super) fn is_within(&self, earliest: u64) -> bool {
        self.earliest == earliest && !self.claims.is_before(earliest)
    }

    /// Retention removed all before `earliest`. Says how many entries were not settled.
    pub(super) fn cut(&mut self, earliest: u64, now: Instant) -> u64 {
        self.earliest = earliest;
        let lost = self.claims.cut(earliest) + self.book.cut(earliest, now);
        let kept = self.again.split_off(&earliest);
        let gone = std::mem::replace(&mut self.again, kept);
        self.again_done.extend(gone.into_iter().map(|at| (at, false)));
        self.cut_off += lost;
        lost
    }

    /// Goes to another place.
    pub(super) fn seek(&mut self, at: u64) {
        self.seeks += 1;
        self.claims = Claims::new(at);
        self.book.clear();
        self.marks.clear();
        self.attempts.clear();
        self.again_done.extend(std::mem::take(&mut self.again).into_iter().map(|at| (at, false)));
        self.cut_off = 0;
        self.floor = at;
    }

    /// Whether there is something to write beside the cursor.
    pub(super) fn has_writes(&self) -> bool {
        !self.marks.is_clean() || !self.again_done.is_empty()
    }

    /// What is to be written, when the store says `stored`. What is taken along counts as written: see
    /// [`State::failed`].
    pub(super) fn writes(&mut self, name: &str, stored: Option<u64>) -> Writes {
        let low = self.settle_low();
        let segments = self.marks.take_dirty();
        let needless = stored.map(|at| self.marks.take_needless(at)).unwrap_or_default();
        let again_done = std::mem::take(&mut self.again_done);
        let mut notes: Vec<_> =
            segments.iter().map(|&segment| (recalled::segment(name, segment), self.note(segment))).collect();
        notes.extend(needless.iter().map(|&segment| (recalled::segment(name, segment), None)));
        notes.extend(again_done.iter().map(|&(at, _)| (recalled::again(name, at), None)));
        let letters = again_done.iter().filter(|(_, acknowledged)| *acknowledged).map(|&(at, _)| at).collect();
        Writes { low, notes, letters, segments, needless, again_done }
    }

    /// These could not be written.
    pub(super) fn failed(&mut self, writes: Writes) {
        self.marks.failed(&writes.segments);
        self.marks.failed(&writes.needless);
        self.again_done.extend(writes.again_done);
    }

    /// A segment's note; `None` when there is nothing to say.
    fn note(&self, segment: u64) -> Option<Bytes> {
        let range = settled::entries(segment);
        let unread = self.attempts.range(range.clone()).map(|(&at, &attempts)| (at, attempts));
        let mut attempts: Vec<_> = self.book.attempted(range).chain(unread).collect();
        attempts.sort_unstable();
        if attempts.is_empty() && !self.marks.has(segment) {
            return None;
        }
        Some(self.marks.note(segment, attempts.into_iter()))
    }
}

/// The key of an entry that belongs to nobody: it waits for no other. Another's key is a hash, so they hardly meet; if
/// they do, one waits for the other.
pub(in crate::events) fn own_key(at: u64) -> u64 {
    // The finalizer of SplitMix64: neighbours are far from each other.
    let mixed = (at ^ (at >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
