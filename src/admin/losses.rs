//! `GET /admin/v1/losses`: what may have been lost, when and why.

use std::time::Duration;

use serde_json::json;

use super::answer::{Answer, Content};
use super::call::Call;
use super::dead_letters::{SHOWN, limit};
use super::rejection::Rejection;
use crate::events::{LossPage, LossQuery, StartAt};
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::{AppId, Stream};
use crate::request::route::query;

/// What is told when no time is said: a night, and the day before it.
const USUAL: Duration = Duration::from_secs(24 * 3600);

/// By the time at which they began, oldest first.
pub(super) async fn list(call: &Call<'_>) -> Answer {
    let mut wanted = LossQuery { limit: SHOWN, ..LossQuery::default() };
    let mut since = None;
    for (name, value) in call.query()? {
        match name.as_str() {
            "app" => wanted.app = Some(AppId::parse(&value).map_err(|_| nowhere())?),
            "stream" => wanted.stream = Some(Stream::parse(&value).ok_or_else(nowhere)?),
            "since" => since = Some(time("since", &value)?),
            "until" => match time("until", &value)? {
                StartAt::Since(time) => wanted.until = Some(time),
                _ => return Err(bad_time("until")),
            },
            "after" => wanted.after = Some(value.parse().map_err(|why| Rejection::bad(format_args!("after: {why}")))?),
            "limit" => wanted.limit = limit(&value)?,
            _ => return Err(Rejection::bad("known here: app, stream, since, until, after, limit")),
        }
    }
    wanted.since = match since {
        None => Some(call.parts.clock.wall_ms().before(USUAL)),
        Some(StartAt::Since(time)) => Some(time),
        Some(StartAt::Earliest) => None,
        Some(_) => return Err(bad_time("since")),
    };
    let LossPage { losses, next, left_out } = call.parts.events.losses(&wanted).await?;
    Ok(Content::Json(json!({
        "since": wanted.since.map(|time| time.to_string()), "until": wanted.until.map(|time: UnixMillis| time.to_string()),
        "losses": losses, "left_out": left_out, "next": next.map(|place| place.to_string()),
    })))
}

fn time(name: &str, text: &str) -> Result<StartAt, Rejection> {
    query::start(text).ok_or_else(|| bad_time(name))
}

fn bad_time(name: &str) -> Rejection {
    let also = if name == "since" { ", or earliest" } else { "" };
    Rejection::bad(format_args!("{name}: an RFC 3339 time{also}"))
}

fn nowhere() -> Rejection {
    Rejection::nowhere("there can be no such app or stream")
}
