//! [`SubscriptionState`]: all that changes of a subscription, one value. It knows no store, no clock and no task.
//!
//! ```text
//! fresh ──claimed──> under way ──handed over──────────────────────> settled
//!   │  ^                │ dropped                                      ^
//!   │  └─ given back <──┘                                              │ acknowledged
//!   └─opened──> waiting ──leased──> held ──────────────────────────────┤
//!                  ^ └────<──ran out, given back──┘ attempts spent     │ buried
//!                  └─ put back by an operator      └────> given up ────┘
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `delivery_ranges` | the upper line: runs of entries; what is open counts as handed over here |
//! | `lease_table` | the lower lines: entries that are open, each by itself |
//! | `ack_bitmap` | which entries above the low-water mark are settled, as it is stored |
//! | `unopened_entries` | attempts and delays of entries that are not open yet |
//! | `letter_index` | what is to be said of dead letters |
//! | `loss_notices` | what retention took, until readers were told |
//! | `plain_handovers`, `resuming` | what plain readers were handed over; what they say of it when they come again |
//! | `writes`, `segment_numbers` | what is not in the store yet; numbers kept of open entries |
//! | `place` | which place it is at: another after each seek |
//! | `webhook_record` | how an older gateway kept a webhook's part of this |
//!
//! Invariants: [`SubscriptionState::low`] is the last entry up to which all are settled; marks lie above it. An open
//! entry at or below `floor` was settled once and put back by an operator: it does not hold the low-water mark, and the
//! store knows of it by a note of its own.

mod ack_bitmap;
mod delivery_ranges;
mod lease_table;
mod letter_index;
pub(super) mod loss_history;
pub(super) mod loss_notices;
pub(super) mod place;
pub(super) mod plain_handovers;
mod resuming;
pub(super) mod segment_numbers;
mod unopened_entries;
mod webhook_record;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use tokio::time::Instant;

use self::ack_bitmap::AckBitmap;
pub(super) use self::ack_bitmap::StoredSegment;
use self::delivery_ranges::DeliveryRanges;
pub(super) use self::delivery_ranges::LostRanges;
use self::lease_table::LeaseSlot;
pub(super) use self::lease_table::{GiveUpReason, NewEntry};
pub(in crate::events) use self::lease_table::{Hold, Selection, UnknownLease};
use self::letter_index::LetterIndex;
use self::loss_history::LossHistory;
use self::loss_notices::LossNotices;
use self::place::PlaceId;
use self::plain_handovers::PlainHandovers;
use self::unopened_entries::UnopenedEntries;
pub(super) use self::webhook_record::take_over_record;
pub(super) use self::writes::Writes;
use super::notes::{RetryState, SubscriptionRecords};
use crate::kernel::clock::UnixMillis;
use crate::store::Sequence;

/// What changes of a subscription.
pub(in crate::events) struct SubscriptionState {
    pub(super) ranges: DeliveryRanges,
    pub(super) leases: LeaseSlot,
    pub(super) acks: AckBitmap,
    /// The low-water mark as it was last seen.
    floor: u64,
    /// What an earlier run has stored of entries that are not open yet.
    pub(super) unopened: UnopenedEntries,
    /// Segments that have a note on who is to wait.
    delays_stored: BTreeSet<u64>,
    /// Segments that have a note on what went out as one.
    units_stored: BTreeSet<u64>,
    pub(super) letters: LetterIndex,
    /// What was taken at another place says nothing any more.
    pub(super) place: PlaceId,
    /// Whether the store does not know it yet.
    is_new_place: bool,
    /// What retention has cut off.
    pub(super) missed: LossNotices,
    /// The same, whoever was told of it.
    pub(super) lost: LossHistory,
    /// What was handed over plainly.
    pub(super) plain: PlainHandovers,
    /// The last entry that an earlier run may have given a reader; none once this run has.
    recalled_to: Option<u64>,
    /// Before this, nothing is left to cut.
    earliest: u64,
    /// When the timer looks at it, at the latest.
    armed: Option<Instant>,
}

impl SubscriptionState {
    /// As it was recalled.
    pub(super) fn new(recalled: SubscriptionRecords) -> Self {
        let SubscriptionRecords {
            at,
            place,
            stored,
            segments,
            mut delays,
            units,
            again,
            mut letters,
            missed,
            telling,
            lost,
            mut plain,
            end,
            now,
            ..
        } = recalled;
        let mut acks = AckBitmap::default();
        let mut attempts: BTreeMap<u64, u32> = BTreeMap::new();
        for (segment, stored) in &segments {
            acks.recall(*segment, stored);
            attempts.extend(stored.attempts.iter().copied());
        }
        let handed_over: Vec<u64> = acks.iter().filter(|&marked| marked > at && plain.has(marked)).collect();
        plain.keep_to(at, &handed_over);
        letters.retain(|&letter| letter > at && !acks.is_marked(letter) && !again.contains_key(&letter));
        let ranges = DeliveryRanges::with_gaps(at, acks.iter().filter(|&settled| settled > at));
        let segments_of =
            |entries: &mut dyn Iterator<Item = &u64>| entries.map(|at| at / ack_bitmap::SEGMENT).collect();
        let (delays_stored, units_stored): (BTreeSet<u64>, BTreeSet<u64>) =
            (segments_of(&mut delays.keys()), segments_of(&mut units.keys()));
        delays_stored.union(&units_stored).for_each(|&segment| acks.noted(segment));
        let mut leases = LeaseSlot::default();
        // What is settled is in none any more, also where it was put back since.
        let is_open = |of: u64| of > at && !acks.is_marked(of);
        units.into_iter().filter(|&(of, _)| is_open(of)).for_each(|(of, unit)| leases.await_unit(of, unit));
        // Nor does it count or wait, though the note of its segment may say so still.
        attempts.retain(|&of, _| is_open(of));
        delays.retain(|&of, _| is_open(of));
        again.iter().for_each(|(&at, &tried)| leases.admit([tried.put_back(at)], now));
        let mut state = Self {
            ranges,
            leases,
            acks,
            floor: at,
            unopened: UnopenedEntries::new(attempts, delays),
            delays_stored,
            units_stored,
            letters: LetterIndex::new(again.into_keys().collect(), letters),
            place,
            is_new_place: !stored,
            missed: LossNotices::new(missed, telling, stored),
            lost,
            plain,
            recalled_to: stored.then_some(end),
            earliest: 0,
            armed: None,
        };
        state.settle_low();
        state.leases.await_no_longer(..=state.floor, now);
        state
    }

    /// The last entry up to which all are settled.
    pub(super) fn low(&self) -> u64 {
        let open = self.leases.first_after(self.floor).map_or(u64::MAX, |first| first - 1);
        self.ranges.low().min(open)
    }

    /// Looks at the low-water mark, and forgets what lies below it.
    pub(super) fn settle_low(&mut self) -> u64 {
        let low = self.low();
        if low != self.floor {
            self.floor = low;
            self.acks.settled_to(low);
            self.unopened.settled_to(low);
        }
        low
    }

    /// Entries of a range that are open from now on, but for those that are settled, or were put back. Nobody wants the
    /// others of it.
    pub(super) fn admit(&mut self, range: Range<u64>, entries: &[(Sequence, u64)], now: Instant) {
        for &(Sequence(at), key) in entries.iter().filter(|(at, _)| !self.acks.is_marked(at.0)) {
            let (attempts, delay_until) = self.unopened.take(at);
            self.leases.admit([NewEntry { at, key, attempts, delay_until, alone: false }], now);
        }
        self.leases.await_no_longer(range, now);
    }

    /// Entries that are open once more, whatever becomes of the run that they are in: it may be under way still, or
    /// come again after a seek. Above the low-water mark that is marked, so that a run which is opened later leaves
    /// them out.
    pub(super) fn put_back(&mut self, entries: &[u64], now: Instant) {
        let low = self.settle_low();
        for &at in entries {
            self.letters.put_back(at);
            self.plain.remove(at..at + 1);
            // It may be open by a seek: who has it, and how often it was tried since, is of no account any more.
            self.leases.remove(at, now);
            self.unopened.take(at);
            if at > low {
                self.acks.mark(at);
            }
            self.leases.await_no_longer(at..=at, now);
            self.leases.admit([RetryState::default().put_back(at)], now);
        }
    }

    /// What is known of an entry has changed: how often it was handed out, or until when it waits.
    pub(super) fn touch(&mut self, at: u64) {
        if !self.letters.touch(at) {
            self.acks.touch(at);
        }
    }

    /// Whether entries are to wait that are not open yet.
    pub(super) fn awaits_opening(&self) -> bool {
        self.unopened.has_delays()
    }

    /// The most attempts that an entry has behind it that is not settled.
    pub(super) fn most_attempts(&self) -> u32 {
        self.unopened.most_attempts().max(self.leases.most_attempts())
    }

    /// These were taken out of the lease table: they are settled. Acknowledged, or given up.
    pub(super) fn settled(&mut self, entries: &[u64], acknowledged: bool) {
        let low = self.settle_low();
        for &at in entries {
            if at > low {
                self.acks.mark(at);
            }
            self.letters.settled(at, acknowledged);
        }
    }

    /// These are open no longer, nor are they acknowledged. Says which were open.
    pub(super) fn drop_open(&mut self, entries: &[u64], now: Instant) -> Vec<u64> {
        let open: Vec<u64> = entries.iter().copied().filter(|&at| self.leases.remove(at, now)).collect();
        self.settled(&open, false);
        open
    }

    /// These are settled, if they are still open: each goes to the dead letters. Says how many.
    pub(super) fn bury(&mut self, letters: impl IntoIterator<Item = (u64, Bytes)>, now: Instant) -> u64 {
        let mut buried = 0;
        for (at, letter) in letters {
            if !self.drop_open(&[at], now).is_empty() {
                self.letters.add(at, letter);
                buried += 1;
            }
        }
        if buried > 0 {
            self.letters.owe();
        }
        buried
    }

    /// These are settled, whoever settled them, and are kept as such: what a plain reader was handed over above the
    /// low-water mark comes again after a restart otherwise.
    pub(super) fn keep(&mut self, entries: &[u64]) {
        let low = self.settle_low();
        for &at in entries {
            if at > low && !self.acks.is_marked(at) {
                self.acks.mark(at);
            }
            self.plain.remove(at..at + 1);
        }
    }

    /// When the timer is to be armed, if it is not for so early a time.
    pub(super) fn arm(&mut self) -> Option<Instant> {
        let due = self.leases.next_due()?;
        if self.armed.is_some_and(|armed| armed <= due) {
            return None;
        }
        self.armed = Some(due);
        self.armed
    }

    /// The timer has fired.
    pub(super) fn fired(&mut self, now: Instant) {
        self.armed = self.armed.filter(|&armed| armed > now);
        self.leases.advance(now);
    }

    /// Whether an entry was never handed out: nobody can have it.
    pub(super) fn is_unseen(&self, at: u64) -> bool {
        if self.leases.known(at).is_some() { self.leases.is_unseen(at) } else { self.ranges.holds(at) }
    }

    /// Whether there is nothing left to cut before `earliest`.
    pub(super) fn is_within(&self, earliest: u64) -> bool {
        self.earliest == earliest && !self.ranges.is_before(earliest)
    }

    /// Retention removed all before `earliest`. Says how many entries were not settled, and whether that is worth
    /// storing though it follows from what is stored.
    pub(super) fn cut(&mut self, earliest: u64, (now, wall): (Instant, UnixMillis)) -> (u64, bool) {
        let before = std::mem::replace(&mut self.earliest, earliest);
        let mut lost = self.ranges.cut(earliest);
        self.leases.cut(earliest, now).into_iter().for_each(|at| lost.add(at..at + 1));
        let count = lost.count();
        // What somebody holds is that one's still, and no dead letter any more once it is acknowledged.
        self.letters.cut(|&at| at >= earliest || self.leases.known(at).is_some());
        self.unopened.cut(earliest);
        self.leases.await_no_longer(..earliest, now);
        self.keep_cut(&lost, before, earliest);
        let is_news = self.lost.cut(&lost, earliest, wall);
        self.missed.add(lost);
        (count, is_news)
    }

    /// Where something below `earliest` is still held, the cursor cannot say that its neighbours are gone: they are
    /// marked, or a restart would count them once more. Those before `before` are, but for those that were held then.
    fn keep_cut(&mut self, lost: &LostRanges, before: u64, earliest: u64) {
        let first = self.settle_low().saturating_add(1);
        lost.ranges().for_each(|gone| self.acks.mark_all(gone.start.max(first)..gone.end.min(before)));
        for at in first.max(before)..earliest {
            if self.leases.known(at).is_none() && !self.ranges.holds(at) && !self.acks.is_marked(at) {
                self.acks.mark(at);
            }
        }
    }

    /// What is open and nobody holds is to be opened anew: by other keys, or with another filter. What went out as one
    /// does so again if that is kept. Nothing waits beyond `latest`.
    pub(super) fn reopen(&mut self, keeps_units: bool, latest: Instant, now: Instant) {
        let resting = self.leases.resting();
        for &at in &resting {
            let Some((attempts, delay_until)) = self.leases.known(at) else { continue };
            let unit = self.leases.unit_of(at);
            self.leases.remove(at, now);
            self.unopened.add(at, attempts, delay_until);
            match unit {
                Some(unit) if keeps_units => self.leases.await_unit(at, unit),
                Some(_) => self.acks.touch(at),
                None => {}
            }
        }
        if !keeps_units {
            self.leases.await_no_longer(.., now);
        }
        self.ranges.take_back(resting.into_iter());
        self.unopened.wait_no_longer_than(latest);
        self.missed.wait_no_longer_than(latest);
        for &at in self.letters.given_again() {
            let too_late = |known: &(u32, Option<Instant>)| known.1.is_some_and(|until| until > latest);
            if let Some((attempts, _)) = self.leases.known(at).filter(too_late) {
                self.leases.remove(at, now);
                self.leases.admit([RetryState::of((attempts, Some(latest))).put_back(at)], now);
            }
        }
    }

    /// Whether there is something to write beside the cursor.
    pub(super) fn has_writes(&self) -> bool {
        !self.acks.is_clean() || self.letters.has_changes() || self.missed.is_unsaved() || self.is_new_place
    }

    /// Whether marks are to be written.
    pub(super) fn has_marks(&self) -> bool {
        !self.acks.is_clean()
    }

    /// Goes to another place. The dead letters after that are open once more.
    pub(super) fn seek(&mut self, at: u64, letters: BTreeSet<u64>) {
        self.letters.seek(at, letters);
        (self.place, self.is_new_place) = (PlaceId::random(), true);
        self.plain.seek(self.ranges.claimed());
        self.recalled_to = None;
        self.ranges = DeliveryRanges::new(at);
        self.leases.clear();
        self.acks.clear();
        self.unopened.clear();
        self.missed.clear();
        self.floor = at;
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
