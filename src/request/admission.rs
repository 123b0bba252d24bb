//! Admission: whether there is room for a request that may be made. [`Call`] in, [`Admitted`] out, or 429, or 503.
//!
//! Asked in this order, and the first that says no ends it:
//!
//! | what                                   | whose                         | beyond it                             |
//! |----------------------------------------|-------------------------------|---------------------------------------|
//! | `server.max_requests`                  | everybody's                   | 503, before anything else is looked at |
//! | a fair share of it (`kernel::share`)   | the client's                  | 503 `unavailable`                     |
//! | `max_concurrent`                       | the client's                  | 429 `client_limit_exceeded`           |
//! | `requests_per_second`                  | the client's                  | 429 `client_limit_exceeded`           |
//! | `server.max_connections` (`kernel::conn::places`) | the client's share of those in use | 503 `unavailable`     |
//! | memory for bodies, as they come        | everybody's, and a fair share | 503 `unavailable`                     |
//! | `server.max_streams`, for what streams | everybody's, and a fair share | 503 `unavailable`                     |
//!
//! Invariants:
//! - Only [`Admission::admit`] makes an [`Admitted`], which routes need: what was not admitted cannot run.
//! - A refusal takes nothing of any budget: what comes before admission (400, 401, 403, 404, 405) takes nothing at all;
//!   of the ceilings the rate is asked last, and taken from only when all others agree; a request that is refused
//!   later without having cost anything (a bad body, no seat of the vendor's quota) gives its rate token back.
//! - A request is in hand from its admission until its answer was handed to the system whole, or it was given up, by
//!   whatever way: [`AdmissionPermit`] goes with the answer and gives all back when it is dropped.
//! - An answer that streams for as long as its caller likes gives its place among `max_requests` back and takes one of
//!   another room ([`AdmissionPermit::stream`]); for its client's `max_concurrent` it stays in hand.
//! - What is in hand and what was taken outlives a reload; what may be taken is read from the configuration each time.
//! - Clients in report mode are never refused by their own ceilings. What they would have been refused is counted as if
//!   it had been: it does not count against what comes after it.

mod client_usage;
mod permit;
mod rate;
mod report;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::config::Config;
use crate::kernel::clock::Clock;
use crate::kernel::metrics::{Metrics, ShedLabels, from_the_start};
use crate::kernel::names::ClientName;
use crate::kernel::sync::lock;
use crate::request::refusal::{Refusal, Shed};
use crate::request::route::{AppRequest, Call};

use client_usage::ClientUsage;
pub use client_usage::InHand;
pub use permit::AdmissionPermit;
pub use report::Reason;

/// Bytes of callers' bodies in memory at a time; more where `request_body_limit` is large.
const BODY_BYTES: usize = 256 << 20;

/// Who is in hand, and how much there is room for. Outlives reloads.
pub struct Admission {
    usage: Mutex<ClientUsage>,
    /// As `usage` has it, to be looked at without its lock.
    in_hand: AtomicUsize,
    max_requests: AtomicUsize,
    clock: Clock,
}

/// There was room when a request came. Whoever has not asked has none:
///
/// ```compile_fail,E0423
/// use rtm_gateway::request::admission::Headroom;
///
/// let headroom = Headroom(());
/// ```
#[derive(Debug)]
pub struct Headroom(());

/// A request that may be made and has its place. What was granted only is not admitted:
///
/// ```compile_fail,E0423
/// use rtm_gateway::request::admission::Admitted;
/// use rtm_gateway::request::route::Call;
///
/// fn forge(call: Call) -> Admitted {
///     Admitted(call.into_request())
/// }
/// ```
#[derive(Debug)]
pub struct Admitted(AppRequest);

impl Admission {
    /// With nothing in hand.
    #[must_use]
    pub fn new(room: Room, clock: Clock, metrics: Metrics) -> Arc<Self> {
        let shed = |what: Shed| ShedLabels { reason: what.as_str().to_owned() };
        from_the_start(&metrics.requests_shed, Shed::ALL.map(shed));
        let max_requests = AtomicUsize::new(room.requests);
        let usage = Mutex::new(ClientUsage::new(metrics, room));
        Arc::new(Self { usage, in_hand: AtomicUsize::new(0), max_requests, clock })
    }

    /// Takes a changed configuration, of clients for which `stays` says yes. What is in hand stays so, also beyond a
    /// ceiling that was lowered.
    pub fn apply(&self, room: Room, stays: impl Fn(&ClientName) -> bool) {
        self.max_requests.store(room.requests, Ordering::Relaxed);
        let now = self.clock.now();
        self.with_usage(|usage| {
            usage.room = room;
            usage.forget(stays, now);
        });
    }

    /// The first thing that is asked of a request, before anything of it is looked at.
    ///
    /// # Errors
    /// 503 when the gateway is full.
    pub fn enter(&self) -> Result<Headroom, Refusal> {
        if self.in_hand.load(Ordering::Relaxed) < self.max_requests.load(Ordering::Relaxed) {
            Ok(Headroom(()))
        } else {
            Err(Refusal::shed(Shed::MaxRequests))
        }
    }

    /// Gives a request its place, which it has until the [`AdmissionPermit`] is dropped.
    ///
    /// # Errors
    /// 429 or 503, see the module's header.
    pub fn admit(self: &Arc<Self>, _: Headroom, call: Call) -> Result<(Admitted, AdmissionPermit), Refusal> {
        let now = self.clock.now();
        let client = &call.payer().client;
        let (reservation, report) = self.with_usage(|usage| {
            let reservation = usage.admit(client, call.terms(), now)?;
            let report = reservation.would_refuse.and_then(|reason| usage.report(client, reason, now));
            Ok::<_, Refusal>((reservation, report))
        })?;
        if let Some(report) = report {
            report.log(client);
        }
        let permit = AdmissionPermit::new(self, client.clone(), reservation);
        Ok((Admitted(call.into_request()), permit))
    }

    /// Requests in hand now.
    #[must_use]
    pub fn in_hand(&self) -> usize {
        self.in_hand.load(Ordering::Relaxed)
    }

    /// Requests in hand now, and streams that are open, of each client that had one.
    #[must_use]
    pub fn by_client(&self) -> HashMap<ClientName, InHand> {
        self.with_usage(|usage| usage.by_client().map(|(name, now)| (name.clone(), now)).collect())
    }

    /// Looks at what is in hand, or changes it, and shows how much there is then.
    fn with_usage<T>(&self, work: impl FnOnce(&mut ClientUsage) -> T) -> T {
        // No section panics half-way; counts that are off by one would still serve better than none.
        let mut usage = lock(&self.usage);
        let done = work(&mut usage);
        // Under the lock: of two that end at once the later number stands.
        self.in_hand.store(usage.in_hand(), Ordering::Relaxed);
        done
    }
}

impl Admitted {
    /// Who pays for it.
    #[must_use]
    pub fn client(&self) -> &ClientName {
        &self.0.payer.client
    }

    /// What is asked, of which app, and who pays.
    #[must_use]
    pub fn into_request(self) -> AppRequest {
        self.0
    }
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission").field("in_hand", &self.in_hand()).finish_non_exhaustive()
    }
}

/// How much there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    requests: usize,
    streams: usize,
    body_bytes: usize,
}

impl Room {
    /// As configured.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let body_bytes = BODY_BYTES.max(config.server.request_body_limit.saturating_mul(4));
        Self { requests: config.server.max_requests, streams: config.server.max_streams, body_bytes }
    }
}

/// When to come back after a concurrency refusal: nobody knows when a request ends.
const A_WHILE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
