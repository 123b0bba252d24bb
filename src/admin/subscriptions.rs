//! What an operator changes of a subscription: its place, or that there is one.

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::answer::{Answer, Content, Refused};
use super::call::Call;
use crate::names::{AppId, Stream, SubscriptionName};
use crate::route::query;

/// Which subscription a path names.
pub(super) struct Which {
    pub(super) app: AppId,
    pub(super) stream: Stream,
    pub(super) name: SubscriptionName,
}

impl Which {
    /// Reads the path's segments. Operators may also name the places of webhooks.
    ///
    /// # Errors
    /// 404 when there can be none.
    pub(super) fn parse(app: &str, stream: &str, name: &str) -> Result<Self, Refused> {
        let parsed = AppId::parse(app).ok().zip(Stream::parse(stream)).zip(SubscriptionName::parse_stored(name).ok());
        let ((app, stream), name) =
            parsed.ok_or_else(|| Refused::nowhere("there can be no such app, stream or subscription"))?;
        Ok(Self { app, stream, name })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seek {
    to: String,
}

/// `DELETE …/{name}` and `POST …/{name}/seek`.
pub(super) async fn answer(call: Call<'_>, which: &Which, rest: &[&str]) -> Answer {
    let Which { app, stream, name } = which;
    let (events, webhooks) = (&call.parts.events, &call.parts.webhooks);
    match (rest, call.method()) {
        ([], &Method::DELETE) => {
            if let Some(webhook) = name.webhook() {
                webhooks.forget(app, &webhook, *stream).await?;
            }
            events.remove(app, *stream, name).await?;
            Ok(Content::Json(json!({ "removed": true })))
        }
        ([], _) => Err(Refused::method("DELETE")),
        (["seek"], &Method::POST) => {
            let Seek { to } = call.json().await?;
            let to = query::start(&to).ok_or_else(|| {
                Refused::new(StatusCode::BAD_REQUEST, "to: earliest, latest, an RFC 3339 time or a cursor")
            })?;
            if let Some(webhook) = name.webhook() {
                webhooks.forget(app, &webhook, *stream).await?;
            }
            let cursor = events.seek(app, *stream, name, to).await?;
            Ok(Content::Json(json!({ "cursor": cursor.to_string() })))
        }
        (["seek"], _) => Err(Refused::method("POST")),
        _ => Err(Refused::nowhere("a subscription has seek and dead-letters")),
    }
}
