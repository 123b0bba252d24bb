//! How far behind subscriptions are, and who of them retention is about to cut off: looked at every few seconds.
//!
//! Invariants: a warning is logged once when a subscription comes near what retention removes, and once more only after
//! it got away from it. How many bytes lie before a subscription is estimated from how many entries do.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

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
    pub near_retention: Option<&'static str>,
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
    subscriptions.iter().map(|subscription| status(&registry.log, subscription, next, now)).collect()
}

fn status(log: &Log, subscription: &Arc<Subscription>, next: Sequence, now: UnixMillis) -> SubscriptionStatus {
    let standing = subscription.observe(next);
    let seen = lock(&subscription.seen);
    let oldest = seen.oldest.filter(|&(first, _)| first == standing.low.next());
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
        near_retention: seen.near.map(RetentionLimit::as_str),
        last_read_at: subscription.read_at().to_string(),
        orphan: subscription.is_orphan(),
    }
}

/// Looks at each subscription: how old its oldest event is, how fast it is read, whether it is about to be cut off.
///
/// # Errors
/// When the store fails.
pub(in crate::events) async fn look_at_subscriptions(registry: &Registry, keeps: Retention) -> Result<(), Error> {
    let (log, clock) = (&registry.log, &registry.shared.clock);
    let bytes = log.store().log_state(log.key()).await?.bytes;
    let mut batch: Option<Arc<Batch>> = None;
    let mut subscriptions = registry.all();
    let Range { start: earliest, end: next } = log.range();
    // In order of their places, so that those that stand in one batch share it.
    subscriptions.sort_by_cached_key(|subscription| subscription.observe(next).low);
    for subscription in &subscriptions {
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
        note(registry, subscription, oldest, age, near);
    }
    Ok(())
}

fn note(
    registry: &Registry,
    of: &Arc<Subscription>,
    oldest: Option<(Sequence, UnixMillis)>,
    age: Duration,
    near: Option<RetentionLimit>,
) {
    let (now, delivered) = (registry.shared.clock.now(), of.meters.delivered.get());
    let mut seen = lock(&of.seen);
    seen.oldest = oldest;
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
