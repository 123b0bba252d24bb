//! The second half of [`Events`]: what is asked and told of one subscription. Each call finds it and hands on.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::app_stream::AppStream;
use super::subscription::holding::SettleError;
use super::subscription::notes::RetryState;
use super::subscription::{Selection, Subscription, UnknownLease, dead_letters, lag, leases};
use super::{
    AckError, Cursor, DeadLetter, Events, Holding, LeaseName, MAX_LEASE, Nack, ReadError, Receipt, Redeliver,
    SubscriptionStatus, Tries,
};
use crate::kernel::names::{AppId, Stream, SubscriptionName};
use crate::store::{Error, Sequence};

impl Events {
    /// Where each subscription stands, by app, stream and name. The rates and the warning are as they were looked at
    /// last, a few seconds ago. So are the oldest event's age and when it is taken, unless
    /// [`Events::look_at_oldest`] has just looked: of what was read further since, nothing is known of them.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<SubscriptionStatus> {
        self.streams().values().flat_map(|stream| lag::statuses(&stream.registry)).collect()
    }

    /// Looks how old each subscription's oldest event is, and when retention takes it, for [`Events::subscriptions`].
    ///
    /// # Errors
    /// When the store fails.
    pub async fn look_at_oldest(&self) -> Result<(), Error> {
        let streams: Vec<_> = self.streams().values().map(Arc::clone).collect();
        for stream in streams {
            lag::look_at_oldest(&stream.registry, stream.retention()).await?;
        }
        Ok(())
    }

    /// Where one subscription stands, as [`Events::subscriptions`] says it.
    ///
    /// # Errors
    /// When there is no such subscription.
    pub fn subscription_status(
        &self,
        app: &AppId,
        stream: Stream,
        name: &SubscriptionName,
    ) -> Result<SubscriptionStatus, ReadError> {
        let (stream, subscription) = self.subscription(app, stream, name)?;
        Ok(lag::status_of(&stream.registry, &subscription))
    }

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
        let (subscription, which) = self.selected(app, stream, name, what)?;
        let settled = subscription.acknowledge(&which, self.0.parts.shared.clock.now(), &*self.0.parts.store).await;
        settled.map_err(|why| match why {
            SettleError::UnknownLease | SettleError::Unseen => AckError::LeaseExpired,
            SettleError::Store(error) => error.into(),
        })
    }

    /// Gives back what is held: it is handed out again, not before `delay`; with a delay, durable on return. Says how
    /// many entries that were.
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
        let (subscription, which) = self.selected(app, stream, name, what)?;
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
        let (subscription, which) = self.selected(app, stream, name, what)?;
        let now = self.0.parts.shared.clock.now();
        subscription.extend(&which, now + lease.min(MAX_LEASE), now).map_err(|UnknownLease| AckError::LeaseExpired)
    }

    fn selected(
        &self,
        app: &AppId,
        stream: Stream,
        name: &SubscriptionName,
        what: &Holding,
    ) -> Result<(Arc<Subscription>, Selection), AckError> {
        let stream = self.stream(app, stream).map_err(|_| AckError::NoSuchStream)?;
        let subscription = stream.registry.get(name).ok_or(AckError::LeaseExpired)?;
        Ok((subscription, leases::selection(&stream.log, what)?))
    }

    /// The dead letters of a subscription, oldest event first: those after `after`, at most `most`.
    ///
    /// # Errors
    /// When there is no such subscription, or the store fails.
    pub async fn dead_letters(
        &self,
        app: &AppId,
        stream: Stream,
        name: &SubscriptionName,
        after: Option<Cursor>,
        most: usize,
    ) -> Result<Vec<DeadLetter>, ReadError> {
        let (stream, subscription) = self.subscription(app, stream, name)?;
        Ok(dead_letters::list(&stream.log, &subscription, after, most).await?)
    }

    /// Puts dead letters back into their subscription, as new events that wait for no other. They stay on the list
    /// until they are acknowledged. Durable on return. Says how many.
    ///
    /// # Errors
    /// [`ReadError::NoSuchDeadLetter`], or [`ReadError::Expired`] when one of those named is not in the log any more:
    /// then none is put back. When there is no such subscription, or the store fails.
    pub async fn redeliver(
        &self,
        app: &AppId,
        stream: Stream,
        name: &SubscriptionName,
        which: Redeliver,
    ) -> Result<u64, ReadError> {
        let (stream, subscription) = self.subscription(app, stream, name)?;
        let giving = async move { dead_letters::redeliver(&stream.registry, &subscription, which).await };
        self.0.parts.shared.to_its_end(giving).await
    }

    /// Takes dead letters off the list: one, or all that are not being given again. Says how many.
    ///
    /// # Errors
    /// When there is no such subscription, or the store fails.
    pub async fn clear_dead_letters(
        &self,
        app: &AppId,
        stream: Stream,
        name: &SubscriptionName,
        one: Option<Cursor>,
    ) -> Result<u64, ReadError> {
        let (stream, subscription) = self.subscription(app, stream, name)?;
        let clearing = async move { dead_letters::clear(&stream.log, &subscription, one).await };
        Ok(self.0.parts.shared.to_its_end(clearing).await?)
    }

    pub(in crate::events) fn subscription(
        &self,
        app: &AppId,
        stream: Stream,
        name: &SubscriptionName,
    ) -> Result<(Arc<AppStream>, Arc<Subscription>), ReadError> {
        let stream = self.stream(app, stream)?;
        let subscription = stream.registry.get(name).ok_or(ReadError::NoSuchSubscription)?;
        Ok((stream, subscription))
    }

    /// Who reads a subscription to pass it on begins anew: what is open is opened again by its next read, by the turns
    /// it names and through its filter. Without `keeps_units` what went out as one need not do so again. Nothing waits
    /// longer than `longest`, however the clock was set meanwhile. To be called while nothing is in hand.
    pub fn reopen(&self, app: &AppId, stream: Stream, name: &SubscriptionName, keeps_units: bool, longest: Duration) {
        if let Ok((_, subscription)) = self.subscription(app, stream, name) {
            subscription.reopen(keeps_units, longest, self.0.parts.shared.clock.now());
        }
    }

    /// What is in hand under a lease goes out as one now: should nobody live to say what came of that, it goes out so
    /// again. Durable on return.
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
    /// durable. When the store fails they are in hand as before, or dead, and not durably: asking again is safe, and
    /// counts none twice.
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
        dead_letters::bury(&stream.registry, &subscription, letters, Some(lease))
            .await
            .unwrap_or_else(|error| (0, Err(error)))
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

    /// It is put among the dead letters, in the place that it stands at. Says how many letters that were, and whether
    /// it is durable. Asking again is safe, and counts none twice.
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
            let (listed, _) = subscription.listed_letters().await;
            let last = place.map_or(0, |place| place.at.0);
            let at = (1..=last).rev().find(|at| !listed.contains(at));
            at.is_some_and(|at| marker.bury(Sequence(at), letter))
        };
        (u64::from(is_buried), subscription.save(&*self.0.parts.store).await)
    }

    /// What of a subscription was tried in vain, and what can be; nothing when there is none.
    #[must_use]
    pub fn tries(&self, app: &AppId, stream: Stream, name: &SubscriptionName) -> Tries {
        let tries = |(stream, subscription): (Arc<AppStream>, Arc<Subscription>)| {
            subscription.tries(self.0.parts.shared.clock.now(), stream.log.range().end)
        };
        self.subscription(app, stream, name).map(tries).unwrap_or_default()
    }
}
