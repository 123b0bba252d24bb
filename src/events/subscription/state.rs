//! [`SubscriptionState`]: all that changes of a subscription, one value.
//!
//! An entry is *claimed* as part of a run by [`DeliveryRanges`], or *open* by itself in the book ([`LeaseSlot`]) (then it counts as handed over
//! in the claims), or settled. [`SubscriptionState::low`] is the last entry up to which all are settled.
//!
//! Invariants: an open entry at or below `floor` was settled once and put back by an operator: it does not hold the
//! low-water mark, and the store knows of it by a note of its own. Acknowledged entries lie above the low-water mark.

mod ack_bitmap;
mod delivery_ranges;
mod lease_table;
pub(super) mod loss_notices;
mod passing;
pub(super) mod place;
pub(super) mod plain_handovers;
mod resuming;
pub(super) mod segment_numbers;
mod writing;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use tokio::time::Instant;

use self::ack_bitmap::AckBitmap;
pub(super) use self::ack_bitmap::StoredSegment;
use self::delivery_ranges::DeliveryRanges;
pub(super) use self::delivery_ranges::LostRanges;
use self::lease_table::LeaseSlot;
pub(super) use self::lease_table::{GiveUpReason, NewEntry, UnknownLease};
pub(in crate::events) use self::lease_table::{Hold, Selection};
use self::loss_notices::LossNotices;
use self::place::PlaceId;
use self::plain_handovers::PlainHandovers;
pub(super) use self::writing::Writes;
use super::notes::{self, SubscriptionRecords};

/// What changes of a subscription.
pub(super) struct SubscriptionState {
    pub(super) ranges: DeliveryRanges,
    pub(super) leases: LeaseSlot,
    pub(super) acks: AckBitmap,
    /// The low-water mark as it was last seen.
    floor: u64,
    /// How often entries were handed out that are not in the book yet, as an earlier run has stored it.
    attempts: BTreeMap<u64, u32>,
    /// Until when such entries are not to be handed out.
    delays: BTreeMap<u64, Instant>,
    /// Segments that have a note on that.
    delays_stored: BTreeSet<u64>,
    /// Segments that have a note on what went out as one.
    units_stored: BTreeSet<u64>,
    /// Open entries that an operator put back.
    again: BTreeSet<u64>,
    /// Of those, the ones of which the store does not know yet.
    again_new: BTreeSet<u64>,
    /// Dead letters that are open once more without that: their subscription was sent back.
    letters: BTreeSet<u64>,
    /// Those of either that are settled since: not stored yet.
    again_done: Vec<Closing>,
    /// What was taken at another place says nothing any more.
    pub(super) place: PlaceId,
    /// Whether the store does not know it yet.
    is_new_place: bool,
    /// What retention has cut off.
    pub(super) missed: LossNotices,
    /// What was handed over plainly.
    pub(super) plain: PlainHandovers,
    /// The last entry that an earlier run may have given a reader; none once this run has.
    recalled_to: Option<u64>,
    /// Letters of entries that are settled by that: not stored yet.
    buried: BTreeMap<u64, Bytes>,
    /// How often something was to be stored before another entry goes out, since one of its key was given up; and how often
    /// it is.
    owed: u64,
    owed_stored: u64,
    /// Before this, nothing is left to cut.
    earliest: u64,
    /// When the timer looks at it, at the latest.
    armed: Option<Instant>,
}

/// An entry that was open once more, and is not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closing {
    pub(super) at: u64,
    pub(super) is_acknowledged: bool,
}

impl Closing {
    /// One that was put back, and is open no longer, though nobody has acknowledged it.
    fn dropped(at: u64) -> Self {
        Self { at, is_acknowledged: false }
    }
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
            attempts,
            delays_stored,
            units_stored,
            delays,
            again: again.into_keys().collect(),
            again_new: BTreeSet::new(),
            letters,
            again_done: Vec::new(),
            place,
            is_new_place: !stored,
            missed: LossNotices::new(missed, telling, stored),
            plain,
            recalled_to: stored.then_some(end),
            buried: BTreeMap::new(),
            owed: 0,
            owed_stored: 0,
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
            if self.attempts.first_key_value().is_some_and(|(&at, _)| at <= low) {
                self.attempts = self.attempts.split_off(&(low + 1));
            }
            if self.delays.first_key_value().is_some_and(|(&at, _)| at <= low) {
                self.delays = self.delays.split_off(&(low + 1));
            }
        }
        low
    }

    /// Entries of a range that are open from now on, but for those that are settled, or were put back. Nobody wants the
    /// others of it.
    pub(super) fn admit(&mut self, range: Range<u64>, entries: &[(u64, u64)], now: Instant) {
        for &(at, key) in entries.iter().filter(|(at, _)| !self.acks.is_marked(*at)) {
            let attempts = self.attempts.remove(&at).unwrap_or_default();
            self.leases
                .admit([NewEntry { at, key, attempts, delay_until: self.delays.remove(&at), alone: false }], now);
        }
        self.leases.await_no_longer(range, now);
    }

    /// Entries that are open once more, whatever becomes of the run that they are in: it may be under way still, or come
    /// again after a seek. Above the low-water mark that is marked, so that a run which is opened later leaves them out.
    pub(super) fn put_back(&mut self, entries: &[u64], now: Instant) {
        let low = self.settle_low();
        for &at in entries {
            self.letters.remove(&at);
            self.again.insert(at);
            self.again_new.insert(at);
            self.plain.remove(at..at + 1);
            // It may be open by a seek: who has it, and how often it was tried since, is of no account any more.
            self.leases.remove(at, now);
            self.attempts.remove(&at);
            self.delays.remove(&at);
            if at > low {
                self.acks.mark(at);
            }
            self.leases.await_no_longer(at..=at, now);
            self.leases.admit([notes::RetryState::default().put_back(at)], now);
        }
    }

    /// What is known of an entry has changed: how often it was handed out, or until when it waits.
    pub(super) fn touch(&mut self, at: u64) {
        if self.again.contains(&at) {
            self.again_new.insert(at);
        } else {
            self.acks.touch(at);
        }
    }

    /// Whether entries are to wait that are not open yet.
    pub(super) fn awaits_opening(&self) -> bool {
        !self.delays.is_empty()
    }

    /// The most attempts that an entry has behind it that is not settled.
    pub(super) fn most_attempts(&self) -> u32 {
        self.attempts.values().copied().max().unwrap_or(0).max(self.leases.most_attempts())
    }

    /// The dead letters that are being given again.
    pub(super) fn given_again(&self) -> BTreeSet<u64> {
        self.again.clone()
    }

    /// The dead letters of a subscription, when the store has these: those that were acknowledged, or handed over plainly,
    /// are none any more, though the store may not have heard of it; and it may not have heard of the latest.
    pub(super) fn dead_letters(&self, stored: &BTreeSet<u64>) -> BTreeSet<u64> {
        let mut letters = stored.clone();
        for closed in self.again_done.iter().filter(|closed| closed.is_acknowledged) {
            letters.remove(&closed.at);
        }
        letters.extend(self.buried.keys());
        letters
    }

    /// These were taken out of the book: they are settled. Acknowledged, or given up.
    pub(super) fn settled(&mut self, entries: &[u64], acknowledged: bool) {
        let low = self.settle_low();
        for &at in entries {
            if at > low {
                self.acks.mark(at);
            }
            self.again_new.remove(&at);
            let was_put_back = self.again.remove(&at);
            // Both are asked: an entry may be either.
            if self.letters.remove(&at) | was_put_back {
                self.again_done.push(Closing { at, is_acknowledged: acknowledged });
                if acknowledged {
                    self.buried.remove(&at);
                }
            }
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
                self.buried.insert(at, letter);
                buried += 1;
            }
        }
        self.owed += u64::from(buried > 0);
        buried
    }

    /// This letter is of no entry that is open.
    pub(super) fn add_letter(&mut self, at: u64, letter: Bytes) {
        self.buried.insert(at, letter);
    }

    /// Whether something must be stored before another entry goes out: one of its key was given up.
    pub(super) fn is_owed(&self) -> bool {
        self.owed > self.owed_stored
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

    /// Retention removed all before `earliest`. Says how many entries were not settled.
    pub(super) fn cut(&mut self, earliest: u64, now: Instant) -> u64 {
        let before = std::mem::replace(&mut self.earliest, earliest);
        let mut lost = self.ranges.cut(earliest);
        self.leases.cut(earliest, now).into_iter().for_each(|at| lost.add(at..at + 1));
        let count = lost.count();
        // What somebody holds is that one's still, and no dead letter any more once it is acknowledged.
        let stays = |&at: &u64| at >= earliest || self.leases.known(at).is_some();
        let gone: Vec<u64> = self.again.extract_if(.., |at| !stays(at)).collect();
        self.letters.retain(stays);
        self.again_new.retain(stays);
        self.delays = self.delays.split_off(&earliest);
        self.leases.await_no_longer(..earliest, now);
        self.again_done.extend(gone.into_iter().map(Closing::dropped));
        self.keep_cut(&lost, before, earliest);
        self.missed.add(lost);
        count
    }

    /// Where something below `earliest` is still held, the cursor cannot say that its neighbours are gone: they are marked,
    /// or a restart would count them once more. Those before `before` are, but for those that were held then.
    fn keep_cut(&mut self, lost: &LostRanges, before: u64, earliest: u64) {
        let first = self.settle_low().saturating_add(1);
        lost.ranges().for_each(|gone| self.acks.mark_all(gone.start.max(first)..gone.end.min(before)));
        for at in first.max(before)..earliest {
            if self.leases.known(at).is_none() && !self.ranges.holds(at) && !self.acks.is_marked(at) {
                self.acks.mark(at);
            }
        }
    }

    /// Whether marks are to be written.
    pub(super) fn has_marks(&self) -> bool {
        !self.acks.is_clean()
    }

    /// Goes to another place. The dead letters after that are open once more.
    pub(super) fn seek(&mut self, at: u64, letters: BTreeSet<u64>) {
        self.letters = letters;
        self.letters.retain(|&letter| letter > at);
        (self.place, self.is_new_place) = (PlaceId::random(), true);
        self.plain.seek(self.ranges.claimed());
        self.recalled_to = None;
        self.ranges = DeliveryRanges::new(at);
        self.leases.clear();
        self.acks.clear();
        self.attempts.clear();
        self.delays.clear();
        self.again_done.extend(std::mem::take(&mut self.again).into_iter().map(Closing::dropped));
        self.again_new.clear();
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
