//! One page, one count: the vendor's create, fetch and ask-again, as one call.
//!
//! Invariants:
//! - After `in progress` the vendor is not asked again sooner than 2 seconds (its page says so), and after a failure
//!   not sooner than its `Retry-After`.
//! - A handle through which messages may have come is dead (one shot, by that page): when they were not understood the
//!   query is made anew. That is safe: it leaves an unused handle behind and costs quota, no more.
//! - A handle lives in the region where it was made: it is fetched there and nowhere else. The query as a whole may
//!   move.
//! - Every loop is bounded, by attempts or by the job's end. Creations and counts are idempotent, so egress retries
//!   them; fetches are retried only here, where it is known what a lost one means.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use tokio::time::sleep;

use super::count_turns::CountTurns;
use super::error::Error;
use super::orders::{Attempts, FIRST_WAIT, MAX_WAIT, OrderSender, Patience};
use super::pager::{Page, Pages};
use crate::kernel::backoff::Backoff;
use crate::kernel::metrics::{AppLabels, Metrics};
use crate::kernel::names::RegionName;
use crate::upstream::egress::{Failure, Reply};
use crate::vendor::history::{self as wire, Filter, PageQuery, Progress};
use crate::vendor::order::Operation;
use crate::vendor::{Vendor, is_for_the_caller};

/// How often one page's query is made before the vendor is called incomprehensible.
const CREATIONS: u32 = 5;

/// Asks the vendor for one job or stream. Shared by its pages.
pub(super) struct Resolver {
    pub(super) orders: OrderSender,
    pub(super) vendor: Vendor,
    pub(super) metrics: Metrics,
    pub(super) counts: CountTurns,
}

/// What a handle gave.
enum FetchOutcome {
    Messages(Vec<Bytes>),
    Died(&'static str),
}

impl Pages for Resolver {
    async fn page(&self, query: PageQuery) -> Result<Page, Error> {
        self.ask(&query, false).await
    }
}

impl Resolver {
    /// One page. `is_repeat`: it has failed before, and [`OrderSender::may_repeat_until`] let it be asked for once
    /// more.
    pub(super) async fn ask(&self, query: &PageQuery, is_repeat: bool) -> Result<Page, Error> {
        let mut why = "";
        let (began, mut waited) = (self.orders.clock.now(), Duration::ZERO);
        let mut backoff = Backoff::new(FIRST_WAIT, MAX_WAIT);
        for creation in 0..CREATIONS {
            if creation > 0 {
                if !self.orders.may_repeat().await {
                    return Err(Error::BadUpstream(format!("a handle died because {why}; the retry budget is spent")));
                }
                self.metrics.history_recreated.get_or_create(&AppLabels { app: self.orders.app.to_string() }).inc();
            }
            // The first anew at once: that one handle died says little of the vendor, that two did in a row says more.
            if creation > 1 {
                sleep(backoff.next_wait()).await;
            }
            let (handle, region) = self.create(query, is_repeat || creation > 0, &mut waited).await?;
            match self.fetch(handle, region, &mut waited).await? {
                FetchOutcome::Messages(texts) => {
                    return Ok(Page { texts, took: self.orders.clock.now() - began, waited });
                }
                FetchOutcome::Died(reason) => why = reason,
            }
            tracing::debug!(app = %self.orders.app, why, "a history query's handle died");
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
            let reply = self.orders.send(Operation::CreateHistory(body.clone()), None, attempts.is_repeat).await?;
            *waited += reply.costs.queue_wait;
            let why = match reply.status {
                status if status.is_success() => match wire::created(&reply.body) {
                    Ok(handle) => return Ok((handle, reply.region)),
                    Err(why) => Error::BadUpstream(why.to_string()),
                },
                // Egress has tried again where its budget let it. Of many pages that are asked for at once, one may
                // have had bad luck; the list must not fail for it.
                status if status.is_server_error() => refused(reply),
                _ => return Err(refused(reply)),
            };
            self.orders.again(&mut attempts, why).await?;
        }
    }

    async fn fetch(&self, handle: String, region: RegionName, waited: &mut Duration) -> Result<FetchOutcome, Error> {
        let (began, waited_before) = (self.orders.clock.now(), *waited);
        let mut attempts = Attempts::new(false);
        loop {
            let order = Operation::FetchHistory(handle.clone());
            let reply = match self.orders.send(order, Some(region.clone()), attempts.is_repeat).await {
                Ok(reply) => reply,
                Err(Failure::Lost { .. }) => return Ok(FetchOutcome::Died("its answer was lost")),
                Err(Failure::TimedOut { sent: true }) => return Ok(FetchOutcome::Died("its answer did not come")),
                // Another region may serve the query as a whole; if none does, making it anew says so.
                Err(Failure::Unreachable(_) | Failure::Unprocessed(_) | Failure::RegionDown { .. }) => {
                    return Ok(FetchOutcome::Died("its region cannot be reached"));
                }
                Err(Failure::TooLarge) => return Err(Error::BadUpstream(Failure::TooLarge.to_string())),
                Err(other) => return Err(other.into()),
            };
            *waited += reply.costs.queue_wait;
            let progress = wire::fetched(&reply.body);
            match (reply.status, progress) {
                (_, Ok(Progress::Gone)) | (StatusCode::NOT_FOUND | StatusCode::GONE, _) => {
                    return Ok(FetchOutcome::Died("the vendor no longer knows it"));
                }
                (status, Ok(Progress::Ready(messages))) if status.is_success() => {
                    return Ok(FetchOutcome::Messages(messages));
                }
                (status, Ok(Progress::Running)) if status.is_success() => {
                    let at_the_vendor = (self.orders.clock.now() - began).saturating_sub(*waited - waited_before);
                    if matches!(self.orders.patience, Patience::Stream { stall } if at_the_vendor >= stall) {
                        return Err(Error::StillRunning { location: None });
                    }
                    attempts.is_repeat = false;
                    sleep(wire::IN_PROGRESS_PAUSE).await;
                }
                (status, Err(_)) if status.is_success() => {
                    return Ok(FetchOutcome::Died("its answer could not be read"));
                }
                // Whether it gave its messages away with this answer shows when it is asked again.
                (status, _) if may_pass(status) => self.orders.again(&mut attempts, refused(reply)).await?,
                _ => return Err(refused(reply)),
            }
        }
    }

    /// How many messages a filter selects.
    pub(super) async fn count(&self, filter: &Filter) -> Result<u64, Error> {
        let parameters = wire::count_parameters(self.vendor, filter);
        let mut attempts = Attempts::new(false);
        loop {
            let turn = self.counts.turn(&self.orders.app, filter, self.orders.sent.clone()).await;
            let order = Operation::CountHistory(parameters.clone());
            let reply = match self.orders.send(order, None, attempts.is_repeat).await {
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
                Err(why) => self.orders.again(&mut attempts, why).await?,
            }
        }
    }
}

fn may_pass(status: StatusCode) -> bool {
    status == StatusCode::REQUEST_TIMEOUT || status.is_server_error()
}

/// The vendor's refusals of a request are the caller's to read, and so is that it can serve nobody; anything else only
/// says that the vendor is at odds with us.
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
