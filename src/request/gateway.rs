//! A [`Gateway`]: what a request may touch.
//!
//! Invariants: what a reload changes sits in one [`Live`], swapped whole, and a request sees one of them from its head
//! to its end. The services know of reloads themselves. What goes on for long holds a [`crate::kernel::proof::Proof`],
//! which `revalidation` judges anew whenever what is in force changes.

pub(crate) mod revalidation;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::events::Events;
use crate::history::History;
use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::metrics::{Metrics, StreamLabels, from_the_start};
use crate::kernel::names::{Stream, Streams};
use crate::kernel::proof::Proofs;
use crate::request::admission::{Admission, Room};
use crate::request::batch_text::TextCache;
use crate::request::identity::{Identity, Strangers};
use crate::request::jwks::Keys;
use crate::request::policy::Policy;
use crate::request::route::target::Hosts;
use crate::request::{json_text, sse_text};
use crate::tls::ClientTrust;
use crate::upstream::egress::Egress;

/// What a request may touch.
pub struct Gateway {
    /// What a reload changes.
    live: ArcSwap<Live>,
    /// Who is in hand.
    pub admission: Arc<Admission>,
    /// The door out: for messages.
    pub egress: Egress,
    pub events: Events,
    pub history: History,
    /// What the open streams of events share.
    pub(crate) sse_texts: TextCache,
    /// The same of the native form in one answer.
    pub(crate) json_texts: TextCache,
    /// What proved those who have something under way.
    pub proofs: Proofs,
    /// Who called and was not known.
    pub strangers: Strangers,
    /// Where requests are counted.
    pub metrics: Metrics,
    pub clock: Clock,
    /// When it began to count.
    pub began: UnixMillis,
    /// Cancelled when the gateway stops: long polls answer what they have.
    pub stopping: CancellationToken,
}

/// What a [`Gateway`] is given to serve requests with: see there.
pub struct Services {
    pub egress: Egress,
    pub events: Events,
    pub history: History,
    pub metrics: Metrics,
    pub clock: Clock,
    pub stopping: CancellationToken,
}

/// What a configuration says about requests.
#[derive(Debug)]
pub struct Live {
    pub identity: Identity,
    /// What they may do.
    pub policy: Policy,
    /// Which hosts a target may name.
    pub hosts: Hosts,
    /// How much there is room for.
    pub room: Room,
    /// Bytes of a caller's body.
    pub body_limit: usize,
    /// How long a message may take.
    pub request_timeout: Duration,
    /// Whether each request is logged.
    pub access_log: bool,
}

/// What was in force when a request came.
#[derive(Clone, Debug)]
pub struct InForce {
    pub live: Arc<Live>,
    /// How often what is in force had changed; a proof of an older generation is judged again.
    pub generation: u64,
}

impl Live {
    /// What this configuration says; certificates are held against `trust`, tokens are checked by `keys` and counted.
    #[must_use]
    pub fn new(config: &Config, trust: Arc<ClientTrust>, keys: Option<Arc<Keys>>, metrics: &Metrics) -> Self {
        for app in &config.apps {
            let streams = [Streams::One(Stream::UserEvents), Streams::One(Stream::ChannelEvents), Streams::All];
            let labels = |streams: Streams| StreamLabels { app: app.id.to_string(), stream: streams.to_string() };
            from_the_start(&metrics.event_streams, streams.map(labels));
        }
        Self {
            identity: Identity::new(config, trust, keys, metrics),
            policy: Policy::new(config),
            hosts: Hosts::new(config),
            room: Room::of(config),
            body_limit: config.server.request_body_limit,
            request_timeout: config.upstream.request_timeout,
            access_log: config.log.access,
        }
    }
}

impl Gateway {
    /// Puts the parts together; `proofs` are to count the changes of what is in force.
    #[must_use]
    pub fn new(live: Live, proofs: Proofs, services: Services) -> Arc<Self> {
        let Services { egress, events, history, metrics, clock, stopping } = services;
        let live = ArcSwap::from_pointee(live);
        let admission = Admission::new(live.load().room, clock.clone(), metrics.clone());
        Arc::new(Self {
            live,
            admission,
            egress,
            events,
            history,
            sse_texts: TextCache::new(sse_text::of_batch),
            json_texts: TextCache::new(json_text::of_batch),
            proofs,
            strangers: Strangers::new(&metrics),
            metrics,
            began: clock.wall_ms(),
            clock,
            stopping,
        })
    }

    /// Takes a new configuration for the requests that come from now on.
    pub fn apply(&self, mut live: Live) {
        live.identity.go_on_from(&self.live().identity);
        self.admission.apply(live.room, |name| live.identity.knows(name));
        self.live.store(Arc::new(live));
        // Last: whoever reads the new number finds the new configuration.
        self.proofs.changed();
    }

    /// What is in force now, for a request that just came.
    #[must_use]
    pub fn in_force(&self) -> InForce {
        // In this order: a configuration that is swapped in between is newer than its number, and what rests on it is
        // judged once more. The other way round an old one would pass for judged.
        let generation = self.proofs.generation();
        InForce { live: self.live(), generation }
    }

    /// The configuration in force now.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }
}
