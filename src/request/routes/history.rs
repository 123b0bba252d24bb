//! History: `POST …/history/query` answers when the messages are there; `GET …/history/query/{handle}` serves software
//! written for the vendor's two steps, and is answered at once as the vendor answers it. [`stream`] gives any number as
//! they come.
//!
//! Invariants: the messages are the service's shared buffers, never copied. `X-RTM-Origin` is `gateway` for every
//! answer the gateway made from the vendor's parts, and `vendor` only where the vendor's refusal passes through.

pub(super) mod answer;
pub mod stream;

use super::{RequestContext, read_body};
use crate::history::Terms;
use crate::http::headers;
use crate::http::headers::prefer::Prefer;
use crate::kernel::proof::Work;
use crate::request::refusal::Refusal;
use crate::request::response::HandlerResponse;

/// Answers a query.
///
/// # Errors
/// What the body or the service says.
pub async fn query(asked: RequestContext<'_>) -> Result<HandlerResponse, Refusal> {
    if !headers::is_plain_json(&asked.head.headers) {
        return Err(Refusal::UnsupportedMediaType);
    }
    let prefer = Prefer::of(&asked.head.headers);
    let terms = terms(&asked, Work::History, &prefer);
    let body = read_body(asked.live, asked.body, asked.trail).await?;
    let answer = asked.gateway.history.query(&asked.app.id, &body, terms).await;
    let mut served = answer::shape(answer, &asked.app.id, asked.trail)?;
    answer::say_applied(&mut served, &prefer, asked.app.history.deadline);
    Ok(served)
}

/// Answers a fetch.
///
/// # Errors
/// What the service says.
pub async fn fetch(asked: RequestContext<'_>, handle: &str) -> Result<HandlerResponse, Refusal> {
    let terms = terms(&asked, Work::History, &Prefer::default());
    let answer = asked.gateway.history.fetch(&asked.app.id, handle, terms).await;
    answer::shape(answer, &asked.app.id, asked.trail)
}

/// On which terms: the deadline runs from the request's head.
pub(super) fn terms(asked: &RequestContext<'_>, work: Work, prefer: &Prefer) -> Terms {
    // Who would have it later waits only as long as it says (RFC 7240, section 4.3).
    let later = Prefer { wait: Some(prefer.wait.unwrap_or_default()), ..*prefer };
    let waits = if prefer.respond_async { &later } else { prefer };
    Terms {
        payer: asked.payer.clone(),
        proof: asked.proof(work),
        deadline: asked.gateway.clock.now() + waits.within(asked.app.history.deadline),
        max_age: headers::max_age(&asked.head.headers),
        respond_async: prefer.respond_async,
    }
}
