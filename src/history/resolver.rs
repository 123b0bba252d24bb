//! One page, one count: the vendor's create, fetch and ask-again, as one call.
//!
//! Invariants:
//! - After `in progress` the vendor is not asked again sooner than 2 seconds (its page says so), and after a failure not
//!   sooner than its `Retry-After`.
//! - A handle through which messages may have come is dead (one shot, by that page): when they were not understood the
//!   query is made anew. That is safe: it leaves an unused handle behind and costs quota, no more.
//! - A handle lives in the region where it was made: it is fetched there and nowhere else. The query as a whole may move.
//! - Every loop is bounded, by attempts or by the job's end. Creations and counts are idempotent, so egress retries
//!   them; fetches are retried only here, where it is known what a lost one means.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::Error;
use super::pager::{Page, Pages};
use super::pauses::Pauses;
use super::tally::Tally;
use super::upstream_client::UpstreamClient;
use crate::kernel::backoff::Backoff;
use crate::kernel::clock::Clock;
use crate::kernel::metrics::{AppLabels, Metrics};
use crate::kernel::names::{AppId, RegionName};
use crate::kernel::proof::Proof;
use crate::upstream::egress::{Failed, Failure, Reply};
use crate::vendor::history::{self as wire, Filter, PageQuery, Progress};
use crate::vendor::order::{Operation, Order, Payer, Safety, Sent, Sharer};
use crate::vendor::{Vendor, is_for_the_caller};

/// How often one page's query is made before the vendor is called incomprehensible.
const CREATIONS: u32 = 5;

/// How often one thing is asked when the answer is 408, 5xx or unreadable. Each time but the first is one of the client's
/// retry budget.
const ATTEMPTS: u32 = 4;

/// How long a job waits for the retry budget to have something left. (It is counted by the second.)
const BUDGET_PATIENCE: Duration = Duration::from_secs(1);

/// How often it is looked at meanwhile.
const BUDGET_LOOK: Duration = Duration::from_millis(250);

/// The wait after the first such answer, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const MAX_WAIT: Duration = Duration::from_secs(4);

/// Speaks to the vendor for one job. Shared by the job's pages.
pub(super) struct Resolver {
    pub(super) door: Arc<dyn UpstreamClient>,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) app: AppId,
    pub(super) vendor: Vendor,
    pub(super) payer: Payer,
    /// All who wait for what it does, where that is shared.
    pub(super) sharers: Option<watch::Receiver<Vec<Sharer>>>,
    /// What let in the one whom alone it works for.
    pub(super) proof: Option<Proof>,
    pub(super) patience: Patience,
    pub(super) pauses: Pauses,
    /// Set when the vendor is asked for the first time.
    pub(super) sent: Option<Sent>,
    pub(super) tally: Tally,
}

/// How long an answer is waited for.
pub(super) enum Patience {
    /// As long as those who wait for a job do.
    Callers {
        /// When the last of them gives up. Moves on when another joins, and to the job's end with a promise.
        deadline: watch::Receiver<Instant>,
        /// Told when the deadline has passed and no seat came.
        stuck: watch::Sender<Option<Failure>>,
    },
    /// For seats of the quota as long as it takes; for a handle that stays `in progress`, so long.
    Stream {
        /// Without the waits for seats.
        stall: Duration,
    },
}

/// Even a stream gives up when there was no seat for so long: others take all of the quota.
const SEAT_PATIENCE: Duration = Duration::from_secs(600);

/// How long the answer to a page's order is waited for that went out before those who wait for it gave up. The job may go on,
/// for who was promised its answer; then a handle that is read and not waited for would have to be made anew. Egress
/// knows how long the vendor may take, and is not longer than this.
const ON_ITS_WAY: Duration = Duration::from_secs(60);

/// How often one thing was asked.
struct Attempts {
    backoff: Backoff,
    /// Whether the next order asks what failed.
    is_repeat: bool,
}

impl Attempts {
    fn new(is_repeat: bool) -> Self {
        Self { backoff: Backoff::new(FIRST_WAIT, MAX_WAIT), is_repeat }
    }
}

/// What came of a handle.
enum Handle {
    Gave(Vec<Bytes>),
    Died(&'static str),
}

impl Pages for Resolver {
    async fn page(&self, query: PageQuery) -> Result<Page, Error> {
        self.ask(&query, false).await
    }
}

impl Resolver {
    /// One page. `is_repeat`: it has failed before, and [`may_repeat_until`](Self::may_repeat_until) let it be asked for once more.
    pub(super) async fn ask(&self, query: &PageQuery, is_repeat: bool) -> Result<Page, Error> {
        let mut why = "";
        let (began, mut waited) = (self.clock.now(), Duration::ZERO);
        let mut backoff = Backoff::new(FIRST_WAIT, MAX_WAIT);
        for creation in 0..CREATIONS {
            if creation > 0 {
                if !self.may_repeat().await {
                    return Err(Error::BadUpstream(format!("a handle died because {why}; the retry budget is spent")));
                }
                self.metrics.history_recreated.get_or_create(&AppLabels { app: self.app.to_string() }).inc();
            }
            if creation > 1 {
                sleep(backoff.next_wait()).await;
            }
            let (handle, region) = self.create(query, is_repeat || creation > 0, &mut waited).await?;
            match self.fetch(handle, region, &mut waited).await? {
                Handle::Gave(texts) => return Ok(Page { texts, took: self.clock.now() - began, waited }),
                Handle::Died(reason) => why = reason,
            }
            tracing::debug!(app = %self.app, why, "a history query's handle died");
        }
        Err(Error::BadUpstream(format!("{CREATIONS} handles died in a row, the last because {why}")))
    }

    /// Makes a query. Returns its handle, and the region where that is known.
    async fn create(
        &self,
        query: &PageQuery,
        is_repeat: bool,
        waited: &mut Duration,
    ) -> Result<(String, RegionName), Error> {
        let body = wire::create_body(self.vendor, query);
        let mut attempts = Attempts::new(is_repeat);
        loop {
            let reply = self.send(Operation::CreateHistory(body.clone()), None, attempts.is_repeat).await?;
            *waited += reply.costs.queue_wait;
            let why = match reply.status {
                status if status.is_success() => match wire::created(&reply.body) {
                    Ok(handle) => return Ok((handle, reply.region)),
                    Err(why) => Error::BadUpstream(why.to_string()),
                },
                // Egress has tried again where its budget let it. Of many pages that are asked for at once, one may have
                // had bad luck; the list must not fail for it.
                status if status.is_server_error() => refused(reply),
                _ => return Err(refused(reply)),
            };
            self.again(&mut attempts, why).await?;
        }
    }

    async fn fetch(&self, handle: String, region: RegionName, waited: &mut Duration) -> Result<Handle, Error> {
        let (began, waited_before) = (self.clock.now(), *waited);
        let mut attempts = Attempts::new(false);
        loop {
            let order = Operation::FetchHistory(handle.clone());
            let reply = match self.send(order, Some(region.clone()), attempts.is_repeat).await {
                Ok(reply) => reply,
                Err(Failure::Lost { .. }) => return Ok(Handle::Died("its answer was lost")),
                Err(Failure::TimedOut { sent: true }) => return Ok(Handle::Died("its answer did not come")),
                // Another region may serve the query as a whole; if none does, making it anew says so.
                Err(Failure::Unreachable(_) | Failure::Unprocessed(_) | Failure::RegionDown { .. }) => {
                    return Ok(Handle::Died("its region cannot be reached"));
                }
                Err(Failure::TooLarge) => return Err(Error::BadUpstream(Failure::TooLarge.to_string())),
                Err(other) => return Err(other.into()),
            };
            *waited += reply.costs.queue_wait;
            let progress = wire::fetched(&reply.body);
            match (reply.status, progress) {
                (_, Ok(Progress::Gone)) | (StatusCode::NOT_FOUND | StatusCode::GONE, _) => {
                    return Ok(Handle::Died("the vendor no longer knows it"));
                }
                (status, Ok(Progress::Ready(messages))) if status.is_success() => return Ok(Handle::Gave(messages)),
                (status, Ok(Progress::Running)) if status.is_success() => {
                    let at_the_vendor = (self.clock.now() - began).saturating_sub(*waited - waited_before);
                    if matches!(self.patience, Patience::Stream { stall } if at_the_vendor >= stall) {
                        return Err(Error::StillRunning { location: None });
                    }
                    attempts.is_repeat = false;
                    sleep(wire::IN_PROGRESS_PAUSE).await;
                }
                (status, Err(_)) if status.is_success() => {
                    return Ok(Handle::Died("its answer could not be read"));
                }
                // Whether it gave its messages away with this answer shows when it is asked again.
                (status, _) if may_pass(status) => self.again(&mut attempts, refused(reply)).await?,
                _ => return Err(refused(reply)),
            }
        }
    }

    /// How many messages a filter selects.
    pub(super) async fn count(&self, filter: &Filter) -> Result<u64, Error> {
        let parameters = wire::count_parameters(self.vendor, filter);
        let mut attempts = Attempts::new(false);
        loop {
            let turn = self.pauses.turn(&self.app, filter, self.sent.clone()).await;
            let order = Operation::CountHistory(parameters.clone());
            let reply = match self.send(order, None, attempts.is_repeat).await {
                Ok(reply) => reply,
                Err(why) if why.in_doubt() => return Err(why.into()),
                Err(why) => {
                    turn.end();
                    return Err(why.into());
                }
            };
            let counted = match (reply.status, wire::counted(&reply.body)) {
                (status, Ok(Progress::Running)) if status.is_success() => {
                    attempts.is_repeat = false;
                    continue;
                }
                (status, Ok(Progress::Ready(count))) if status.is_success() => Ok(count),
                (status, Ok(Progress::Gone)) if status.is_success() => {
                    Err(Error::BadUpstream("the vendor says that a count does not exist".to_owned()))
                }
                (status, Err(why)) if status.is_success() => Err(Error::BadUpstream(why.to_string())),
                (status, _) if status.is_server_error() => Err(refused(reply)),
                _ => {
                    turn.end();
                    return Err(refused(reply));
                }
            };
            turn.end();
            match counted {
                Ok(count) => return Ok(count),
                Err(why) => self.again(&mut attempts, why).await?,
            }
        }
    }

    /// Waits before the next attempt, as long as the vendor wants it.
    ///
    /// # Errors
    /// `why`, after the last, when the retry budget is spent, and at once when nobody waits until the vendor wants to be
    /// asked again.
    async fn again(&self, attempts: &mut Attempts, why: Error) -> Result<(), Error> {
        let asked = asked(&why);
        let patience = match &self.patience {
            Patience::Callers { deadline, .. } => deadline.borrow().saturating_duration_since(self.clock.now()),
            Patience::Stream { stall } => *stall,
        };
        let is_last = attempts.backoff.failures() + 1 == ATTEMPTS || (!asked.is_zero() && asked >= patience);
        if is_last || !self.may_repeat().await {
            return Err(why);
        }
        sleep(attempts.backoff.next_wait().max(asked)).await;
        attempts.is_repeat = true;
        Ok(())
    }

    /// Whether the client's retry budget lets it ask once more, now or soon. A stream waits with its page, so as not to wait
    /// twice.
    async fn may_repeat(&self) -> bool {
        let patience = match self.patience {
            Patience::Callers { .. } => BUDGET_PATIENCE,
            Patience::Stream { .. } => Duration::ZERO,
        };
        self.may_repeat_until(self.clock.now() + patience).await
    }

    /// The same, at the latest then.
    pub(super) async fn may_repeat_until(&self, until: Instant) -> bool {
        while !self.door.may_repeat(&self.app, &self.payer.client) {
            if self.clock.now() >= until {
                return false;
            }
            sleep(BUDGET_LOOK).await;
        }
        true
    }

    /// Sends one order, under the deadline of those who wait now. When that passes while the order is under way, they
    /// leave: for good (the job is dropped, and this with it), or with a promise that gives the job more time.
    async fn send(
        &self,
        operation: Operation,
        region: Option<RegionName>,
        mut is_repeat: bool,
    ) -> Result<Reply, Failure> {
        let (mut deadline, stuck) = match &self.patience {
            Patience::Callers { deadline, stuck } => (deadline.clone(), stuck),
            Patience::Stream { .. } => {
                let until = self.clock.now() + SEAT_PATIENCE;
                return self.send_until((None, until), &operation, region.as_ref(), is_repeat).await;
            }
        };
        loop {
            let until = *deadline.borrow_and_update();
            let terms = match operation {
                Operation::CreateHistory(_) | Operation::FetchHistory(_) => (Some(until), until + ON_ITS_WAY),
                _ => (None, until),
            };
            let why = match self.send_until(terms, &operation, region.as_ref(), is_repeat).await {
                Ok(reply) => return Ok(reply),
                Err(why) => why,
            };
            // The list must not fail for a wish that ends in time.
            if let Failure::AskedToWait { retry_after, .. } = &why
                && self.clock.now() + *retry_after < until
            {
                sleep(*retry_after).await;
                continue;
            }
            let again = match &why {
                Failure::QuotaSpent { .. } | Failure::TimedOut { sent: false } => true,
                Failure::TimedOut { sent: true } => operation.safety() == Safety::Idempotent,
                _ => false,
            };
            if self.clock.now() >= until {
                if matches!(why, Failure::QuotaSpent { .. }) {
                    stuck.send_replace(Some(why.clone()));
                }
                while *deadline.borrow_and_update() <= until {
                    if deadline.changed().await.is_err() {
                        return Err(why);
                    }
                }
            }
            if !again || *deadline.borrow() <= until {
                return Err(why);
            }
            if matches!(why, Failure::TimedOut { sent: true }) {
                if !self.may_repeat().await {
                    return Err(why);
                }
                is_repeat = true;
                sleep(operation.rest_after_timeout()).await;
            }
        }
    }

    async fn send_until(
        &self,
        (seat_by, deadline): (Option<Instant>, Instant),
        operation: &Operation,
        region: Option<&RegionName>,
        is_repeat: bool,
    ) -> Result<Reply, Failure> {
        let order = Order {
            app: self.app.clone(),
            operation: operation.clone(),
            payer: self.payer.clone(),
            proof: self.proof.clone(),
            sharers: self.sharers.clone(),
            is_repeat,
            seat_by,
            deadline,
            sent: self.sent.clone(),
            retry_after_limit: None,
            region: region.cloned(),
            headers: headers(operation),
        };
        match self.door.send(order).await {
            Ok(reply) => {
                self.tally.add(&reply.costs);
                Ok(reply)
            }
            Err(Failed { why, costs }) => {
                self.tally.add(&costs);
                Err(why)
            }
        }
    }
}

fn headers(operation: &Operation) -> HeaderMap {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, JSON);
    if matches!(operation, Operation::CreateHistory(_)) {
        headers.insert(CONTENT_TYPE, JSON);
    }
    headers
}

fn may_pass(status: StatusCode) -> bool {
    status == StatusCode::REQUEST_TIMEOUT || status.is_server_error()
}

/// The vendor's refusals of a request are the caller's to read, and so is that it can serve nobody; anything else only says that the vendor is at odds with us.
fn refused(reply: Reply) -> Error {
    match reply.status {
        StatusCode::FORBIDDEN => Error::AppRefused,
        status if is_for_the_caller(status) || status == StatusCode::SERVICE_UNAVAILABLE => {
            Error::Refused(Arc::new(reply))
        }
        status if status.is_server_error() => {
            Error::Failing { status, retry_after: reply.retry_after().unwrap_or_default() }
        }
        status => Error::BadUpstream(format!("status {}", status.as_u16())),
    }
}

/// How long the vendor wants to be left alone by what it has answered so.
fn asked(why: &Error) -> Duration {
    match why {
        Error::Refused(reply) => reply.retry_after().unwrap_or_default(),
        Error::Failing { retry_after, .. } => *retry_after,
        _ => Duration::ZERO,
    }
}
