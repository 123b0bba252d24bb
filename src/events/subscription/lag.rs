//! How far behind subscriptions are, and who of them retention is about to cut off: looked at every few seconds.
//!
//! Invariants: a warning is logged once when a subscription comes near what retention removes, and once more only after
//! it got away from it. How many bytes lie before a subscription is estimated from how many entries do.

mod cut_off;
mod rate;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub(super) use self::rate::Rate;

use self::cut_off::{CutOff, Unread};
use super::Subscription;
use super::registry::Registry;
use crate::events::log::{Log, Retention};
use crate::kernel::clock::UnixMillis;
use crate::kernel::sync::lock;
use crate::store::{Batch, Error, LogKey, Sequence};

/// What the admin API shows of a subscription.
#[derive(Clone, Debug, serde::Serialize)]
pub struct SubscriptionStatus {
    pub app: String,
    pub stream: &'static str,
    pub subscription: String,
    pub client: Option<String>,
    pub cursor: String,
    pub lag: u64,
    pub undelivered: u64,
    pub unacknowledged: u64,
    pub in_flight: u64,
    pub dead_letters: u64,
    pub oldest_event_age_seconds: Option<f64>,
    pub delivered_per_second: f64,
    /// Events that are settled in a second, in the last half to whole minute: delivered, acknowledged or passed over by
    /// a filter. `None`: it was not looked at for long enough.
    pub read_per_second: Option<f64>,
    /// Entries that come to the stream in a second, likewise. One that reads slower falls behind.
    pub arriving_per_second: Option<f64>,
    pub near_retention: Option<&'static str>,
    /// When retention takes the oldest event that is not read, if it reads no further: a forecast. `None`: all is
    /// read, or it is not known when that event came.
    pub cut_off_at: Option<String>,
    pub seconds_to_cut_off: Option<f64>,
    /// By which limit: `retention` or `retention_bytes`.
    pub cut_off_by: Option<&'static str>,
    /// Events that retention took before they were read, ever.
    pub lost: u64,
    /// Reads that go on now.
    pub readers: u32,
    pub last_read_at: String,
    /// Whether it is the place of a webhook that is not configured any more: nobody reads it, and no alarm rings for
    /// it. It goes on should the webhook come back, or can be removed.
    pub orphan: bool,
}

/// What was last seen of a subscription.
#[derive(Debug, Default)]
pub(in crate::events) struct LagSample {
    /// The first entry that was not settled, and when it came.
    oldest: Option<(Sequence, UnixMillis)>,
    delivered: Option<(Instant, u64)>,
    per_second: f64,
    near: Option<RetentionLimit>,
    /// Of what is settled.
    read: Rate,
    /// When the oldest is taken, and by which limit.
    cut_off: Option<(UnixMillis, RetentionLimit)>,
}

/// By which limit retention is about to remove what a subscription has not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::events) enum RetentionLimit {
    Age,
    Bytes,
}

impl RetentionLimit {
    fn as_str(self) -> &'static str {
        match self {
            Self::Age => "retention",
            Self::Bytes => "retention_bytes",
        }
    }

    /// Whether less than a tenth of a limit is left.
    fn of(age: Duration, bytes: u64, keeps: Retention) -> Option<Self> {
        if age.as_secs_f64() >= keeps.age.as_secs_f64() * 0.9 {
            return Some(Self::Age);
        }
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let is_near = bytes as f64 >= keeps.bytes as f64 * 0.9;
        is_near.then_some(Self::Bytes)
    }
}

/// Where each subscription of a stream stands, by name.
pub(in crate::events) fn statuses(registry: &Registry) -> Vec<SubscriptionStatus> {
    let (now, next) = (registry.shared.clock.wall_ms(), registry.log.range().end);
    let mut subscriptions = registry.all();
    subscriptions.sort_by(|a, b| a.name().cmp(b.name()));
    let arriving = lock(&registry.arriving).per_second();
    subscriptions.iter().map(|subscription| status(&registry.log, subscription, (next, arriving), now)).collect()
}

/// Where one of them stands.
pub(in crate::events) fn status_of(registry: &Registry, subscription: &Arc<Subscription>) -> SubscriptionStatus {
    let arriving = lock(&registry.arriving).per_second();
    let next = registry.log.range().end;
    status(&registry.log, subscription, (next, arriving), registry.shared.clock.wall_ms())
}

fn status(
    log: &Log,
    subscription: &Arc<Subscription>,
    (next, arriving): (Sequence, Option<f64>),
    now: UnixMillis,
) -> SubscriptionStatus {
    let standing = subscription.observe(next);
    let seen = lock(&subscription.seen);
    let oldest = seen.oldest.filter(|&(first, _)| first == standing.low.next());
    let cut_off = seen.cut_off.filter(|_| oldest.is_some());
    SubscriptionStatus {
        app: log.key().app.to_string(),
        stream: log.key().stream.as_str(),
        subscription: subscription.name().to_string(),
        client: subscription.by().map(ToString::to_string),
        cursor: log.cursor(standing.low).to_string(),
        lag: standing.lag,
        undelivered: standing.lag.saturating_sub(standing.unacknowledged),
        unacknowledged: standing.unacknowledged,
        in_flight: standing.in_flight,
        dead_letters: subscription.letters() as u64,
        oldest_event_age_seconds: oldest.map(|(_, at)| now.since(at).as_secs_f64()),
        delivered_per_second: seen.per_second,
        read_per_second: seen.read.per_second(),
        arriving_per_second: arriving,
        near_retention: seen.near.map(RetentionLimit::as_str),
        cut_off_at: cut_off.map(|(at, _)| at.to_string()),
        seconds_to_cut_off: cut_off.map(|(at, _)| at.since(now).as_secs_f64()),
        cut_off_by: cut_off.map(|(_, by)| by.as_str()),
        lost: subscription.lost(),
        readers: subscription.readers(),
        last_read_at: subscription.read_at().to_string(),
        orphan: subscription.is_orphan(),
    }
}

/// Looks at each subscription: how old its oldest event is, how fast it is read, whether it is about to be cut off.
///
/// # Errors
/// When the store fails.
pub(in crate::events) async fn look_at_subscriptions(registry: &Registry, keeps: Retention) -> Result<(), Error> {
    let (next, now) = (registry.log.range().end, registry.shared.clock.now());
    lock(&registry.arriving).sample(now, next.0);
    for Oldest { subscription, age, near } in look_at_oldest(registry, keeps).await? {
        let settled = next.0.saturating_sub(subscription.observe(next).lag).saturating_sub(subscription.lost());
        lock(&subscription.seen).read.sample(now, settled);
        note(registry, &subscription, age, near);
    }
    Ok(())
}

/// The oldest event that a subscription has not read.
pub(in crate::events) struct Oldest {
    subscription: Arc<Subscription>,
    age: Duration,
    /// The limit that is about to take it.
    near: Option<RetentionLimit>,
}

/// Looks how old each subscription's oldest event is and when retention takes it: for whoever is to be told how it is
/// now. One that is read has another by every read.
///
/// # Errors
/// When the store fails.
pub(in crate::events) async fn look_at_oldest(registry: &Registry, keeps: Retention) -> Result<Vec<Oldest>, Error> {
    let (log, clock) = (&registry.log, &registry.shared.clock);
    let bytes = log.store().log_state(log.key()).await?.bytes;
    let mut batch: Option<Arc<Batch>> = None;
    let mut subscriptions = registry.all();
    let Range { start: earliest, end: next } = log.range();
    let arriving = lock(&registry.arriving).per_second();
    #[expect(clippy::cast_precision_loss, reason = "a forecast")]
    let growth = arriving.map(|entries| entries * bytes as f64 / next.since(earliest).max(1) as f64);
    // In order of their places, so that those that stand in one batch share it.
    subscriptions.sort_by_cached_key(|subscription| subscription.observe(next).low);
    let mut looked = Vec::with_capacity(subscriptions.len());
    for subscription in subscriptions {
        let first = subscription.observe(next).low.next();
        let known = lock(&subscription.seen).oldest;
        let oldest = match known {
            _ if first >= next => None,
            Some((at, received)) if at == first => Some((at, received)),
            _ => received_at(log, first, &mut batch).await?.map(|received| (first, received)),
        };
        let age = oldest.map(|(_, received)| clock.wall_ms().since(received)).unwrap_or_default();
        let share = next.since(first.max(earliest));
        let before = (u128::from(bytes) * u128::from(share) / u128::from(next.since(earliest).max(1))) as u64;
        let near = oldest.and_then(|_| RetentionLimit::of(age, before, keeps)).filter(|_| !subscription.is_orphan());
        let cut_off = oldest.map(|(_, received)| {
            // As retention judges it, which does not believe every clock.
            let believed = registry.ages.age(received, keeps.age);
            let CutOff { after, by } = CutOff::of(Unread { age: believed, bytes: before, growth }, keeps);
            (clock.wall_ms().after(after), by)
        });
        let mut seen = lock(&subscription.seen);
        (seen.oldest, seen.cut_off) = (oldest, cut_off);
        drop(seen);
        looked.push(Oldest { subscription, age, near });
    }
    Ok(looked)
}

fn note(registry: &Registry, of: &Arc<Subscription>, age: Duration, near: Option<RetentionLimit>) {
    let (now, delivered) = (registry.shared.clock.now(), of.meters.delivered.get());
    let mut seen = lock(&of.seen);
    if let Some((at, before)) = seen.delivered.replace((now, delivered)) {
        let seconds = (now - at).as_secs_f64();
        if seconds > 0.0 {
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            let rate = (delivered - before) as f64 / seconds;
            seen.per_second = (seen.per_second + rate) / 2.0;
        }
    }
    if let (None, Some(near)) = (seen.near, near) {
        let (LogKey { app, stream }, subscription) = (registry.log.key(), of.name());
        let age_seconds = age.as_secs();
        let limit = near.as_str();
        tracing::warn!(%app, %stream, %subscription, age_seconds, limit, "retention is about to remove unread events");
    }
    seen.near = near;
    drop(seen);
    if !of.is_removed() {
        let age = if of.is_orphan() { Duration::ZERO } else { age };
        of.meters.oldest.set(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        of.meters.near_retention.set(i64::from(near.is_some()));
    }
}

/// When an entry came; `None` when it is gone. `near` is the batch that was looked at last.
async fn received_at(log: &Log, at: Sequence, near: &mut Option<Arc<Batch>>) -> Result<Option<UnixMillis>, Error> {
    let holds = |batch: &Arc<Batch>| batch.first <= at && at <= batch.last();
    if !near.as_ref().is_some_and(holds) {
        let found = log.batches(&(at..at.next())).await?;
        *near = found.into_iter().next();
    }
    Ok(near.as_ref().filter(|batch| holds(batch)).map(|batch| batch.received_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_either_limit_is_near() {
        let keeps = Retention { age: Duration::from_secs(100), bytes: 1000 };
        for (age, bytes, near) in [
            (89, 899, None),
            (90, 0, Some(RetentionLimit::Age)),
            (0, 900, Some(RetentionLimit::Bytes)),
            (500, 5000, Some(RetentionLimit::Age)),
        ] {
            assert_eq!(RetentionLimit::of(Duration::from_secs(age), bytes, keeps), near, "{age} {bytes}");
        }
    }
}
