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
pub async fn query(mut context: RequestContext<'_>) -> Result<HandlerResponse, Refusal> {
    if !headers::is_plain_json(&context.head.headers) {
        return Err(Refusal::UnsupportedMediaType);
    }
    let prefer = Prefer::of(&context.head.headers);
    let terms = terms(&mut context, Work::History, &prefer);
    let body = read_body(context.live, context.body, context.guard, context.log).await?;
    let answer = context.gateway.history.query(&context.app.id, &body, terms).await;
    let mut served = answer::shape(answer, &context.app.id, context.log)?;
    answer::say_applied(&mut served, &prefer, context.app.history.deadline);
    Ok(served)
}

/// Answers a fetch.
///
/// # Errors
/// What the service says.
pub async fn fetch(mut context: RequestContext<'_>, handle: &str) -> Result<HandlerResponse, Refusal> {
    let terms = terms(&mut context, Work::History, &Prefer::default());
    let answer = context.gateway.history.fetch(&context.app.id, handle, terms).await;
    answer::shape(answer, &context.app.id, context.log)
}

/// On which terms: the deadline runs from the request's head.
pub(super) fn terms(context: &mut RequestContext<'_>, work: Work, prefer: &Prefer) -> Terms {
    // Who would have it later waits only as long as it says (RFC 7240, section 4.3).
    let later = Prefer { wait: Some(prefer.wait.unwrap_or_default()), ..*prefer };
    let waits = if prefer.respond_async { &later } else { prefer };
    Terms {
        payer: context.payer.clone(),
        proof: context.proof(work),
        deadline: context.gateway.clock.now() + waits.within(context.app.history.deadline),
        max_age: headers::max_age(&context.head.headers),
        respond_async: prefer.respond_async,
        account: context.log.account(),
    }
}
