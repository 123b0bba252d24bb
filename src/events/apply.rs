//! Making streams and pollers what the configuration says, at start and at each reload.
//!
//! Invariants: what can fail comes first; if it fails, no poller was started, stopped or changed. A poller that is in
//! the old and the new configuration runs on without a pause. One that is gone finishes its read; its log stays
//! readable.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::app_stream::{AppStream, StreamLimits};
use super::ingest::poller::{self, EarlierRun, PollTarget, Settings};
use super::log::loss::Loss;
use super::subscription::registry::SubscriptionLimits;
use super::{Events, retention};
use crate::config;
use crate::events::log::Retention;
use crate::kernel::names::{RegionName, SubscriptionName};
use crate::kernel::sync::lock;
use crate::kernel::task::Kind;
use crate::store::{Error, LogKey};

/// A poller that was started.
pub(super) struct RunningPoller {
    pub(super) target: Arc<PollTarget>,
    stop: CancellationToken,
}

/// Which poller.
pub(super) type PollerKey = (LogKey, RegionName);

/// [`Events::apply`].
pub(super) async fn apply(
    events: &Events,
    apps: &[config::App],
    upstream: &config::Upstream,
    clients: &[config::Client],
) -> Result<(), Error> {
    let inner = &*events.0;
    let mut is_started = inner.is_started.lock().await;
    if !*is_started {
        inner.parts.ages.recall(&*inner.parts.store).await?;
    }
    let clients: HashSet<&str> = clients.iter().map(|client| client.name.as_str()).collect();
    let mut streams = BTreeMap::clone(&events.streams());
    for (key, app) in configured(apps) {
        let limits = StreamLimits {
            retention: Retention { age: app.events.retention, bytes: app.events.retention_bytes },
            subscriptions: SubscriptionLimits {
                ttl: app.events.subscription_ttl,
                max_per_client: app.events.max_subscriptions_per_client,
            },
        };
        let known = streams.get(&key).cloned();
        let is_new = known.is_none();
        let stream = match known {
            Some(stream) => stream,
            None => AppStream::open(key.clone(), inner.parts.clone(), limits, &clients).await?,
        };
        let dedups = app.regions.len() > 1 && !app.events.dedup_window.is_zero();
        let orders = app.regions.len() > 1 && !app.events.order_window.is_zero();
        // Waiting first: what waits from an earlier run was seen, and dedup is to know of it.
        stream.appender.set_order_window(orders.then_some(app.events.order_window), &inner.tasks).await?;
        stream.appender.set_dedup(dedups.then_some(app.events.dedup_window)).await?;
        if is_new {
            let read: Vec<_> = app.regions.iter().map(|region| &region.name).collect();
            stream.end_left_outages(&read).await?;
        }
        stream.set_limits(limits);
        streams.insert(key, stream);
    }
    for (key, stream) in &streams {
        stream.registry.set_webhooks(&readers_for_webhooks(apps, key));
    }
    inner.streams.store(Arc::new(streams));
    apply_pollers(events, apps, upstream, !*is_started);
    if !std::mem::replace(&mut *is_started, true) {
        let (stop, shared) = (inner.tasks.stopping(), &inner.parts.shared);
        inner.tasks.spawn(Kind::StoreWriter, shared.saver.clone().run(stop.clone()));
        inner.tasks.spawn(Kind::Leases, shared.timer.clone().run(stop.clone()));
        inner.tasks.spawn(Kind::Retention, retention::run(events.clone(), stop));
    }
    Ok(())
}

fn apply_pollers(events: &Events, apps: &[config::App], upstream: &config::Upstream, at_start: bool) {
    let streams = events.streams();
    let mut pollers = lock(&events.0.pollers);
    let mut before = std::mem::take(&mut *pollers);
    for (key, app) in configured(apps) {
        let Some(stream) = streams.get(&key) else { continue };
        let settings = Settings::new(&app.events, upstream);
        for region in &app.regions {
            let poller_key = (key.clone(), region.name.clone());
            let poller = match before.remove(&poller_key) {
                Some(poller) => {
                    poller.target.adjust(settings);
                    poller
                }
                None => start(events, stream, &region.name, settings, at_start),
            };
            pollers.insert(poller_key, poller);
        }
    }
    before.into_values().for_each(|gone| gone.stop.cancel());
}

fn start(
    events: &Events,
    stream: &Arc<AppStream>,
    region: &RegionName,
    settings: Settings,
    at_start: bool,
) -> RunningPoller {
    let inner = &*events.0;
    let (source, pending_writes) = (Arc::clone(&inner.source), Arc::clone(&inner.pending_writes));
    let target = PollTarget::new(Arc::clone(stream), region.clone(), source, settings, pending_writes);
    let (stop, store) = (inner.tasks.stopping().child_token(), &inner.parts.store);
    // Also in a log that holds nothing: its very first read may have been under way.
    let unclean = at_start && !store.is_new() && store.last_clean_stop().is_none();
    let stopped = store.last_clean_stop().filter(|_| at_start);
    let earlier = EarlierRun { stopped, doubt: unclean.then_some(Loss::UncleanStop) };
    inner.tasks.spawn(Kind::Poller, poller::run(Arc::clone(&target), earlier, stop.clone()));
    RunningPoller { target, stop }
}

/// The subscriptions of the webhooks that are configured to read a stream.
fn readers_for_webhooks(apps: &[config::App], key: &LogKey) -> HashSet<SubscriptionName> {
    let webhooks = apps.iter().filter(|app| app.id == key.app).flat_map(|app| &app.webhooks);
    let reading = webhooks.filter(|webhook| webhook.streams.contains(&key.stream));
    reading.map(|webhook| SubscriptionName::from(&webhook.name)).collect()
}

/// Every configured stream, with its app.
fn configured(apps: &[config::App]) -> impl Iterator<Item = (LogKey, &config::App)> {
    apps.iter()
        .flat_map(|app| app.events.streams.iter().map(move |&stream| (LogKey { app: app.id.clone(), stream }, app)))
}
