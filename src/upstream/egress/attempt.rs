//! An order's way out: one attempt after another until one counts.
//!
//! Invariants: an attempt takes the stages in their order: region, seat, credential's pass, signature, exchange. The
//! configuration is looked up anew for each. No await stands between the seat and the exchange.
//!
//! The happy path allocates the target's text and the header table, and what hyper-util does (a boxed future, a one-shot
//! channel); it spawns nothing and formats no label.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use hyper::{Response, StatusCode};
use tokio::time::Instant;

use super::app_runtime::{AppRuntime, Region};
use super::breaker::Verdict;
use super::buckets::AppBucket;
use super::endpoint::Endpoint;
use super::events_body::{Came, Coded};
use super::hosts::Said;
use super::linger::Head;
use super::meters::Ending;
use super::retry::{Next, Outcome, Reason, Terms, Tries, is_vendors_failure};
use super::{Costs, Failure, Inner, LINGER, Table, Timeouts, coding, redact, request_id};
use crate::kernel::names::RegionName;
use crate::kernel::secret::redact::Redactor;
use crate::upstream::credentials::{Denied, Signed};
use crate::upstream::pool::{BodyFault, Fault, Unkept, read_body, read_body_in, read_kept, retry_after};
use crate::upstream::quota::{Refused, Seat};
use crate::vendor::order::{Order, Safety};

/// Bytes of the bodies that are looked at here, or go along with a status that says most.
const LOOKED_AT: usize = 64 << 10;

/// What of the answer's head is handed on.
static KEPT: [HeaderName; 5] = [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE, RETRY_AFTER, DATE];

/// An answer without its costs.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) region: RegionName,
    /// The vendor's wish before another try; zero when it gave none.
    pub(super) retry_after: Duration,
}

/// When an exchange ends.
struct Limits {
    /// Its caller waits no longer.
    caller: Instant,
    /// Nobody does.
    linger: Instant,
    /// From the connection to the head of the answer.
    first_byte: Duration,
    /// Between two pieces of its body.
    idle: Duration,
    /// Bytes that are kept of an answer to a read of events.
    max_read: usize,
}

impl Inner {
    pub(super) async fn attempts(&self, order: &Order, costs: &mut Costs) -> Result<Answer, Failure> {
        let safety = order.operation.safety();
        let mut tries = if order.is_repeat { Tries::of_repeat() } else { Tries::default() };
        loop {
            if self.stopping.is_cancelled() {
                return Err(Failure::Stopping);
            }
            let table = self.table.load_full();
            let desk = table.desks.get(&order.app).ok_or(Failure::NoSuchApp)?;
            let region = desk.region(order, &tries, self.clock.now())?;
            let line = desk.line(order.operation.bucket());

            if let Some(longest) = order.retry_after_limit {
                line.bucket.believe(longest.min(table.max_retry_after));
            }
            // First all that may be waited for or refused, and nothing is taken but the seat; then the rest is, or the
            // seat goes back unused.
            unless_withdrawn(order, desk.credential.clear(order.deadline)).await?.map_err(denied)?;
            let endpoint = region.endpoint(&order.operation).ok_or(Failure::NoSuchApp)?;
            let Some(seat) = unless_withdrawn(order, self.seat(order, endpoint, line, costs)).await?? else {
                // A reload is about to put another bucket in this one's place.
                tokio::task::yield_now().await;
                continue;
            };
            // What was withdrawn in the moment in which the seat came gives it back.
            if let Some(proof) = &order.proof {
                proof.goes_on().await?;
            }
            let Some(ticket) = region.place.enter(endpoint, safety == Safety::Destructive) else { continue };
            let Some(pass) = desk.credential.pass().map_err(denied)? else { continue };
            let signed = Signed::new(order, &region.base, seat, pass)
                .map_err(|_| Failure::Unreachable("the request's target is too long".into()))?;

            if let Some(sent) = &order.sent {
                sent.set();
            }
            tries.begin(|| desk.budgets.first(&order.payer.client, self.clock.now()));
            let began = self.clock.now();
            let (outcome, said) = self.exchange(order, signed, &table, desk, region, costs).await;
            let failed = said.host == Verdict::Failed || said.endpoint == Verdict::Failed;
            ticket.tell(said, failed.then(|| outcome.why()).as_deref());
            if let Outcome::Answered(answer) = &outcome {
                endpoint.took(self.clock.now().saturating_duration_since(began));
                desk.switched_off.tell(&order.app, endpoint.name(), answer.status, self.clock.wall_ms());
            }
            if matches!(outcome, Outcome::OverLimit) {
                line.meters.refused.inc();
            }
            if failed {
                tries.note_failed(&region.name);
            }
            let now = self.clock.now();
            if let Some(pause) = outcome.asked_to_wait() {
                endpoint.ask_to_wait(pause, now);
            }
            // Another region is asked at once; this one when it wants to be.
            let then = |at| desk.region(order, &tries, at).ok().map(|next| next.name != region.name);
            let elsewhere = then(now).filter(|is_other| *is_other).or_else(|| then(now + outcome.asked()));
            let may = |reason: Reason| desk.may_send_again(reason, &order.payer.client, self.clock.now());
            let rest = order.operation.rest_after_timeout();
            let terms = Terms { safety, rest, now: self.clock.now(), deadline: order.deadline };
            match tries.after(outcome, terms, elsewhere, may) {
                Next::Again(pause) if pause.is_zero() => {}
                Next::Again(pause) => unless_withdrawn(order, tokio::time::sleep(pause)).await?,
                Next::Done(result) => return result,
            }
        }
    }

    /// `None`: the endpoint is counted in another bucket from now on.
    async fn seat(
        &self,
        order: &Order,
        endpoint: &Endpoint,
        line: &AppBucket,
        costs: &mut Costs,
    ) -> Result<Option<Seat>, Failure> {
        let began = self.clock.now();
        let latest = if order.operation.is_message() {
            // One that is sent so late that its answer finds nobody leaves its caller in doubt; it is refused instead.
            let left = order.deadline.saturating_duration_since(began);
            order.deadline - endpoint.answers_within().min(left / 2)
        } else {
            order.deadline
        };
        let by = order.seat_by.map_or(latest, |by| by.min(latest));
        let seat = match &order.sharers {
            None => line.bucket.seat(&order.payer, by).await,
            Some(sharers) => {
                // In a box: most orders are one caller's, and should not hold room for more.
                Box::pin(line.bucket.seat_of_any(&order.payer, sharers.clone(), by)).await
            }
        };
        let waited = self.clock.now().saturating_duration_since(began);
        costs.queue_wait += waited;
        line.meters.wait.observe(waited.as_secs_f64());
        let why = match seat {
            Ok(seat) => return Ok(Some(seat)),
            Err(Refused::Moved) => return Ok(None),
            Err(Refused::Spent { retry_after }) => {
                Failure::QuotaSpent { bucket: line.name, limit: line.limit, retry_after }
            }
            Err(Refused::Crowded) => Failure::Crowded(line.name),
        };
        line.meters.rejections.inc();
        Err(why)
    }

    async fn exchange(
        &self,
        order: &Order,
        signed: Signed,
        table: &Table,
        desk: &AppRuntime,
        region: &Region,
        costs: &mut Costs,
    ) -> (Outcome, Said) {
        let began = self.clock.now();
        let limits = Limits::of(order, (table, desk), began);
        let mut count = Count { region, order, ending: Ending::Error };
        let redactor = signed.pass.redactor();
        let lane = region.lanes.of(&order.operation);
        let flight = self.linger.watch(lane.send(signed, limits.linger));
        let head = flight.head(limits.caller, limits.first_byte).await;
        let waited = self.clock.now().saturating_duration_since(began);
        let patient = waited >= table.timeouts.first_byte.min(table.timeouts.request) / 2;
        let (outcome, said) = match head {
            Head::Came(Ok(head)) => {
                count.ending = Ending::Status(head.status());
                costs.exchanges += 1;
                region.place.note_date(head.headers(), waited);
                let outcome =
                    self.receive(head, order, region, &redactor, (&limits, table.max_retry_after), costs).await;
                let said = Said { host: Verdict::Well, endpoint: said_by(&outcome) };
                (outcome, said)
            }
            Head::Came(Err(Fault::NotSent { timed_out, why })) => {
                let why = if timed_out { Failure::TimedOut { sent: false } } else { Failure::Unreachable(why) };
                (Outcome::Failed(why), Said { host: Verdict::Failed, endpoint: Verdict::Unknown })
            }
            // From here on there was a connection.
            Head::Came(Err(Fault::Unprocessed { why })) => {
                costs.exchanges += 1;
                (
                    Outcome::Failed(Failure::Unprocessed(why)),
                    Said { host: Verdict::Unknown, endpoint: Verdict::Unknown },
                )
            }
            Head::Came(Err(Fault::MaybeSent { why, .. })) => {
                costs.exchanges += 1;
                let said = Said { host: Verdict::Unknown, endpoint: Verdict::Failed };
                (Outcome::Failed(Failure::Lost { why: why.into(), partial: None, retry_after: None }), said)
            }
            Head::Late { sent } => {
                costs.exchanges += u32::from(sent);
                // One who hardly waited has found out nothing.
                let endpoint = if sent && patient { Verdict::Failed } else { Verdict::Unknown };
                (Outcome::Failed(Failure::TimedOut { sent }), Said { host: Verdict::Unknown, endpoint })
            }
        };
        let took = self.clock.now().saturating_duration_since(began);
        costs.upstream_time += took;
        desk.meters.took(&order.operation, took);
        if let Outcome::Failed(why) = &outcome {
            tracing::debug!(app = %order.app, region = %region.name, endpoint = order.operation.endpoint(), %why, "an exchange failed");
        }
        (outcome, said)
    }

    /// Reads the rest of an answer and says what it means.
    async fn receive(
        &self,
        head: Response<Incoming>,
        order: &Order,
        region: &Region,
        redactor: &Arc<Redactor>,
        (limits, longest): (&Limits, Duration),
        costs: &mut Costs,
    ) -> Outcome {
        let (parts, body) = head.into_parts();
        let safety = order.operation.safety();
        let mut headers = kept(&parts.headers);
        let asked = retry_after::of(&parts.headers, self.clock.wall_ms()).map(|asked| asked.min(longest));
        // In seconds from now, by our clock: a date would be read by the caller's.
        headers.remove(RETRY_AFTER);
        if let Some(asked) = asked {
            headers.insert(RETRY_AFTER, HeaderValue::from(asked.as_secs() + u64::from(asked.subsec_nanos() > 0)));
        }
        // Of an answer that is well it means nothing, whole or cut.
        let retry_after = asked.filter(|_| !parts.status.is_success());
        let codings = coding::of(&headers);
        let is_withheld = redact::clean_headers(redactor, safety, &mut headers);
        let body = if safety == Safety::Destructive && !is_about_us(parts.status) {
            let came = Came::of(read_kept(body, limits.max_read, limits.caller, limits.idle).await);
            let coded = Coded::new(codings, came, limits.max_read);
            let came = self.cleaning.clean_events(redactor, parts.status, coded).await;
            came.whole(retry_after).map(|body| (body, None))
        } else {
            let read = match self.read(body, order, parts.status, limits).await {
                Ok(_) if is_withheld => Ok((Bytes::new(), None)),
                Ok(body) => Ok(body),
                Err(Unkept::Fault(fault)) => Err(fault),
                Err(Unkept::NoRoom) => return Outcome::Failed(Failure::NoRoom),
            };
            let read = self.cleaning.clean(redactor, parts.status, read).await;
            read.map_err(|fault| match fault {
                BodyFault::TooLarge { .. } => Failure::TooLarge,
                BodyFault::Cut { why, partial } => {
                    Failure::Lost { why: why.into(), partial: Some(partial), retry_after }
                }
                BodyFault::Slow { .. } => Failure::TimedOut { sent: true },
            })
        };
        if let Ok((body, _)) = &body {
            costs.upstream_request_id = request_id::find(body);
        }
        match parts.status {
            // The body of these adds nothing, so it does not matter whether it came whole.
            StatusCode::TOO_MANY_REQUESTS => return Outcome::OverLimit,
            StatusCode::UNAUTHORIZED => return Outcome::Unauthorized,
            _ => {}
        }
        let body = match body {
            Err(_) if says_all(parts.status, safety) => Ok((Bytes::new(), None)),
            body => body,
        };
        match body {
            Ok((body, lease)) => Outcome::Answered(Answer {
                status: parts.status,
                headers,
                body: match lease {
                    // It goes to the caller as it is, who may be slow.
                    Some(lease) if order.operation.is_message() => lease.hold(body),
                    // What is made of others is bounded where it is made. A lease that was kept while more is asked for would
                    // wait for itself.
                    _ => body,
                },
                region: region.name.clone(),
                retry_after: asked.unwrap_or_default(),
            }),
            Err(why) => Outcome::Failed(why),
        }
    }

    /// Reads the body of an answer that is not one to a read of events.
    async fn read(
        &self,
        body: Incoming,
        order: &Order,
        status: StatusCode,
        limits: &Limits,
    ) -> Result<redact::Kept, Unkept> {
        let (until, idle) = (limits.caller, limits.idle);
        let without_lease = |read: Result<Bytes, BodyFault>| read.map(|body| (body, None)).map_err(Unkept::Fault);
        match status {
            // Nobody gets to read these.
            status if is_about_us(status) => without_lease(read_body(body, LOOKED_AT, until, idle).await),
            // Why there is no result is kept with the job, and no lease may be kept so long. The status says most.
            status if !order.operation.is_message() && !status.is_success() => {
                match read_body(body, LOOKED_AT, until, idle).await {
                    Err(BodyFault::TooLarge { .. }) => Ok((Bytes::new(), None)),
                    read => without_lease(read),
                }
            }
            _ => read_body_in(&self.room, &order.payer.client, body, until, idle).await,
        }
    }
}

impl Limits {
    fn of(order: &Order, (table, desk): (&Table, &AppRuntime), began: Instant) -> Self {
        let Timeouts { first_byte, idle, request } = table.timeouts;
        let (linger, max_read) = (began + request * LINGER, desk.max_read);
        match order.operation.safety() {
            // What it removes must not be thrown away because it is slow.
            Safety::Destructive => {
                Self { caller: linger, linger, first_byte: Duration::MAX, idle: Duration::MAX, max_read }
            }
            Safety::Idempotent | Safety::Once => {
                Self { caller: (began + request).min(order.deadline), linger, first_byte, idle, max_read }
            }
        }
    }
}

/// Whether a status stands although its body did not come whole: nothing that the body holds was asked for. A read of
/// events that failed may have removed some, so what came of them is kept.
fn says_all(status: StatusCode, safety: Safety) -> bool {
    match safety {
        Safety::Destructive => said_no(status),
        Safety::Idempotent | Safety::Once => !status.is_success(),
    }
}

/// Whether an answer is about the gateway and not about what was asked: its body adds nothing.
fn is_about_us(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::UNAUTHORIZED)
}

/// Whether the vendor has refused a read, and so removed nothing.
fn said_no(status: StatusCode) -> bool {
    !status.is_success() && (!is_vendors_failure(status) || status == StatusCode::NOT_IMPLEMENTED)
}

fn kept(headers: &HeaderMap) -> HeaderMap {
    let mut out = HeaderMap::with_capacity(KEPT.len());
    for name in &KEPT {
        if let Some(value) = headers.get(name) {
            out.insert(name, value.clone());
        }
    }
    out
}

/// What an answer, or its end in the middle, says about the endpoint.
fn said_by(outcome: &Outcome) -> Verdict {
    match outcome {
        // 501 says that this one thing is not done, 408 that this one time it was not.
        Outcome::Answered(answer) if answer.status == StatusCode::REQUEST_TIMEOUT => Verdict::Unknown,
        Outcome::Answered(answer) if answer.status == StatusCode::NOT_IMPLEMENTED => Verdict::Well,
        Outcome::Answered(answer) if answer.status.is_server_error() => Verdict::Failed,
        Outcome::Answered(_) | Outcome::OverLimit | Outcome::Unauthorized => Verdict::Well,
        Outcome::Failed(Failure::Lost { .. } | Failure::TimedOut { .. }) => Verdict::Failed,
        Outcome::Failed(_) => Verdict::Well,
    }
}

/// Waits, as long as the order's caller may ask for what it ordered.
async fn unless_withdrawn<T>(order: &Order, wait: impl Future<Output = T>) -> Result<T, Failure> {
    let Some(proof) = &order.proof else { return Ok(wait.await) };
    tokio::select! {
        biased;
        how = proof.withdrawn() => Err(how.into()),
        done = wait => Ok(done),
    }
}

fn denied(denied: Denied) -> Failure {
    match denied {
        Denied::Unavailable(why) => Failure::CredentialUnavailable(why),
        Denied::Refused => Failure::CredentialRefused,
        Denied::Undecided => Failure::TimedOut { sent: false },
    }
}

/// Counts an exchange once, however it ends: by its answer, by a fault, or by its caller's leaving.
struct Count<'a> {
    region: &'a Region,
    order: &'a Order,
    ending: Ending,
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.region.meters.ended(&self.order.operation, self.ending);
    }
}
