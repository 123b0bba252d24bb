//! [`Unit`]: entries that went out as one, and go out as one again: the same, no more and no fewer.
//!
//! Invariants: a unit is known by the number of its first entry, as it was when it first went out, and has its turn by
//! that in each key. It can be taken when all of its entries are open and wait, and each of their keys is free and has
//! it first. So two units never wait for each other. What an operator put back is in none, and what goes by itself
//! needs none.

use std::collections::BTreeSet;
use std::ops::RangeBounds;

use tokio::time::Instant;

use super::key_queue::Listing;
use super::{EntryState, Hold, LeaseTable};
use crate::events::subscription::lease_name::LeaseName;

#[derive(Debug, Default)]
pub(super) struct Unit {
    /// Those that are open.
    entries: BTreeSet<u64>,
    /// How many are not open yet.
    awaited: usize,
    /// Where it is listed, by which key.
    listed: Option<(Listing, u64)>,
}

impl Unit {
    /// One of those that were awaited is open.
    pub(super) fn opened(&mut self, at: u64) {
        self.awaited = self.awaited.saturating_sub(1);
        self.entries.insert(at);
    }
}

impl LeaseTable {
    /// An earlier run has sent this entry, which is not open yet, as a part of a unit.
    pub(in crate::events) fn await_unit(&mut self, at: u64, unit: u64) {
        if !self.open.contains_key(&at) && self.awaited.insert(at, unit).is_none() {
            self.units.entry(unit).or_default().awaited += 1;
        }
    }

    /// These are not going to be open: they are settled, or nobody wants them.
    pub(in crate::events) fn await_no_longer(&mut self, range: impl RangeBounds<u64>, now: Instant) {
        let gone: Vec<(u64, u64)> = self.awaited.range(range).map(|(&at, &unit)| (at, unit)).collect();
        for (at, id) in gone {
            self.awaited.remove(&at);
            if let Some(unit) = self.units.get_mut(&id) {
                unit.awaited -= 1;
            }
            self.leave_unit(id, at, now);
        }
    }

    /// Whether entries are to come without which a unit cannot be taken.
    pub(in crate::events) fn awaits_units(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// The entries of a range that are in a unit, open or not yet, with its number.
    pub(in crate::events) fn united(&self, range: std::ops::Range<u64>) -> impl Iterator<Item = (u64, u64)> + '_ {
        let open = self.open.range(range.clone()).filter_map(|(&at, open)| Some((at, open.unit?)));
        open.chain(self.awaited.range(range).map(|(&at, &unit)| (at, unit)))
    }

    /// What a lease took to go out as one has gone out so, or is about to. Says whether that is new.
    pub(in crate::events) fn unite(&mut self, entries: &[u64]) -> bool {
        let Some(&first) = entries.first() else { return false };
        let hold = self.holder(first).and_then(|lease| self.leases.hold(lease));
        if hold.is_none_or(|hold| !hold.unites()) {
            return false;
        }
        let mut is_new = false;
        for at in entries {
            let Some(open) = self.open.get_mut(at) else { continue };
            if open.unit.is_none() && !open.goes_alone() {
                open.unit = Some(first);
                self.units.entry(first).or_default().entries.insert(*at);
                is_new = true;
            }
        }
        is_new
    }

    /// Takes a unit that can be taken.
    pub(super) fn take_unit(
        &mut self,
        id: u64,
        lease: LeaseName,
        hold: Hold,
        entries: &mut Vec<(u64, u32)>,
        touched: &mut Vec<u64>,
    ) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        if let Some((listed, key)) = unit.listed.take() {
            self.listings.unlist(listed, key);
        }
        for &at in &unit.entries {
            let Some(open) = self.open.get_mut(&at) else { continue };
            let Some(key) = self.keys.get_mut(&open.key) else { continue };
            key.forget((id, at));
            self.tried += open.hold(lease, hold);
            entries.push((at, open.attempts));
            if key.holder.replace(lease).is_none() {
                touched.push(open.key);
            }
            key.held += 1;
        }
    }

    /// An entry is in a unit no longer.
    pub(super) fn leave_unit(&mut self, id: u64, at: u64, now: Instant) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        unit.entries.remove(&at);
        let is_empty = unit.entries.is_empty() && unit.awaited == 0;
        self.list_unit(id, now);
        if is_empty {
            self.units.remove(&id);
        }
    }

    /// Lists a unit where it belongs after a change.
    pub(super) fn list_unit(&mut self, id: u64, now: Instant) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        if let Some((listed, key)) = unit.listed.take() {
            self.listings.unlist(listed, key);
        }
        let Some((until, key)) = self.turn_of(id) else { return };
        let listed = match until {
            Some(until) if until > now => Listing::Later(until),
            _ => Listing::Ready(id),
        };
        self.listings.enlist(listed, key);
        if let Some(unit) = self.units.get_mut(&id) {
            unit.listed = Some((listed, key));
        }
    }

    /// Until when a unit waits whose turn it is, and one of its keys; `None` when it is not its turn.
    fn turn_of(&self, id: u64) -> Option<(Option<Instant>, u64)> {
        let unit = self.units.get(&id).filter(|unit| unit.awaited == 0)?;
        let (mut until, mut by) = (None, None);
        for at in &unit.entries {
            // One that is held or given up holds up all: no part of a unit goes before the rest.
            let open = self.open.get(at)?;
            let EntryState::Waiting(delay) = open.state else { return None };
            self.keys.get(&open.key).filter(|key| key.is_free() && key.unit == Some(id))?;
            until = until.max(delay);
            by = by.or(Some(open.key));
        }
        Some((until, by?))
    }
}
