//! The list of events that were given up for a subscription: shown, given again, forgotten.

use hyper::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::answer::{Answer, Content, Refused};
use super::call::Call;
use super::subscriptions::Which;
use crate::events::{Cursor, DeadLetter, Redeliver};

/// How many are shown at once when nothing is said.
pub(super) const SHOWN: usize = 100;
pub(super) const MOST_SHOWN: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Again {
    #[serde(default)]
    cursors: Vec<String>,
    #[serde(default)]
    all: bool,
}

/// `GET` and `DELETE …/dead-letters`, `POST …/dead-letters/redeliver`, `DELETE …/dead-letters/{cursor}`.
pub(super) async fn answer(call: Call<'_>, which: &Which, rest: &[&str]) -> Answer {
    let Which { app, stream, name } = which;
    let events = &call.parts.events;
    match (rest, call.method()) {
        ([], &Method::GET) => list(call, which).await,
        ([], &Method::DELETE) => {
            let cleared = events.clear_dead_letters(app, *stream, name, None).await?;
            Ok(Content::Json(json!({ "cleared": cleared })))
        }
        ([], _) => Err(Refused::method("GET, DELETE")),
        (["redeliver"], &Method::POST) => {
            let which = match call.json().await? {
                Again { cursors, all: false } if !cursors.is_empty() => {
                    let parsed = cursors.iter().map(|text| cursor(text)).collect::<Result<_, _>>()?;
                    Redeliver::These(parsed)
                }
                Again { cursors, all: true } if cursors.is_empty() => Redeliver::All,
                _ => return Err(Refused::bad("write { \"cursors\": [\"…\"] } or { \"all\": true }")),
            };
            let again = events.redeliver(app, *stream, name, which).await?;
            Ok(Content::Json(json!({ "redelivered": again })))
        }
        (["redeliver"], _) => Err(Refused::method("POST")),
        ([text], &Method::DELETE) => match events.clear_dead_letters(app, *stream, name, Some(cursor(text)?)).await? {
            0 => Err(Refused::nowhere("there is no such dead letter")),
            cleared => Ok(Content::Json(json!({ "cleared": cleared }))),
        },
        ([_], _) => Err(Refused::method("DELETE")),
        _ => Err(Refused::nowhere("dead letters are listed, cleared and redelivered")),
    }
}

async fn list(call: Call<'_>, which: &Which) -> Answer {
    let (mut after, mut limit) = (None, SHOWN);
    for (name, value) in call.query()? {
        match name.as_str() {
            "after" => after = Some(cursor(&value)?),
            "limit" => {
                let given = value.parse().ok().filter(|n| (1..=MOST_SHOWN).contains(n));
                limit = given.ok_or_else(|| Refused::bad(format_args!("limit: 1 to {MOST_SHOWN}")))?;
            }
            _ => return Err(Refused::bad("only after and limit are known")),
        }
    }
    let Which { app, stream, name } = which;
    let letters = call.parts.events.dead_letters(app, *stream, name, after, limit).await?;
    let next = if letters.len() == limit { letters.last().map(|letter| letter.cursor.to_string()) } else { None };
    let letters: Vec<Value> = letters.iter().map(shown).collect();
    Ok(Content::Json(json!({ "dead_letters": letters, "next": next })))
}

/// A dead letter as operators see it.
pub(super) fn shown(letter: &DeadLetter) -> Value {
    // The event's own words, if they are JSON; a list of anything must not fail for one that is not.
    let event =
        serde_json::from_slice::<Box<RawValue>>(&letter.event).ok().and_then(|raw| serde_json::to_value(raw).ok());
    json!({
        "cursor": letter.cursor.to_string(), "at": letter.at.to_string(), "attempts": letter.attempts,
        "reason": letter.reason, "redelivering": letter.is_redelivering, "event": event,
    })
}

/// A cursor that was written down.
pub(super) fn cursor(text: &str) -> Result<Cursor, Refused> {
    text.parse().map_err(|_| Refused::bad("a cursor of this gateway is wanted"))
}
