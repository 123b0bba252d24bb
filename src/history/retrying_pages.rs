//! Pages for a stream: what the vendor cannot do now may be possible in a moment, and a stream has the time.
//!
//! Invariants: a page is given up when it has failed for as long as the stream may stall; what cannot pass by itself (a
//! refused query, a credential that is refused, an app that is gone) is told at once. Each time is one of the client's
//! retry budget, for which it waits until then.

use std::time::Duration;

use hyper::StatusCode;
use prometheus_client::metrics::counter::Counter;
use tokio::time::sleep;

use super::error::Error;
use super::orders::{FIRST_WAIT, MAX_WAIT};
use super::pager::{Page, Pages};
use super::resolver::Resolver;
use crate::kernel::backoff::Backoff;
use crate::upstream::egress::Failure;
use crate::vendor::history::PageQuery;

/// Asks again.
pub(super) struct RetryingPages {
    pub(super) resolver: Resolver,
    /// How long one page may go on failing.
    pub(super) stall: Duration,
    /// Counts the pages that were wanted.
    pub(super) pages: Counter,
}

impl Pages for RetryingPages {
    async fn page(&self, query: PageQuery) -> Result<Page, Error> {
        self.pages.inc();
        let mut failing = None;
        let mut backoff = Backoff::new(FIRST_WAIT, MAX_WAIT);
        loop {
            let why = match self.resolver.ask(&query, failing.is_some()).await {
                Ok(page) => return Ok(page),
                Err(why) => why,
            };
            let now = self.resolver.orders.clock.now();
            let rest = rest(&why).map(|least| backoff.next_wait().max(least));
            // From the first failure on: a page that was long in coming before has not failed.
            let until = *failing.get_or_insert(now) + self.stall;
            let Some(rest) = rest.filter(|rest| now + *rest < until) else { return Err(why) };
            tracing::debug!(app = %self.resolver.orders.app, %why, "a page of a stream is asked for again");
            sleep(rest).await;
            if !self.resolver.orders.may_repeat_until(until).await {
                return Err(why);
            }
        }
    }
}

/// How long to wait at least when it may pass by itself; `None`: it does not.
fn rest(why: &Error) -> Option<Duration> {
    match why {
        Error::BadUpstream(_) | Error::Crowded => Some(Duration::ZERO),
        Error::Refused(reply) => {
            let passes = [StatusCode::REQUEST_TIMEOUT, StatusCode::SERVICE_UNAVAILABLE].contains(&reply.status);
            passes.then(|| why.retry_after())
        }
        Error::Failing { .. } => Some(why.retry_after()),
        Error::Egress(failure) => match failure {
            Failure::RegionDown { retry_after, .. } | Failure::AskedToWait { retry_after, .. } => Some(*retry_after),
            Failure::Crowded(_)
            | Failure::Unreachable(_)
            | Failure::Unprocessed(_)
            | Failure::TimedOut { .. }
            | Failure::NoRoom
            | Failure::Lost { .. } => Some(Duration::ZERO),
            Failure::QuotaSpent { .. }
            | Failure::CredentialUnavailable(_)
            | Failure::CredentialRefused
            | Failure::TooLarge
            | Failure::Overlong { .. }
            | Failure::Undecodable { .. }
            | Failure::Unproven(_)
            | Failure::NoSuchApp
            | Failure::Stopping => None,
        },
        Error::BadRequest(_) | Error::StillRunning { .. } | Error::NoSuchHandle | Error::AppRefused => None,
    }
}
