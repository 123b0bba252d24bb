//! The parts of one gateway, and what puts a configuration in force in all of them.
//!
//! Invariant: a configuration is in force whole or not at all: what can fail of it is built first, and what was in
//! force is put back where a log cannot be opened.

mod in_force;
mod readiness;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

pub use self::in_force::InForce;
pub use self::readiness::{Probe, Readiness};
use crate::config::{Config, Listen, ProxyProtocol, ServerTls, show};
use crate::events::Events;
use crate::history::History;
use crate::kernel::clock::Clock;
use crate::kernel::conn::AcceptPauses;
use crate::kernel::metrics::Metrics;
use crate::kernel::task::{Tasks, detached};
use crate::kernel::version::{COMMIT, VERSION};
use crate::request::gateway::{Gateway, Live};
use crate::request::jwks::{self, Jwks};
use crate::store::{self, Store};
use crate::tls::{self, ClientTrust, Tls, TlsError};
use crate::upstream::egress::{self, Egress};
use crate::webhooks::{self, Webhooks};

/// What one gateway is made of: shared by its requests, the operator's port and reload.
pub struct Parts {
    pub clock: Clock,
    pub metrics: Metrics,
    /// The configuration in force.
    pub config: ArcSwap<Config>,
    /// What tells that configuration from others.
    pub in_force: ArcSwap<InForce>,
    pub reload: ArcSwap<ReloadState>,
    /// The only door out.
    pub egress: Egress,
    /// Event logs and pollers.
    pub events: Events,
    pub history: History,
    /// Events pushed to those who asked for it.
    pub webhooks: Webhooks,
    /// What a request may touch.
    pub gateway: Arc<Gateway>,
    /// The token issuer's keys.
    pub jwks: Jwks,
    /// TLS of the callers' ports, if they speak it.
    pub(crate) tls: Option<Tls>,
    /// TLS of the operators' port, if it speaks it.
    pub(crate) admin_tls: Option<Tls>,
    /// When callers' listeners could take no more connections.
    pub(crate) accept_pauses: AcceptPauses,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) draining: CancellationToken,
    /// What is done off the workers for all of it: a stop waits for what of that has begun.
    pub(crate) work: Tasks,
}

/// What a reload puts in force once all of it is built.
struct PreparedConfig {
    tls: Option<Arc<tls::Live>>,
    admin_tls: Option<Arc<tls::Live>>,
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
    /// TLS cannot be had from the files that `[server.tls]` or `[admin.tls]` names.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// How the last reload ended, for the admin API.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct ReloadState {
    /// Reloads applied since the start.
    pub applied: u64,
    /// Reloads refused since the start.
    pub refused: u64,
    /// When the last one was tried.
    pub last_at: Option<String>,
    /// Why the last one was refused; `None` when it was applied.
    pub last_refusal: Option<Vec<String>>,
    /// Keys whose new value waits for a restart.
    pub needs_restart: Vec<&'static str>,
}

impl Parts {
    /// Puts a validated configuration in force, whole or not at all. What takes a processor for a while, or reads
    /// files, happens off the threads that serve requests.
    ///
    /// # Errors
    /// When the way out cannot be rebuilt or a log cannot be opened; the old configuration stays in force.
    pub async fn put_in_force(self: &Arc<Self>, config: Config) -> Result<(), BuildError> {
        let parts = self.clone();
        let (ready, config) = self.work.off_the_workers(move || parts.prepare(config)).await?;
        // Last of what can fail. What was put in force before it, the way out, is put back.
        if let Err(why) = self.events.apply(&config.apps, &config.upstream, &config.clients).await {
            let (old, egress) = (self.config.load_full(), self.egress.clone());
            let before = old.clone();
            self.work.off_the_workers(move || egress.apply(&before)).await?;
            self.events.apply(&old.apps, &old.upstream, &old.clients).await?;
            return Err(why.into());
        }
        self.webhooks.commit(ready.webhooks);
        self.history.apply(&config.apps, config.upstream.vendor);
        for (tls, live) in [(&self.tls, ready.tls), (&self.admin_tls, ready.admin_tls)] {
            if let Some((tls, live)) = tls.as_ref().zip(live) {
                tls.put_in_force(live);
            }
        }
        self.gateway.apply(ready.live);
        self.jwks.commit(ready.keys);
        self.jwks.start();
        let in_force = InForce::now(&config, &self.clock);
        in_force.show(&self.metrics);
        self.in_force.store(Arc::new(in_force));
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
    fn prepare(&self, config: Config) -> Result<(PreparedConfig, Arc<Config>), BuildError> {
        // A configuration without TLS leaves it as it is until a restart.
        let prepare = |tls: Option<&Tls>, files: Option<&ServerTls>| {
            tls.zip(files).map(|(tls, files)| tls.prepare(files)).transpose()
        };
        let tls = prepare(self.tls.as_ref(), config.server.tls.as_ref())?;
        let admin_tls = prepare(self.admin_tls.as_ref(), config.admin.tls.as_ref())?;
        let config = self.with_doors_as_bound(config);
        let keys = self.jwks.prepare(config.jwt.as_ref())?;
        let webhooks = self.webhooks.prepare(&config.apps)?;
        let trust = tls.as_ref().map_or_else(|| trust_of(self.tls.as_ref()), |live| live.trust.clone());
        let live = Live::new(&config, trust, keys.keys(), &self.metrics);
        self.egress.apply(&config)?;
        Ok((PreparedConfig { tls, admin_tls, keys, webhooks, live }, Arc::new(config)))
    }

    /// The configuration, with what guards a port as it was when the port was bound. Ports move only by a restart; a
    /// rule that is right for the new address (no key, anonymous callers) must not open the old one.
    fn with_doors_as_bound(&self, mut config: Config) -> Config {
        let bound = self.config.load();
        let admin_tls = config.admin.tls.take().filter(|_| bound.admin.tls.is_some());
        config.admin = bound.admin.clone();
        // Which files it is made of may change.
        config.admin.tls = admin_tls.or(config.admin.tls);
        config.server.listen.clone_from(&bound.server.listen);
        config.server.proxy_protocol = bound.server.proxy_protocol;
        if config.server.tls.is_some() != bound.server.tls.is_some() {
            config.server.tls.clone_from(&bound.server.tls);
        }
        let brings_strangers = config.server.proxy_protocol != ProxyProtocol::Off;
        if brings_strangers || !config.server.listen.iter().all(Listen::is_local) {
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

    /// Which program runs, the effective configuration, and how reloading went, for the admin API.
    #[must_use]
    pub fn describe_config(&self) -> serde_json::Value {
        let in_force = self.in_force.load();
        serde_json::json!({
            "version": VERSION, "commit": COMMIT,
            "hash": in_force.hash, "in_force_since": in_force.since.to_string(),
            "reload": &**self.reload.load(), "effective": show::json(&self.config.load()),
        })
    }
}

/// Whose certificates callers may show.
pub(crate) fn trust_of(tls: Option<&Tls>) -> Arc<ClientTrust> {
    tls.map_or_else(ClientTrust::nobody, |tls| tls.live().trust.clone())
}
