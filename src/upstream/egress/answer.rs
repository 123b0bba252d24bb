//! Reading the vendor's answer to an attempt: whole, cleaned of our credential, and told apart by what it means.
//!
//! Invariant: of an answer to a read of events nothing that came is thrown away, whatever went wrong after it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use hyper::http::response::Parts;
use tokio::time::Instant;

use super::events_body::{EncodedBody, PartialBody};
use super::outcome::{Answer, AttemptOutcome, is_vendors_failure};
use super::redact::{self, Cleaning, LeasedBody};
use super::{Costs, Failure, coding, request_id};
use crate::kernel::clock::Clock;
use crate::kernel::names::RegionName;
use crate::kernel::secret::redact::Redactor;
use crate::upstream::pool::memory::AnswerMemory;
use crate::upstream::pool::{BodyError, BodyFault, read_body, read_body_leased, read_body_partial, retry_after};
use crate::vendor::order::{Order, Safety};

/// Bytes of the bodies that are looked at here, or go along with a status that says most.
const LOOKED_AT: usize = 64 << 10;

/// What of the answer's head is handed on.
static ALLOWED: [HeaderName; 5] = [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE, RETRY_AFTER, DATE];

/// All that the answer to one attempt is read by.
pub(super) struct AnswerReader<'a> {
    pub(super) order: &'a Order,
    pub(super) region: &'a RegionName,
    pub(super) memory: &'a AnswerMemory,
    pub(super) cleaning: &'a Cleaning,
    pub(super) redactor: &'a Arc<Redactor>,
    pub(super) clock: &'a Clock,
    /// Its caller waits no longer.
    pub(super) until: Instant,
    /// Between two pieces of the body.
    pub(super) idle: Duration,
    /// Bytes that are kept of an answer to a read of events.
    pub(super) max_read: usize,
    /// The longest that the vendor's `Retry-After` is believed.
    pub(super) max_retry_after: Duration,
}

impl AnswerReader<'_> {
    /// Reads the rest of an answer and says what it means.
    pub(super) async fn receive(&self, parts: &Parts, body: Incoming, costs: &mut Costs) -> AttemptOutcome {
        let safety = self.order.operation.safety();
        let mut headers = allowed(&parts.headers);
        let asked = retry_after::of(&parts.headers, || self.clock.wall_ms());
        let asked = asked.map(|asked| asked.min(self.max_retry_after));
        // In seconds from now, by our clock: a date would be read by the caller's.
        headers.remove(RETRY_AFTER);
        if let Some(asked) = asked {
            headers.insert(RETRY_AFTER, HeaderValue::from(asked.as_secs() + u64::from(asked.subsec_nanos() > 0)));
        }
        // Of an answer that is well it means nothing, whole or cut.
        let retry_after = asked.filter(|_| !parts.status.is_success());
        let codings = coding::of(&headers);
        let is_withheld = redact::clean_headers(self.redactor, safety, &mut headers);
        let body = if safety == Safety::Destructive && !is_about_us(parts.status) {
            let came = PartialBody::of(read_body_partial(body, self.max_read, self.until, self.idle).await);
            let coded = EncodedBody::new(codings, came, self.max_read);
            let came = self.cleaning.clean_events(self.redactor, parts.status, coded).await;
            came.whole(retry_after).map(LeasedBody::small)
        } else {
            let read = match self.read(body, parts.status).await {
                Ok(_) if is_withheld => Ok(LeasedBody::empty()),
                Ok(body) => Ok(body),
                Err(BodyError::Fault(fault)) => Err(fault),
                Err(BodyError::NoMemory) => return AttemptOutcome::Failed(Failure::NoRoom),
            };
            let read = self.cleaning.clean(self.redactor, parts.status, read).await;
            read.map_err(|fault| match fault {
                BodyFault::TooLarge { .. } => Failure::TooLarge,
                BodyFault::Cut { why, partial } => Failure::Lost { why, partial: Some(partial), retry_after },
                BodyFault::Slow { .. } => Failure::TimedOut { sent: true },
            })
        };
        // Also of a refusal: by it the vendor finds the request in its own logs.
        if let Ok(body) = &body {
            costs.upstream_request_id = request_id::find(&body.bytes);
        }
        match parts.status {
            // The body of these adds nothing, so it does not matter whether it came whole.
            StatusCode::TOO_MANY_REQUESTS => return AttemptOutcome::OverLimit,
            StatusCode::UNAUTHORIZED => return AttemptOutcome::Unauthorized,
            _ => {}
        }
        let body = match body {
            Err(_) if says_all(parts.status, safety) => Ok(LeasedBody::empty()),
            body => body,
        };
        match body {
            Ok(LeasedBody { bytes, lease }) => AttemptOutcome::Answered(Answer {
                status: parts.status,
                headers,
                body: match lease {
                    // It goes to the caller as it is, who may be slow.
                    Some(lease) if self.order.operation.is_message() => lease.hold(bytes),
                    // What is made of others is bounded where it is made. A lease that was kept while more is asked for
                    // would wait for itself.
                    _ => bytes,
                },
                region: self.region.clone(),
                retry_after: asked.unwrap_or_default(),
            }),
            Err(why) => AttemptOutcome::Failed(why),
        }
    }

    /// Reads the body of an answer that is not one to a read of events.
    async fn read(&self, body: Incoming, status: StatusCode) -> Result<LeasedBody, BodyError> {
        let (until, idle) = (self.until, self.idle);
        let without_lease = |read: Result<Bytes, BodyFault>| read.map(LeasedBody::small).map_err(BodyError::Fault);
        match status {
            // Nobody gets to read these.
            status if is_about_us(status) => without_lease(read_body(body, LOOKED_AT, until, idle).await),
            // Why there is no result is kept with the job, and no lease may be kept so long. The status says most.
            status if !self.order.operation.is_message() && !status.is_success() => {
                match read_body(body, LOOKED_AT, until, idle).await {
                    Err(BodyFault::TooLarge { .. }) => Ok(LeasedBody::empty()),
                    read => without_lease(read),
                }
            }
            _ => {
                let read = read_body_leased(self.memory, &self.order.payer.client, body, until, idle).await;
                read.map(|(bytes, lease)| LeasedBody { bytes, lease })
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

fn allowed(headers: &HeaderMap) -> HeaderMap {
    let mut out = HeaderMap::with_capacity(ALLOWED.len());
    for name in &ALLOWED {
        if let Some(value) = headers.get(name) {
            out.insert(name, value.clone());
        }
    }
    out
}
