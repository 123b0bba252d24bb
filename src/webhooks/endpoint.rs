//! An [`Endpoint`]: what the task of one webhook holds from its first configuration to the gateway's stop.
//!
//! Invariants: it alone reads the webhook's subscriptions, and changes its condition. A change of the configuration
//! lets tries under way end, then goes on by the new one, from where it was. Nobody else waits for it.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::condition::StoredCondition;
use super::outcome::Outcome;
use super::status::LoopStatus;
use super::target::Target;
use crate::events::Events;
use crate::kernel::clock::Clock;
use crate::kernel::metrics::{Metrics, WebhookLabels, WebhookOutcomeLabels, from_the_start};
use crate::kernel::names::{AppId, WebhookName};
use crate::store::{Error, Store};

/// What every endpoint uses. Cheap to clone.
#[derive(Clone)]
pub(super) struct Deps {
    pub(super) store: Arc<dyn Store>,
    pub(super) events: Events,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
}

pub(super) struct Endpoint {
    pub(super) app: AppId,
    pub(super) name: WebhookName,
    pub(super) deps: Deps,
    /// What it is to be; `None` when it is not configured any more.
    pub(super) targets: watch::Receiver<Option<Arc<Target>>>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) status: Arc<Mutex<LoopStatus>>,
    /// Its condition, from when it is known.
    pub(super) condition: Arc<OnceLock<Arc<StoredCondition>>>,
    /// What waits for its time is to wait no longer, when it delivers again.
    pub(super) is_hurried: bool,
}

/// What an operator wants.
pub(super) enum Command {
    /// And whom to tell when it is so and on stable storage.
    Switch(Switch, oneshot::Sender<Result<(), Error>>),
    /// To try at once what waits, and whom to tell what comes of that.
    Try(oneshot::Sender<TryNow>),
}

/// Whether a webhook is sent anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Switch {
    Enable,
    Disable,
}

/// What follows from an operator's word to try at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryNow {
    /// What waits is tried, as soon as these requests that are under way have ended.
    Trying {
        /// Requests under way.
        in_flight: usize,
    },
    /// Nothing waits for its time, and these requests are under way.
    UnderWay {
        /// Requests under way.
        in_flight: usize,
    },
    /// All that there is was delivered, or is among the dead letters.
    NothingWaits,
    /// It is disabled, so nothing is sent.
    Disabled,
}

/// Why delivering ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoopEnd {
    Stopping,
    /// There is another configuration, or the webhook was enabled or disabled.
    Changed,
}

/// Waits before a store that failed is asked again.
pub(super) const AFTER_FAILURE: Duration = Duration::from_secs(1);

impl Endpoint {
    /// Has all that may come of it counted from 0 on.
    pub(super) fn count_from_the_start(&self) {
        let (metrics, WebhookLabels { app, webhook }) = (&self.deps.metrics, self.labels());
        from_the_start(&metrics.webhook_delivered, [self.labels()]);
        from_the_start(&metrics.webhook_dead_letters, [self.labels()]);
        let attempt = |outcome: &str| WebhookOutcomeLabels {
            app: app.clone(),
            webhook: webhook.clone(),
            outcome: outcome.to_owned(),
        };
        from_the_start(&metrics.webhook_attempts, Outcome::LABELS.map(attempt));
    }

    /// Takes away what would stand still.
    pub(super) fn forget_metrics(&self) {
        let labels = self.labels();
        self.deps.metrics.webhook_disabled.remove(&labels);
        self.deps.metrics.webhook_in_flight.remove(&labels);
    }

    pub(super) fn labels(&self) -> WebhookLabels {
        WebhookLabels { app: self.app.to_string(), webhook: self.name.to_string() }
    }

    /// Whether nothing is sent; says so on the metrics.
    pub(super) fn is_disabled(&self, condition: &StoredCondition) -> bool {
        let is_disabled = condition.get().disabled.is_some();
        self.deps.metrics.webhook_disabled.get_or_create(&self.labels()).set(i64::from(is_disabled));
        is_disabled
    }

    /// Reads its condition, for as long as it takes.
    pub(super) async fn recall(&self) -> Arc<StoredCondition> {
        loop {
            match StoredCondition::recall(Arc::clone(&self.deps.store), &self.app, &self.name).await {
                Ok(condition) => return condition,
                Err(error) => {
                    tracing::warn!(app = %self.app, webhook = %self.name, %error, "a webhook's condition cannot be read");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Does nothing until it is configured again. An operator's word that came just before is not kept until then: who
    /// gave it hears that there is no such webhook.
    pub(super) async fn stay_away(&mut self, stop: &CancellationToken) -> LoopEnd {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return LoopEnd::Stopping,
                changed = self.targets.changed() => {
                    return if changed.is_ok() { LoopEnd::Changed } else { LoopEnd::Stopping };
                }
                command = self.commands.recv() => match command {
                    Some(command) => drop(command),
                    None => return LoopEnd::Stopping,
                },
            }
        }
    }

    /// Sends nothing until it is enabled, configured anew, or the gateway stops.
    pub(super) async fn rest(&mut self, condition: &StoredCondition, stop: &CancellationToken) -> LoopEnd {
        let mut is_kept = false;
        loop {
            let command = tokio::select! {
                biased;
                () = stop.cancelled() => return LoopEnd::Stopping,
                changed = self.targets.changed() => {
                    return if changed.is_ok() { LoopEnd::Changed } else { LoopEnd::Stopping };
                }
                command = self.commands.recv() => match command {
                    Some(command) => command,
                    None => return LoopEnd::Stopping,
                },
                // That it is disabled may not be stored yet.
                () = keep(condition), if !is_kept => {
                    is_kept = true;
                    continue;
                }
            };
            let (switch, done) = match command {
                Command::Switch(switch, done) => (switch, done),
                Command::Try(told) => {
                    // Who asked may have gone.
                    let _ = told.send(TryNow::Disabled);
                    continue;
                }
            };
            let disabled = condition.get().disabled;
            if switch == Switch::Enable {
                condition.change(|condition| condition.disabled = None);
            }
            let stored = condition.keep().await;
            let is_stored = stored.is_ok();
            if !is_stored {
                condition.change(|condition| condition.disabled = disabled);
                is_kept = false;
            }
            // Who asked may have gone.
            let _ = done.send(stored);
            if is_stored && switch == Switch::Enable {
                tracing::info!(app = %self.app, webhook = %self.name, "a webhook was enabled");
                return LoopEnd::Changed;
            }
        }
    }
}

/// Stores a condition, for as long as it takes.
async fn keep(condition: &StoredCondition) {
    while let Err(error) = condition.keep().await {
        tracing::warn!(%error, "a webhook's condition could not be stored; trying again");
        tokio::time::sleep(AFTER_FAILURE).await;
    }
}
