//! Webhooks: events pushed to the addresses that `[[apps.webhooks]]` names. CloudEvents, signed by Standard Webhooks.
//!
//! ```text
//! config ─> target ──────┐
//! events ─> parcel ─> delivery_loop ─> endpoint's address
//!    ^                   │ (pace)
//!    └──── recorder <────┘
//! ```
//!
//! | file | what |
//! |---|---|
//! | `target` | what the configuration and its files say of a webhook; one try over HTTP |
//! | `entry`, `cloud_event`, `message` | entries of a log, as CloudEvents, as a request |
//! | `parcel` | what goes out as one; what came of it, on its way to the store |
//! | `pace`, `schedule` | how many are sent at a time, and when the next is; waits |
//! | `outcome` | what an answer means |
//! | `condition` | what holds for a webhook as a whole, as it is stored |
//! | `task`, `delivery_loop`, `endpoint` | the task of a webhook: its loop, and what it holds |
//! | `status` | what operators see |
//!
//! How far it is, what it tried in vain, how often and until when that waits, and what waits behind it is a part of its
//! subscriptions, as those of any reader are, and nowhere else.
//!
//! Invariants:
//! - A webhook is a task, a pool of connections and a subscription of each of its streams, all its own: an endpoint
//!   that is slow, away or hostile delays no other.
//! - Every event that the filter admits is delivered at least once or put among the dead letters, as long as retention
//!   keeps it; once, while no try ends in doubt and the gateway stops in order. After a crash those come again that
//!   were under way. An event's id is the same in every try.
//! - Events with the same key (user, channel) arrive in order; with `max_in_flight = 1` all of a stream do.

mod cloud_event;
mod condition;
mod delivery_loop;
mod endpoint;
mod entry;
mod message;
mod outcome;
mod pace;
mod parcel;
mod schedule;
mod status;
mod target;
mod task;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use tokio::sync::{mpsc, oneshot, watch};

use self::condition::StoredCondition;
pub use self::endpoint::TryNow;
use self::endpoint::{Command, Deps, Endpoint, Switch};
use self::status::LoopStatus;
pub use self::status::{DisabledStatus, FilterStatus, WebhookStatus};
pub use self::target::BuildError;
use self::target::Target;
use crate::config;
use crate::events::{Events, ReadError, Redeliver};
use crate::kernel::clock::Clock;
use crate::kernel::metrics::Metrics;
use crate::kernel::names::{AppId, Stream, SubscriptionName, WebhookName};
use crate::kernel::sync::lock;
use crate::kernel::task::{Kind, Tasks};
use crate::store::{self, Store};
use crate::tls::Role;

/// All webhooks of the gateway. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks(Arc<Inner>);

struct Inner {
    deps: Deps,
    tasks: Tasks,
    running: Mutex<BTreeMap<Key, Running>>,
}

type Key = (AppId, WebhookName);

/// A webhook's task, from outside.
struct Running {
    target: watch::Sender<Option<Arc<Target>>>,
    commands: mpsc::Sender<Command>,
    status: Arc<Mutex<LoopStatus>>,
    condition: Arc<OnceLock<Arc<StoredCondition>>>,
}

/// Webhooks that are ready to be put in force.
pub struct Prepared(BTreeMap<Key, Arc<Target>>);

/// Why an operator's command cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No such app, or it has no webhook of that name.
    #[error("there is no such webhook")]
    NoSuchWebhook,
    /// It is disabled, so nothing of it can be tried.
    #[error("the webhook is disabled, so nothing is sent: enable it")]
    Disabled,
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Stopping,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Its events cannot be had.
    #[error(transparent)]
    Events(#[from] ReadError),
}

impl Webhooks {
    /// None yet: see [`Webhooks::prepare`]. What delivers runs in `tasks`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, events: Events, tasks: Tasks, clock: Clock, metrics: Metrics) -> Self {
        let deps = Deps { store, events, clock, metrics };
        Self(Arc::new(Inner { deps, tasks, running: Mutex::default() }))
    }

    /// Reads what the configuration names, without sending anything or changing what is in force.
    ///
    /// # Errors
    /// When a secret or a file cannot be read, or is not what it should be.
    pub fn prepare(&self, apps: &[config::App]) -> Result<Prepared, BuildError> {
        let mut targets = BTreeMap::new();
        for app in apps {
            for webhook in &app.webhooks {
                let target = Target::new(&app.id, webhook, &self.0.deps.clock)?;
                targets.insert((app.id.clone(), webhook.name.clone()), Arc::new(target));
            }
        }
        Ok(Prepared(targets))
    }

    /// Puts prepared webhooks in force: starts those that are new, tells the others what has changed, lets those rest
    /// that are gone. Their places are kept. To be called when the logs of the apps are open.
    pub fn commit(&self, Prepared(targets): Prepared) {
        let Deps { metrics, clock, .. } = &self.0.deps;
        Role::WebhookCa.ends(targets.values().filter_map(|target| target.ca_ends()).min(), metrics, clock);
        let mut running = self.running();
        for (_, gone) in running.iter().filter(|(key, _)| !targets.contains_key(key)) {
            // Its task stays: one that comes back must not meet another that still ends.
            gone.target.send_replace(None);
        }
        for (key, target) in targets {
            match running.get(&key) {
                Some(webhook) => {
                    webhook.target.send_if_modified(|now| {
                        let is_other = now.as_ref().is_none_or(|now| !now.is_same(&target));
                        if is_other {
                            *now = Some(target);
                        }
                        is_other
                    });
                }
                None => {
                    let webhook = self.start(&key, target);
                    running.insert(key, webhook);
                }
            }
        }
    }

    /// How many requests to them are under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.running().values().map(|webhook| lock(&webhook.status).in_flight).sum()
    }

    /// How each stands, by app and name.
    #[must_use]
    pub fn status(&self) -> Vec<WebhookStatus> {
        let running = self.running();
        let Deps { events, clock, .. } = &self.0.deps;
        let status = |webhook: &Running| {
            let target = webhook.target.borrow().clone()?;
            let place = SubscriptionName::from(&target.config.name);
            let tries = |&stream: &Stream| events.tries(&target.app, stream, &place);
            let tries: Vec<_> = target.config.streams.iter().map(tries).collect();
            let condition = webhook.condition.get().map(|kept| kept.get());
            Some(WebhookStatus::new(&target, lock(&webhook.status).clone(), condition, &tries, clock))
        };
        running.values().filter_map(status).collect()
    }

    /// Lets a webhook that is disabled go on from where it was.
    ///
    /// # Errors
    /// When there is no such webhook, or the store fails.
    pub async fn enable(&self, app: &AppId, name: &WebhookName) -> Result<(), CommandError> {
        self.switch(app, name, Switch::Enable).await
    }

    /// Sends nothing to a webhook any more until it is enabled. What is under way is finished.
    ///
    /// # Errors
    /// When there is no such webhook, or the store fails.
    pub async fn disable(&self, app: &AppId, name: &WebhookName) -> Result<(), CommandError> {
        self.switch(app, name, Switch::Disable).await
    }

    /// Tries at once what waits for its time: what was tried in vain, and what the endpoint has put off. It counts as
    /// any try.
    ///
    /// # Errors
    /// When there is no such webhook, or it is disabled.
    pub async fn try_now(&self, app: &AppId, name: &WebhookName) -> Result<TryNow, CommandError> {
        match self.command(app, name, Command::Try).await? {
            TryNow::Disabled => Err(CommandError::Disabled),
            tried => Ok(tried),
        }
    }

    /// The streams that a webhook is sent; `None` when there is no such webhook.
    #[must_use]
    pub fn streams(&self, app: &AppId, name: &WebhookName) -> Option<Vec<Stream>> {
        let running = self.running();
        let target = running.get(&(app.clone(), name.clone()))?.target.borrow();
        target.as_ref().map(|target| target.config.streams.clone())
    }

    /// Puts dead letters of a webhook back into its subscription. Says how many.
    ///
    /// # Errors
    /// As [`Events::redeliver`] has them, and when there is no such webhook.
    pub async fn redeliver(
        &self,
        app: &AppId,
        name: &WebhookName,
        stream: Stream,
        which: Redeliver,
    ) -> Result<u64, CommandError> {
        let place = SubscriptionName::from(name);
        match self.0.deps.events.redeliver(app, stream, &place, which).await {
            Err(ReadError::NoSuchSubscription) => Ok(0),
            result => Ok(result?),
        }
    }

    async fn switch(&self, app: &AppId, name: &WebhookName, switch: Switch) -> Result<(), CommandError> {
        Ok(self.command(app, name, |done| Command::Switch(switch, done)).await??)
    }

    /// Has a webhook's task do something, and waits for its word.
    async fn command<T>(
        &self,
        app: &AppId,
        name: &WebhookName,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, CommandError> {
        let key = (app.clone(), name.clone());
        let is_there = |webhook: &&Running| webhook.target.borrow().is_some();
        let commands = self.running().get(&key).filter(is_there).map(|webhook| webhook.commands.clone());
        let commands = commands.ok_or(CommandError::NoSuchWebhook)?;
        let (done, told) = oneshot::channel();
        commands.send(command(done)).await.map_err(|_| CommandError::Stopping)?;
        let is_configured = || self.running().get(&key).is_some_and(|webhook| webhook.target.borrow().is_some());
        told.await.map_err(|_| if is_configured() { CommandError::Stopping } else { CommandError::NoSuchWebhook })
    }

    fn start(&self, (app, name): &Key, target: Arc<Target>) -> Running {
        let (target, targets) = watch::channel(Some(target));
        let (commands, orders) = mpsc::channel(COMMANDS);
        let (status, condition) = (Arc::<Mutex<LoopStatus>>::default(), Arc::<OnceLock<_>>::default());
        let endpoint = Endpoint {
            app: app.clone(),
            name: name.clone(),
            deps: self.0.deps.clone(),
            targets,
            commands: orders,
            status: Arc::clone(&status),
            condition: Arc::clone(&condition),
            is_hurried: false,
        };
        endpoint.count_from_the_start();
        self.0.tasks.spawn(Kind::Webhook, task::run(endpoint, self.0.tasks.stopping()));
        Running { target, commands, status, condition }
    }

    /// Sections are short and do not panic.
    fn running(&self) -> MutexGuard<'_, BTreeMap<Key, Running>> {
        lock(&self.0.running)
    }
}

/// Commands that wait for one webhook.
const COMMANDS: usize = 16;
