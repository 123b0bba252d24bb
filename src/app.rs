//! The composition root: opens the store, binds the ports, builds every part, starts them, and drains them.
//!
//! Invariants: nothing is bound unless the configuration is valid, and nothing runs unless all is bound. Every part gets
//! what it needs as an argument; there are no statics, so two gateways live in one process. The order
//! of stopping is in `drain`.

mod drain;
mod stop;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::admin;
use crate::clock::Clock;
use crate::config::{Config, Listen};
use crate::conn::places::Door;
use crate::descriptors;
use crate::egress::{self, Before, Egress};
use crate::events::Events;
use crate::flow;
use crate::gateway::{Gateway, Live};
use crate::history::History;
use crate::jwks::{self, Jwks};
use crate::listener::{Limits, Listener, UnixFile};
use crate::metrics::Metrics;
use crate::proof::Proofs;
use crate::reload;
use crate::store::embedded::EmbeddedStore;
use crate::store::{self, Store};
use crate::task::{Kind, Tasks, Threads, detached};
use crate::tls::{self, ClientTrust, Tls, TlsError};
use crate::webhooks::{self, Webhooks};

use drain::Groups;
pub use stop::Stop;

/// One answers probes while the other is busy with a long answer.
const OPERATORS_THREADS: usize = 2;
const ADMIN_HEAD_TIME: Duration = Duration::from_secs(10);
const ADMIN_WRITE_TIME: Duration = Duration::from_secs(30);

/// What one gateway is made of: shared by its requests, the operator's port and reload.
pub struct Parts {
    /// The time.
    pub clock: Clock,
    /// The metrics.
    pub metrics: Metrics,
    /// The configuration in force.
    pub config: ArcSwap<Config>,
    /// How reloading went.
    pub reload: ArcSwap<reload::State>,
    /// The only door out.
    pub egress: Egress,
    /// Event logs and pollers.
    pub events: Events,
    /// History and count.
    pub history: History,
    /// Events pushed to those who asked for it.
    pub webhooks: Webhooks,
    /// What a request may touch.
    pub gateway: Arc<Gateway>,
    /// The token issuer's keys.
    pub jwks: Jwks,
    /// TLS of the callers' ports, if they speak it.
    tls: Option<Tls>,
    store: Arc<dyn Store>,
    draining: CancellationToken,
    /// What is done off the workers for all of it: a stop waits for what of that has begun.
    pub(crate) work: Tasks,
}

/// What a reload puts in force once all of it is built.
struct Ready {
    tls: Option<Arc<tls::Live>>,
    keys: jwks::Prepared,
    webhooks: webhooks::Prepared,
    live: Live,
}

/// Why a gateway cannot be built or changed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// An address cannot be listened on.
    #[error("cannot listen on {listen}: {why}. Is another process there? Change server.listen or admin.listen")]
    Bind {
        /// The address.
        listen: String,
        /// What the system said.
        why: std::io::Error,
    },
    /// The operator's port cannot have threads of its own.
    #[error("cannot start the threads of the operator's port: {0}")]
    Threads(std::io::Error),
    /// The store cannot be opened.
    #[error("store.path: {0}")]
    Store(#[from] store::Error),
    /// The way out cannot be built.
    #[error(transparent)]
    Egress(#[from] egress::BuildError),
    /// The token issuer's keys cannot be had from where the configuration says.
    #[error(transparent)]
    Jwks(#[from] jwks::BuildError),
    /// A webhook cannot be what the configuration says.
    #[error(transparent)]
    Webhooks(#[from] webhooks::BuildError),
    /// TLS cannot be had from the files that `[server.tls]` names.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A gateway that is built and bound and does not run yet.
pub struct App {
    parts: Arc<Parts>,
    listeners: Vec<Listener>,
    admin: Listener,
    tasks: Groups,
    operators: Threads,
}

impl App {
    /// Binds all ports, opens the store and builds every part. Starts nothing but the store's writer.
    ///
    /// # Errors
    /// When an address is taken, the store cannot be opened, or the trust anchors cannot be read.
    pub async fn build(config: Config, clock: Clock) -> Result<Self, BuildError> {
        let operators = Threads::start("operators", OPERATORS_THREADS).map_err(BuildError::Threads)?;
        let tasks = Groups { admin: operators.group(), ..Groups::default() };
        let metrics = Metrics::new();
        let tls = config.server.tls.as_ref().map(|tls| Tls::open(tls, &clock, &metrics)).transpose()?;
        let proofs = Proofs::counted(clock.clone(), metrics.ended_work.clone());
        let jwks = Jwks::new(tasks.work.clone(), proofs.clone(), clock.clone(), metrics.clone());
        let keys = jwks.prepare(config.jwt.as_ref())?;
        let mut listeners = Vec::with_capacity(config.server.listen.len());
        for listen in &config.server.listen {
            listeners.push(bind(listen, UnixFile::of(&config.server)).await?.speaking(tls.clone()));
        }
        let listen = config.admin.listen.clone();
        // On its own threads: whoever binds a socket is woken for it.
        let bound = operators.run(async move { bind(&listen, UnixFile::default()).await }).await;
        let admin = bound.unwrap_or_else(|_| Err(BuildError::Threads(std::io::Error::other("binding panicked"))))?;

        let (time, meters) = (|| clock.clone(), || metrics.clone());
        let store: Arc<dyn Store> =
            EmbeddedStore::open(&config.store.path, tasks.store.clone(), time(), meters()).await?;
        let egress = match Before::of(&*store, &clock).await {
            Ok(before) => Egress::new(&config, before, time(), meters(), &tasks.exchanges).map_err(BuildError::from),
            Err(why) => Err(why.into()),
        };
        let egress = match egress {
            Ok(egress) => egress,
            Err(why) => {
                leave_as_found(&*store, &clock).await;
                return Err(why);
            }
        };
        let events = Events::new(store.clone(), egress.clone(), tasks.events.clone(), time(), meters());
        let history = History::new(egress.clone(), tasks.work.clone(), time(), meters());
        let webhooks = Webhooks::new(store.clone(), events.clone(), tasks.webhooks.clone(), time(), meters());
        let gateway = Gateway::new(
            (Live::new(&config, trust_of(tls.as_ref()), keys.keys(), &metrics), proofs),
            egress.clone(),
            events.clone(),
            history.clone(),
            meters(),
            time(),
            tasks.front.stopping(),
        );
        jwks.commit(keys);
        let parts = Parts {
            clock,
            metrics,
            config: ArcSwap::from_pointee(config),
            reload: ArcSwap::from_pointee(reload::State::default()),
            egress,
            events,
            history,
            webhooks,
            gateway,
            jwks,
            tls,
            store,
            draining: CancellationToken::new(),
            work: tasks.work.clone(),
        };
        Ok(Self { parts: Arc::new(parts), listeners, admin, tasks, operators })
    }

    /// What it is made of.
    #[must_use]
    pub fn parts(&self) -> &Arc<Parts> {
        &self.parts
    }

    /// Where callers connect, with the ports that were given for port 0.
    #[must_use]
    pub fn addresses(&self) -> Vec<Listen> {
        self.listeners.iter().map(Listener::address).collect()
    }

    /// Where operators connect.
    #[must_use]
    pub fn admin_address(&self) -> Listen {
        self.admin.address()
    }

    /// Starts everything and serves until `stop`, then drains.
    ///
    /// # Errors
    /// When the store cannot open the logs of the configured apps, or a vital task died.
    pub async fn run(self, stop: impl Into<Stop>, watch: Option<Watch>) -> Result<(), RunError> {
        let stop = stop.into();
        let Self { parts, listeners, admin, tasks, operators: _operators } = self;
        let config = parts.config.load_full();
        parts.history.apply(&config.apps, config.upstream.vendor);
        let pushed = match parts.webhooks.prepare(&config.apps) {
            Ok(pushed) => pushed,
            Err(why) => {
                leave_as_found(&*parts.store, &parts.clock).await;
                return Err(BuildError::from(why).into());
            }
        };
        if let Err(why) = parts.events.apply(&config.apps, &config.upstream, &config.clients).await {
            leave_as_found(&*parts.store, &parts.clock).await;
            return Err(BuildError::Store(why).into());
        }
        parts.webhooks.commit(pushed);
        let shares = descriptors::share_out(config.server.max_connections, listeners.len(), config.apps.len());
        let operator = admin::service(parts.clone());
        let own = Limits {
            door: Door::alone(shares.operators),
            header_read_timeout: ADMIN_HEAD_TIME,
            idle_timeout: config.server.idle_timeout,
            write_timeout: ADMIN_WRITE_TIME,
            connections: Gauge::default(),
        };
        admin.serve(&tasks.admin, own, move |conn, mut request| {
            request.extensions_mut().insert(conn);
            operator.clone().oneshot(request).map(|answered| match answered {
                Ok(response) => response,
                Err(never) => match never {},
            })
        });
        parts.jwks.start();
        tasks.work.spawn(Kind::Judge, parts.gateway.clone().judge(tasks.work.clone()));
        let doors = Door::open(shares.callers, listeners.len(), parts.metrics.connections_evicted.clone());
        for (listener, door) in listeners.into_iter().zip(doors) {
            let gateway = parts.gateway.clone();
            let limits = Limits {
                door,
                header_read_timeout: config.server.header_read_timeout,
                idle_timeout: config.server.idle_timeout,
                write_timeout: config.server.write_timeout,
                connections: parts.metrics.connections.clone(),
            };
            listener.serve(&tasks.front, limits, move |conn, request| flow::handle(gateway.clone(), conn, request));
        }
        if let Some(watch) = watch {
            let reloader = reload::Reloader::new(watch.path, parts.clone(), watch.levels);
            tasks.work.spawn(Kind::Reload, reloader.run(watch.seen, tasks.work.stopping()));
        }
        tracing::info!("ready");
        let failed = tokio::select! {
            () = stop.asked.cancelled() => false,
            () = tasks.failed() => true,
        };
        let is_clean = tasks.drain(&parts, failed, &stop.hurried).await;
        match (failed, is_clean) {
            (true, _) => Err(RunError::TaskDied),
            (false, false) => Err(RunError::NotStored),
            (false, true) => Ok(()),
        }
    }
}

/// What is needed to reload while running.
pub struct Watch {
    /// The configuration file.
    pub path: std::path::PathBuf,
    /// What it and every file it names held when it was read.
    pub seen: reload::Stamps,
    /// The log's levels, if this process logs.
    pub levels: Option<crate::telemetry::Levels>,
}

/// Why a gateway ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not start.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// It stopped, and not everything could be stored.
    #[error("stopped, but not everything could be stored; see the log")]
    NotStored,
    /// A task died that promises rest on; the log says which.
    #[error("a vital task died; see the log")]
    TaskDied,
}

/// Whose certificates callers may show.
fn trust_of(tls: Option<&Tls>) -> Arc<ClientTrust> {
    tls.map_or_else(ClientTrust::nobody, |tls| tls.live().trust.clone())
}

async fn bind(listen: &Listen, file: UnixFile) -> Result<Listener, BuildError> {
    Listener::bind(listen, file).await.map_err(|why| BuildError::Bind { listen: listen.to_string(), why })
}

/// The start failed before anything was read from the vendor: what the store said of the run before stays true.
async fn leave_as_found(store: &dyn Store, clock: &Clock) {
    let stopped = if store.is_new() { Some(clock.wall_ms()) } else { store.last_clean_stop() };
    if let Some(stopped) = stopped
        && let Err(why) = store.close(stopped).await
    {
        tracing::warn!(%why, "the record of the last clean stop is lost; the next start marks a doubt");
    }
}

impl Parts {
    /// Puts a validated configuration in force, whole or not at all. What takes a processor for a while, or reads files,
    /// happens off the threads that serve requests.
    ///
    /// # Errors
    /// When the way out cannot be rebuilt or a log cannot be opened; the old configuration stays in force.
    pub async fn put_in_force(self: &Arc<Self>, config: Config) -> Result<(), BuildError> {
        let parts = self.clone();
        let (ready, config) = self.work.off_the_workers(move || parts.prepare(config)).await?;
        if let Err(why) = self.events.apply(&config.apps, &config.upstream, &config.clients).await {
            let (old, egress) = (self.config.load_full(), self.egress.clone());
            let before = old.clone();
            self.work.off_the_workers(move || egress.apply(&before)).await?;
            self.events.apply(&old.apps, &old.upstream, &old.clients).await?;
            return Err(why.into());
        }
        self.webhooks.commit(ready.webhooks);
        self.history.apply(&config.apps, config.upstream.vendor);
        if let Some((tls, live)) = self.tls.as_ref().zip(ready.tls) {
            tls.put_in_force(live);
        }
        self.gateway.apply(ready.live);
        self.jwks.commit(ready.keys);
        self.jwks.start();
        let old = self.config.swap(config);
        // Thousands of clients take a while to forget.
        detached(move || drop(old));
        Ok(())
    }

    /// [`Parts::put_in_force`], with a configuration that its owner keeps.
    ///
    /// # Errors
    /// As there.
    pub async fn apply(self: &Arc<Self>, config: &Config) -> Result<(), BuildError> {
        self.put_in_force(config.clone()).await
    }

    /// Builds all that can fail of a configuration, and puts the way out in force.
    fn prepare(&self, config: Config) -> Result<(Ready, Arc<Config>), BuildError> {
        // A configuration without TLS leaves it as it is until a restart.
        let tls = self.tls.as_ref().zip(config.server.tls.as_ref());
        let tls = tls.map(|(tls, config)| tls.prepare(config)).transpose()?;
        let config = self.with_doors_as_bound(config);
        let keys = self.jwks.prepare(config.jwt.as_ref())?;
        let webhooks = self.webhooks.prepare(&config.apps)?;
        let trust = tls.as_ref().map_or_else(|| trust_of(self.tls.as_ref()), |live| live.trust.clone());
        let live = Live::new(&config, trust, keys.keys(), &self.metrics);
        self.egress.apply(&config)?;
        Ok((Ready { tls, keys, webhooks, live }, Arc::new(config)))
    }

    /// The configuration, with what guards a port as it was when the port was bound. Ports move only by a restart; a rule
    /// that is right for the new address (no key, anonymous callers) must not open the old one.
    fn with_doors_as_bound(&self, mut config: Config) -> Config {
        let bound = self.config.load();
        config.admin = bound.admin.clone();
        config.server.listen.clone_from(&bound.server.listen);
        if config.server.tls.is_some() != bound.server.tls.is_some() {
            config.server.tls.clone_from(&bound.server.tls);
        }
        if !config.server.listen.iter().all(Listen::is_local) {
            config.server.anonymous_client = None;
        }
        config
    }

    /// A consistent copy of the store, as a file. What was handed over before counts as handed over in it.
    ///
    /// # Errors
    /// When there is no room for it, or the store fails.
    pub async fn backup(&self) -> Result<std::fs::File, store::Error> {
        self.events.save_cursors().await?;
        self.store.backup().await
    }

    /// Why the gateway is not ready for callers; empty when it is.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        let draining = self.draining.is_cancelled().then(|| "draining".to_owned());
        draining.into_iter().chain(self.events.not_ready()).collect()
    }
}
