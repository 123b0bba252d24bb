//! History and count: the vendor's create-handle-poll dance as one answer.
//!
//! | part | does |
//! | --- | --- |
//! | `query` | reads a body or query string into one normal form; refuses what would only cost quota |
//! | `work` | where an answer comes from: a kept result, a job under way, a new one; and what a job does |
//! | `job`, `jobs` | one job for all who want the same and may have it; it goes on for those who come back for its answer |
//! | `resolver` | one page, one count: create, fetch, ask again, make anew; `pauses`: when the same count may be asked again |
//! | `pager` | many pages as one list, without gap or repeat while the list moves; usable page by page |
//! | `stream` | any number of messages as lines, as they come; `retrying_pages`: its pages, `streams`: how many there may be |
//! | `cursor` | where a stream can be gone on with; `crowd`: among how many messages of one millisecond |
//! | `results` | what was made, by handle and by request, for a while and within bounds |
//! | `render` | the members of the answers |
//!
//! Invariants: work is done in jobs of its own tasks, never in a caller's future, so a caller that leaves breaks
//! nothing off half done. Nothing made for one app is seen through another; a handle serves only the client that got
//! it. A job's orders are paid by the client that began it, under the latest deadline of those who wait for it.

mod crowd;
mod cursor;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod job;
mod jobs;
mod pager;
mod pauses;
mod query;
mod render;
mod resolver;
mod results;
mod retrying_pages;
mod shelf;
mod stream;
mod streams;
mod tally;
#[cfg(test)]
mod tests;
mod upstream_client;
mod work;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use hyper::StatusCode;
use tokio::time::Instant;

use crate::config;
use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::metrics::Metrics;
use crate::kernel::names::AppId;
use crate::kernel::proof::Proof;
use crate::kernel::task::Tasks;
use crate::upstream::egress::{Costs, Egress, Failure};
use crate::vendor::Vendor;
use crate::vendor::order::Payer;
use job::{Ask, Product};
use jobs::Jobs;
use pauses::Pauses;
use render::MemoryBudget;
use results::Results;
pub use stream::{Messages, Part};
use streams::Streams;
use upstream_client::UpstreamClient;
use work::Source;

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct History(Arc<Inner>);

struct Inner {
    door: Arc<dyn UpstreamClient>,
    tasks: Tasks,
    clock: Clock,
    metrics: Metrics,
    settings: ArcSwap<Settings>,
    jobs: Jobs,
    streams: Streams,
    results: Results,
    desk: MemoryBudget,
    pauses: Pauses,
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
    /// What let it in.
    pub proof: Proof,
    /// When it gives up waiting.
    pub deadline: Instant,
    /// How old a kept result may be; none is taken when zero, and no work of others. `None`: as old as they are kept.
    pub max_age: Option<Duration>,
    /// `Prefer: respond-async`: after the deadline the answer is that it is accepted, and where it will be.
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
    /// Where the result of an accepted query will be, as the body says it: `~` stands for the project.
    pub location: Option<String>,
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
    /// The vendor refused the caller's request, or can serve nobody now (503): its status and body pass through.
    #[error("the vendor refused the request")]
    Refused(Arc<crate::upstream::egress::Reply>),
    /// The vendor has switched the app, or its history, off. 502.
    #[error("the vendor refuses this app (403)")]
    AppRefused,
    /// The vendor failed. 502.
    #[error("the vendor answered {status}")]
    Failing {
        /// How.
        status: StatusCode,
        /// How long it wants to be left alone.
        retry_after: Duration,
    },
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

    fn through(door: Arc<dyn UpstreamClient>, tasks: Tasks, clock: Clock, metrics: Metrics) -> Self {
        let jobs = Jobs::new(clock.clone());
        let results = Results::new(jobs.clone());
        let settings = ArcSwap::default();
        let sweeping = AtomicBool::new(false);
        let (streams, desk) = (Streams::default(), MemoryBudget::default());
        let pauses = Pauses::new(clock.clone());
        Self(Arc::new(Inner { door, tasks, clock, metrics, settings, jobs, streams, results, desk, pauses, sweeping }))
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
        let (client, ttl, is_owed) = (&terms.payer.client, settings.handle_ttl, source.as_of().is_some());
        let location = self.0.results.location(source.job(), client, is_owed, ttl, self.0.clock.now());
        let waits = !terms.respond_async || terms.deadline > self.0.clock.now();
        let outcome = if waits { source.outcome(&terms).await? } else { None };
        let Some(outcome) = outcome else {
            let location = location.await?;
            source.promise();
            if !terms.respond_async {
                return Err(Error::StillRunning { location: Some(location) });
            }
            source.is_content();
            let members = vec![render::located("in progress", &query, &location)];
            let members = members.into_iter().chain(said_as_of(source.as_of())).collect();
            return Ok(Answer { state: State::Accepted, members, location: Some(location), costs: Costs::default() });
        };
        let product = outcome?;
        let head = render::located("ok", &query, &location.await?);
        Ok(done(head, &product, &source))
    }

    /// `GET …/history/query/{handle}`: the result of a query this client made. Does not wait: a job under way is
    /// answered as the vendor would, and asked for again by the client.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn fetch(&self, app: &AppId, handle: &str, terms: Terms) -> Result<Answer, Error> {
        let job = self.0.results.open(app, &terms.payer.client, handle, self.0.clock.now()).await;
        let job = job.ok_or(Error::NoSuchHandle)?;
        match job.outcome() {
            None => Ok(Answer {
                state: State::InProgress,
                members: vec![render::code("in progress")],
                location: None,
                costs: Costs::default(),
            }),
            Some((_, outcome)) => {
                let as_of = job.is_owed_to(&terms.payer.client).then_some(job.began);
                let head = std::iter::once(render::code("ok")).chain(said_as_of(as_of));
                let members = head.chain([COMMA, outcome?.member.clone()]).collect();
                Ok(Answer { state: State::Done, members, location: None, costs: Costs::default() })
            }
        }
    }

    /// `GET …/history/count`: reads the decoded query parameters and waits out `in progress`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn count(&self, app: &AppId, query: &[(String, String)], terms: Terms) -> Result<Answer, Error> {
        let (vendor, settings) = self.settings(app)?;
        let (filter, within) = query::parse_count(query)?;
        // A count is of whole seconds: it says of which, where others were asked for.
        let range = (!within.is_all()).then(|| [COMMA, render::range(&filter)]);
        let source = self.source(app, Ask::Count(filter), &terms, vendor, &settings).await?;
        let outcome = match source.outcome(&terms).await? {
            Some(outcome) => outcome,
            None if source.job().sent.is_sent() => Err(Error::StillRunning { location: None }),
            // Nothing was asked yet: its caller learns whether it is the quota that it would have to wait for.
            None => Err(match source.job().stuck(NOT_AT_ALL).await {
                Some(why) => {
                    // That is its answer: it comes back with a new question.
                    source.is_content();
                    why.into()
                }
                None => Error::StillRunning { location: None },
            }),
        };
        let product = outcome?;
        let mut answer = done(render::code("ok"), &product, &source);
        answer.members.extend(range.into_iter().flatten());
        Ok(answer)
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
}

/// How long a count whose caller waits no longer is given to say that it has no seat.
const NOT_AT_ALL: Duration = Duration::from_millis(200);

const COMMA: Bytes = Bytes::from_static(b",");

/// The members that say so, where it was asked for before this request.
fn said_as_of(as_of: Option<UnixMillis>) -> impl Iterator<Item = Bytes> {
    as_of.map(|as_of| [COMMA, render::as_of(as_of)]).into_iter().flatten()
}

fn done(head: Bytes, product: &Product, source: &Source) -> Answer {
    let product_member = [COMMA, product.member.clone()];
    let members = std::iter::once(head).chain(said_as_of(source.as_of())).chain(product_member).collect();
    Answer { state: State::Done, members, location: None, costs: source.costs(product) }
}
