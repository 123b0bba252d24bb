//! An [`Endpoint`]: the task of one webhook, from its first configuration to the gateway's stop.
//!
//! Invariants: it alone writes the webhook's records. A change of the configuration lets tries under way end, then goes
//! on by the new one, from where it was. Nobody else waits for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::condition::Condition;
use super::courier::Courier;
use super::record::Record;
use super::standing::Standing;
use super::target::Target;
use crate::clock::{Clock, UnixMillis};
use crate::events::Events;
use crate::metrics::{Metrics, WebhookLabels};
use crate::names::{AppId, Stream, SubscriptionName, WebhookName};
use crate::store::{Error, LogKey, NoteKind, Store};

/// What every endpoint uses. Cheap to clone.
#[derive(Clone)]
pub(super) struct Means {
    pub(super) store: Arc<dyn Store>,
    pub(super) events: Events,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
}

/// See the module.
pub(super) struct Endpoint {
    pub(super) app: AppId,
    pub(super) name: WebhookName,
    pub(super) means: Means,
    /// What it is to be; `None` when it is not configured any more.
    pub(super) targets: watch::Receiver<Option<Arc<Target>>>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) standing: Arc<Mutex<Standing>>,
    /// How far it is in each stream.
    pub(super) records: BTreeMap<Stream, Record>,
    /// `None`: not known yet.
    pub(super) condition: Option<Condition>,
}

/// What an operator wants, and whom to tell when it is so and on stable storage.
pub(super) struct Command {
    pub(super) wish: Wish,
    pub(super) done: oneshot::Sender<Result<(), Error>>,
}

/// What an operator wants.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    Enable,
    Disable,
    /// A stream is read from another place now.
    Moved,
}

/// Why delivering ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The gateway stops.
    Stopping,
    /// There is another configuration, or the webhook was enabled or disabled.
    Changed,
}

/// Waits before a store that failed is asked again.
pub(super) const AFTER_FAILURE: Duration = Duration::from_secs(1);

impl Endpoint {
    /// Delivers until the gateway stops; rests while the webhook is not configured.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let Some(target) = self.targets.borrow_and_update().clone() else {
                self.forget_metrics();
                match stop.run_until_cancelled(self.targets.changed()).await {
                    Some(Ok(())) => continue,
                    _ => break,
                }
            };
            if stop.run_until_cancelled(self.recall(&target)).await.is_none() {
                break;
            }
            self.show_disabled();
            let left = if self.is_disabled() {
                self.rest(&stop).await
            } else {
                Courier::new(&mut self, target).run(&stop).await
            };
            if left == Left::Stopping {
                break;
            }
        }
    }

    /// Takes away what would stand still.
    fn forget_metrics(&self) {
        let labels = self.labels();
        self.means.metrics.webhook_disabled.remove(&labels);
        self.means.metrics.webhook_in_flight.remove(&labels);
    }

    pub(super) fn labels(&self) -> WebhookLabels {
        WebhookLabels { app: self.app.to_string(), webhook: self.name.to_string() }
    }

    pub(super) fn log(&self, stream: Stream) -> LogKey {
        LogKey { app: self.app.clone(), stream }
    }

    /// Says on the metrics and to the operator whether anything is sent.
    pub(super) fn show_disabled(&self) {
        self.means.metrics.webhook_disabled.get_or_create(&self.labels()).set(i64::from(self.is_disabled()));
        let mut standing = Standing::lock(&self.standing);
        standing.disabled = self.condition.as_ref().and_then(|condition| condition.disabled.clone());
        let fault = self.condition.as_ref().and_then(|condition| condition.fault.clone());
        standing.last_fault = fault.map(|fault| (UnixMillis(fault.at), fault.why));
    }

    fn is_disabled(&self) -> bool {
        self.condition.as_ref().is_some_and(|condition| condition.disabled.is_some())
    }

    /// Reads the records of streams that are not known yet, for as long as it takes.
    async fn recall(&mut self, target: &Target) {
        while let Err(error) = self.try_to_recall(target).await {
            tracing::warn!(app = %self.app, webhook = %self.name, %error, "a webhook's record cannot be read");
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }

    async fn try_to_recall(&mut self, target: &Target) -> Result<(), Error> {
        for &stream in &target.config.streams {
            if !self.records.contains_key(&stream) {
                let record = self.record(stream).await?;
                self.records.insert(stream, record);
            }
        }
        if self.condition.is_none() {
            let stored = Condition::recall(&*self.means.store, &self.app, &self.name).await?;
            let of_old = || self.records.values().find_map(|record| record.disabled.clone());
            self.condition = Some(stored.unwrap_or_else(|| Condition { disabled: of_old(), ..Condition::default() }));
        }
        Ok(())
    }

    async fn record(&self, stream: Stream) -> Result<Record, Error> {
        let note = self.means.store.note(&self.log(stream), NoteKind::Webhook, self.name.as_str()).await?;
        Ok(note.map(|note| Record::read(&note)).unwrap_or_default())
    }

    /// Sends nothing until it is enabled, configured anew, or the gateway stops.
    async fn rest(&mut self, stop: &CancellationToken) -> Left {
        loop {
            let Command { wish, done } = tokio::select! {
                biased;
                () = stop.cancelled() => return Left::Stopping,
                changed = self.targets.changed() => {
                    return if changed.is_ok() { Left::Changed } else { Left::Stopping };
                }
                command = self.commands.recv() => match command {
                    Some(command) => command,
                    None => return Left::Stopping,
                },
            };
            let stored = match &wish {
                Wish::Enable => self.enable().await,
                // What a record says is held against the place when delivering begins.
                Wish::Disable | Wish::Moved => Ok(()),
            };
            let enabled = stored.is_ok() && matches!(wish, Wish::Enable);
            // Who asked may have gone.
            let _ = done.send(stored);
            if enabled {
                tracing::info!(app = %self.app, webhook = %self.name, "a webhook was enabled");
                return Left::Changed;
            }
        }
    }

    async fn enable(&mut self) -> Result<(), Error> {
        let condition = Condition { disabled: None, ..self.condition.clone().unwrap_or_default() };
        condition.keep(&*self.means.store, &self.app, &self.name).await?;
        self.condition = Some(condition);
        Ok(())
    }

    /// What is known of a stream, as far as it is about the place where its subscription is now.
    pub(super) fn record_of(&self, stream: Stream) -> Record {
        let place = self.means.events.place_id(&self.app, stream, &SubscriptionName::from(&self.name));
        self.records.get(&stream).cloned().unwrap_or_default().at(place)
    }
}
