//! An order's way out: one attempt after another until one counts.
//!
//! Invariants: an attempt takes the stages in their order: credential's pass, seat, signature, exchange. The
//! configuration is looked up anew for each. No await stands between the seat and the exchange.
//!
//! The happy path allocates the target's text and the header table, and what hyper-util does (a boxed future, a one-shot
//! channel); it spawns nothing and formats no label.

use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, DATE, HeaderMap, HeaderName, RETRY_AFTER};
use hyper::{Response, StatusCode};
use tokio::time::Instant;

use super::buckets::Line;
use super::desk::{Desk, Region};
use super::meters::Ending;
use super::retry::{Next, Outcome, Tries};
use super::{Costs, Failure, Inner, LINGER, Table, redact, request_id};
use crate::credentials::{Denied, Signed};
use crate::names::RegionName;
use crate::order::{Order, Safety};
use crate::quota::{Refused, Seat};
use crate::secret::redact::Redactor;
use crate::upstream::{BodyFault, Fault, MAX_BODY, read_body, retry_after};

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
}

impl Inner {
    pub(super) async fn attempts(&self, order: &Order, costs: &mut Costs) -> Result<Answer, Failure> {
        let safety = order.operation.safety();
        let mut tries = Tries::default();
        loop {
            if self.stopping.is_cancelled() {
                return Err(Failure::Stopping);
            }
            let table = self.table.load_full();
            let desk = table.desks.get(&order.app).ok_or(Failure::NoSuchApp)?;
            let region = desk.region(order.region.as_ref()).ok_or(Failure::NoSuchApp)?;
            let line = desk.line(order.operation.bucket());

            let pass = desk.credential.enter(order.deadline).await.map_err(denied)?;
            let seat = self.seat(order, line, costs).await?;
            let Some(pass) = pass.confirm().map_err(denied)? else { continue };
            let signed = Signed::new(order, &region.base, seat, pass)
                .map_err(|_| Failure::Unreachable("the request's target is too long".into()))?;

            let outcome = self.exchange(order, signed, &table, desk, region, costs).await;
            if matches!(outcome, Outcome::OverLimit) {
                line.meters.refused.inc();
            }
            match tries.after(outcome, safety, self.clock.now(), order.deadline) {
                Next::Again(pause) if pause.is_zero() => {}
                Next::Again(pause) => tokio::time::sleep(pause).await,
                Next::Done(result) => return result,
            }
        }
    }

    async fn seat(&self, order: &Order, line: &Line, costs: &mut Costs) -> Result<Seat, Failure> {
        let began = self.clock.now();
        let seat = line.bucket.seat(&order.payer, order.deadline).await;
        let waited = self.clock.now().saturating_duration_since(began);
        costs.queue_wait += waited;
        line.meters.wait.observe(waited.as_secs_f64());
        seat.map_err(|refused| {
            line.meters.rejections.inc();
            match refused {
                Refused::Spent { retry_after } => {
                    Failure::QuotaSpent { bucket: line.name, limit: line.limit, retry_after }
                }
                Refused::Crowded => Failure::Crowded(line.name),
            }
        })
    }

    async fn exchange(
        &self,
        order: &Order,
        signed: Signed,
        table: &Table,
        desk: &Desk,
        region: &Region,
        costs: &mut Costs,
    ) -> Outcome {
        let began = self.clock.now();
        let limits = Limits::of(order, table, began);
        let mut count = Count { region, order, ending: Ending::Error };
        let redactor = signed.pass.redactor();
        let flight = self.linger.watch(table.upstream.send(signed), limits.linger);
        let outcome = match flight.head(limits.caller).await {
            Some(Ok(head)) => {
                count.ending = Ending::Status(head.status());
                costs.exchanges += 1;
                self.receive(head, order, region, &redactor, &limits, costs).await
            }
            Some(Err(Fault::NotSent { timed_out: true, .. })) => Outcome::Failed(Failure::TimedOut { sent: false }),
            Some(Err(Fault::NotSent { why, .. })) => Outcome::Failed(Failure::Unreachable(why)),
            Some(Err(Fault::MaybeSent { why })) => {
                costs.exchanges += 1;
                Outcome::Failed(Failure::Lost { why, partial: None })
            }
            None => {
                costs.exchanges += 1;
                Outcome::Failed(Failure::TimedOut { sent: true })
            }
        };
        let took = self.clock.now().saturating_duration_since(began);
        costs.upstream_time += took;
        desk.meters.took(&order.operation, took);
        if let Outcome::Failed(why) = &outcome {
            tracing::debug!(app = %order.app, region = %region.name, endpoint = order.operation.endpoint(), %why, "an exchange failed");
        }
        outcome
    }

    /// Reads the rest of an answer and says what it means.
    async fn receive(
        &self,
        head: Response<Incoming>,
        order: &Order,
        region: &Region,
        redactor: &Redactor,
        limits: &Limits,
        costs: &mut Costs,
    ) -> Outcome {
        let (parts, body) = head.into_parts();
        let body = read_body(body, MAX_BODY, limits.caller).await;
        let mut headers = kept(&parts.headers);
        let body = redact::clean(redactor, (parts.status, order.operation.safety()), &mut headers, body);
        if let Ok(body) = &body {
            costs.upstream_request_id = request_id::find(body);
        }
        match parts.status {
            // The body of these adds nothing, so it does not matter whether it came whole.
            StatusCode::TOO_MANY_REQUESTS => return Outcome::OverLimit,
            StatusCode::UNAUTHORIZED => return Outcome::Unauthorized,
            _ => {}
        }
        match body {
            Ok(body) => Outcome::Answered(Answer {
                status: parts.status,
                headers,
                body,
                region: region.name.clone(),
                retry_after: self.retry_after(&parts.headers),
            }),
            Err(BodyFault::TooLarge) => Outcome::Failed(Failure::TooLarge),
            Err(BodyFault::Cut { why, partial }) => Outcome::Failed(Failure::Lost { why, partial: Some(partial) }),
            Err(BodyFault::Slow { partial }) => match order.operation.safety() {
                // The events that did come can still be kept.
                Safety::Destructive => {
                    let why = "the answer did not end in time".into();
                    Outcome::Failed(Failure::Lost { why, partial: Some(partial) })
                }
                Safety::Idempotent | Safety::Once => Outcome::Failed(Failure::TimedOut { sent: true }),
            },
        }
    }

    fn retry_after(&self, headers: &HeaderMap) -> Duration {
        let asked = headers.get(RETRY_AFTER).and_then(|value| retry_after::parse(value, self.clock.wall_ms()));
        asked.unwrap_or_default()
    }
}

impl Limits {
    fn of(order: &Order, table: &Table, began: Instant) -> Self {
        let linger = began + table.request_timeout * LINGER;
        let caller = match order.operation.safety() {
            // What it removes must not be thrown away because it is slow.
            Safety::Destructive => linger,
            Safety::Idempotent | Safety::Once => (began + table.request_timeout).min(order.deadline),
        };
        Self { caller, linger }
    }
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
