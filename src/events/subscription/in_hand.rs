//! Reading for who passes events on, as webhooks do: what was read stays in hand, for as long as that takes, and no longer
//! than the receipt is kept.
//!
//! Invariants: there is one such reader of a subscription. What it has in hand is settled when that is on stable storage,
//! and not before; what it tried in vain is given back with its attempts, its delay, and what it went out with, all durable
//! on return. What it has in hand from before a seek, or of a subscription that was removed, is of no account: whatever it
//! says of it changes nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::dead_letters;
use super::lease_name::LeaseName;
use super::notes::RetryState;
use super::state::Selection;
use crate::events::{Cursor, Events, ReadError, Receipt};
use crate::kernel::names::{AppId, Stream, SubscriptionName};
use crate::store::Error;

/// How entries are taken in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InHand {
    /// Which wait for which.
    pub turns: DeliveryOrder,
    /// Whether what one read takes goes out as one. What was given back after it went out so is taken so again: the same
    /// entries, and no others.
    pub unites: bool,
    /// So many entries, at most, are open at once: in hand, waiting for their time or behind one that does.
    pub most_open: usize,
}

/// Which entries wait for which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryOrder {
    /// Each for all before it.
    All,
    /// Each for those before it of its user, or its channel.
    EachKey,
}

/// What became of entries that were in hand, and are not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nack {
    /// They were tried in vain: so long they are not to be tried again.
    Failed(Duration),
    /// They went out, but that counts for nothing.
    Uncounted,
}

/// What of a subscription was tried in vain, and what can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// Entries that are open: in hand, waiting for their time, or behind one that does.
    pub open: usize,
    /// The most tries in vain of any entry.
    pub failures: u32,
    /// When the next can be tried, as far as its own time goes.
    pub next: Option<Instant>,
}

impl Events {
    /// Who reads a subscription to pass it on begins anew: what is open is opened again by its next read, by the turns it
    /// names and through its filter. Without `keeps_units` what went out as one need not do so again. Nothing waits longer
    /// than `longest`, however the clock was set meanwhile. To be called while nothing is in hand.
    pub fn reopen(&self, app: &AppId, stream: Stream, name: &SubscriptionName, keeps_units: bool, longest: Duration) {
        if let Ok((_, subscription)) = self.subscription(app, stream, name) {
            subscription.reopen(keeps_units, longest, self.0.parts.shared.clock.now());
        }
    }

    /// What is in hand under a lease goes out as one now: should nobody live to say what came of that, it goes out so again.
    /// Durable on return.
    ///
    /// # Errors
    /// When the store fails. Asking again is safe.
    pub async fn goes_out(
        &self,
        app: &AppId,
        stream: Stream,
        name: &SubscriptionName,
        lease: LeaseName,
    ) -> Result<(), Error> {
        let Ok((stream, subscription)) = self.subscription(app, stream, name) else { return Ok(()) };
        subscription.goes_out(lease);
        subscription.save(stream.log.store()).await
    }

    /// Gives back what is in hand under a lease. Durable on return.
    ///
    /// # Errors
    /// When the store fails: then it is given back, but not durably. Asking again is safe.
    pub async fn back(
        &self,
        app: &AppId,
        stream: Stream,
        name: &SubscriptionName,
        lease: LeaseName,
        back: Nack,
    ) -> Result<(), Error> {
        let Ok((stream, subscription)) = self.subscription(app, stream, name) else { return Ok(()) };
        let now = self.0.parts.shared.clock.now();
        match back {
            Nack::Failed(delay) => {
                // Of one that is over, nothing is in hand.
                let _ = subscription.give_back(&Selection::Lease(lease), Some(now + delay), now);
            }
            Nack::Uncounted => subscription.give_back_uncounted(lease, now),
        }
        subscription.save(stream.log.store()).await
    }

    /// Puts what is in hand under a lease among the dead letters. Says how many entries that were, and whether that is
    /// durable. When the store fails they are in hand as before, or dead, and not durably: asking again is safe, and counts
    /// none twice.
    pub async fn bury(
        &self,
        app: &AppId,
        stream: Stream,
        name: &SubscriptionName,
        lease: LeaseName,
        (attempts, reason): (u32, &str),
    ) -> (u64, Result<(), Error>) {
        let (stream, subscription) = match self.subscription(app, stream, name) {
            Ok(found) => found,
            Err(ReadError::Store(error)) => return (0, Err(error)),
            Err(_) => return (0, Ok(())),
        };
        let letter = |at| (at, attempts, reason.to_owned());
        let letters: Vec<_> = subscription.held_by(lease).into_iter().map(letter).collect();
        dead_letters::bury(&stream, &subscription, letters, Some(lease)).await.unwrap_or_else(|error| (0, Err(error)))
    }

    /// The marker of what retention took, which this stands for, was passed on. Durable on return.
    ///
    /// # Errors
    /// When the store fails: it may have to be told again. Asking again is safe.
    pub async fn told(&self, marker: &mut Receipt) -> Result<(), Error> {
        let Some(marker) = marker.marker() else { return Ok(()) };
        marker.told();
        marker.subscription().save(&*self.0.parts.store).await
    }

    /// It was tried so often in vain to pass it on; it is not to be tried again before then. Durable on return.
    ///
    /// # Errors
    /// When the store fails. Asking again is safe.
    pub async fn untold(&self, marker: &mut Receipt, attempts: u32, until: Instant) -> Result<(), Error> {
        let Some(marker) = marker.marker() else { return Ok(()) };
        marker.failed(RetryState { attempts, delay_until: Some(until) });
        marker.subscription().save(&*self.0.parts.store).await
    }

    /// It is put among the dead letters, in the place that it stands at. Says how many letters that were, and whether it is
    /// durable. Asking again is safe, and counts none twice.
    pub async fn bury_marker(
        &self,
        marker: &mut Receipt,
        place: Option<Cursor>,
        (attempts, reason): (u32, &str),
    ) -> (u64, Result<(), Error>) {
        let Some(marker) = marker.marker() else { return (0, Ok(())) };
        let letter = dead_letters::of_marker(self.0.parts.shared.clock.wall_ms(), attempts, reason);
        let subscription = Arc::clone(marker.subscription());
        let is_buried = {
            let _turn = subscription.letters_turn.lock().await;
            // An event may have died in that place.
            let (listed, _) = subscription.listed().await;
            let last = place.map_or(0, |place| place.at.0);
            let at = (1..=last).rev().find(|at| !listed.contains(at));
            at.is_some_and(|at| marker.bury(at, letter))
        };
        (u64::from(is_buried), subscription.save(&*self.0.parts.store).await)
    }

    /// What of a subscription was tried in vain, and what can be; nothing when there is none.
    #[must_use]
    pub fn tries(&self, app: &AppId, stream: Stream, name: &SubscriptionName) -> Tries {
        let subscription = self.subscription(app, stream, name);
        subscription.map(|(_, subscription)| subscription.tries(self.0.parts.shared.clock.now())).unwrap_or_default()
    }
}
