//! History and count: the vendor's create-handle-poll dance as one answer.
//!
//! | part | does |
//! | --- | --- |
//! | `query` | reads a body or query string into one normal form; refuses what would only cost quota |
//! | `jobs` | one job for all who want the same now; it goes on without them only if a handle was promised |
//! | `resolver` | one page, one count: create, fetch, ask again, make anew |
//! | `pager` | many pages as one list, without gap or repeat while the list moves; usable page by page |
//! | `results` | what was made, by handle and by request, for a while and within bounds |
//! | `render` | the members of the answers |
//!
//! Invariants: work is done in jobs of its own tasks, never in a caller's future, so a caller that leaves breaks
//! nothing off half done. Nothing made for one app is seen through another; a handle serves only the client that got
//! it. A job's orders are paid by the client that began it, under the latest deadline of those who wait for it.

mod door;
mod jobs;
mod pager;
mod query;
mod render;
mod resolver;
mod results;
#[cfg(test)]
mod scripted;
mod tally;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use crate::clock::Clock;
use crate::config;
use crate::egress::{Costs, Egress, Failure};
use crate::metrics::{AppLabels, CacheLabels, Metrics};
use crate::names::AppId;
use crate::order::Payer;
use crate::task::{Kind, Tasks};
use crate::vendor::Vendor;
use door::Door;
use jobs::{Ask, Caller, Came, Job, Jobs, Key, Outcome, Product, Runner};
use pager::Pager;
use resolver::Resolver;
use results::Results;
use tally::Tally;

/// Bytes of one result.
const RESULT_MAX: usize = 64 << 20;

/// How long ago a window must have ended for its result to be given again: messages may show up late, clocks differ.
const PAST_MARGIN: Duration = Duration::from_secs(30);

/// How often expired results are removed, while there are any.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct History(Arc<Inner>);

struct Inner {
    door: Arc<dyn Door>,
    tasks: Tasks,
    clock: Clock,
    metrics: Metrics,
    settings: ArcSwap<Settings>,
    jobs: Jobs,
    results: Results,
    sweeping: AtomicBool,
}

#[derive(Default)]
struct Settings {
    vendor: Vendor,
    apps: HashMap<AppId, config::History>,
}

/// How a caller wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Who asks and pays.
    pub payer: Payer,
    /// When it gives up waiting.
    pub deadline: Instant,
    /// `Cache-Control: no-cache`: go past kept results.
    pub fresh: bool,
    /// `Prefer: respond-async`: do not wait at all.
    pub respond_async: bool,
}

/// An answer to a caller: a JSON body whose `request_id` is still to be written.
#[derive(Clone, Debug)]
pub struct Answer {
    /// How it ended.
    pub state: State,
    /// The members of the body after `request_id`, rendered: `"code":"ok",…` without braces, in chunks to be written
    /// one after another. The large one is shared between callers.
    pub members: Vec<Bytes>,
    /// What it cost this caller (nothing when it was shared or kept).
    pub costs: Costs,
}

/// How far a query is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The messages are there: 200.
    Done,
    /// `Prefer: respond-async`: 202 with `location`.
    Accepted,
    /// A GET of a handle whose work goes on: 200 with `code: "in progress"`, as the vendor says it.
    InProgress,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A parameter is wrong; the text names it. 400.
    #[error("{0}")]
    BadRequest(String),
    /// The deadline passed; the work goes on. 504 with `code: "in progress"` and this `location`, when there is one.
    #[error("the deadline passed; the work goes on")]
    StillRunning {
        /// Where the result will be; `None` for a count.
        location: Option<String>,
    },
    /// No such handle, or not this client's, or expired. 410 with `code: "resource not exist"`.
    #[error("no such handle")]
    NoSuchHandle,
    /// The vendor refused the caller's request: its status and body pass through.
    #[error("the vendor refused the request")]
    Refused(Arc<crate::egress::Reply>),
    /// The vendor's answers cannot be understood. 502.
    #[error("the vendor's answer cannot be understood: {0}")]
    BadUpstream(String),
    /// Egress failed.
    #[error(transparent)]
    Egress(#[from] Failure),
    /// Too much is being resolved already. 503.
    #[error("too many queries under way")]
    Crowded,
}

impl History {
    /// The service, without any app until [`History::apply`].
    #[must_use]
    pub fn new(egress: Egress, tasks: Tasks, clock: Clock, metrics: Metrics) -> Self {
        Self::through(Arc::new(egress), tasks, clock, metrics)
    }

    fn through(door: Arc<dyn Door>, tasks: Tasks, clock: Clock, metrics: Metrics) -> Self {
        let jobs = Jobs::default();
        let results = Results::new(jobs.clone());
        let settings = ArcSwap::default();
        let sweeping = AtomicBool::new(false);
        Self(Arc::new(Inner { door, tasks, clock, metrics, settings, jobs, results, sweeping }))
    }

    /// Takes the configuration, at start and after a change. Jobs under way go on as they began.
    pub fn apply(&self, apps: &[config::App], vendor: Vendor) {
        let apps = apps.iter().map(|app| (app.id.clone(), app.history.clone())).collect();
        self.0.settings.store(Arc::new(Settings { vendor, apps }));
    }

    /// `POST …/history/query`: parses the body, resolves the query and pages through it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn query(&self, app: &AppId, body: &[u8], terms: Terms) -> Result<Answer, Error> {
        let (vendor, settings) = self.settings(app)?;
        let query = query::parse_body(body, settings.max_limit)?;
        let source = self.source(app, Ask::Messages(query.clone()), &terms, vendor, &settings).await?;
        let location =
            self.0.results.location(source.job(), &terms.payer.client, settings.handle_ttl, self.0.clock.now());
        if terms.respond_async {
            let location = location.await?;
            source.promise();
            let members = vec![render::located("in progress", &query, &location)];
            return Ok(Answer { state: State::Accepted, members, costs: Costs::default() });
        }
        let Some(outcome) = source.outcome(terms.deadline).await else {
            let location = location.await?;
            source.promise();
            return Err(Error::StillRunning { location: Some(location) });
        };
        let product = outcome?;
        let head = render::located("ok", &query, &location.await?);
        Ok(done(vec![head, COMMA, product.member.clone()], source.costs(&product)))
    }

    /// `GET …/history/query/{handle}`: the result of a query this client made. Does not wait: a job under way is
    /// answered as the vendor would, and asked for again by the client.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn fetch(&self, app: &AppId, handle: &str, terms: Terms) -> Result<Answer, Error> {
        let job = self.0.results.open(app, &terms.payer.client, handle, self.0.clock.now()).await;
        match job.ok_or(Error::NoSuchHandle)?.outcome() {
            None => Ok(Answer {
                state: State::InProgress,
                members: vec![render::code("in progress")],
                costs: Costs::default(),
            }),
            Some((_, outcome)) => Ok(done(vec![render::code("ok"), COMMA, outcome?.member.clone()], Costs::default())),
        }
    }

    /// `GET …/history/count`: parses the query string and waits out `in progress`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn count(&self, app: &AppId, query: Option<&str>, terms: Terms) -> Result<Answer, Error> {
        let (vendor, settings) = self.settings(app)?;
        let filter = query::parse_count(query)?;
        let source = self.source(app, Ask::Count(filter), &terms, vendor, &settings).await?;
        let outcome = source.outcome(terms.deadline).await.ok_or(Error::StillRunning { location: None })?;
        let product = outcome?;
        Ok(done(vec![render::code("ok"), COMMA, product.member.clone()], source.costs(&product)))
    }

    fn settings(&self, app: &AppId) -> Result<(Vendor, config::History), Error> {
        let settings = self.0.settings.load();
        let of_app = settings.apps.get(app).cloned().ok_or(Failure::NoSuchApp)?;
        Ok((settings.vendor, of_app))
    }

    /// A kept result, a job under way, or a new one.
    async fn source(
        &self,
        app: &AppId,
        ask: Ask,
        terms: &Terms,
        vendor: Vendor,
        settings: &config::History,
    ) -> Result<Source, Error> {
        let now = self.0.clock.now();
        let key = Key { app: app.clone(), ask };
        if !terms.fresh
            && let Some(job) = self.0.results.answer(&key, now).await
        {
            self.looked_up("hit");
            return Ok(Source::Kept(job));
        }
        let end = now + settings.handle_ttl.max(settings.deadline);
        let deadline = if terms.respond_async { end } else { terms.deadline };
        match self.0.jobs.enter(key, !terms.fresh, deadline, end)? {
            Came::Joined(caller) => {
                self.looked_up("joined");
                Ok(Source::Shared(caller))
            }
            Came::Began(caller, runner) => {
                self.looked_up(if terms.fresh { "bypass" } else { "miss" });
                let run = self.clone().run(runner, vendor, terms.payer.clone());
                self.0.tasks.spawn(Kind::Resolver, run);
                Ok(Source::Own(caller))
            }
        }
    }

    fn looked_up(&self, outcome: &str) {
        let labels = CacheLabels { cache: "history".into(), outcome: outcome.into() };
        self.0.metrics.cache_requests.get_or_create(&labels).inc();
    }

    /// A job from its beginning to its end, in its own task.
    async fn run(self, runner: Runner, vendor: Vendor, payer: Payer) {
        let inner = &*self.0;
        let job = Arc::clone(&runner.job);
        let began = inner.clock.now();
        let past = is_past(&job.key.ask, &inner.clock);
        let resolver = Arc::new(Resolver {
            door: Arc::clone(&inner.door),
            clock: inner.clock.clone(),
            metrics: inner.metrics.clone(),
            app: job.key.app.clone(),
            vendor,
            payer,
            deadline: job.deadline(),
            tally: Tally::default(),
        });
        let stopping = inner.tasks.stopping();
        let mut work = pin!(timeout_at(job.end, make(Arc::clone(&resolver), &job.key.ask)));
        let mut told = false;
        let made = loop {
            tokio::select! {
                biased;
                () = job.abandoned() => return,
                () = stopping.cancelled(), if !told => {
                    told = true;
                    inner.jobs.stop();
                }
                made = &mut work => break made.unwrap_or_else(|_| Err(Failure::TimedOut { sent: true }.into())),
            }
        };
        let now = inner.clock.now();
        let labels = AppLabels { app: job.key.app.to_string() };
        inner.metrics.history_resolve.get_or_create(&labels).observe((now - began).as_secs_f64());
        let again = past && made.is_ok();
        runner.publish(now, made.map(|member| Arc::new(Product { member, costs: resolver.tally.sum() })));
        // A count has no handle: it is kept only to be given again.
        if again || matches!(job.key.ask, Ask::Messages(_)) {
            inner.results.keep(&job, again, now).await;
            self.keep_sweeping();
        }
    }

    /// Sees to it that expired results are removed until there are none.
    fn keep_sweeping(&self) {
        if self.0.sweeping.swap(true, Ordering::AcqRel) {
            return;
        }
        let inner = Arc::clone(&self.0);
        let stopping = inner.tasks.stopping();
        self.0.tasks.spawn(Kind::Retention, async move {
            while stopping.run_until_cancelled(sleep(SWEEP_INTERVAL)).await.is_some() {
                if inner.results.sweep(inner.clock.now()).await {
                    inner.sweeping.store(false, Ordering::Release);
                    // One may have been kept just before that.
                    if inner.results.is_empty() || inner.sweeping.swap(true, Ordering::AcqRel) {
                        return;
                    }
                }
            }
        });
    }
}

/// Where a caller's answer comes from.
enum Source {
    Kept(Arc<Job>),
    Shared(Caller),
    Own(Caller),
}

impl Source {
    fn job(&self) -> &Job {
        match self {
            Self::Kept(job) => job,
            Self::Shared(caller) | Self::Own(caller) => &caller.job,
        }
    }

    async fn outcome(&self, deadline: Instant) -> Option<Outcome> {
        match self {
            Self::Kept(job) => job.outcome().map(|(_, outcome)| outcome),
            Self::Shared(caller) | Self::Own(caller) => caller.wait(deadline).await,
        }
    }

    fn promise(&self) {
        match self {
            Self::Kept(_) => {}
            Self::Shared(caller) | Self::Own(caller) => caller.promise(),
        }
    }

    fn costs(&self, product: &Product) -> Costs {
        match self {
            Self::Kept(_) | Self::Shared(_) => Costs::default(),
            Self::Own(_) => product.costs.clone(),
        }
    }
}

const COMMA: Bytes = Bytes::from_static(b",");

fn done(members: Vec<Bytes>, costs: Costs) -> Answer {
    Answer { state: State::Done, members, costs }
}

async fn make(resolver: Arc<Resolver>, ask: &Ask) -> Result<Bytes, Error> {
    let query = match ask {
        Ask::Count(filter) => return resolver.count(filter).await.map(render::count),
        Ask::Messages(query) => query,
    };
    let mut pager = Pager::new(resolver, query);
    let mut list = render::MessageList::new();
    while let Some(messages) = pager.next().await? {
        for message in messages {
            list.push(&message);
        }
        if list.len() > RESULT_MAX {
            return Err(Error::BadRequest(format!("limit selects more than {} MiB of messages", RESULT_MAX >> 20)));
        }
    }
    Ok(list.finish())
}

fn is_past(ask: &Ask, clock: &Clock) -> bool {
    let filter = match ask {
        Ask::Messages(query) => &query.filter,
        Ask::Count(filter) => filter,
    };
    filter.end < clock.wall_ms().before(PAST_MARGIN).seconds()
}
