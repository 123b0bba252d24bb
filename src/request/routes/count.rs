//! `GET …/history/count`: one answer, however often the vendor says `in progress`.

use super::RequestContext;
use super::history::{answer, terms};
use crate::http::headers::prefer::Prefer;
use crate::kernel::proof::Work;
use crate::request::refusal::Refusal;
use crate::request::response::HandlerResponse;

/// Answers a count.
///
/// # Errors
/// What the query string or the service says.
pub async fn count(mut context: RequestContext<'_>, query: &[(String, String)]) -> Result<HandlerResponse, Refusal> {
    // A count has no handle to come back with: it cannot be answered later.
    let prefer = Prefer { respond_async: false, ..Prefer::of(&context.head.headers) };
    let terms = terms(&mut context, Work::Count, &prefer);
    let counted = context.gateway.history.count(&context.app.id, query, terms).await;
    let mut served = answer::shape(counted, &context.app.id, context.log)?;
    answer::say_applied(&mut served, &prefer, context.app.history.deadline);
    Ok(served)
}
