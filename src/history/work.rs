//! Where an answer comes from, and what a job does.
//!
//! Invariants: a job is begun by a caller and runs in a task of its own; its result is kept before its callers are the
//! only ones who know it. What has expired is removed as long as anything is kept, and no task is left when nothing is.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep, timeout_at};

use super::job::{Ask, Job, Key, Outcome, Product};
use super::jobs::{Asking, Caller, Came, Runner};
use super::pager::Pager;
use super::render::MemoryBudget;
use super::resolver::{Patience, Resolver};
use super::tally::Tally;
use super::{Error, History, Terms, render};
use crate::config;
use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::metrics::{AppLabels, CacheLabels};
use crate::kernel::names::AppId;
use crate::kernel::task::Kind;
use crate::upstream::egress::{Costs, Failure};
use crate::vendor::Vendor;
use crate::vendor::order::Payer;

/// How long ago a window must have ended for its result to be given again: messages may show up late, clocks differ.
const PAST_MARGIN: Duration = Duration::from_secs(30);

/// How often expired results are removed, while there are any.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

impl History {
    /// A kept result, a job under way, or a new one.
    pub(super) async fn source(
        &self,
        app: &AppId,
        ask: Ask,
        terms: &Terms,
        vendor: Vendor,
        settings: &config::History,
    ) -> Result<Source, Error> {
        let now = self.0.clock.now();
        let key = Key { app: app.clone(), ask };
        let is_fresh = terms.max_age == Some(Duration::ZERO);
        if !is_fresh && let Some(job) = self.0.results.answer(&key, terms.max_age, now).await {
            self.looked_up("hit");
            return Ok(Source::Kept(job));
        }
        let end = now + settings.handle_ttl.max(settings.deadline + settings.keep_going);
        let asking = Asking {
            payer: &terms.payer,
            proof: &terms.proof,
            max_age: terms.max_age,
            deadline: if terms.respond_async { end } else { terms.deadline },
            is_past: is_past(&key.ask, &self.0.clock),
            end,
            keep_going: settings.keep_going,
        };
        loop {
            return Ok(match self.0.jobs.enter(key.clone(), &asking)? {
                Came::Joined(caller) => {
                    self.looked_up("joined");
                    Source::Shared(caller)
                }
                Came::Returned(caller) => {
                    self.looked_up("joined");
                    Source::Owed(caller)
                }
                Came::Ended(number) => {
                    // It may have had to make room for others.
                    let Some(job) = self.0.results.of(number) else { continue };
                    self.looked_up("hit");
                    Source::KeptOwed(job)
                }
                Came::Began(caller, runner) => {
                    self.looked_up(if is_fresh { "bypass" } else { "miss" });
                    let run = self.clone().run(runner, vendor, terms.payer.clone());
                    self.0.tasks.spawn(Kind::Resolver, run);
                    Source::Own(caller)
                }
            });
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
        let resolver = Arc::new(Resolver {
            door: Arc::clone(&inner.door),
            clock: inner.clock.clone(),
            metrics: inner.metrics.clone(),
            app: job.key.app.clone(),
            vendor,
            payer,
            sharers: Some(job.sharers.subscribe()),
            proof: None,
            patience: Patience::Callers { deadline: job.deadline(), stuck: job.stuck.clone() },
            pauses: inner.pauses.clone(),
            sent: Some(job.sent.clone()),
            tally: Tally::default(),
        });
        let stopping = inner.tasks.stopping();
        let mut work = pin!(timeout_at(job.end, make(Arc::clone(&resolver), inner.desk.clone(), &job.key.ask)));
        let mut outlived = pin!(inner.jobs.outlived(&job));
        let mut told = false;
        let made = loop {
            tokio::select! {
                biased;
                () = job.abandoned() => return,
                () = &mut outlived => return,
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
        let again = job.is_past && made.is_ok();
        runner.publish(now, made.map(|member| Arc::new(Product { member, costs: resolver.tally.sum() })));
        // A count has no handle: it is kept to be given again, or to who left before it was there.
        if again || matches!(job.key.ask, Ask::Messages(_)) || inner.jobs.owed().contains(&job.number) {
            inner.results.keep(&job, &resolver.payer.client, again, now).await;
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
pub(super) enum Source {
    Kept(Arc<Job>),
    /// This client had asked for it, and left before it was there.
    KeptOwed(Arc<Job>),
    Shared(Caller),
    /// This client had asked for it, and left; it goes on.
    Owed(Caller),
    Own(Caller),
}

impl Source {
    pub(super) fn job(&self) -> &Job {
        match self {
            Self::Kept(job) | Self::KeptOwed(job) => job,
            Self::Shared(caller) | Self::Owed(caller) | Self::Own(caller) => &caller.job,
        }
    }

    /// When it was asked for, where that was before this request.
    pub(super) fn as_of(&self) -> Option<UnixMillis> {
        match self {
            Self::Kept(_) | Self::Shared(_) | Self::Own(_) => None,
            Self::KeptOwed(_) | Self::Owed(_) => Some(self.job().began),
        }
    }

    /// How it ended; `None` when the caller's deadline came first.
    ///
    /// # Errors
    /// When what let the caller in was withdrawn first: it leaves, and is given nothing.
    pub(super) async fn outcome(&self, terms: &Terms) -> Result<Option<Outcome>, Error> {
        let outcome = match self {
            Self::Kept(job) | Self::KeptOwed(job) => job.outcome().map(|(_, outcome)| outcome),
            Self::Shared(caller) | Self::Owed(caller) | Self::Own(caller) => tokio::select! {
                biased;
                how = terms.proof.withdrawn() => return Err(Failure::from(how).into()),
                outcome = caller.wait(terms.deadline) => outcome,
            },
        };
        terms.proof.goes_on().await.map_err(Failure::from)?;
        Ok(outcome)
    }

    pub(super) fn promise(&self) {
        match self {
            Self::Kept(_) | Self::KeptOwed(_) => {}
            Self::Shared(caller) | Self::Owed(caller) | Self::Own(caller) => caller.promise(),
        }
    }

    /// The caller was given a handle, as it asked.
    pub(super) fn is_content(&self) {
        match self {
            Self::Kept(_) | Self::KeptOwed(_) => {}
            Self::Shared(caller) | Self::Owed(caller) | Self::Own(caller) => caller.is_content(),
        }
    }

    pub(super) fn costs(&self, product: &Product) -> Costs {
        match self {
            Self::Kept(_) | Self::KeptOwed(_) | Self::Shared(_) | Self::Owed(_) => Costs::default(),
            Self::Own(_) => product.costs.clone(),
        }
    }
}

async fn make(resolver: Arc<Resolver>, desk: MemoryBudget, ask: &Ask) -> Result<Bytes, Error> {
    let query = match ask {
        Ask::Count(filter) => return resolver.count(filter).await.map(render::count),
        Ask::Messages(query) => query,
    };
    let mut list = render::MessageList::new(desk, &resolver.payer.client);
    let mut pager = Pager::new(resolver, query);
    while let Some(messages) = pager.next().await? {
        list.extend(&messages)?;
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
