//! Housekeeping: trims logs to what is to be kept, removes subscriptions that nobody reads, forgets what is remembered
//! only for a while, and renews the metrics that move without anyone's doing.
//!
//! Invariants: a log that cannot be trimmed does not keep others from it; it is tried again next time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Events;
use super::log::age_guard::KEPT_EVERY;
use super::subscription::dead_letters::bury_given_up;
use super::subscription::lag::look_at_subscriptions;
use crate::store::LogKey;

/// How often logs are trimmed.
pub(super) const TRIMMED_EVERY: Duration = Duration::from_secs(30);

/// How often lags and times left are renewed.
const OBSERVED_EVERY: Duration = Duration::from_secs(5);

/// Keeps house until stopped.
pub(super) async fn run(events: Events, stop: CancellationToken) {
    let mut trim = tokio::time::interval(TRIMMED_EVERY);
    let mut observe = tokio::time::interval_at(events.0.parts.shared.clock.now() + OBSERVED_EVERY, OBSERVED_EVERY);
    trim.set_missed_tick_behavior(MissedTickBehavior::Delay);
    observe.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut keep = tokio::time::interval(KEPT_EVERY);
    keep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = trim.tick() => {
                if stop.run_until_cancelled(trim_all(&events)).await.is_none() {
                    return;
                }
                // Also at the start, so that there are figures from then on.
                if stop.run_until_cancelled(events.look_at_space()).await.is_none() {
                    return;
                }
            }
            _ = observe.tick() => {
                events.observe();
                if stop.run_until_cancelled(look_after_subscriptions(&events)).await.is_none() {
                    return;
                }
                if stop.run_until_cancelled(events.look_at_space()).await.is_none() {
                    return;
                }
                if events.0.parts.ages.has_news() {
                    keep_ages(&events, &stop).await;
                }
                if let Some(Err(error)) = stop.run_until_cancelled(events.save_dropped_copies()).await {
                    tracing::warn!(%error, "what was dropped as another region's copy could not be kept");
                }
            }
            _ = keep.tick() => {
                keep_ages(&events, &stop).await;
                if let Some(Err(error)) = stop.run_until_cancelled(events.keep_owners()).await {
                    tracing::warn!(%error, "when subscriptions were read could not be kept");
                }
            }
        }
    }
}

/// Keeps what was seen of the clock.
async fn keep_ages(events: &Events, stop: &CancellationToken) {
    let parts = &events.0.parts;
    if let Some(Err(error)) = stop.run_until_cancelled(parts.ages.keep(&*parts.store)).await {
        tracing::warn!(%error, "what was seen of the clock could not be kept");
    }
}

async fn trim_all(events: &Events) {
    for stream in events.streams().values().map(Arc::clone) {
        stream.try_to_trim().await;
        if let Err(error) = stream.registry.remove_idle().await {
            let LogKey { app, stream } = stream.log.key();
            tracing::warn!(%app, %stream, %error, "idle subscriptions could not be removed");
        }
        stream.appender.forget_sightings().await;
    }
}

/// Looks how far behind subscriptions are, and buries what was given up in those that nobody reads.
async fn look_after_subscriptions(events: &Events) {
    for stream in events.streams().values().map(Arc::clone) {
        let mut looked = look_at_subscriptions(&stream.registry, stream.retention()).await;
        for subscription in stream.registry.all() {
            looked = looked.and(bury_given_up(&stream.registry, &subscription).await);
        }
        if let Err(error) = looked {
            let LogKey { app, stream } = stream.log.key();
            tracing::warn!(%app, %stream, %error, "subscriptions could not be looked after");
        }
    }
}
