//! [`LetterIndex`]: what is to be said of a subscription's dead letters: which are open once more, which are new, and
//! which have ended.
//!
//! A dead letter is an entry that is settled. Open once more it is by an operator, who had it given again, or because
//! its subscription was sent back before it. When it is settled then, it has ended, and is a letter no more if it was
//! acknowledged.
//!
//! Invariant: what an entry's end says is kept until the store has it: [`LetterIndex::take_changes`] counts it as
//! stored, and [`LetterIndex::failed`] takes that back.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;

#[derive(Debug, Default)]
pub(in crate::events::subscription) struct LetterIndex {
    /// Open entries that an operator put back.
    again: BTreeSet<u64>,
    /// Of those, the ones of which the store does not know yet.
    again_new: BTreeSet<u64>,
    /// Dead letters that are open once more without that: their subscription was sent back.
    reopened: BTreeSet<u64>,
    /// Those of either that are settled since: not stored yet.
    ended: Vec<Closing>,
    /// Letters of entries that are settled by that: not stored yet.
    new: BTreeMap<u64, Bytes>,
    /// How often something was to be stored before another entry goes out, since one of its key was given up; and how
    /// often it is.
    owed: u64,
    owed_stored: u64,
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

/// What changed, on its way to the store.
#[derive(Debug)]
pub(super) struct LetterChanges {
    pub(super) again_new: BTreeSet<u64>,
    pub(super) ended: Vec<Closing>,
    pub(super) new: BTreeMap<u64, Bytes>,
    owed: u64,
}

impl LetterChanges {
    /// Those that were acknowledged when they were handed out again.
    pub(super) fn acknowledged(&self) -> impl Iterator<Item = u64> + '_ {
        self.ended.iter().filter(|closing| closing.is_acknowledged).map(|closing| closing.at)
    }
}

impl LetterIndex {
    /// Of these entries an operator put some back; others are open by a seek.
    pub(super) fn new(again: BTreeSet<u64>, reopened: BTreeSet<u64>) -> Self {
        Self { again, reopened, ..Self::default() }
    }

    /// The dead letters, when the store has these: those that were acknowledged, or handed over plainly, are none any
    /// more, though the store may not have heard of it; and it may not have heard of the latest.
    pub(in crate::events::subscription) fn listed(&self, stored: &BTreeSet<u64>) -> BTreeSet<u64> {
        let mut letters = stored.clone();
        for closing in self.ended.iter().filter(|closing| closing.is_acknowledged) {
            letters.remove(&closing.at);
        }
        letters.extend(self.new.keys());
        letters
    }

    /// Those that are open because an operator had them given again.
    pub(in crate::events::subscription) fn given_again(&self) -> &BTreeSet<u64> {
        &self.again
    }

    /// An operator has one given again.
    pub(super) fn put_back(&mut self, at: u64) {
        self.reopened.remove(&at);
        self.again.insert(at);
        self.again_new.insert(at);
    }

    /// What is known of an entry has changed. Says whether it is such a one, and is stored with those.
    pub(super) fn touch(&mut self, at: u64) -> bool {
        let is_given_again = self.again.contains(&at);
        if is_given_again {
            self.again_new.insert(at);
        }
        is_given_again
    }

    /// An entry is settled.
    pub(super) fn settled(&mut self, at: u64, is_acknowledged: bool) {
        self.again_new.remove(&at);
        let was_put_back = self.again.remove(&at);
        // Both are asked: an entry may be either.
        if self.reopened.remove(&at) | was_put_back {
            self.ended.push(Closing { at, is_acknowledged });
            if is_acknowledged {
                self.new.remove(&at);
            }
        }
    }

    /// Entries were handed over plainly: that is an acknowledgement.
    pub(super) fn handed_over(&mut self, range: Range<u64>) {
        let reopened = self.reopened.extract_if(range, |_| true);
        self.ended.extend(reopened.map(|at| Closing { at, is_acknowledged: true }));
    }

    /// An entry has died, or this letter is of none.
    pub(in crate::events::subscription) fn add(&mut self, at: u64, letter: Bytes) {
        self.new.insert(at, letter);
    }

    /// An entry has died that others of its key come after: they go out when that is stored. After a kill they might
    /// come before it otherwise, since it would be open again.
    pub(super) fn owe(&mut self) {
        self.owed += 1;
    }

    /// Whether something must be stored before another entry goes out.
    pub(in crate::events::subscription) fn is_owed(&self) -> bool {
        self.owed > self.owed_stored
    }

    /// Retention has taken some; those that stay are somebody's still.
    pub(super) fn cut(&mut self, stays: impl Fn(&u64) -> bool) {
        let gone = self.again.extract_if(.., |at| !stays(at));
        self.ended.extend(gone.map(Closing::dropped));
        self.reopened.retain(&stays);
        self.again_new.retain(&stays);
    }

    /// The subscription goes to another place: those of its letters that lie after that are open once more.
    pub(super) fn seek(&mut self, at: u64, letters: BTreeSet<u64>) {
        self.reopened = letters;
        self.reopened.retain(|&letter| letter > at);
        self.ended.extend(std::mem::take(&mut self.again).into_iter().map(Closing::dropped));
        self.again_new.clear();
    }

    pub(super) fn has_changes(&self) -> bool {
        !self.again_new.is_empty() || !self.ended.is_empty() || !self.new.is_empty()
    }

    /// What is to be written; it counts as written from now on.
    pub(super) fn take_changes(&mut self) -> LetterChanges {
        LetterChanges {
            again_new: std::mem::take(&mut self.again_new),
            ended: std::mem::take(&mut self.ended),
            new: std::mem::take(&mut self.new),
            owed: self.owed,
        }
    }

    /// These are in the store.
    pub(super) fn written(&mut self, changes: &LetterChanges) {
        self.owed_stored = self.owed_stored.max(changes.owed);
    }

    /// These may not be in the store.
    pub(super) fn failed(&mut self, changes: LetterChanges) {
        self.again_new.extend(changes.again_new.into_iter().filter(|at| self.again.contains(at)));
        for (at, letter) in changes.new {
            // It may have been acknowledged meanwhile, or have died again.
            if !self.ended.iter().any(|closing| closing.at == at && closing.is_acknowledged) {
                self.new.entry(at).or_insert(letter);
            }
        }
        self.ended.extend(changes.ended);
    }
}
