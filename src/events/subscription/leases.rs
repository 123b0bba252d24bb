//! Reading with explicit acknowledgement: a batch is leased to one reader, who settles, prolongs or gives it back.
//!
//! Invariants: readers of one subscription look for new entries one after the other, so an entry is open before a later
//! one of its key can be. What is handed out was stored; what was acknowledged is never handed out again (but by an
//! operator's seek or redelivery). An entry whose attempts are spent goes to the dead letters before it is settled, and
//! until then it holds those of its key that come after it.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use super::dead_letters::bury;
use super::held::{Held, SettleError};
pub use super::lease_name::{LeaseName, NotALease};
use super::state::{GiveUpReason, Hold, Selection, UnknownLease, own_key};
use super::{InHand, Subscription};
use crate::events::app_stream::AppStream;
use crate::events::delivery::reader::{Reader, numbers, sequences};
use crate::events::delivery::{Room, Run};
use crate::events::{Cursor, Delivery, DeliveryOrder, EntryContent, Events, ReadError, Receipt};
use crate::kernel::names::{AppId, Stream, SubscriptionName};
use crate::store::{Batch, Content, Error, Sequence};
use crate::vendor::events::facts;

/// How what a read hands over is settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// By handing it over.
    #[default]
    OnHandover,
    /// By the reader's word, within a lease.
    Explicit {
        /// How long the reader has it for itself.
        lease: Duration,
        /// After so many attempts without an acknowledgement an entry goes to the dead letters. At least 1.
        max_attempts: u32,
    },
    /// By the word of who has it in hand, as long as the receipt is kept: see [`InHand`].
    InHand(InHand),
}

/// What a read was leased, or has in hand.
#[derive(Clone)]
pub struct Leased {
    /// The name to acknowledge it by.
    pub name: LeaseName,
    /// Which attempt this is for each entry, from 1, in the order of the delivery's entries. In hand: how many have failed.
    pub attempts: Vec<u32>,
    over: tokio_util::sync::CancellationToken,
}

impl Leased {
    /// Resolves when nothing of it is held any more: settled, given back, or run out.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Whether nothing of it is held any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }
}

impl std::fmt::Debug for Leased {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Leased({} {:?})", self.name, self.attempts)
    }
}

/// What is acknowledged, given back or prolonged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holding {
    /// All that a lease holds.
    Lease(LeaseName),
    /// These entries, each by its cursor.
    Entries(Vec<Cursor>),
}

/// Why that cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// The lease is unknown: run out, given back, or never made; or an entry was not handed out to be acknowledged.
    #[error("the lease has run out, was given back, or never was")]
    LeaseExpired,
    /// This app does not have this stream.
    #[error("the stream is not read for this app")]
    NoSuchStream,
    /// The store failed: it may be acknowledged or not. Asking again is safe.
    #[error(transparent)]
    Store(#[from] Error),
}

impl Events {
    /// Acknowledges: what is held is settled, and never handed out again. Durable on return. Says how many entries were
    /// not settled before.
    ///
    /// # Errors
    /// See [`AckError`]. Acknowledging twice is none.
    pub async fn acknowledge(
        &self,
        app: &AppId,
        stream: Stream,
        name: &SubscriptionName,
        what: &Holding,
    ) -> Result<u64, AckError> {
        let (subscription, which) = self.held(app, stream, name, what)?;
        let settled = subscription.acknowledge(&which, self.0.parts.shared.clock.now(), &*self.0.parts.store).await;
        settled.map_err(|why| match why {
            SettleError::UnknownLease | SettleError::Unseen => AckError::LeaseExpired,
            SettleError::Store(error) => error.into(),
        })
    }

    /// Gives back what is held: it is handed out again, not before `delay`; with a delay, durable on return. Says how many
    /// entries that were.
    ///
    /// # Errors
    /// See [`AckError`].
    pub async fn give_back(
        &self,
        app: &AppId,
        stream: Stream,
        name: &SubscriptionName,
        what: &Holding,
        delay: Duration,
    ) -> Result<u64, AckError> {
        let (subscription, which) = self.held(app, stream, name, what)?;
        let now = self.0.parts.shared.clock.now();
        let until = (!delay.is_zero()).then(|| now + delay.min(MAX_LEASE));
        let back = subscription.give_back(&which, until, now).map_err(|UnknownLease| AckError::LeaseExpired)?;
        if until.is_some() {
            subscription.save(&*self.0.parts.store).await?;
        }
        Ok(back)
    }

    /// Lets leases run for `lease` from now on. Says how many entries they hold.
    ///
    /// # Errors
    /// See [`AckError`].
    pub fn extend(
        &self,
        app: &AppId,
        stream: Stream,
        name: &SubscriptionName,
        what: &Holding,
        lease: Duration,
    ) -> Result<u64, AckError> {
        let (subscription, which) = self.held(app, stream, name, what)?;
        let now = self.0.parts.shared.clock.now();
        subscription.extend(&which, now + lease.min(MAX_LEASE), now).map_err(|UnknownLease| AckError::LeaseExpired)
    }

    fn held(
        &self,
        app: &AppId,
        stream: Stream,
        name: &SubscriptionName,
        what: &Holding,
    ) -> Result<(Arc<Subscription>, Selection), AckError> {
        let stream = self.stream(app, stream).map_err(|_| AckError::NoSuchStream)?;
        let subscription = stream.registry.get(name).ok_or(AckError::LeaseExpired)?;
        let which = match what {
            Holding::Lease(name) => Selection::Lease(*name),
            Holding::Entries(cursors) => {
                let mut entries: Vec<u64> = cursors.iter().map(|cursor| cursor.at.0).collect();
                entries.sort_unstable();
                entries.dedup();
                let next = stream.log.range().end.0;
                let is_ours = cursors.iter().all(|&cursor| stream.log.has_made(cursor));
                if !is_ours || entries.last().is_some_and(|&at| at >= next) {
                    return Err(AckError::LeaseExpired);
                }
                Selection::Entries(entries)
            }
        };
        Ok((subscription, which))
    }
}

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
            bury_given_up(&self.stream, subscription).await?;
            let mut is_at_end = false;
            if subscription.ready(self.stream.shared.clock.now()) < limit {
                match self.open_more(subscription).await? {
                    Some(runs) => looked_at = runs,
                    None => is_at_end = true,
                }
            }
            let now = self.stream.shared.clock.now();
            let hold = self.hold(now);
            let Some(held) = subscription.hold(limit, hold, now) else {
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
            let claim = subscription.claim_to_open(numbers(self.stream.log.range()), looks_at, self.most_open());
            let Some(mut claim) = claim else { return Ok(None) };
            // Trimmed meanwhile: the claim is given back, and what is left of it is taken again.
            let fetched = self.stream.log.fetch(&sequences(claim.range()), &self.filter, Room::ALL).await?;
            let Some(found) = self.found(fetched) else { continue };
            claim.shorten(found.end.0);
            claim.open(
                &keys(&found.runs, self.stream.log.key().stream, self.turns(), &self.stream.shared.keys),
                self.stream.shared.clock.now(),
            );
            return Ok(Some(found.runs));
        }
    }

    /// How many entries a read takes that are open each by itself: about as many as there is room for. What is too much for
    /// it is known when their texts are there, and to give them back costs more.
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
        while let Some(held) = subscription.hold(self.most_held(), Hold::Response, self.stream.shared.clock.now()) {
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

    /// Gets the texts of entries, and gives back those for which there is no room. `None` when all of them are gone, or are
    /// markers that are not wanted.
    async fn deliver(
        &self,
        subscription: &Arc<Subscription>,
        mut held: Held,
        near: Vec<Run>,
        (markers, room): (bool, Room),
    ) -> Result<Option<Delivery>, ReadError> {
        let near = near.into_iter().map(|run| run.batch).collect();
        let wanted: Vec<u64> = held.entries().iter().map(|&(at, _)| at).collect();
        let (mut runs, gone) = collect(&self.stream, &wanted, near).await?;
        held.without_gone(&gone, self.stream.shared.clock.now());
        let mut dropped = Vec::new();
        runs.retain(|run| {
            let is_wanted = markers || matches!(run.batch.content, Content::Events(_));
            if !is_wanted {
                dropped.extend(run.entries.clone().map(|entry| run.batch.first.0 + entry as u64));
            }
            is_wanted
        });
        held.without(&dropped, self.stream.shared.clock.now());
        if let Some(left_out) = room.cut(&mut runs) {
            held.keep_before(left_out, 0);
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
        let (lost, lost_from) = if markers { held.cut_off() } else { (0, None) };
        if lost > 0 {
            // To acknowledge the marker must settle nothing else: it stands where the last entry was that is gone.
            let before = if held.is_leased() { self.stream.log.range().start } else { Sequence(wanted[0]) };
            let first = self.stream.log.batches(&(before..before.next())).await?;
            let first = first.first().unwrap_or(&runs[0].batch);
            runs.insert(0, Self::cut_off_marker(before, first));
            attempts.insert(0, held.marker_attempt());
        }
        let leased = held.is_leased().then(|| Leased { name: held.lease(), attempts, over: held.over() });
        let delivery = self.delivery(runs, Sequence(last), Receipt::held(held), leased);
        Ok(Some(Delivery { lost, lost_from, ..delivery }))
    }
}

/// [`Log::collect`](crate::events::log::Log::collect). Readers are told of what is gone.
pub(in crate::events) async fn collect(
    stream: &AppStream,
    entries: &[u64],
    near: Vec<Arc<Batch>>,
) -> Result<(Vec<Run>, Vec<u64>), Error> {
    let entries: Vec<_> = entries.iter().copied().map(Sequence).collect();
    let (runs, gone) = stream.log.collect(&entries, near).await?;
    if !gone.is_empty() {
        stream.trimmed(stream.log.stored_beginning().await?);
    }
    Ok((runs, gone.into_iter().map(|at| at.0).collect()))
}

/// Puts the entries whose attempts are spent to the dead letters.
pub(in crate::events) async fn bury_given_up(
    stream: &Arc<AppStream>,
    subscription: &Arc<Subscription>,
) -> Result<(), Error> {
    loop {
        let given_up = subscription.given_up(BURIED_AT_ONCE, stream.shared.clock.now());
        if given_up.is_empty() {
            // Another may have buried some, and not be done with it.
            return if subscription.is_owed() { Box::pin(subscription.save(stream.log.store())).await } else { Ok(()) };
        }
        if subscription.is_owed() {
            // What the store would not take is not made more.
            Box::pin(subscription.save(stream.log.store())).await?;
        }
        let letters = given_up.into_iter().map(|(at, attempts, why)| (at, attempts, why.to_string())).collect();
        // In a box: it is rare, and each read would hold room for it while it waits.
        let (_, stored) = Box::pin(bury(stream, subscription, letters, None)).await?;
        stored?;
    }
}

impl std::fmt::Display for GiveUpReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::RanOut => "its last lease ran out",
            Self::GivenBack => "its last reader gave it back",
        })
    }
}

/// Entries that are to be opened, with their keys: those of one key keep their order. A marker, and an event that says of
/// nobody, has a key of its own: it waits for no other, and none waits for it.
fn keys(runs: &[Run], stream: Stream, turns: DeliveryOrder, hasher: &RandomState) -> Vec<(u64, u64)> {
    let key = |run: &Run, index: usize, at: u64| match (turns, EntryContent::of(&run.batch, index)) {
        (DeliveryOrder::All, _) => KEY_OF_ALL,
        (DeliveryOrder::EachKey, EntryContent::Event(text)) => {
            facts(&text).whose(stream).map_or(own_key(at), |whose| hasher.hash_one(whose))
        }
        (DeliveryOrder::EachKey, EntryContent::PossibleLoss(_)) => own_key(at),
    };
    let mut keys = Vec::with_capacity(runs.iter().map(|run| run.entries.len()).sum());
    for run in runs {
        keys.extend(run.shown().map(|(index, Sequence(at))| (at, key(run, index, at))));
    }
    keys
}

/// The key of all entries when each waits for all before it. No entry's own: there is none of that number.
const KEY_OF_ALL: u64 = 0;

/// No lease and no delay is longer, whatever is asked for.
pub const MAX_LEASE: Duration = Duration::from_secs(12 * 3600);

/// How many entries are looked at, at least, for some that can be had.
const LOOKS_AT: u64 = 100;

const BURIED_AT_ONCE: usize = 100;
