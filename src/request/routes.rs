//! What each route does, a file each. A route says what it wants of a service and shapes the answer; it decides nothing
//! about who may, what a parameter means, or how the vendor is reached.

pub mod count;
pub mod events;
pub mod history;
pub mod messages;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::http::request::Parts;

use crate::config;
use crate::http::body::{Inbound, Unread, read_up_to};
use crate::kernel::proof::{Basis, Evidence, Life, Proof, Work};
use crate::request::admission::Admitted;
use crate::request::gateway::{Gateway, Live};
use crate::request::refusal::{Refusal, Shed};
use crate::request::request_log::RequestLog;
use crate::request::route::Kind;
use crate::vendor::order::Payer;

/// How long a caller may take to send a body.
const BODY_TIME: Duration = Duration::from_secs(30);

/// An admitted request, as its route gets it.
pub struct RequestContext<'a> {
    /// The services.
    pub gateway: &'a Arc<Gateway>,
    /// The configuration in force when it came.
    pub live: &'a Live,
    /// Its head.
    pub head: &'a Parts,
    /// Its body, unread.
    pub body: Inbound,
    /// Its app.
    pub app: Arc<config::App>,
    /// Who pays.
    pub payer: Payer,
    /// What is known of it.
    pub trail: &'a mut RequestLog,
    basis: Basis,
    seen: Seen,
    /// Made of an [`Admitted`], and of nothing else.
    _admitted: WasAdmitted,
}

/// That there was an [`Admitted`].
struct WasAdmitted;

/// When a request was let in, and for how long that is good.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The generation of what is in force, read before that was.
    pub generation: u64,
    /// How long what let it in is good by itself.
    pub life: Life,
}

impl<'a> RequestContext<'a> {
    /// What is asked, and by whom.
    #[must_use]
    pub fn new(
        gateway: &'a Arc<Gateway>,
        live: &'a Live,
        head: &'a Parts,
        body: Inbound,
        (admitted, evidence, seen): (Admitted, Evidence, Seen),
        trail: &'a mut RequestLog,
    ) -> (Kind, Self) {
        let (kind, app, payer) = admitted.into_parts();
        let user = match &kind {
            Kind::Message { user, .. } => Some(user.as_str().into()),
            _ => None,
        };
        let (client, app_id) = (payer.client.clone(), app.id.clone());
        let basis = Basis { client, evidence, app: app_id, action: kind.action(), user };
        (kind, Self { gateway, live, head, body, app, payer, trail, basis, seen, _admitted: WasAdmitted })
    }

    /// What let it in, for what goes on for long to rest on.
    #[must_use]
    pub fn proof(&self, work: Work) -> Proof {
        self.gateway.proofs.enter(self.basis.clone(), self.seen.generation, self.seen.life).of(work)
    }
}

/// Reads a request's body.
///
/// # Errors
/// 413, 408 or 400; 503 when bodies take too much memory.
async fn read_body(live: &Live, body: Inbound, trail: &mut RequestLog) -> Result<Bytes, Refusal> {
    let limit = live.body_limit;
    let mut full = None;
    let room = |bytes| trail.reserve(bytes).map_err(|refusal| full = Some(refusal)).is_ok();
    read_up_to(body, limit, BODY_TIME, room).await.map_err(|unread| match unread {
        Unread::TooLarge => Refusal::BodyTooLarge { limit },
        Unread::TooSlow => Refusal::RequestTimeout,
        Unread::Broken => Refusal::bad("the request's body ended early, is malformed, or has a trailer"),
        Unread::NoRoom => full.unwrap_or(Refusal::shed(Shed::BodyMemory)),
    })
}
