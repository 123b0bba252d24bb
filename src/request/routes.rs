//! What each route does, a file each. A route says what it wants of a service and shapes the answer; it decides nothing
//! about who may, what a parameter means, or how the vendor is reached.

pub mod count;
pub(crate) mod document;
pub mod events;
pub mod history;
pub mod messages;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::http::request::Parts;

use crate::config;
use crate::http::body::{Inbound, Unread, read_up_to};
use crate::kernel::proof::{Basis, Ground, Life, Proof, Work};
use crate::request::admission::Admitted;
use crate::request::gateway::{Gateway, InForce, Live};
use crate::request::guard::RequestGuard;
use crate::request::refusal::{Refusal, Shed};
use crate::request::request_log::RequestLog;
use crate::request::route::{AppRequest, Kind};
use crate::vendor::order::Payer;

/// How long a caller may take to send a body.
const BODY_TIME: Duration = Duration::from_secs(30);

/// An admitted request, as its route gets it. Nobody else's app or name can be put into one:
///
/// ```compile_fail,E0451
/// use rtm_gateway::request::routes::RequestContext;
/// use rtm_gateway::vendor::order::Payer;
///
/// fn forge<'a>(context: RequestContext<'a>, payer: Payer) -> RequestContext<'a> {
///     RequestContext { payer, ..context }
/// }
/// ```
pub struct RequestContext<'a> {
    pub gateway: &'a Arc<Gateway>,
    /// The configuration in force when it came.
    pub live: &'a Live,
    pub head: &'a Parts,
    pub body: Inbound,
    pub app: Arc<config::App>,
    pub payer: Payer,
    /// What will be logged of it.
    pub log: &'a mut RequestLog,
    pub guard: &'a mut RequestGuard,
    basis: Basis,
    /// How long what let it in is good by itself.
    life: Life,
    /// Of what was in force when it was let in.
    generation: u64,
}

impl<'a> RequestContext<'a> {
    /// What an admitted request asks, and what its route may use to answer it.
    #[must_use]
    pub(crate) fn new(
        gateway: &'a Arc<Gateway>,
        in_force: &'a InForce,
        head: &'a Parts,
        body: Inbound,
        admitted: Admitted,
        log: &'a mut RequestLog,
        guard: &'a mut RequestGuard,
    ) -> (Kind, Self) {
        let AppRequest { kind, app, payer, basis, life } = admitted.into_request();
        let InForce { live, generation } = in_force;
        let generation = *generation;
        (kind, Self { gateway, live, head, body, app, payer, log, guard, basis, life, generation })
    }

    /// What let it in, for an order that may have to wait to rest on.
    #[must_use]
    pub fn ground(&self, work: Work) -> Ground {
        Ground::open(&self.gateway.proofs, self.basis.clone(), self.generation, self.life, work)
    }

    /// What let it in, for what goes on for long to rest on.
    #[must_use]
    pub fn proof(&self, work: Work) -> Proof {
        self.gateway.proofs.enter(self.basis.clone(), self.generation, self.life).of(work)
    }
}

/// Reads a request's body.
///
/// # Errors
/// 413, 408 or 400; 503 when bodies take too much memory.
async fn read_body(
    live: &Live,
    body: Inbound,
    guard: &mut RequestGuard,
    log: &mut RequestLog,
) -> Result<Bytes, Refusal> {
    let limit = live.body_limit;
    let mut full = None;
    // As the bytes come, not by `Content-Length`: nobody reserves what it does not send.
    let room = |bytes| guard.reserve(bytes).map_err(|refusal| full = Some(refusal)).is_ok();
    let receiving = log.receive();
    let read = read_up_to(body, limit, BODY_TIME, room).await;
    log.received(receiving);
    read.map_err(|unread| match unread {
        Unread::TooLarge => Refusal::BodyTooLarge { limit },
        Unread::TooSlow => Refusal::RequestTimeout,
        Unread::Broken => Refusal::bad("the request's body ended early, is malformed, or has a trailer"),
        Unread::NoRoom => full.unwrap_or(Refusal::shed(Shed::BodyMemory)),
    })
}
