//! What an operator changes of a subscription: its place, or that there is one.

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::answer::Content;
use super::call::Call;
use super::rejection::Rejection;
use super::trace::{Change, Done, Facts, Trace};
use super::turns::Turns;
use crate::events::ReadError;
use crate::kernel::names::{AppId, Stream, SubscriptionName};
use crate::request::route::query;
use crate::services::Parts;

/// Which subscription a path names.
pub(super) struct SubscriptionPath {
    pub(super) app: AppId,
    pub(super) stream: Stream,
    pub(super) name: SubscriptionName,
}

impl SubscriptionPath {
    /// Reads the values of a path's parameters. Operators may also name the places of webhooks and of clients, and a
    /// client's by the client's name alone, unless another subscription has it.
    ///
    /// # Errors
    /// 404 when there can be none.
    pub(super) fn named_by(parts: &Parts, trace: &mut Trace, values: &[&str]) -> Result<Self, Rejection> {
        let parsed = match values {
            [app, stream, name, ..] => {
                AppId::parse(app).ok().zip(Stream::parse(stream)).zip(SubscriptionName::parse_stored(name).ok())
            }
            _ => None,
        };
        let ((app, stream), name) =
            parsed.ok_or_else(|| Rejection::nowhere("there can be no such app, stream or subscription"))?;
        let name = parts.events.meant_by_operators(&app, stream, name);
        trace.means(&name);
        Ok(Self { app, stream, name })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seek {
    to: String,
}

impl SubscriptionPath {
    /// It is about to be changed, and stands where it does now.
    ///
    /// # Errors
    /// When there is no such subscription.
    fn change<'t>(&self, parts: &Parts, trace: &'t mut Trace) -> Result<Change<'t>, ReadError> {
        let now = parts.events.subscription_status(&self.app, self.stream, &self.name)?;
        let facts = Facts::of("cursor", now.cursor).and("lag", now.lag).and("unacknowledged", now.unacknowledged);
        Ok(trace.changes(facts.and("dead_letters", now.dead_letters)))
    }
}

/// `DELETE …/{name}`.
pub(super) async fn remove(
    call: &Call<'_>,
    turns: &Turns,
    trace: &mut Trace,
    which: &SubscriptionPath,
) -> Result<Done, Rejection> {
    let _turn = turns.of_subscription(&which.app, &which.name).await;
    let change = which.change(call.parts, trace)?;
    call.parts.events.remove(&which.app, which.stream, &which.name).await?;
    Ok(change.done(Facts::of("removed", true), Content::Json(json!({ "removed": true }))))
}

/// `POST …/{name}/seek`.
pub(super) async fn seek(
    call: Call<'_>,
    turns: &Turns,
    trace: &mut Trace,
    which: &SubscriptionPath,
) -> Result<Done, Rejection> {
    let (parts, SubscriptionPath { app, stream, name }) = (call.parts, which);
    // Told also of what is refused for its body.
    which.change(parts, trace)?;
    let Seek { to } = call.json().await?;
    let to = query::start(&to)
        .ok_or_else(|| Rejection::new(StatusCode::BAD_REQUEST, "to: earliest, latest, an RFC 3339 time or a cursor"))?;
    let _turn = turns.of_subscription(app, name).await;
    // Much may have happened while the body came.
    let change = which.change(parts, trace)?;
    let cursor = parts.events.seek(app, *stream, name, to).await?;
    // Its readers may have gone on from there already.
    let lag = parts.events.subscription_status(app, *stream, name).map_or(0, |now| now.lag);
    Ok(change.done(Facts::of("cursor", cursor).and("lag", lag), Content::Json(json!({ "cursor": cursor.to_string() }))))
}
