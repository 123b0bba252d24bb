//! History and count: the vendor's create-handle-poll dance as one answer.
//!
//! The way of one query, from the route to the vendor and back:
//!
//! ```text
//! request/routes/history.rs      body, terms                       request/routes/history/answer.rs
//!    |                                                                        ^ members of the answer
//!    v History::query                                                         |
//! history.rs  -- query.rs: the body in one normal form --> Question        answer.rs, render.rs
//!    |                                                                        ^ Source: kept, joined or its own
//!    | is the answer kept?  ------- results.rs: by request, by handle ------->|
//!    v                                                                        |
//! jobs.rs     does another want the same? join it; else begin a Job --------->| wait for the outcome (jobs/caller.rs)
//!    | JobGuard                                                               |
//!    v                                                                        |
//! job_runner.rs   in a task of its own: makes the product, publishes it, has it kept
//!    |
//!    v Pager::next
//! pager.rs        many pages as one list, also while it moves (pager/*)
//!    | PageQuery
//!    v
//! resolver.rs     one page: create, fetch, `in progress` waited out, made anew when a handle died
//!    |
//!    v
//! orders.rs       one order under the deadline of those who wait  -- Order --> upstream::egress
//! ```
//!
//! | beside it | does |
//! | --- | --- |
//! | `job`, `jobs/table` | a job and what makes two requests the same; who is owed its answer, and for how long |
//! | `fair_lru` | results within bounds, of which no client takes what others were promised |
//! | `count_turns` | when the same count may be asked again: a count has no handle of its own to wait for |
//! | `stream` | any number of messages as lines; `retrying_pages`: its pages, `stream_permits`: how many there may be |
//! | `cursor`, `crowd` | where a stream can be gone on with; among how many messages of one millisecond |
//!
//! Invariants: work is done in jobs of its own tasks, never in a caller's future, so a caller that leaves breaks
//! nothing off half done. Nothing made for one app is seen through another; a handle serves only the client that got
//! it. A job's orders are paid by the client that began it, under the latest deadline of those who wait for it.

mod answer;
mod count_turns;
mod crowd;
mod cursor;
mod error;
mod fair_lru;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod job;
mod job_runner;
mod jobs;
mod orders;
mod pager;
mod query;
mod render;
mod resolver;
mod results;
mod retrying_pages;
mod source;
mod stream;
mod stream_permits;
mod terms;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::kernel::clock::Clock;
use crate::kernel::metrics::{AppLabels, CacheLabels, Metrics, StreamEndLabels, from_the_start};
use crate::kernel::names::AppId;
use crate::kernel::task::{Kind, Tasks};
use crate::upstream::egress::{Egress, Failure, Orders, WorkCosts};
use crate::vendor::Vendor;
pub use answer::{Answer, AnswerState};
use count_turns::CountTurns;
pub use error::Error;
use job::{JobKey, Question};
use job_runner::JobRunner;
use jobs::{JobLookup, JobRequest, Jobs};
use orders::{OrderSender, Patience};
use render::MemoryBudget;
use resolver::Resolver;
use results::ResultCache;
use retrying_pages::RetryingPages;
use source::Source;
use stream::StreamStart;
pub use stream::{MessageStream, StreamPart};
use stream_permits::StreamPermits;
pub use terms::Terms;

/// How long ago a window must have ended for its result to be given again: messages may show up late, clocks differ.
const PAST_MARGIN: Duration = Duration::from_secs(30);

/// How long a count whose caller waits no longer is given to say that it has no seat.
const STUCK_WAIT: Duration = Duration::from_millis(200);

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct History(Arc<Service>);

/// What all its work shares.
struct Service {
    client: Arc<dyn Orders>,
    tasks: Tasks,
    clock: Clock,
    metrics: Metrics,
    settings: ArcSwap<Settings>,
    jobs: Jobs,
    streams: StreamPermits,
    results: ResultCache,
    memory: MemoryBudget,
    counts: CountTurns,
}

#[derive(Default)]
struct Settings {
    vendor: Vendor,
    apps: HashMap<AppId, config::History>,
}

impl History {
    /// The service, without any app until [`History::apply`].
    #[must_use]
    pub fn new(egress: Egress, tasks: Tasks, clock: Clock, metrics: Metrics) -> Self {
        Self::through(Arc::new(egress), tasks, clock, metrics)
    }

    fn through(client: Arc<dyn Orders>, tasks: Tasks, clock: Clock, metrics: Metrics) -> Self {
        let lookup = |outcome: &str| CacheLabels { cache: "history".into(), outcome: outcome.into() };
        from_the_start(&metrics.cache_requests, ["hit", "joined", "miss", "bypass"].map(lookup));
        let jobs = Jobs::new(clock.clone());
        Self(Arc::new(Service {
            client,
            tasks,
            metrics,
            settings: ArcSwap::default(),
            results: ResultCache::new(jobs.clone()),
            jobs,
            streams: StreamPermits::default(),
            memory: MemoryBudget::default(),
            counts: CountTurns::new(clock.clone()),
            clock,
        }))
    }

    /// Takes the configuration, at start and after a change. Jobs under way go on as they began.
    pub fn apply(&self, apps: &[config::App], vendor: Vendor) {
        apps.iter().for_each(|app| self.count_from_the_start(&app.id));
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
        let source = self.source(app, Question::Messages(query.clone()), &terms, vendor, &settings).await?;
        let (client, ttl, is_owed) = (&terms.payer.client, settings.handle_ttl, source.as_of().is_some());
        // Given out as of now, but only when it is awaited: who gets an error is given none.
        let location = self.0.results.location(source.job(), client, is_owed, ttl, self.0.clock.now());
        let waits = !terms.respond_async || terms.deadline > self.0.clock.now();
        match if waits { source.outcome(&terms).await? } else { None } {
            Some(outcome) => {
                let product = outcome?;
                Ok(Answer::messages(&query, location.await?, &product, &source))
            }
            None => {
                let location = location.await?;
                source.promise();
                if !terms.respond_async {
                    return Err(Error::StillRunning { location: Some(location) });
                }
                source.is_content();
                Ok(Answer::accepted(&query, location, source.as_of()))
            }
        }
    }

    /// `GET …/history/query/{handle}`: the result of a query this client made. Does not wait: a job under way is
    /// answered as the vendor would, and asked for again by the client.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn fetch(&self, app: &AppId, handle: &str, terms: Terms) -> Result<Answer, Error> {
        let job = self.0.results.open(app, &terms.payer.client, handle, self.0.clock.now()).await;
        let job = job.ok_or(Error::NoSuchHandle)?;
        // The request that began it was told of what it cost by then.
        job.costs.share();
        terms.account.charge(&job.costs);
        let Some((_, outcome)) = job.outcome() else { return Ok(Answer::in_progress()) };
        let as_of = job.is_owed_to(&terms.payer.client).then_some(job.began);
        Ok(Answer::fetched(&*outcome?, as_of))
    }

    /// `GET …/history/count`: reads the decoded query parameters and waits out `in progress`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn count(&self, app: &AppId, query: &[(String, String)], terms: Terms) -> Result<Answer, Error> {
        let (vendor, settings) = self.settings(app)?;
        let (filter, within) = query::parse_count(query)?;
        // A count is of whole seconds: it says of which, where others were asked for.
        let range = (!within.is_all()).then(|| render::range(&filter));
        let source = self.source(app, Question::Count(filter), &terms, vendor, &settings).await?;
        let outcome = match source.outcome(&terms).await? {
            Some(outcome) => outcome,
            None if source.job().sent.is_sent() => Err(Error::StillRunning { location: None }),
            // Nothing was asked yet: its caller learns whether it is the quota that it would have to wait for.
            None => Err(match source.job().stuck(STUCK_WAIT).await {
                Some(why) => {
                    // That is its answer: it comes back with a new question.
                    source.is_content();
                    why.into()
                }
                None => Error::StillRunning { location: None },
            }),
        };
        let mut answer = Answer::count(&*outcome?, &source);
        if let Some(range) = range {
            answer.say_range(range);
        }
        Ok(answer)
    }

    /// `GET /v1/apps/{app}/history`: reads the decoded query parameters and begins to stream. Returns when there is
    /// something to say: lines, why there are none, or that it takes longer than a heartbeat or the terms' deadline,
    /// which bound nothing else. `draining` ends it.
    ///
    /// # Errors
    /// What went wrong before the first line; see [`Error`].
    pub async fn stream(
        &self,
        app: &AppId,
        parameters: &[(String, String)],
        terms: Terms,
        draining: CancellationToken,
    ) -> Result<MessageStream, Error> {
        let service = &self.0;
        let (vendor, settings) = self.settings(app)?;
        let (query, cursor) = query::parse_stream(parameters)?;
        let hash = cursor::query_hash(app, &query);
        let after = cursor.map(|text| cursor::read(text, hash, query.direction)).transpose()?.flatten();
        let permit = service.streams.enter(&terms.payer.client)?;
        let costs = WorkCosts::default();
        terms.account.charge(&costs);
        let orders = OrderSender {
            client: Arc::clone(&service.client),
            clock: service.clock.clone(),
            app: app.clone(),
            payer: terms.payer,
            sharers: None,
            proof: Some(terms.proof.clone()),
            patience: Patience::Stream { stall: settings.deadline },
            sent: None,
            costs,
        };
        let resolver = Resolver { orders, vendor, metrics: service.metrics.clone(), counts: service.counts.clone() };
        let pages = service.metrics.history_stream_pages.get_or_create_owned(&AppLabels { app: app.to_string() });
        let pages = RetryingPages { resolver, stall: settings.deadline, pages };
        let start = StreamStart { app: app.clone(), query, after, hash, pages, permit, proof: terms.proof, draining };
        MessageStream::open(service, start, terms.deadline).await
    }

    /// What let callers in was judged anew: ends the work that nobody is left for.
    pub fn review(&self) {
        self.0.jobs.review();
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
        question: Question,
        terms: &Terms,
        vendor: Vendor,
        settings: &config::History,
    ) -> Result<Source, Error> {
        let (service, account) = (&self.0, &terms.account);
        let now = service.clock.now();
        let is_past = question.filter().end < service.clock.wall_ms().before(PAST_MARGIN).seconds();
        let key = JobKey { app: app.clone(), question };
        let is_fresh = terms.max_age == Some(Duration::ZERO);
        if !is_fresh && let Some(job) = service.results.answer(&key, terms.max_age, now).await {
            self.count_lookup("hit");
            return Ok(Source::kept(job, false, account));
        }
        let end = now + settings.handle_ttl.max(settings.deadline + settings.keep_going);
        let request = JobRequest {
            payer: &terms.payer,
            proof: &terms.proof,
            max_age: terms.max_age,
            deadline: if terms.respond_async { end } else { terms.deadline },
            is_past,
            end,
            keep_going: settings.keep_going,
        };
        loop {
            return Ok(match service.jobs.enter(key.clone(), &request)? {
                JobLookup::Joined(caller) => {
                    self.count_lookup("joined");
                    Source::joined(caller, false, account)
                }
                JobLookup::Returned(caller) => {
                    self.count_lookup("joined");
                    Source::joined(caller, true, account)
                }
                JobLookup::Ended(number) => {
                    // It may have had to make room for others.
                    let Some(job) = service.results.of(number) else { continue };
                    self.count_lookup("hit");
                    Source::kept(job, true, account)
                }
                JobLookup::Began(caller, guard) => {
                    self.count_lookup(if is_fresh { "bypass" } else { "miss" });
                    let runner = JobRunner::new(Arc::clone(service), guard, vendor, terms.payer.clone());
                    service.tasks.spawn(Kind::Resolver, runner.run());
                    Source::own(caller, account)
                }
            });
        }
    }

    fn count_from_the_start(&self, app: &AppId) {
        let (metrics, app) = (&self.0.metrics, app.to_string());
        let labels = || [AppLabels { app: app.clone() }];
        let counters = [&metrics.history_recreated, &metrics.history_stream_messages];
        let counters = counters.into_iter().chain([&metrics.history_stream_pages, &metrics.history_stream_repairs]);
        counters.for_each(|counter| from_the_start(counter, labels()));
        let ends = ["complete", "broken", "left"].map(|end| StreamEndLabels { app: app.clone(), end: end.to_owned() });
        from_the_start(&metrics.history_streams, ends);
    }

    fn count_lookup(&self, outcome: &str) {
        let labels = CacheLabels { cache: "history".into(), outcome: outcome.into() };
        self.0.metrics.cache_requests.get_or_create(&labels).inc();
    }
}
