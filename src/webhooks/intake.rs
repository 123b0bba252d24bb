//! The [`Intake`]: entries that were read from a stream, as units for the [`Engine`](super::engine::Engine).
//!
//! Invariants: what the record says is done is left out until the record is caught up with: the subscription's stored
//! place may be older. What is given again after that, or out of turn, is wanted again. A record is about one place of its
//! subscription: a seek begins another. What went out as one before the last stop goes out as one again,
//! though it comes in several reads, so that its id is the same. A unit holds on to the reads that its entries came with
//! until it is done; a read is handed over when all that came with it is.

use std::sync::Arc;

use super::entry::Entry;
use super::message::BATCH_BYTES;
use super::record::{Held, Known, Record};
use crate::events::{PlaceId, Receipt};

/// Some entries that go out in one request.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) entries: Vec<Entry>,
    /// The reads they came with.
    pub(super) reads: Vec<Arc<Receipt>>,
}

/// A unit before it is one.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) load: Load,
    /// What is known of it, if it was there before the last stop.
    pub(super) held: Option<Held>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Intake {
    /// How far the webhook was at the last stop, and what is given again since.
    record: Record,
    /// The most entries of a unit.
    most: usize,
    /// What waits for the rest of what it was sent with.
    partial: Option<Group>,
    /// While the record is being caught up with: up to where, and how far that is.
    behind: Option<(u64, u64)>,
}

impl Intake {
    /// Goes on from a record. No unit has more than `most` entries.
    pub(super) fn new(record: Record, most: usize) -> Self {
        let behind = (record.claimed > 0).then_some((record.claimed, 0));
        Self { record, most, partial: None, behind }
    }

    /// Whether the record is still to be caught up with: then nothing is waited for.
    pub(super) fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// There is nothing more that was there before.
    pub(super) fn caught_up(&mut self) {
        self.behind = None;
    }

    /// Which place of its subscription it is at.
    pub(super) fn place(&self) -> PlaceId {
        self.record.place
    }

    /// The last entry that was looked at, now or before the last stop.
    pub(super) fn claimed(&self) -> u64 {
        self.record.claimed
    }

    /// What was not done at the last stop, and has not come again yet.
    pub(super) fn awaited(&self) -> impl Iterator<Item = Held> {
        self.record.held.iter().copied()
    }

    /// Takes in entries that an operator put back, and that came with one read: each by itself. They say nothing of others.
    pub(super) fn take_put_back(&mut self, entries: Vec<Entry>, receipt: Receipt) -> Vec<Group> {
        let receipt = Arc::new(receipt);
        let numbers: Vec<u64> = entries.iter().map(Entry::number).collect();
        let is_one = |held: &Held| held.first == held.last;
        let group = |entry: Entry| {
            let held = match self.record.of(entry.number()) {
                Known::Held(held) if is_one(&held) => Some(held),
                Known::Held(_) | Known::Done | Known::New => None,
            };
            let mut group = Group::new(held);
            group.push(entry, &receipt);
            group
        };
        let groups = entries.into_iter().map(group).collect();
        self.record.held.retain(|held| !is_one(held) || !numbers.contains(&held.first));
        unused(receipt);
        groups
    }

    /// Takes in entries that came with one read, which reaches to `upto`.
    pub(super) fn take(&mut self, entries: Vec<Entry>, upto: u64, receipt: Receipt) -> Vec<Group> {
        let receipt = Arc::new(receipt);
        let mut groups: Vec<Group> = Vec::new();
        let mut open = self.partial.take();
        for entry in entries {
            let held = match self.record.of(entry.number()) {
                Known::Done if self.behind.is_some_and(|(_, at)| entry.number() > at) => {
                    groups.extend(open.take());
                    continue;
                }
                Known::Held(held) => Some(held),
                Known::Done | Known::New => None,
            };
            if open.as_ref().is_some_and(|group| !group.takes(&entry, held, self.most)) {
                groups.extend(open.take());
            }
            open.get_or_insert_with(|| Group::new(held)).push(entry, &receipt);
        }
        // The rest of what it was sent with may come with the next read.
        match open {
            Some(group) if self.most > 1 && group.held.is_some_and(|held| upto < held.last) => {
                self.partial = Some(group);
            }
            open => groups.extend(open),
        }
        let came: Vec<u64> = groups.iter().filter_map(|group| Some(group.held?.first)).collect();
        for held in self.record.held.iter_mut().filter(|held| came.contains(&held.first)) {
            held.first = upto + 1;
        }
        self.record.held.retain(|held| held.first <= held.last);
        self.record.claimed = self.record.claimed.max(upto);
        self.behind = self.behind.filter(|(goal, _)| upto < *goal).map(|(goal, at)| (goal, at.max(upto)));
        unused(receipt);
        groups
    }
}

impl Group {
    fn new(held: Option<Held>) -> Self {
        Self { load: Load { entries: Vec::new(), reads: Vec::new() }, held }
    }

    fn takes(&self, entry: &Entry, held: Option<Held>, most: usize) -> bool {
        let size = || self.load.entries.iter().map(Entry::size).sum::<usize>() + entry.size();
        self.held.map(|h| h.first) == held.map(|h| h.first)
            && self.load.entries.len() < most
            && (self.held.is_some() || size() <= BATCH_BYTES)
    }

    fn push(&mut self, entry: Entry, receipt: &Arc<Receipt>) {
        if !self.load.reads.iter().any(|known| Arc::ptr_eq(known, receipt)) {
            self.load.reads.push(Arc::clone(receipt));
        }
        self.load.entries.push(entry);
    }
}

impl Load {
    /// All of it is done, and on record as done.
    pub(super) fn settle(self) {
        self.reads.into_iter().for_each(unused);
    }
}

/// A read that one less needs; the last one hands it over.
fn unused(receipt: Arc<Receipt>) {
    if let Some(receipt) = Arc::into_inner(receipt) {
        receipt.handed_over();
    }
}

#[cfg(test)]
mod tests;
