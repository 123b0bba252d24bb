//! The only door out: order -> quota -> credential -> upstream -> reply.
//!
//! Invariants:
//! - Nothing leaves but through [`Egress::send`], and nothing without a seat of the bucket the vendor counts it in.
//! - The seat goes with the exchange, not with the caller: a caller that leaves or gives up hands the exchange to the
//!   [`linger`] task, which keeps its seat until the vendor began to answer, or the connection is dead.
//! - Large answers lie in a [`Room`] with shares, but for those of reads of events, which never wait for it.
//! - [`retry`] alone decides what is sent again. What may have been sent is sent again only when asking twice is asking
//!   once.
//! - A reload is all or nothing: [`Egress::apply`] builds everything that can fail before it changes anything. Buckets
//!   outlive it.
//!
//! | an attempt ended with                | all orders                          | idempotent ones also           |
//! |--------------------------------------|-------------------------------------|--------------------------------|
//! | no connection (nothing was sent)     | again, twice at most, after a pause |                                |
//! | GOAWAY, REFUSED_STREAM (unprocessed) | likewise: twice at most of both     |                                |
//! | 401                                  | again, once, with the secret reread |                                |
//! | 429                                  | again with another seat             |                                |
//! | connection lost, time-out, 408, 5xx  |                                     | again, twice at most           |
//! | any other status                     |                                     |                                |
//!
//! A count whose answer did not come in time is left alone for as long as after `in progress`, which that answer may say.
//! All of it only before the order's deadline, and all but the 401 and 429 within the client's retry budget ([`budget`]).
//! A host that cannot be connected to is left alone for a while ([`hosts`]); an endpoint whose answers fail is asked in
//! another region first, where there is one ([`endpoint`]). An exchange ends after `request_timeout` and at the order's
//! deadline; one that reads events is never given up before [`LINGER`] times `request_timeout`, whatever its order's
//! deadline was (that bounds only the wait for a seat).

mod answer_time;
mod app_runtime;
mod attempt;
mod breaker;
mod buckets;
mod budget;
mod coding;
mod endpoint;
mod events_body;
mod hosts;
mod linger;
mod meters;
mod past;
mod redact;
mod request_id;
mod retry;
mod skew;
mod switched_off;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use hyper::header::RETRY_AFTER;
use hyper::{HeaderMap, StatusCode};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Limit};
use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::metrics::Metrics;
use crate::kernel::names::{AppId, BucketName, RegionName};
use crate::kernel::proof::Ended;
use crate::kernel::sync::lock;
use crate::kernel::task::{Kind, Tasks, off_the_workers};
use crate::store::{self, Store};
use crate::upstream::credentials::{self, CredentialState};
use crate::upstream::pool::room::Room;
use crate::upstream::pool::{self, Bounds, Upstream};
use crate::upstream::quota::Snapshot;
use crate::vendor::order::Order;
use app_runtime::AppRuntime;
use buckets::{AppBucket, Buckets};
pub use endpoint::EndpointState;
use hosts::Hosts;
pub use hosts::RegionState;
use linger::Linger;
pub use past::{Before, Past};
use redact::Cleaning;

/// An exchange nobody waits for, or that reads events, ends after this many times `upstream.request_timeout`.
pub const LINGER: u32 = 6;

/// The door. Cheap to clone.
#[derive(Clone)]
pub struct Egress(Arc<Inner>);

struct Inner {
    table: ArcSwap<Table>,
    lasting: Mutex<Lasting>,
    linger: Linger,
    room: Room,
    cleaning: Cleaning,
    clock: Clock,
    metrics: Metrics,
    stopping: CancellationToken,
}

/// What outlives reloads.
struct Lasting {
    buckets: Buckets,
    places: Hosts,
}

/// How long an exchange may take.
#[derive(Clone, Copy, Debug)]
struct Timeouts {
    /// From the connection to the head of the answer.
    first_byte: Duration,
    /// Between two pieces of its body.
    idle: Duration,
    /// All of it.
    request: Duration,
}

/// All that a reload replaces.
struct Table {
    desks: HashMap<AppId, AppRuntime>,
    upstream: Arc<Upstream>,
    timeouts: Timeouts,
    /// The longest that the vendor's `Retry-After` is believed.
    max_retry_after: Duration,
}

/// Why a configuration cannot be put into force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// No connections can be made with these settings.
    #[error(transparent)]
    Upstream(#[from] pool::BuildError),
    /// A token's uid cannot stand in a header.
    #[error("apps.credential.uid of app {0} cannot stand in a header")]
    BadUid(AppId),
    /// A `base_url` lacks its scheme or host.
    #[error("apps.regions.base_url of app {app}, region {region} is not an absolute URL")]
    BadBase {
        /// Whose.
        app: AppId,
        /// Which region.
        region: RegionName,
    },
}

/// What sending an order took, for the access log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// Waiting for seats.
    pub queue_wait: Duration,
    /// Waiting for the vendor.
    pub upstream_time: Duration,
    /// Requests sent.
    pub exchanges: u32,
    /// The vendor's `request_id` of the last answer, if it gave one.
    pub upstream_request_id: Option<Arc<str>>,
}

/// The vendor's answer, whole. Any status but 401 and 429.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// The allow-listed headers of the answer: content type, encoding, language, `Retry-After`, `Date`.
    pub headers: HeaderMap,
    /// Its body, decoded from transfer but not content encoding. A message's holds its place in the memory for answers until
    /// its last copy is gone.
    pub body: Bytes,
    /// The region that answered.
    pub region: RegionName,
    /// What it took.
    pub costs: Costs,
}

impl Reply {
    /// How long the vendor wants to be left alone, as far as it is believed.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        // Of our own making: seconds.
        self.headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
    }
}

/// An order that got no answer.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Why.
    pub why: Failure,
    /// What was spent on it.
    pub costs: Costs,
}

/// Why an order got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No seat within the deadline (or the vendor answered 429 until then).
    #[error("no seat in bucket {bucket} within the deadline")]
    QuotaSpent {
        /// Which bucket.
        bucket: BucketName,
        /// Its limit.
        limit: Limit,
        /// When to ask again.
        retry_after: Duration,
    },
    /// Too many orders wait.
    #[error("too many orders wait for bucket {0}")]
    Crowded(BucketName),
    /// The secret cannot be read. Nothing was sent.
    #[error("no credential: {0}")]
    CredentialUnavailable(crate::kernel::secret::SecretError),
    /// The vendor refused the credential, now or a while ago.
    #[error("the vendor refuses the gateway's credential")]
    CredentialRefused,
    /// No connection to the region could be made of late, and it is left alone: nothing was sent, no seat was taken.
    #[error("region {region} cannot be connected to and is left alone")]
    RegionDown {
        /// Which.
        region: RegionName,
        /// When to ask again.
        retry_after: Duration,
    },
    /// The vendor asked to be left alone with this (503 with `Retry-After`): nothing was sent, no seat was taken.
    #[error("the vendor asked in region {region} to be left alone")]
    AskedToWait {
        /// Where.
        region: RegionName,
        /// What is left of it.
        retry_after: Duration,
    },
    /// No connection: nothing was sent.
    #[error("cannot connect to the vendor: {0}")]
    Unreachable(String),
    /// The vendor turned it away before it began to process it (HTTP/2's GOAWAY or REFUSED_STREAM).
    #[error("the vendor did not process the request: {0}")]
    Unprocessed(String),
    /// The vendor did not answer in time.
    #[error("the vendor did not answer in time (sent: {sent})")]
    TimedOut {
        /// Whether the request may have left.
        sent: bool,
    },
    /// The connection died after the request may have left.
    #[error("the connection died: {why}")]
    Lost {
        /// What happened.
        why: Box<str>,
        /// What had come of the body, when the head had come.
        partial: Option<Bytes>,
        /// How long the vendor wants to be left alone, by that head.
        retry_after: Option<Duration>,
    },
    /// The answer is larger than any answer may be.
    #[error("the vendor's answer is too large")]
    TooLarge,
    /// The answer to a read of events is larger than is kept of one.
    #[error("the vendor's answer is larger than apps.events.max_read_bytes, by {beyond} bytes at least")]
    Overlong {
        /// How many bytes more there were, as far as they were counted.
        beyond: u64,
        /// As much of it as is kept.
        came: Bytes,
    },
    /// The answer to a read of events cannot be decoded.
    #[error("the vendor's answer cannot be decoded: {why}")]
    Undecodable {
        /// What is wrong with its coding.
        why: Box<str>,
        /// What was decoded of it; all of it as it came, where the coding is not known.
        came: Bytes,
    },
    /// The vendor has answered, and there was no memory for its answer within the deadline.
    #[error("no memory for the vendor's answer within the deadline")]
    NoRoom,
    /// What let the caller in was withdrawn before anything was sent.
    #[error(transparent)]
    Unproven(#[from] Ended),
    /// The app or region is not configured (any more).
    #[error("no such app or region")]
    NoSuchApp,
    /// The gateway is stopping.
    #[error("stopping")]
    Stopping,
}

impl Failure {
    /// Whether the vendor may have acted on the order although no answer came.
    #[must_use]
    pub fn in_doubt(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::TooLarge | Self::Overlong { .. } | Self::Undecodable { .. } | Self::NoRoom => {
                true
            }
            Self::TimedOut { sent } => *sent,
            Self::QuotaSpent { .. }
            | Self::Crowded(_)
            | Self::CredentialUnavailable(_)
            | Self::CredentialRefused
            | Self::RegionDown { .. }
            | Self::AskedToWait { .. }
            | Self::Unreachable(_)
            | Self::Unproven(_)
            | Self::Unprocessed(_)
            | Self::NoSuchApp
            | Self::Stopping => false,
        }
    }
}

impl Egress {
    /// The door as configured. Secrets are read now; one that cannot be read stops its app until it can (see
    /// [`Egress::credential_states`]). Buckets begin as what was before says. `tasks` are to be stopped after all who send
    /// orders: exchanges that these leave behind are waited for.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn new(
        config: &Config,
        before: impl Into<Before>,
        clock: Clock,
        metrics: Metrics,
        tasks: &Tasks,
    ) -> Result<Self, BuildError> {
        let prepared = Table::prepare(config, None, &clock)?;
        let mut buckets = Buckets::new(before.into(), clock.clone(), metrics.clone());
        let mut places = Hosts::default();
        let table = prepared.commit(&mut buckets, &mut places, &clock, &metrics);
        buckets.opened();
        let inner = Arc::new(Inner {
            table: ArcSwap::from_pointee(table),
            lasting: Mutex::new(Lasting { buckets, places }),
            linger: Linger::start(tasks),
            room: Room::new(Bounds::default(), metrics.response_body_bytes.clone()),
            cleaning: Cleaning::new(tasks),
            clock,
            metrics,
            stopping: tasks.stopping(),
        });
        let keeping = keep_secrets(Arc::downgrade(&inner));
        let stop = tasks.stopping();
        tasks.spawn(Kind::SecretKeeper, async move {
            stop.run_until_cancelled(keeping).await;
        });
        Ok(Self(inner))
    }

    /// Puts another configuration into force: all of it or, on an error, nothing. Secrets are read again; buckets and
    /// what waits in them stay; connections stay unless `[upstream]` or its `ca_file` has changed. Orders under way
    /// finish as they began. It reads files: not for the threads of the runtime.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn apply(&self, config: &Config) -> Result<(), BuildError> {
        // Held throughout: two reloads at a time would mix.
        let mut lasting = lock(&self.0.lasting);
        let old = self.0.table.load_full();
        let prepared = Table::prepare(config, Some(&old), &self.0.clock)?;
        let Lasting { buckets, places } = &mut *lasting;
        let table = prepared.commit(buckets, places, &self.0.clock, &self.0.metrics);
        self.0.table.store(Arc::new(table));
        let new = self.0.table.load();
        for (app, desk) in &old.desks {
            let now = new.desks.get(app);
            let is_shown = |line: &AppBucket| now.is_some_and(|desk| desk.lines().any(|other| other.name == line.name));
            desk.lines().filter(|line| !is_shown(line)).for_each(|line| line.meters.gone());
        }
        buckets.prune(|app| new.desks.contains_key(app));
        drop(old);
        places.prune();
        Ok(())
    }

    /// Puts other bounds on the memory for answers: for tests, which would need large ones otherwise.
    #[doc(hidden)]
    pub fn bound_answers(&self, bounds: Bounds) {
        self.0.room.resize(bounds);
    }

    /// Sends an order and waits for the whole answer. Retries what may be retried (see the module's header). Must be
    /// polled to make progress; may be dropped at any time.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn send(&self, order: Order) -> Result<Reply, Failed> {
        let mut costs = Costs::default();
        match self.0.attempts(&order, &mut costs).await {
            Ok(answer) => Ok(Reply {
                status: answer.status,
                headers: answer.headers,
                body: answer.body,
                region: answer.region,
                costs,
            }),
            Err(why) => Err(Failed { why, costs }),
        }
    }

    /// Notes for the next run that this one ends now, and what the vendor may still count of what was sent. To be called
    /// when nothing is under way any more but what was cut off, and before the store records a clean stop.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn note_stop(&self, store: &dyn Store) -> Result<(), store::Error> {
        let lasts = self.0.table.load().timeouts.request * LINGER;
        let under_way = self.0.clock.now() + lasts;
        let sent = lock(&self.0.lasting).buckets.sent(under_way);
        if !sent.is_empty() {
            tracing::warn!(
                endpoints = sent.len(),
                "requests were cut off that the vendor may still count; the next start waits for them"
            );
        }
        past::note_stop(store, &self.0.clock, &sent).await
    }

    /// All buckets as they are now, those that share another's left out.
    #[must_use]
    pub fn buckets(&self) -> Vec<(AppId, BucketName, Snapshot)> {
        let table = self.0.table.load();
        let mut all: Vec<_> = table
            .desks
            .iter()
            .flat_map(|(app, desk)| desk.lines().map(|line| (app.clone(), line.name, line.bucket.snapshot())))
            .collect();
        all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        all
    }

    /// The bucket that orders of this name are counted in, as it is now. `None`: no such app.
    #[must_use]
    pub fn bucket(&self, app: &AppId, name: BucketName) -> Option<Snapshot> {
        self.0.table.load().desks.get(app).map(|desk| desk.line(name).bucket.snapshot())
    }

    /// How each app's credential is. Holds no secret.
    #[must_use]
    pub fn credential_states(&self) -> Vec<CredentialState> {
        let table = self.0.table.load();
        let mut all: Vec<_> = table.desks.iter().map(|(app, desk)| desk.credential.state(app)).collect();
        all.sort_by(|a, b| a.app.cmp(&b.app));
        all
    }

    /// The endpoints of an app that the vendor answers with 403, and since when: the App ID or the feature is switched off.
    #[must_use]
    pub fn switched_off(&self, app: &AppId) -> Vec<(&'static str, UnixMillis)> {
        self.0.table.load().desks.get(app).map(|desk| desk.switched_off.list()).unwrap_or_default()
    }

    /// How each region's host is, and what of its endpoints is not as it should be, in the order of names.
    #[must_use]
    pub fn regions(&self) -> Vec<RegionState> {
        let (table, now) = (self.0.table.load(), self.0.clock.now());
        type Apps<'a> = Vec<(&'a AppId, &'a app_runtime::Region)>;
        let mut places: Vec<(&Arc<hosts::HostHealth>, Apps<'_>)> = Vec::new();
        for (app, region) in table.desks.iter().flat_map(|(app, desk)| desk.regions().iter().map(move |r| (app, r))) {
            match places.iter_mut().find(|(place, _)| Arc::ptr_eq(place, &region.place)) {
                Some((_, apps)) => apps.push((app, region)),
                None => places.push((&region.place, vec![(app, region)])),
            }
        }
        let mut all: Vec<_> = places
            .into_iter()
            .map(|(place, mut apps)| {
                apps.sort_by_key(|(app, _)| *app);
                let endpoints = apps.iter().flat_map(|(_, region)| region.endpoints());
                let endpoints = endpoints.filter_map(|endpoint| endpoint.describe(now)).collect();
                place.describe(apps.iter().map(|(app, _)| *app).collect(), endpoints)
            })
            .collect();
        all.sort_by(|a, b| (&a.region, &a.host).cmp(&(&b.region, &b.host)));
        all
    }

    /// Writes the buckets' and endpoints' gauges. To be called when metrics are read.
    pub fn refresh_metrics(&self) {
        let (table, now) = (self.0.table.load(), self.0.clock.now());
        for region in table.desks.values().flat_map(AppRuntime::regions) {
            region.endpoints().for_each(|endpoint| endpoint.show(&region.name, &self.0.metrics, now));
        }
        for line in table.desks.values().flat_map(AppRuntime::lines) {
            line.meters.show(&line.bucket.snapshot());
        }
    }
}

/// Looks at the files of all credentials, again and again, for as long as somebody has the door.
async fn keep_secrets(inner: Weak<Inner>) {
    let mut pause = credentials::LOOK_EVERY;
    for round in 1.. {
        tokio::time::sleep(pause).await;
        let Some(table) = inner.upgrade().map(|inner| inner.table.load_full()) else { return };
        let mut all: Vec<_> = table.desks.iter().collect();
        all.sort_by_key(|(app, _)| *app);
        let all: Vec<_> = all.into_iter().map(|(_, desk)| desk.credential.clone()).collect();
        let again = off_the_workers(move || credentials::look_at(&all, round)).await;
        pause = if again { credentials::LOOK_AGAIN } else { credentials::LOOK_EVERY };
    }
}
