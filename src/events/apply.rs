//! Making pollers and logs what the configuration says, at start and at each reload.
//!
//! Invariants: what can fail comes first; if it fails, no poller was started, stopped or changed. A poller that is in the
//! old and the new configuration runs on without a pause. One that is gone finishes its read; its log stays readable.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::ingest::poller::{self, PollTarget, Settings};
use super::log::loss::Loss;
use super::log::{Log, Retention};
use super::{Events, lock, retention};
use crate::config;
use crate::kernel::names::RegionName;
use crate::kernel::task::Kind;
use crate::store::{Error, LogKey};

/// A poller that was started.
pub(super) struct Running {
    pub(super) feed: Arc<PollTarget>,
    stop: CancellationToken,
}

/// Which poller.
pub(super) type FeedKey = (LogKey, RegionName);

impl Events {
    /// Starts, stops and adjusts pollers and logs. `clients` are those whose places may be there.
    ///
    /// # Errors
    /// When the store fails; then no poller has changed.
    pub async fn apply(
        &self,
        apps: &[config::App],
        upstream: &config::Upstream,
        clients: &[config::Client],
    ) -> Result<(), Error> {
        let mut is_started = self.0.is_started.lock().await;
        if !*is_started {
            self.0.witness.recall(&*self.0.store).await?;
        }
        let mut logs = BTreeMap::clone(&self.logs());
        for (key, app) in streams(apps) {
            let retention = Retention {
                age: app.events.retention,
                bytes: app.events.retention_bytes,
                subscription_ttl: app.events.subscription_ttl,
                most_of_client: app.events.max_subscriptions_per_client,
            };
            let log = match logs.get(&key) {
                Some(log) => Arc::clone(log),
                None => self.open(&key, retention, clients).await?,
            };
            let dedups = app.regions.len() > 1 && !app.events.dedup_window.is_zero();
            let orders = app.regions.len() > 1 && !app.events.order_window.is_zero();
            log.set_order_window(orders.then_some(app.events.order_window), &self.0.tasks).await?;
            log.set_dedup(dedups.then_some(app.events.dedup_window)).await?;
            log.set_retention(retention);
            logs.insert(key, log);
        }
        self.0.logs.store(Arc::new(logs));
        self.apply_feeds(apps, upstream, !*is_started);
        if !std::mem::replace(&mut *is_started, true) {
            let stop = self.0.tasks.stopping();
            self.0.tasks.spawn(Kind::StoreWriter, self.0.shared.saver.clone().run(stop.clone()));
            self.0.tasks.spawn(Kind::Leases, self.0.shared.timer.clone().run(stop.clone()));
            self.0.tasks.spawn(Kind::Retention, retention::run(self.clone(), stop));
        }
        Ok(())
    }

    async fn open(&self, key: &LogKey, retention: Retention, clients: &[config::Client]) -> Result<Arc<Log>, Error> {
        let events = &self.0;
        let (store, witness) = (Arc::clone(&events.store), Arc::clone(&events.witness));
        let clients: HashSet<&str> = clients.iter().map(|client| client.name.as_str()).collect();
        Log::open(key.clone(), store, witness, Arc::clone(&events.shared), retention, &clients).await
    }

    fn apply_feeds(&self, apps: &[config::App], upstream: &config::Upstream, at_start: bool) {
        let logs = self.logs();
        let mut running = lock(&self.0.feeds);
        let mut before = std::mem::take(&mut *running);
        for (key, app) in streams(apps) {
            let Some(log) = logs.get(&key) else { continue };
            let settings = Settings::new(&app.events, upstream);
            for region in &app.regions {
                let feed_key = (key.clone(), region.name.clone());
                let feed = match before.remove(&feed_key) {
                    Some(feed) => {
                        feed.feed.adjust(settings);
                        feed
                    }
                    None => self.start(log, &region.name, settings, at_start),
                };
                running.insert(feed_key, feed);
            }
        }
        before.into_values().for_each(|gone| gone.stop.cancel());
    }

    fn start(&self, log: &Arc<Log>, region: &RegionName, settings: Settings, at_start: bool) -> Running {
        let events = &self.0;
        let feed = PollTarget::new(
            (Arc::clone(log), region.clone()),
            Arc::clone(&events.source),
            (events.clock.clone(), events.tasks.clone(), events.metrics.clone()),
            settings,
            Arc::clone(&events.leftovers),
        );
        let stop = events.tasks.stopping().child_token();
        // Also in a log that holds nothing: its very first read may have been under way.
        let unclean = at_start && !events.store.is_new() && events.store.last_clean_stop().is_none();
        let first = unclean.then_some(Loss::UncleanStop);
        events.tasks.spawn(Kind::Poller, poller::run(Arc::clone(&feed), first, stop.clone()));
        Running { feed, stop }
    }
}

/// Every configured stream, with its app.
fn streams(apps: &[config::App]) -> impl Iterator<Item = (LogKey, &config::App)> {
    apps.iter()
        .flat_map(|app| app.events.streams.iter().map(move |&stream| (LogKey { app: app.id.clone(), stream }, app)))
}
