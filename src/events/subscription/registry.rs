//! [`Registry`]: the subscriptions of one log: how many there may be, whose they are, and their beginning and end.
//!
//! Invariants: a subscription is stored before it is used. No client can make all that there may be: what is left is
//! shared ([`share`]); webhooks' count for nobody. One that is removed is gone from the store first; a name that comes
//! again begins anew, and its reader is told of what was unread.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lag::Rate;
use super::notes::{Remainders, SubscriptionRecords};
use super::persistence::RemovalOutcome;
use super::{Removal, Shared, Subscription, defaults, records};
use crate::events::log::age_guard::AgeGuard;
use crate::events::log::{LOG_TARGET, Log, ReadError, Run, StartAt};
use crate::kernel::names::{ClientName, SubscriptionName};
use crate::kernel::share;
use crate::kernel::sync::lock;
use crate::store::{Batch, Error, Sequence};

/// The most subscriptions of one log: each costs a stored cursor, some memory and a few metrics.
pub(in crate::events) const MAX_SUBSCRIPTIONS: usize = 10_000;

/// The subscriptions of one log.
pub(in crate::events) struct Registry {
    pub(super) log: Arc<Log>,
    pub(super) shared: Arc<Shared>,
    pub(super) ages: Arc<AgeGuard>,
    /// How fast entries come to the log.
    pub(super) arriving: Mutex<Rate>,
    limits: Mutex<SubscriptionLimits>,
    subscriptions: Mutex<HashMap<SubscriptionName, Arc<Subscription>>>,
    /// What is left of those that are no more.
    remainders: Mutex<Remainders>,
    /// How many subscriptions each client has, as far as is known.
    per_client: Mutex<HashMap<ClientName, usize>>,
}

/// How many subscriptions there may be, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::events) struct SubscriptionLimits {
    /// One that nobody reads for so long is removed; never when zero.
    pub(in crate::events) ttl: Duration,
    pub(in crate::events) max_per_client: usize,
}

impl Registry {
    /// The subscriptions that the store has of a log. `clients` are the names of those whose own may be there.
    ///
    /// # Errors
    /// When the store fails.
    pub(in crate::events) async fn open(
        log: Arc<Log>,
        shared: Arc<Shared>,
        ages: Arc<AgeGuard>,
        limits: SubscriptionLimits,
        clients: &HashSet<&str>,
    ) -> Result<Arc<Self>, Error> {
        let (range, now) = (log.range(), (shared.clock.wall_ms(), shared.clock.now()));
        let last = range.end.previous();
        let (mut recorded, remainders) = records::recall(log.store(), log.key(), last.0, now).await?;
        defaults::give(log.store(), log.key(), &mut recorded, clients).await?;
        let mut per_client = HashMap::new();
        let subscription = |(name, mut records): (SubscriptionName, SubscriptionRecords)| {
            records.at = records.at.min(last.0);
            records.end = last.0;
            if let Some(by) = &records.owner.by {
                *per_client.entry(by.clone()).or_default() += 1;
            }
            let subscription = Subscription::new(name.clone(), log.key(), records, &shared);
            subscription.cut(range.start);
            (name, subscription)
        };
        let subscriptions = Mutex::new(recorded.into_iter().map(subscription).collect());
        let (remainders, per_client) = (Mutex::new(remainders), Mutex::new(per_client));
        let (limits, arriving) = (Mutex::new(limits), Mutex::default());
        Ok(Arc::new(Self { log, shared, ages, arriving, limits, subscriptions, remainders, per_client }))
    }

    /// Changes how many there may be, from the next on that begins.
    pub(in crate::events) fn set_limits(&self, limits: SubscriptionLimits) {
        *lock(&self.limits) = limits;
    }

    /// Only these webhooks are configured to read the stream: of others, what is left is nobody's.
    pub(in crate::events) fn set_webhooks(&self, webhooks: &HashSet<SubscriptionName>) {
        for subscription in self.all() {
            let name = subscription.name();
            subscription.set_orphan(name.is_of_webhook() && !webhooks.contains(name));
        }
    }

    fn limits(&self) -> SubscriptionLimits {
        *lock(&self.limits)
    }

    pub(in crate::events) fn all(&self) -> Vec<Arc<Subscription>> {
        lock(&self.subscriptions).values().cloned().collect()
    }

    /// The subscription of that name, if there is one.
    pub(in crate::events) fn get(&self, name: &SubscriptionName) -> Option<Arc<Subscription>> {
        lock(&self.subscriptions).get(name).cloned()
    }

    /// The subscription of that name; a new one begins at `from` and is stored before it is used.
    ///
    /// # Errors
    /// When the store fails, or there are too many, or too many of this client's.
    pub(in crate::events) async fn get_or_begin(
        &self,
        name: &SubscriptionName,
        from: StartAt,
        by: &ClientName,
        by_stream: bool,
    ) -> Result<Arc<Subscription>, ReadError> {
        let subscription = match self.get(name) {
            Some(subscription) => subscription,
            None => {
                // In a box, as what is stored below: it is done once, and who waits should not hold room for it.
                let at = Box::pin(self.log.place(from)).await?;
                self.begin(name, at, by, by_stream)?
            }
        };
        subscription.make_durable(self.log.store()).await?;
        Ok(subscription)
    }

    fn begin(
        &self,
        name: &SubscriptionName,
        at: Sequence,
        by: &ClientName,
        by_stream: bool,
    ) -> Result<Arc<Subscription>, ReadError> {
        let mut all = lock(&self.subscriptions);
        // Another reader may have made it meanwhile: then its place counts.
        if !all.contains_key(name) && !name.is_of_webhook() {
            let most = self.limits().max_per_client;
            let mut per_client = lock(&self.per_client);
            let has = per_client.entry(by.clone()).or_default();
            if *has >= most {
                return Err(ReadError::TooManyOfClient { most });
            }
            if !share::may_take(1, *has, all.len(), MAX_SUBSCRIPTIONS) {
                return Err(ReadError::TooManySubscriptions);
            }
            *has += 1;
        }
        let by = (!name.is_of_webhook()).then(|| by.clone());
        let make = || {
            let clock = &self.shared.clock;
            let mut records = SubscriptionRecords::begun(at.0, by, clock.wall_ms(), clock.now());
            lock(&self.remainders).come_again(name, by_stream, &mut records);
            Subscription::new(name.clone(), self.log.key(), records, &self.shared)
        };
        Ok(Arc::clone(all.entry(name.clone()).or_insert_with(make)))
    }

    /// Removes the subscriptions that nobody has read for so long as they may be idle; webhooks' never.
    ///
    /// # Errors
    /// When the store fails.
    pub(in crate::events) async fn remove_idle(self: &Arc<Self>) -> Result<(), Error> {
        let ttl = self.limits().ttl;
        if ttl.is_zero() {
            return Ok(());
        }
        let older_than = self.ages.older_than(ttl);
        for subscription in self.all() {
            let is_idle = !subscription.name().is_of_webhook() && subscription.read_at() < older_than;
            let leaves_note = lock(&self.remainders).len() < MAX_SUBSCRIPTIONS;
            if is_idle
                && let Some(unread) = self.remove(Arc::clone(&subscription), Removal::Idle { leaves_note }).await?
            {
                self.tell_of_removal(subscription.name(), unread);
            }
        }
        Ok(())
    }

    fn tell_of_removal(&self, name: &SubscriptionName, unread: u64) {
        let (app, stream) = (&self.log.key().app, self.log.key().stream);
        match unread {
            0 => {
                tracing::info!(target: LOG_TARGET, %app, %stream, subscription = %name, "removed: nobody has read it for subscription_ttl");
            }
            _ => {
                tracing::warn!(target: LOG_TARGET, %app, %stream, subscription = %name, unread, "removed, with unread events: nobody has read it for subscription_ttl");
            }
        }
    }

    /// Removes a subscription. Says how many entries it had not read that somebody may miss; `None` when that was not
    /// done.
    ///
    /// # Errors
    /// When the store fails.
    pub(in crate::events) async fn remove(
        self: &Arc<Self>,
        subscription: Arc<Subscription>,
        why: Removal,
    ) -> Result<Option<u64>, Error> {
        let registry = Arc::clone(self);
        let removing = async move {
            let Self { log, remainders, subscriptions, per_client, .. } = &*registry;
            let removed = subscription.remove(log.store(), log.range().end, why).await?;
            let Some(RemovalOutcome { remainder, stored }) = removed else { return Ok(None) };
            lock(remainders).add(subscription.name(), &remainder);
            lock(subscriptions).remove(subscription.name());
            let mut per_client = lock(per_client);
            if let Some(has) = subscription.by().and_then(|by| per_client.get_mut(by)) {
                *has = has.saturating_sub(1);
            }
            stored.map(|()| Some(remainder.unread))
        };
        self.shared.to_its_end(removing).await
    }

    /// [`Log::collect`]. Readers are told of what is gone.
    ///
    /// # Errors
    /// When the store fails.
    pub(in crate::events) async fn collect(
        &self,
        entries: &[Sequence],
        near: Vec<Arc<Batch>>,
    ) -> Result<(Vec<Run>, Vec<Sequence>), Error> {
        let (runs, gone) = self.log.collect(entries, near).await?;
        if !gone.is_empty() {
            self.trimmed(self.log.stored_beginning().await?);
        }
        Ok((runs, gone))
    }

    /// All before `earliest` is gone from the store: readers are told of what they were not given.
    pub(in crate::events) fn trimmed(&self, earliest: Sequence) {
        // First the log: who claims entries from now on claims none of them.
        if self.log.trimmed(earliest) {
            self.all().iter().for_each(|subscription| subscription.cut(earliest));
        }
    }
}
