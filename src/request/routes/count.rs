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
pub async fn ask(asked: RequestContext<'_>, query: &[(String, String)]) -> Result<HandlerResponse, Refusal> {
    // A count has no handle to come back with: it cannot be answered later.
    let prefer = Prefer { respond_async: false, ..Prefer::of(&asked.head.headers) };
    let terms = terms(&asked, Work::Count, &prefer);
    let counted = asked.gateway.history.count(&asked.app.id, query, terms).await;
    let mut served = answer::shape(counted, &asked.app.id, asked.trail)?;
    answer::say_applied(&mut served, &prefer, asked.app.history.deadline);
    Ok(served)
}
