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

use crate::body::{Unread, read_up_to};
use crate::config;
use crate::flow::trail::Trail;
use crate::gateway::{Gateway, Live};
use crate::order::Payer;
use crate::refusal::Refusal;

/// How long a caller may take to send a body.
const BODY_TIME: Duration = Duration::from_secs(30);

/// A granted request, as its route gets it.
pub struct Asked<'a> {
    /// The services.
    pub gateway: &'a Gateway,
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
}

/// Reads a request's body.
///
/// # Errors
/// 413, 408 or 400.
async fn read_body(live: &Live, body: Incoming) -> Result<Bytes, Refusal> {
    let limit = live.body_limit;
    read_up_to(body, limit, BODY_TIME).await.map_err(|unread| match unread {
        Unread::TooLarge => Refusal::BodyTooLarge { limit },
        Unread::TooSlow => Refusal::RequestTimeout,
        Unread::Broken => Refusal::bad("the request's body ended early, is malformed, or has a trailer"),
    })
}
