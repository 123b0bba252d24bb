//! The only door out: order -> quota -> credential -> upstream -> reply.
//!
//! Invariants:
//! - Nothing leaves but through [`Egress::send`], and nothing without a seat of the bucket the vendor counts it in.
//! - The seat goes with the exchange, not with the caller: a caller that leaves or gives up hands the exchange to the
//!   [`detached`] task, which keeps its seat until the vendor began to answer, or the connection is dead.
//! - Large answers lie in an [`AnswerMemory`] with shares, but for those of reads of events, which never wait for it.
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
//! A count whose answer did not come in time is left alone for as long as after `in progress`, which that answer may
//! say. All of it only before the order's deadline, and all but the 401 and 429 within the client's retry budget
//! ([`budget`]). A host that cannot be connected to is left alone for a while ([`hosts`]); an endpoint whose answers
//! fail is asked in another region first, where there is one ([`endpoint`]). An exchange ends after `request_timeout`
//! and at the order's deadline; one that reads events is never given up before [`DETACHED_TIMEOUTS`] times
//! `request_timeout`, whatever its order's deadline was (that bounds only the wait for a seat).
//!
//! Read on in [`attempt`], which follows one order through all of it.

mod answer;
mod answer_time;
mod app_runtime;
mod attempt;
mod breaker;
mod buckets;
mod budget;
mod coding;
mod costs;
mod detached;
mod endpoint;
mod events_body;
mod failure;
mod hold;
mod hosts;
mod meters;
mod orders;
mod outcome;
mod previous_run;
mod quota_state;
mod redact;
mod request_id;
mod retry;
mod skew;
mod switched_off;
mod table;

use std::sync::{Arc, Mutex, Weak};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::kernel::clock::Clock;
use crate::kernel::metrics::{AppLabels, Metrics};
use crate::kernel::names::{AppId, BucketName, ClientName};
use crate::kernel::sync::lock;
use crate::kernel::task::{Kind, Tasks, off_the_workers};
use crate::kernel::trouble::{Part, Symptom, Trouble};
use crate::store::{self, Store};
use crate::upstream::credentials::{self, CredentialState};
use crate::upstream::pool::Bounds;
use crate::upstream::pool::memory::AnswerMemory;
use crate::upstream::quota::Snapshot;
use crate::vendor::order::Order;
use app_runtime::AppRuntime;
use buckets::{AppBucket, Buckets};
use costs::OrderCosts;
pub use costs::{Account, Costs, WorkCosts};
use detached::DetachedExchanges;
pub use endpoint::EndpointState;
pub use failure::{Failure, VendorLimit};
use hosts::Hosts;
pub use hosts::RegionState;
pub(crate) use orders::Orders;
pub use orders::{Failed, Reply};
pub use previous_run::{LastShutdown, PreviousRun};
pub use quota_state::{OthersSpend, QuotaState};
use quota_state::{tell_last_refusals, tell_refusals};
use redact::Cleaning;
use retry::Reason;
pub use switched_off::SwitchedOffEndpoint;
pub use table::BuildError;
use table::Table;

/// An exchange nobody waits for, or that reads events, ends after this many times `upstream.request_timeout`.
pub const DETACHED_TIMEOUTS: u32 = 6;

/// The door. Cheap to clone.
#[derive(Clone)]
pub struct Egress(Arc<Inner>);

struct Inner {
    table: ArcSwap<Table>,
    long_lived: Mutex<LongLived>,
    detached: DetachedExchanges,
    memory: AnswerMemory,
    cleaning: Cleaning,
    clock: Clock,
    metrics: Metrics,
    stopping: CancellationToken,
}

/// What outlives reloads.
struct LongLived {
    buckets: Buckets,
    hosts: Hosts,
}

impl Egress {
    /// The door as configured. Secrets are read now; one that cannot be read stops its app until it can (see
    /// [`Egress::credential_states`]). Buckets begin as what was before says. `tasks` are to be stopped after all who
    /// send orders: exchanges that these leave behind are waited for.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn new(
        config: &Config,
        before: impl Into<PreviousRun>,
        clock: Clock,
        metrics: Metrics,
        tasks: &Tasks,
    ) -> Result<Self, BuildError> {
        let prepared = Table::prepare(config, None, &clock)?;
        let mut buckets = Buckets::new(before.into(), clock.clone(), metrics.clone());
        let mut hosts = Hosts::default();
        let table = prepared.commit(&mut buckets, &mut hosts, &clock, &metrics);
        buckets.opened();
        let inner = Arc::new(Inner {
            table: ArcSwap::from_pointee(table),
            long_lived: Mutex::new(LongLived { buckets, hosts }),
            detached: DetachedExchanges::start(tasks),
            memory: AnswerMemory::new(Bounds::default(), metrics.response_body_bytes.clone()),
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
        let mut long_lived = lock(&self.0.long_lived);
        let old = self.0.table.load_full();
        let prepared = Table::prepare(config, Some(&old), &self.0.clock)?;
        let LongLived { buckets, hosts } = &mut *long_lived;
        let table = prepared.commit(buckets, hosts, &self.0.clock, &self.0.metrics);
        self.0.table.store(Arc::new(table));
        let new = self.0.table.load();
        for (app, runtime) in &old.apps {
            if !new.apps.contains_key(app) {
                self.0.metrics.credential_state.remove(&AppLabels { app: app.to_string() });
            }
            let now = new.apps.get(app);
            match now {
                Some(now) if Arc::ptr_eq(&now.credential, &runtime.credential) => {}
                Some(_) => runtime.credential.retire("another is configured"),
                None => runtime.credential.retire("its app is not configured any more"),
            }
            let is_shown = |old: &AppBucket| now.is_some_and(|now| now.buckets().any(|new| new.name == old.name));
            runtime.buckets().filter(|bucket| !is_shown(bucket)).for_each(|bucket| bucket.meters.gone());
            // By the same name: what was told to begin ends by it.
            let is_same =
                |old: &AppBucket, new: &AppBucket| Arc::ptr_eq(&new.seats, &old.seats) && new.name == old.name;
            let is_used = |old: &AppBucket| now.is_some_and(|now| now.buckets().any(|new| is_same(old, new)));
            runtime.buckets().filter(|bucket| !is_used(bucket)).for_each(|bucket| tell_last_refusals(app, bucket));
        }
        buckets.prune(|app| new.apps.contains_key(app));
        drop(old);
        hosts.prune();
        Ok(())
    }

    /// Puts other bounds on the memory for answers: for tests, which would need large ones otherwise.
    #[doc(hidden)]
    pub fn bound_answers(&self, bounds: Bounds) {
        self.0.memory.resize(bounds);
    }

    /// Sends an order and waits for the whole answer. Retries what may be retried (see the module's header). Must be
    /// polled to make progress; may be dropped at any time.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn send(&self, order: Order) -> Result<Reply, Failed> {
        self.send_into(&order, &mut Costs::default()).await
    }

    /// The same. `costs`, which have nothing in them yet, are right also when this is dropped on the way.
    ///
    /// # Errors
    /// See [`Failure`].
    pub(crate) async fn send_into(&self, order: &Order, costs: &mut Costs) -> Result<Reply, Failed> {
        self.send_with(order, OrderCosts::of(costs, None)).await
    }

    async fn send_with(&self, order: &Order, mut costs: OrderCosts<'_>) -> Result<Reply, Failed> {
        // In a box of its own: whoever orders has other things to wait for, and should not hold room for this
        // meanwhile.
        let ended = Box::pin(self.0.attempts(order, &mut costs)).await;
        let costs = costs.sum.clone();
        match ended {
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

    /// Notes for the next run that this one ends now, and what the vendor may still count of what was sent. To be
    /// called when nothing is under way any more but what was cut off, and before the store records a clean stop.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn note_stop(&self, store: &dyn Store) -> Result<(), store::Error> {
        let lasts = self.0.table.load().timeouts.request * DETACHED_TIMEOUTS;
        let under_way = self.0.clock.now() + lasts;
        let sent = lock(&self.0.long_lived).buckets.sent(under_way);
        if !sent.is_empty() {
            tracing::warn!(
                endpoints = sent.len(),
                "requests were cut off that the vendor may still count; the next start waits for them"
            );
        }
        previous_run::note_stop(store, &self.0.clock, &sent).await
    }

    /// How many exchanges are under way whose callers have left.
    #[must_use]
    pub fn detached_exchanges(&self) -> usize {
        self.0.detached.waiting()
    }

    /// All buckets as they are now, those that share another's left out.
    #[must_use]
    pub fn buckets(&self) -> Vec<(AppId, BucketName, Snapshot)> {
        let table = self.0.table.load();
        let of_app = |(app, runtime): (&AppId, &AppRuntime)| -> Vec<_> {
            runtime.buckets().map(|bucket| (app.clone(), bucket.name, bucket.seats.snapshot())).collect()
        };
        let mut all: Vec<_> = table.apps.iter().flat_map(of_app).collect();
        all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        all
    }

    /// All buckets with who uses them, in the order of names, those that share another's left out.
    #[must_use]
    pub fn quotas(&self) -> Vec<QuotaState> {
        let table = self.0.table.load();
        let of_app = |(app, runtime): (&AppId, &AppRuntime)| -> Vec<_> {
            runtime.buckets().map(|bucket| QuotaState::of(app, bucket, &self.0.clock)).collect()
        };
        let mut all: Vec<_> = table.apps.iter().flat_map(of_app).collect();
        all.sort_by(|a, b| (&a.app, a.bucket).cmp(&(&b.app, b.bucket)));
        all
    }

    /// The bucket that orders of this name are counted in, as it is now. `None`: no such app.
    #[must_use]
    pub fn bucket(&self, app: &AppId, name: BucketName) -> Option<Snapshot> {
        self.0.table.load().apps.get(app).map(|runtime| runtime.bucket(name).seats.snapshot())
    }

    /// How each app's credential is. Holds no secret.
    #[must_use]
    pub fn credential_states(&self) -> Vec<CredentialState> {
        let table = self.0.table.load();
        let mut all: Vec<_> = table.apps.iter().map(|(app, runtime)| runtime.credential.state(app)).collect();
        all.sort_by(|a, b| a.app.cmp(&b.app));
        all
    }

    /// Why what is sent for an app fails, or is slower than it should be, app by app.
    #[must_use]
    pub fn troubles(&self) -> Vec<Trouble> {
        let of_app = |(app, runtime): (&AppId, &AppRuntime)| -> Vec<_> {
            let credential = runtime.credential.trouble().into_iter();
            let both = credential
                .flat_map(|(symptom, since)| [(Part::Events, symptom, since), (Part::Messages, symptom, since)]);
            let off = runtime.switched_off().into_iter();
            let off = off.map(|one| (switched_off::part(one.endpoint), Symptom::AppRefused, one.since));
            let refused = runtime.buckets().filter_map(|bucket| quota_state::trouble(bucket, &self.0.clock));
            both.chain(off)
                .chain(refused)
                .map(|(part, symptom, since)| Trouble { part, app: Some(app.clone()), symptom, since })
                .collect()
        };
        self.0.table.load().apps.iter().flat_map(of_app).collect()
    }

    /// The endpoints of an app that the vendor answers with 403, where and since when: the App ID or the feature is
    /// switched off.
    #[must_use]
    pub fn switched_off(&self, app: &AppId) -> Vec<SwitchedOffEndpoint> {
        self.0.table.load().apps.get(app).map(AppRuntime::switched_off).unwrap_or_default()
    }

    /// How each region's host is, and what of its endpoints is not as it should be, in the order of names.
    #[must_use]
    pub fn regions(&self) -> Vec<RegionState> {
        let (table, now) = (self.0.table.load(), self.0.clock.now());
        type Apps<'a> = Vec<(&'a AppId, &'a app_runtime::Region)>;
        let mut hosts: Vec<(&Arc<hosts::HostHealth>, Apps<'_>)> = Vec::new();
        for (app, region) in table.apps.iter().flat_map(|(app, it)| it.regions.iter().map(move |r| (app, r))) {
            match hosts.iter_mut().find(|(host, _)| Arc::ptr_eq(host, &region.host)) {
                Some((_, apps)) => apps.push((app, region)),
                None => hosts.push((&region.host, vec![(app, region)])),
            }
        }
        let mut all: Vec<_> = hosts
            .into_iter()
            .map(|(host, mut apps)| {
                apps.sort_by_key(|(app, _)| *app);
                let endpoints = apps.iter().flat_map(|(_, region)| region.endpoints());
                let endpoints = endpoints.filter_map(|endpoint| endpoint.describe(now)).collect();
                host.describe(apps.iter().map(|(app, _)| *app).collect(), endpoints)
            })
            .collect();
        all.sort_by(|a, b| (&a.region, &a.host).cmp(&(&b.region, &b.host)));
        all
    }

    /// Writes the buckets' and endpoints' gauges. To be called when metrics are read.
    pub fn refresh_metrics(&self) {
        let (table, now) = (self.0.table.load(), self.0.clock.now());
        for region in table.apps.values().flat_map(|runtime| &runtime.regions) {
            region.endpoints().for_each(|endpoint| endpoint.show(&region.name, &self.0.metrics, now));
        }
        for bucket in table.apps.values().flat_map(AppRuntime::buckets) {
            bucket.meters.show(&bucket.seats.snapshot());
            bucket.seats.refresh_clients();
        }
        for (app, runtime) in &table.apps {
            let gauge = self.0.metrics.credential_state.get_or_create_owned(&AppLabels { app: app.to_string() });
            gauge.set(runtime.credential.state(app).is_good().into());
        }
    }
}

#[async_trait]
impl Orders for Egress {
    async fn send(&self, order: Order) -> Result<Reply, Failed> {
        Self::send(self, order).await
    }

    async fn send_for(&self, order: Order, work: &WorkCosts) -> Result<Reply, Failed> {
        self.send_with(&order, OrderCosts::of(&mut Costs::default(), Some(work))).await
    }

    fn may_repeat(&self, app: &AppId, client: &ClientName) -> bool {
        let table = self.0.table.load();
        table.apps.get(app).is_some_and(|runtime| runtime.may_send_again(Reason::Repeated, client, self.0.clock.now()))
    }
}

/// Looks at the files of all credentials, and tells what is new of the vendor's refusals, again and again, for as long
/// as somebody has the door.
async fn keep_secrets(inner: Weak<Inner>) {
    let mut pause = credentials::LOOK_EVERY;
    for round in 1.. {
        tokio::time::sleep(pause).await;
        let Some(table) = inner.upgrade().map(|inner| inner.table.load_full()) else { return };
        let mut all: Vec<_> = table.apps.iter().collect();
        all.sort_by_key(|(app, _)| *app);
        for (app, runtime) in &all {
            runtime.buckets().for_each(|bucket| tell_refusals(app, bucket));
        }
        let all: Vec<_> = all.into_iter().map(|(_, runtime)| runtime.credential.clone()).collect();
        let again = off_the_workers(move || credentials::look_at(&all, round)).await;
        pause = if again { credentials::LOOK_AGAIN } else { credentials::LOOK_EVERY };
    }
}
