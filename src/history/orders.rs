//! [`OrderSender`]: sends history's orders, under the deadline of those who wait, and asks again what failed.
//!
//! Invariants:
//! - An order is paid by one client, whoever shares it; each repeat but egress's own is one of that client's retry
//!   budget.
//! - What failed is not asked again sooner than the vendor's `Retry-After`, nor when nobody waits for so long.
//! - Only what is idempotent is sent again after nobody knows what became of it. (A fetch takes the messages with it.)

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::error::Error;
use crate::kernel::backoff::Backoff;
use crate::kernel::clock::Clock;
use crate::kernel::names::{AppId, RegionName};
use crate::kernel::proof::{Ground, Proof};
use crate::upstream::egress::{Failure, Orders, Reply, WorkCosts};
use crate::vendor::order::{Operation, Order, Payer, Safety, Sent, Sharer};

/// How often one thing is asked when the answer is 408, 5xx or unreadable. Each time but the first is one of the
/// client's retry budget.
const ATTEMPTS: u32 = 4;

/// How long a job waits for the retry budget to have something left. (It is counted by the second.)
const BUDGET_PATIENCE: Duration = Duration::from_secs(1);

/// How often it is looked at meanwhile.
const BUDGET_LOOK: Duration = Duration::from_millis(250);

/// The wait after the first such answer, and the longest.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(250);
pub(super) const MAX_WAIT: Duration = Duration::from_secs(4);

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

/// How long the answer to a page's order is waited for that went out before those who wait for it gave up. The job may
/// go on, for who was promised its answer; then a handle that is read and not waited for would have to be made anew.
/// Egress knows how long the vendor may take, and is not longer than this.
const ON_ITS_WAY: Duration = Duration::from_secs(60);

/// How often one thing was asked.
pub(super) struct Attempts {
    backoff: Backoff,
    /// Whether the next order asks what failed.
    pub(super) is_repeat: bool,
}

impl Attempts {
    pub(super) fn new(is_repeat: bool) -> Self {
        Self { backoff: Backoff::new(FIRST_WAIT, MAX_WAIT), is_repeat }
    }
}

/// Sends the orders of one job or stream. Shared by its pages.
pub(super) struct OrderSender {
    pub(super) client: Arc<dyn Orders>,
    pub(super) clock: Clock,
    pub(super) app: AppId,
    pub(super) payer: Payer,
    /// All who wait for what it does, where that is shared.
    pub(super) sharers: Option<watch::Receiver<Vec<Sharer>>>,
    /// What let in the one whom alone it works for.
    pub(super) proof: Option<Proof>,
    pub(super) patience: Patience,
    /// Set when the vendor is asked for the first time.
    pub(super) sent: Option<Sent>,
    /// What its orders have cost.
    pub(super) costs: WorkCosts,
}

impl OrderSender {
    /// Sends one order, under the deadline of those who wait now. When that passes while the order is under way, they
    /// leave: for good (the job is dropped, and this with it), or with a promise that gives the job more time.
    pub(super) async fn send(
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
            proof: self.proof.clone().map(Ground::from),
            sharers: self.sharers.clone(),
            is_repeat,
            seat_by,
            deadline,
            sent: self.sent.clone(),
            retry_after_limit: None,
            region: region.cloned(),
            headers: headers(operation),
        };
        self.client.send_for(order, &self.costs).await.map_err(|failed| failed.why)
    }

    /// Waits before the next attempt, as long as the vendor wants it.
    ///
    /// # Errors
    /// `why`, after the last, when the retry budget is spent, and at once when nobody waits until the vendor wants to
    /// be asked again.
    pub(super) async fn again(&self, attempts: &mut Attempts, why: Error) -> Result<(), Error> {
        let asked = why.retry_after();
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

    /// Whether the client's retry budget lets it ask once more, now or soon. A stream waits with its page, so as not to
    /// wait twice.
    pub(super) async fn may_repeat(&self) -> bool {
        let patience = match self.patience {
            Patience::Callers { .. } => BUDGET_PATIENCE,
            Patience::Stream { .. } => Duration::ZERO,
        };
        self.may_repeat_until(self.clock.now() + patience).await
    }

    /// The same, at the latest then.
    pub(super) async fn may_repeat_until(&self, until: Instant) -> bool {
        while !self.client.may_repeat(&self.app, &self.payer.client) {
            if self.clock.now() >= until {
                return false;
            }
            sleep(BUDGET_LOOK).await;
        }
        true
    }
}

fn headers(operation: &Operation) -> Vec<(HeaderName, HeaderValue)> {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    let mut headers = vec![(ACCEPT, JSON)];
    if matches!(operation, Operation::CreateHistory(_)) {
        headers.push((CONTENT_TYPE, JSON));
    }
    headers
}
