//! The list of events that were given up for a subscription: shown, given again, forgotten.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::answer::Content;
use super::call::Call;
use super::rejection::Rejection;
use super::subscriptions::SubscriptionPath;
use super::trace::{Done, Facts, Trace};
use super::turns::Turns;
use crate::events::{Cursor, DeadLetter, Marker, Redeliver};

/// How many are shown at once when nothing is said.
pub(super) const SHOWN: usize = 100;
const MAX_SHOWN: usize = 1000;

/// Which letters are to be given again, as a body says it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RedeliverBody {
    #[serde(default)]
    cursors: Vec<String>,
    #[serde(default)]
    all: bool,
}

/// `DELETE …/dead-letters` and, with one, `DELETE …/dead-letters/{cursor}`.
pub(super) async fn clear(
    call: &Call<'_>,
    turns: &Turns,
    trace: &mut Trace,
    which: &SubscriptionPath,
    one: Option<Cursor>,
) -> Result<Done, Rejection> {
    let (events, SubscriptionPath { app, stream, name }) = (&call.parts.events, which);
    let _turn = turns.of_subscription(app, name).await;
    let letters = || events.subscription_status(app, *stream, name).map(|now| now.dead_letters);
    let change = trace.changes(Facts::of("dead_letters", letters()?));
    let cleared = events.clear_dead_letters(app, *stream, name, one).await?;
    if one.is_some() && cleared == 0 {
        return Err(Rejection::nowhere("there is no such dead letter"));
    }
    let after = Facts::of("dead_letters", letters().unwrap_or_default()).and("cleared", cleared);
    Ok(change.done(after, Content::Json(json!({ "cleared": cleared }))))
}

/// `POST …/dead-letters/redeliver`.
pub(super) async fn redeliver(
    call: Call<'_>,
    turns: &Turns,
    trace: &mut Trace,
    which: &SubscriptionPath,
) -> Result<Done, Rejection> {
    let (events, SubscriptionPath { app, stream, name }) = (&call.parts.events, which);
    let letters = || events.subscription_status(app, *stream, name).map(|now| now.dead_letters);
    letters()?;
    let RedeliverBody { cursors, all } = call.json().await?;
    let wanted = wanted(&cursors, all)?;
    let _turn = turns.of_subscription(app, name).await;
    let change = trace.changes(Facts::of("dead_letters", letters()?).and("asked", asked(&wanted)));
    let again = events.redeliver(app, *stream, name, wanted).await?;
    Ok(change.done(Facts::of("redelivered", again), Content::Json(json!({ "redelivered": again }))))
}

/// How many letters are meant, in a word.
pub(super) fn asked(which: &Redeliver) -> String {
    match which {
        Redeliver::All => "all".to_owned(),
        Redeliver::These(cursors) => cursors.len().to_string(),
    }
}

/// Which letters a body means: some, or all.
///
/// # Errors
/// 400 when it says both or neither, or what is no cursor.
pub(super) fn wanted(cursors: &[String], all: bool) -> Result<Redeliver, Rejection> {
    match (cursors, all) {
        // All of them only where it is said: an empty list is a mistake more often than a wish.
        ([], true) => Ok(Redeliver::All),
        ([_, ..], false) => Ok(Redeliver::These(cursors.iter().map(|text| cursor(text)).collect::<Result<_, _>>()?)),
        _ => Err(Rejection::bad("write { \"cursors\": [\"…\"] } or { \"all\": true }")),
    }
}

/// How many are asked for at once.
pub(super) fn limit(text: &str) -> Result<usize, Rejection> {
    let given = text.parse().ok().filter(|n| (1..=MAX_SHOWN).contains(n));
    given.ok_or_else(|| Rejection::bad(format_args!("limit: 1 to {MAX_SHOWN}")))
}

/// `GET …/dead-letters`.
pub(super) async fn list(call: &Call<'_>, trace: &mut Trace, which: &SubscriptionPath) -> Result<Done, Rejection> {
    let (mut after, mut most) = (None, SHOWN);
    for (name, value) in call.query()? {
        match name.as_str() {
            "after" => after = Some(cursor(&value)?),
            "limit" => most = limit(&value)?,
            _ => return Err(Rejection::bad("only after and limit are known")),
        }
    }
    let SubscriptionPath { app, stream, name } = which;
    let letters = call.parts.events.dead_letters(app, *stream, name, after, most).await?;
    let next = if letters.len() == most { letters.last().map(|letter| letter.cursor.to_string()) } else { None };
    let letters: Vec<Value> = letters.iter().map(shown).collect();
    let facts = Facts::of("dead_letters", letters.len());
    Ok(trace.shows(facts, Content::Json(json!({ "dead_letters": letters, "next": next }))))
}

/// A dead letter as operators see it.
pub(super) fn shown(letter: &DeadLetter) -> Value {
    // The event's own words, which are JSON; a marker is stored as a text of ours.
    let event =
        serde_json::from_slice::<Box<RawValue>>(&letter.event).ok().and_then(|raw| serde_json::to_value(raw).ok());
    let of_marker = || {
        let mut marker = json!(Marker::read(&String::from_utf8_lossy(&letter.event)));
        marker["type"] = "possible_loss".into();
        marker
    };
    let event = event.unwrap_or_else(of_marker);
    json!({
        "cursor": letter.cursor.to_string(), "at": letter.at.to_string(), "attempts": letter.attempts,
        "reason": letter.reason, "redelivering": letter.is_redelivering, "event": event,
    })
}

/// A cursor that was written down.
pub(super) fn cursor(text: &str) -> Result<Cursor, Rejection> {
    text.parse().map_err(|_| Rejection::bad("a cursor of this gateway is wanted"))
}
