//! [`Reader`], where entries are open each by itself: leased to who acknowledges them, or handed to a plain reader.
//!
//! Invariants: readers of one subscription look for new entries one after the other, so an entry is open before a later
//! one of its key can be. What is handed out was stored; what was acknowledged is never handed out again (but by an
//! operator's seek or redelivery). An entry whose attempts are spent goes to the dead letters before it is settled, and
//! until then it holds those of its key that come after it.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use super::reader::Reader;
use super::{Delivery, Receipt};
use crate::events::log::{ReadError, Room, Run};
use crate::events::subscription::dead_letters::bury_given_up;
use crate::events::subscription::{Claim, Hold, LeasedEntries, LogRange, Subscription, own_key};
use crate::events::{DeliveryOrder, EntryContent, Leased};
use crate::kernel::names::Stream;
use crate::store::{Content, Sequence};
use crate::vendor::events::facts;

impl Reader {
    /// Leases what can be had now.
    pub(in crate::events) async fn lease(
        &self,
        subscription: &Arc<Subscription>,
    ) -> Result<Option<Delivery>, ReadError> {
        let turn = subscription.turn.lock().await;
        let mut looked_at: Vec<Run> = Vec::new();
        let limit = self.most_held();
        loop {
            bury_given_up(&self.stream.registry, subscription).await?;
            let mut is_at_end = false;
            if subscription.ready(self.stream.shared.clock.now()) < limit {
                match self.open_more(subscription).await? {
                    Some(runs) => looked_at = runs,
                    None => is_at_end = true,
                }
            }
            let now = self.stream.shared.clock.now();
            let hold = self.hold(now);
            let Some(held) = LeasedEntries::claim(subscription, limit, hold, now) else {
                let is_to_be_stored = subscription.has_given_up(now) || subscription.is_owed();
                if subscription.is_removed() || (is_at_end && !is_to_be_stored) {
                    return Ok(None);
                }
                continue;
            };
            let near = std::mem::take(&mut looked_at);
            if let Some(delivery) = self.deliver(subscription, held, near, (true, self.room())).await? {
                drop(turn);
                return Ok(Some(delivery));
            }
        }
    }

    /// Opens the next entries one by one. `None` at the end of the log, or while too many are open.
    pub(in crate::events) async fn open_more(
        &self,
        subscription: &Arc<Subscription>,
    ) -> Result<Option<Vec<Run>>, ReadError> {
        loop {
            let looks_at = self.looks_at().max(LOOKS_AT);
            let claim = LogRange::claim_to_open(subscription, self.stream.log.range(), looks_at, self.most_open());
            let Some(mut claim) = claim else { return Ok(None) };
            // Trimmed meanwhile: the claim is given back, and what is left of it is taken again.
            let fetched = self.stream.log.fetch(&claim.range(), &self.filter, Room::ALL).await?;
            let Some(found) = self.found(fetched) else { continue };
            claim.keep_before(found.end, 0);
            claim.open(
                &keys(&found.runs, self.stream.log.key().stream, self.turns(), &self.stream.shared.keys),
                self.stream.shared.clock.now(),
            );
            return Ok(Some(found.runs));
        }
    }

    /// How many entries a read takes that are open each by itself: about as many as there is room for. What is too much
    /// for it is known when their texts are there, and to give them back costs more.
    fn most_held(&self) -> usize {
        let room = self.room();
        let usual = self.stream.log.usual_bytes();
        room.entries.min((room.bytes / usual).max(1))
    }

    /// Delivers open entries to a plain reader, who has no use for markers if it says so.
    pub(in crate::events) async fn hand_over_open(
        &self,
        subscription: &Arc<Subscription>,
    ) -> Result<Option<Delivery>, ReadError> {
        while let Some(held) =
            LeasedEntries::claim(subscription, self.most_held(), Hold::Response, self.stream.shared.clock.now())
        {
            if self.session.is_some() && subscription.owes_streams() {
                Box::pin(subscription.save(self.stream.log.store())).await?;
            }
            let wants = (self.filter.markers, self.room());
            // In a box: a plain reader seldom meets what is open.
            if let Some(delivery) = Box::pin(self.deliver(subscription, held, Vec::new(), wants)).await? {
                return Ok(Some(delivery));
            }
        }
        Ok(None)
    }

    /// Gets the texts of entries, and gives back those for which there is no room. `None` when all of them are gone, or
    /// are markers that are not wanted.
    async fn deliver(
        &self,
        subscription: &Arc<Subscription>,
        mut held: Claim<LeasedEntries>,
        near: Vec<Run>,
        (markers, room): (bool, Room),
    ) -> Result<Option<Delivery>, ReadError> {
        let near = near.into_iter().map(|run| run.batch).collect();
        let wanted: Vec<Sequence> = held.entries().iter().map(|&(at, _)| at).collect();
        let (mut runs, gone) = self.stream.registry.collect(&wanted, near).await?;
        held.drop_trimmed(&gone, self.stream.shared.clock.now());
        let mut dropped = Vec::new();
        runs.retain(|run| {
            let is_wanted = markers || matches!(run.batch.content, Content::Events(_));
            if !is_wanted {
                dropped.extend(run.entries.clone().map(|entry| run.batch.first.plus(entry as u64)));
            }
            is_wanted
        });
        held.drop_unwanted(&dropped, self.stream.shared.clock.now());
        if let Some(left_out) = room.cut(&mut runs) {
            held.keep_before(Sequence(left_out), 0);
        }
        runs.iter_mut().filter(|run| !self.stream.log.is_in_memory(run.batch.first)).for_each(Run::keep_apart);
        if held.is_tried_again() {
            // A restart must not make it one less: then an event could be tried for ever.
            Box::pin(subscription.save(self.stream.log.store())).await?;
        }
        let Some(&(last, _)) = held.entries().last() else { return Ok(None) };
        let is_event = |run: &&Run| matches!(run.batch.content, Content::Events(_));
        held.under_way(runs.iter().filter(is_event).map(|run| run.entries.len() as u64).sum());
        let mut attempts: Vec<u32> = held.entries().iter().map(|&(_, attempt)| attempt).collect();
        let (lost, lost_from) = if markers { held.lost() } else { (0, None) };
        if lost > 0 {
            // To acknowledge the marker must settle nothing else: it stands where the last entry was that is gone.
            let before = if held.is_leased() { self.stream.log.range().start } else { wanted[0] };
            let first = self.stream.log.batches(&(before..before.next())).await?;
            let first = first.first().unwrap_or(&runs[0].batch);
            runs.insert(0, Self::cut_off_marker(before, first));
            attempts.insert(0, held.marker_attempt());
        }
        let leased = held.is_leased().then(|| Leased { name: held.lease(), attempts, over: held.over() });
        let delivery = self.delivery(runs, last, Receipt::of_leased(held), leased);
        Ok(Some(Delivery { lost, lost_from, ..delivery }))
    }
}

/// Entries that are to be opened, with their keys: those of one key keep their order. A marker, and an event that says
/// of nobody, has a key of its own: it waits for no other, and none waits for it.
fn keys(runs: &[Run], stream: Stream, turns: DeliveryOrder, hasher: &RandomState) -> Vec<(Sequence, u64)> {
    let key = |run: &Run, index: usize, at: u64| match (turns, EntryContent::of(&run.batch, index)) {
        (DeliveryOrder::All, _) => KEY_OF_ALL,
        (DeliveryOrder::EachKey, EntryContent::Event(text)) => {
            facts(&text).whose(stream).map_or(own_key(at), |whose| hasher.hash_one(whose))
        }
        (DeliveryOrder::EachKey, EntryContent::PossibleLoss(_)) => own_key(at),
    };
    let mut keys = Vec::with_capacity(runs.iter().map(|run| run.entries.len()).sum());
    for run in runs {
        keys.extend(run.shown().map(|(index, at)| (at, key(run, index, at.0))));
    }
    keys
}

/// The key of all entries when each waits for all before it. No entry's own: there is none of that number.
const KEY_OF_ALL: u64 = 0;

/// How many entries are looked at, at least, for some that can be had.
const LOOKS_AT: u64 = 100;
