//! An order's way out: one attempt after another until one counts.
//!
//! Invariants: an attempt takes the stages in their order: region, seat, credential's pass, signature, exchange. The
//! configuration is looked up anew for each. No await stands between the seat and the exchange.
//!
//! ```text
//! app_runtime (which region?) -> quota (seat) -> credentials (pass, Signed) -> detached -> pool (exchange)
//!      ^                                                                                       |
//!      +-- retry (again?) <---- outcome <---- answer (body, cleaned of our credential) <-------+
//! ```
//!
//! The happy path allocates the target's text and the header table, and what hyper-util does (a boxed future, a
//! one-shot channel); it spawns nothing and formats no label.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::StatusCode;
use tokio::time::Instant;

use super::answer::AnswerReader;
use super::app_runtime::{AppRuntime, Region};
use super::breaker::Verdict;
use super::buckets::AppBucket;
use super::costs::{OrderCosts, SeatWait, Wait};
use super::detached::{Flight, Head};
use super::endpoint::EndpointHealth;
use super::hosts::ExchangeVerdict;
use super::meters::Ending;
use super::outcome::{Answer, AttemptOutcome, is_vendors_failure};
use super::quota_state::tell_refusals;
use super::retry::{Next, NextRegion, Reason, RetryTerms, Tries};
use super::table::{Table, Timeouts};
use super::{Costs, DETACHED_TIMEOUTS, Failure, Inner, VendorLimit};
use crate::kernel::clock::Clock;
use crate::kernel::secret::redact::Redactor;
use crate::upstream::credentials::{PassError, Signed};
use crate::upstream::pool::Fault;
use crate::upstream::quota::{NoSeat, Seat, seat_of_any};
use crate::vendor::order::{Order, Safety};

impl Inner {
    pub(super) async fn attempts(&self, order: &Order, costs: &mut OrderCosts<'_>) -> Result<Answer, Failure> {
        let safety = order.operation.safety();
        let mut tries = if order.is_repeat { Tries::of_repeat() } else { Tries::default() };
        // The time is read where something has been waited for, and holds until the next wait.
        let mut now = self.clock.now();
        loop {
            if self.stopping.is_cancelled() {
                return Err(Failure::Stopping);
            }
            // Anew for each attempt: one that waits for its second try obeys a reload that came meanwhile.
            let table = self.table.load_full();
            let runtime = table.apps.get(&order.app).ok_or(Failure::NoSuchApp)?;
            let region = runtime.region(order, &tries, now)?;
            let bucket = runtime.bucket(order.operation.bucket());

            if let Some(longest) = order.retry_after_limit {
                bucket.seats.believe(longest.min(table.max_retry_after));
            }
            // First all that may be waited for or refused, and nothing is taken but the seat; then the rest is, or the
            // seat goes back unused.
            unless_withdrawn(order, runtime.credential.clear(order.deadline)).await?.map_err(denied)?;
            let endpoint = region.endpoint(&order.operation);
            let Some((seat, given)) = unless_withdrawn(order, self.seat(order, endpoint, bucket, costs)).await?? else {
                // A reload is about to put another bucket in this one's place.
                tokio::task::yield_now().await;
                now = self.clock.now();
                continue;
            };
            now = given;
            // What was withdrawn in the moment in which the seat came gives it back.
            if let Some(ground) = &order.proof {
                ground.goes_on().await?;
            }
            // Both may have shut while the seat was waited for: then the seat goes back, and the next round says so.
            let Some(ticket) = region.host.enter(endpoint, safety == Safety::Destructive, now) else { continue };
            let Some(pass) = runtime.credential.pass().map_err(denied)? else { continue };
            let signed = Signed::new(order, &region.base, seat, pass)
                .map_err(|_| Failure::Unreachable("the request's target is too long".into()))?;

            if let Some(sent) = &order.sent {
                sent.set();
            }
            tries.begin(|| runtime.budgets.first(&order.payer.client, now));
            let began = now;
            let attempt = Attempt { egress: self, order, table: &table, runtime, region, began };
            let mut sent = attempt.begin(signed);
            let (outcome, verdict) = attempt.exchange(&mut sent, costs).await;
            drop(sent);
            now = self.clock.now();
            let failed = verdict.host == Verdict::Failed || verdict.endpoint == Verdict::Failed;
            ticket.tell(verdict, failed.then(|| outcome.why()).as_deref(), now);
            if let AttemptOutcome::Answered(answer) = &outcome {
                endpoint.took(now.saturating_duration_since(began));
                let here = (&order.app, &region.name);
                runtime.switched_off.tell(here, endpoint.name(), answer.status, || self.clock.wall_ms());
            }
            if matches!(outcome, AttemptOutcome::OverLimit) {
                bucket.meters.refused.inc();
                // Of the bucket that is in force now: another may have taken over while this was under way.
                if let Some(runtime) = self.table.load().apps.get(&order.app) {
                    tell_refusals(&order.app, runtime.bucket(order.operation.bucket()));
                }
            }
            let outcome = match outcome {
                // Nothing is left to be decided.
                AttemptOutcome::Answered(answer) if !is_vendors_failure(answer.status) => return Ok(answer),
                outcome => outcome,
            };
            if failed {
                tries.note_failed(&region.name);
            }
            if let Some(pause) = outcome.hold() {
                endpoint.hold(pause, now);
            }
            // Another region is asked at once; this one when it wants to be.
            let at = |time| match runtime.region(order, &tries, time) {
                Ok(next) if next.name != region.name => NextRegion::Another,
                Ok(_) => NextRegion::TheSame,
                Err(_) => NextRegion::Nowhere,
            };
            let next = match at(now) {
                NextRegion::Another => NextRegion::Another,
                NextRegion::TheSame | NextRegion::Nowhere => at(now + outcome.retry_after()),
            };
            let may = |reason: Reason| runtime.may_send_again(reason, &order.payer.client, now);
            let rest = order.operation.rest_after_timeout();
            let terms = RetryTerms { safety, rest, now, deadline: order.deadline, next };
            match tries.after(outcome, terms, may) {
                Next::Again(pause) if pause.is_zero() => {}
                Next::Again(pause) => {
                    unless_withdrawn(order, tokio::time::sleep(pause)).await?;
                    now = self.clock.now();
                }
                Next::Done(result) => return result,
            }
        }
    }

    /// A seat, and when it came. `None`: the endpoint is counted in another bucket from now on.
    async fn seat(
        &self,
        order: &Order,
        endpoint: &EndpointHealth,
        bucket: &AppBucket,
        costs: &mut OrderCosts<'_>,
    ) -> Result<Option<(Seat, Instant)>, Failure> {
        let began = self.clock.now();
        let latest = if order.operation.is_message() {
            // One that is sent so late that its answer finds nobody leaves its caller in doubt; it is refused instead.
            let left = order.deadline.saturating_duration_since(began);
            order.deadline - endpoint.answers_within().min(left / 2)
        } else {
            order.deadline
        };
        let by = order.seat_by.map_or(latest, |by| by.min(latest));
        let waiting = SeatWait::begin(&self.clock, began, costs);
        let seat = match &order.sharers {
            None => bucket.seats.seat(&order.payer, by).await,
            Some(sharers) => {
                // In a box: most orders are one caller's, and should not hold room for more.
                Box::pin(seat_of_any(&bucket.seats, &order.payer, sharers.clone(), by)).await
            }
        };
        let now = self.clock.now();
        bucket.meters.wait.observe(waiting.over(now).as_secs_f64());
        let why = match seat {
            Ok(seat) => return Ok(Some((seat, now))),
            Err(NoSeat::Moved) => return Ok(None),
            Err(NoSeat::Spent { retry_after }) => {
                let vendor = bucket.seats.refusals().filter(|refusals| refusals.binds);
                let vendor = vendor.map(|refusals| Box::new(VendorLimit::of(&refusals, now)));
                Failure::QuotaSpent { bucket: bucket.name, limit: bucket.limit, retry_after, vendor }
            }
            Err(NoSeat::Crowded) => Failure::Crowded(bucket.name),
        };
        bucket.meters.rejections.inc();
        Err(why)
    }
}

/// One order on its way to one region.
struct Attempt<'a> {
    egress: &'a Inner,
    order: &'a Order,
    table: &'a Table,
    runtime: &'a AppRuntime,
    region: &'a Region,
    began: Instant,
}

/// A request that is on its way, and what its answer is read by.
struct Sent<'a> {
    flight: Flight<'a>,
    redactor: Arc<Redactor>,
    deadlines: ExchangeDeadlines,
}

/// When an exchange ends.
struct ExchangeDeadlines {
    /// Its caller waits no longer.
    caller: Instant,
    /// It is given up, detached or not.
    detached: Instant,
    /// From the connection to the head of the answer.
    first_byte: Duration,
    /// Between two pieces of its body.
    idle: Duration,
}

impl Attempt<'_> {
    fn begin(&self, signed: Signed) -> Sent<'_> {
        let deadlines = self.deadlines(self.began);
        let redactor = signed.redactor();
        let lane = self.region.lanes.of(&self.order.operation);
        let flight = self.egress.detached.watch(lane.send(signed, deadlines.detached));
        Sent { flight, redactor, deadlines }
    }

    async fn exchange(&self, sent: &mut Sent<'_>, costs: &mut OrderCosts<'_>) -> (AttemptOutcome, ExchangeVerdict) {
        let Self { egress: Inner { clock, .. }, order, table, runtime, region, began } = self;
        let began = *began;
        costs.begin(Wait::Exchange(began));
        let mut count =
            ExchangeCount { region, order, ending: Ending::Error, clock, began, costs, may_have_left: true };
        let Sent { flight, redactor, deadlines } = sent;
        let head = flight.head(deadlines.caller, deadlines.first_byte).await;
        let now = clock.now();
        let waited = now.saturating_duration_since(began);
        let patient = waited >= table.timeouts.first_byte.min(table.timeouts.request) / 2;
        let says = |host, endpoint| ExchangeVerdict { host, endpoint };
        let (outcome, verdict) = match head {
            Head::Came(Ok(head)) => {
                count.ending = Ending::Status(head.status());
                region.host.note_date(head.headers(), waited, now);
                let reader = AnswerReader {
                    order,
                    region: &region.name,
                    memory: &self.egress.memory,
                    cleaning: &self.egress.cleaning,
                    redactor,
                    clock,
                    until: deadlines.caller,
                    idle: deadlines.idle,
                    max_read: runtime.max_read,
                    max_retry_after: table.max_retry_after,
                };
                let (parts, body) = head.into_parts();
                let outcome = reader.receive(&parts, body, count.costs.sum).await;
                let verdict = says(Verdict::Well, said_by(&outcome));
                (outcome, verdict)
            }
            Head::Came(Err(Fault::NotSent { timed_out, why })) => {
                count.may_have_left = false;
                let why = if timed_out { Failure::TimedOut { sent: false } } else { Failure::Unreachable(why) };
                (AttemptOutcome::Failed(why), says(Verdict::Failed, Verdict::Unknown))
            }
            // From here on there was a connection.
            Head::Came(Err(Fault::Unprocessed { why })) => {
                (AttemptOutcome::Failed(Failure::Unprocessed(why)), says(Verdict::Unknown, Verdict::Unknown))
            }
            Head::Came(Err(Fault::MaybeSent { why, .. })) => {
                let why = Failure::Lost { why, partial: None, retry_after: None };
                (AttemptOutcome::Failed(why), says(Verdict::Unknown, Verdict::Failed))
            }
            Head::Late { sent } => {
                count.may_have_left = sent;
                // One who hardly waited has found out nothing.
                let endpoint = if sent && patient { Verdict::Failed } else { Verdict::Unknown };
                (AttemptOutcome::Failed(Failure::TimedOut { sent }), says(Verdict::Unknown, endpoint))
            }
        };
        runtime.meters.took(&order.operation, count.took());
        if let AttemptOutcome::Failed(why) = &outcome {
            let endpoint = order.operation.endpoint().as_str();
            tracing::debug!(app = %order.app, region = %region.name, endpoint, %why, "an exchange failed");
        }
        (outcome, verdict)
    }

    fn deadlines(&self, began: Instant) -> ExchangeDeadlines {
        let Timeouts { first_byte, idle, request } = self.table.timeouts;
        let detached = began + request * DETACHED_TIMEOUTS;
        match self.order.operation.safety() {
            // What it removes must not be thrown away because it is slow.
            Safety::Destructive => {
                let (first_byte, idle) = (Duration::MAX, Duration::MAX);
                ExchangeDeadlines { caller: detached, detached, first_byte, idle }
            }
            Safety::Idempotent | Safety::Once => {
                ExchangeDeadlines { caller: (began + request).min(self.order.deadline), detached, first_byte, idle }
            }
        }
    }
}

/// What an answer, or its end in the middle, says about the endpoint.
fn said_by(outcome: &AttemptOutcome) -> Verdict {
    match outcome {
        // 501 says that this one thing is not done, 408 that this one time it was not.
        AttemptOutcome::Answered(answer) if answer.status == StatusCode::REQUEST_TIMEOUT => Verdict::Unknown,
        AttemptOutcome::Answered(answer) if answer.status == StatusCode::NOT_IMPLEMENTED => Verdict::Well,
        AttemptOutcome::Answered(answer) if answer.status.is_server_error() => Verdict::Failed,
        AttemptOutcome::Answered(_) | AttemptOutcome::OverLimit | AttemptOutcome::Unauthorized => Verdict::Well,
        AttemptOutcome::Failed(Failure::Lost { .. } | Failure::TimedOut { .. }) => Verdict::Failed,
        AttemptOutcome::Failed(_) => Verdict::Well,
    }
}

/// Waits, as long as the order's caller may ask for what it ordered.
async fn unless_withdrawn<T>(order: &Order, wait: impl Future<Output = T>) -> Result<T, Failure> {
    let mut wait = std::pin::pin!(wait);
    // Most need not be waited for.
    if let Poll::Ready(done) = futures_util::poll!(wait.as_mut()) {
        return Ok(done);
    }
    let Some(ground) = &order.proof else { return Ok(wait.await) };
    tokio::select! {
        biased;
        how = ground.withdrawn() => Err(how.into()),
        done = wait => Ok(done),
    }
}

fn denied(denied: PassError) -> Failure {
    match denied {
        PassError::Unavailable(why) => Failure::CredentialUnavailable(why),
        PassError::Refused => Failure::CredentialRefused,
        PassError::Undecided => Failure::TimedOut { sent: false },
    }
}

/// Counts an exchange once, and what it costs, however it ends: by its answer, by a fault, or by its caller's leaving.
struct ExchangeCount<'a, 'w> {
    region: &'a Region,
    order: &'a Order,
    ending: Ending,
    clock: &'a Clock,
    began: Instant,
    costs: &'a mut OrderCosts<'w>,
    /// True until it is known that nothing was sent.
    may_have_left: bool,
}

impl ExchangeCount<'_, '_> {
    /// How long it has taken up to now.
    fn took(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.began)
    }
}

impl Drop for ExchangeCount<'_, '_> {
    fn drop(&mut self) {
        self.region.meters.ended(&self.order.operation, self.ending);
        let is_answered = matches!(self.ending, Ending::Status(_));
        let cost = Costs {
            upstream_time: self.took(),
            exchanges: u32::from(self.may_have_left),
            upstream_request_id: self.costs.sum.upstream_request_id.clone().filter(|_| is_answered),
            ..Costs::default()
        };
        self.costs.end(Wait::Exchange(self.began), &cost);
    }
}
