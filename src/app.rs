//! The composition root: opens the store, binds the ports, builds every part, starts them, and drains them.
//!
//! Invariants: nothing is bound unless the configuration is valid, and nothing runs unless all is bound. Every part
//! gets what it needs as an argument; there are no statics, so two gateways live in one process. The order of stopping
//! is in `drain`.

mod drain;
pub mod reload;
mod stop;
pub mod telemetry;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::admin;
use crate::config::{Config, Listen, ServerTls};
use crate::events::Events;
use crate::history::History;
use crate::kernel::clock::Clock;
use crate::kernel::conn::AcceptPauses;
use crate::kernel::conn::places::Door;
use crate::kernel::metrics::Metrics;
use crate::kernel::proof::Proofs;
use crate::kernel::task::{Kind, Threads};
use crate::kernel::version::{COMMIT, VERSION};
use crate::request::flow;
use crate::request::gateway::{Gateway, Live, Services, revalidation};
use crate::request::jwks::Jwks;
use crate::server::descriptors;
use crate::server::listener::{HeaderReader, Limits, Listener, UnixFile};
use crate::services::{BuildError, InForce, Parts, ReloadState, trust_of};
use crate::store::Store;
use crate::store::embedded::EmbeddedStore;
use crate::tls::{Tls, TlsDoor};
use crate::upstream::egress::{Egress, PreviousRun};
use crate::webhooks::Webhooks;

use drain::Groups;
pub use stop::Stop;

/// One answers probes while the other is busy with a long answer.
const OPERATORS_THREADS: usize = 2;
const ADMIN_HEAD_TIME: Duration = Duration::from_secs(10);
const ADMIN_WRITE_TIME: Duration = Duration::from_secs(30);

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
        let open =
            |files: Option<&ServerTls>, door| files.map(|files| Tls::open(files, door, &clock, &metrics)).transpose();
        let tls = open(config.server.tls.as_ref(), TlsDoor::Callers)?;
        let admin_tls = open(config.admin.tls.as_ref(), TlsDoor::Operators)?;
        let proofs = Proofs::counted(clock.clone(), metrics.ended_work.clone());
        let jwks = Jwks::new(tasks.work.clone(), proofs.clone(), clock.clone(), metrics.clone());
        let keys = jwks.prepare(config.jwt.as_ref())?;
        let header_reader = HeaderReader::new(config.server.proxy_protocol, &metrics).map(Arc::new);
        let mut listeners = Vec::with_capacity(config.server.listen.len());
        for listen in &config.server.listen {
            let listener = bind(listen, UnixFile::of(&config.server)).await?;
            listeners.push(listener.behind(header_reader.clone()).speaking(tls.clone()));
        }
        let listen = config.admin.listen.clone();
        // On its own threads: whoever binds a socket is woken for it.
        let bound = operators.run(async move { bind(&listen, UnixFile::default()).await }).await;
        let admin = bound.unwrap_or_else(|_| Err(BuildError::Threads(std::io::Error::other("binding panicked"))))?;
        let admin = admin.speaking(admin_tls.clone());

        let (time, meters) = (|| clock.clone(), || metrics.clone());
        let store: Arc<dyn Store> =
            EmbeddedStore::open(&config.store.path, tasks.store.clone(), time(), meters()).await?;
        let egress = match PreviousRun::of(&*store, &clock).await {
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
        let services = Services {
            egress: egress.clone(),
            events: events.clone(),
            history: history.clone(),
            metrics: meters(),
            clock: time(),
            stopping: tasks.front.stopping(),
        };
        let live = Live::new(&config, trust_of(tls.as_ref()), keys.keys(), &metrics);
        let gateway = Gateway::new(live, proofs, services);
        jwks.commit(keys);
        let in_force = InForce::now(&config, &clock);
        in_force.show(&metrics);
        let accept_pauses = AcceptPauses::counted(&metrics, clock.clone());
        let parts = Parts {
            clock,
            metrics,
            config: ArcSwap::from_pointee(config),
            in_force: ArcSwap::from_pointee(in_force),
            reload: ArcSwap::from_pointee(ReloadState::default()),
            egress,
            events,
            history,
            webhooks,
            gateway,
            jwks,
            tls,
            admin_tls,
            accept_pauses,
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
        parts.metrics.connections_limit.set(i64::try_from(shares.callers).unwrap_or(i64::MAX));
        let operator = admin::service(parts.clone());
        let own = Limits {
            door: Door::alone(shares.operators),
            header_read_timeout: ADMIN_HEAD_TIME,
            idle_timeout: config.server.idle_timeout,
            write_timeout: ADMIN_WRITE_TIME,
            connections: Gauge::default(),
            pauses: AcceptPauses::uncounted(parts.clock.clone()),
        };
        admin.serve(&tasks.admin, own, move |conn, mut request| {
            request.extensions_mut().insert(conn);
            operator.clone().oneshot(request).map(|answered| match answered {
                Ok(response) => response,
                Err(never) => match never {},
            })
        });
        parts.jwks.start();
        tasks.work.spawn(Kind::Judge, revalidation::run(parts.gateway.clone(), tasks.work.clone()));
        let doors = Door::open(shares.callers, listeners.len(), parts.metrics.connections_evicted.clone());
        for (listener, door) in listeners.into_iter().zip(doors) {
            let gateway = parts.gateway.clone();
            let limits = Limits {
                door,
                header_read_timeout: config.server.header_read_timeout,
                idle_timeout: config.server.idle_timeout,
                write_timeout: config.server.write_timeout,
                connections: parts.metrics.connections.clone(),
                pauses: parts.accept_pauses.clone(),
            };
            listener.serve(&tasks.front, limits, move |conn, request| flow::handle(gateway.clone(), conn, request));
        }
        if let Some(watch) = watch {
            let reloader = reload::Reloader::new(watch.path, parts.clone(), watch.levels);
            tasks.work.spawn(Kind::Reload, reloader.run(watch.seen, tasks.work.stopping()));
        }
        let config = &parts.in_force.load().hash;
        tracing::info!(version = VERSION, commit = COMMIT, %config, "ready");
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
    pub path: std::path::PathBuf,
    /// What it and every file it names held when it was read.
    pub seen: reload::Snapshot,
    /// The log's levels, if this process logs.
    pub levels: Option<crate::app::telemetry::Levels>,
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
