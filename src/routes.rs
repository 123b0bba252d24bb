//! What each route does, a file each. A route says what it wants of a service and shapes the answer; it decides nothing
//! about who may, what a parameter means, or how the vendor is reached.

pub mod count;
pub mod events;
pub mod history;
pub mod messages;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::http::request::Parts;

use crate::admission::{Admitted, Shed};
use crate::body::{Unread, read_up_to};
use crate::config;
use crate::flow::trail::Trail;
use crate::gateway::{Gateway, Live};
use crate::order::Payer;
use crate::refusal::Refusal;
use crate::route::Kind;

/// How long a caller may take to send a body.
const BODY_TIME: Duration = Duration::from_secs(30);

/// An admitted request, as its route gets it.
pub struct Asked<'a> {
    /// The services.
    pub gateway: &'a Arc<Gateway>,
    /// The configuration in force when it came.
    pub live: &'a Live,
    /// Its head.
    pub head: &'a Parts,
    /// Its body, unread.
    pub body: Incoming,
    /// Its app.
    pub app: Arc<config::App>,
    /// Who pays.
    pub payer: Payer,
    /// What is known of it.
    pub trail: &'a mut Trail,
    /// Made of an [`Admitted`], and of nothing else.
    _admitted: Proof,
}

/// That there was an [`Admitted`].
struct Proof;

impl<'a> Asked<'a> {
    /// What is asked, and by whom.
    #[must_use]
    pub fn new(
        gateway: &'a Arc<Gateway>,
        live: &'a Live,
        head: &'a Parts,
        body: Incoming,
        admitted: Admitted,
        trail: &'a mut Trail,
    ) -> (Kind, Self) {
        let (kind, app, payer) = admitted.into_parts();
        (kind, Self { gateway, live, head, body, app, payer, trail, _admitted: Proof })
    }
}

/// Reads a request's body.
///
/// # Errors
/// 413, 408 or 400; 503 when bodies take too much memory.
async fn read_body(live: &Live, body: Incoming, trail: &mut Trail) -> Result<Bytes, Refusal> {
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
