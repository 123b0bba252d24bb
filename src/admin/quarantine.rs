//! The quarantine: answers of the vendor's that could not be read to their end. Listed, given whole, read again.

use serde_json::{Value, json};

use super::answer::{Answer, Content};
use super::call::Call;
use super::dead_letters::{SHOWN, limit};
use super::rejection::Rejection;
use super::trace::{Done, Facts, Trace};
use super::turns::Turns;
use crate::kernel::names::{AppId, Stream};
use crate::services::Parts;
use crate::store::QuarantineEntry;

/// Which answer a path names.
pub(super) struct QuarantinePath {
    app: AppId,
    stream: Stream,
    id: u64,
}

impl QuarantinePath {
    /// Reads the values of a path's parameters.
    ///
    /// # Errors
    /// 404 when there can be none.
    pub(super) fn named_by(values: &[&str]) -> Result<Self, Rejection> {
        let place = match values {
            [app, stream, id] => place(app, stream, id),
            _ => None,
        };
        place.ok_or_else(none)
    }
}

fn place(app: &str, stream: &str, id: &str) -> Option<QuarantinePath> {
    Some(QuarantinePath { app: AppId::parse(app).ok()?, stream: Stream::parse(stream)?, id: id.parse().ok()? })
}

fn none() -> Rejection {
    Rejection::nowhere("there is no such answer in the quarantine")
}

/// `GET /admin/v1/quarantine`: stream by stream, the newest first.
pub(super) async fn list(call: &Call<'_>) -> Answer {
    let (mut after, mut most) = (None, SHOWN);
    for (name, value) in call.query()? {
        match name.as_str() {
            "after" => after = Some(value),
            "limit" => most = limit(&value)?,
            _ => return Err(Rejection::bad("only after and limit are known")),
        }
    }
    let config = call.parts.config.load_full();
    let streams = config.apps.iter().flat_map(|app| app.events.streams.iter().map(|stream| (&app.id, *stream)));
    let mut streams: Vec<_> = streams.map(|(app, stream)| (app, stream, u64::MAX)).collect();
    if let Some(after) = after {
        let [app, stream, id] = after.split('/').collect::<Vec<_>>()[..] else { return Err(no_place()) };
        let after = place(app, stream, id).ok_or_else(no_place)?;
        let at = streams.iter().position(|(app, stream, _)| (*app, *stream) == (&after.app, after.stream));
        streams.drain(..at.ok_or_else(|| Rejection::nowhere("after: this stream is not read"))?);
        // This one goes on below that answer, those behind it begin at their newest.
        streams[0].2 = after.id;
    }
    let (mut shown, mut next) = (Vec::new(), None);
    for (app, stream, before) in streams {
        // One more than is shown says whether there is more.
        let found = call.parts.events.quarantined(app, stream, before, most + 1 - shown.len()).await?;
        shown.extend(found.iter().map(|entry| (format!("{app}/{stream}/{}", entry.id), answer(app, stream, entry))));
        if shown.len() > most {
            shown.truncate(most);
            next = shown.last().map(|(place, _)| place.clone());
            break;
        }
    }
    let shown: Vec<Value> = shown.into_iter().map(|(_, answer)| answer).collect();
    Ok(Content::Json(json!({ "quarantine": shown, "next": next })))
}

fn no_place() -> Rejection {
    Rejection::bad("after: the `next` of an earlier answer is wanted")
}

fn answer(app: &AppId, stream: Stream, entry: &QuarantineEntry) -> Value {
    let QuarantineEntry { id, received_at, region, why, bytes, delivered } = entry;
    json!({
        "app": app.as_str(), "stream": stream.as_str(), "id": id, "region": region.as_str(),
        "received_at": received_at.to_string(), "why": why, "bytes": bytes, "delivered": delivered,
    })
}

/// `GET /admin/v1/quarantine/{app}/{stream}/{id}`.
pub(super) async fn show(parts: &Parts, trace: &mut Trace, which: &QuarantinePath) -> Result<Done, Rejection> {
    let found = parts.events.quarantined_body(&which.app, which.stream, which.id).await?;
    let (entry, pieces) = found.ok_or_else(none)?;
    Ok(trace.shows(Facts::of("bytes", entry.bytes), Content::Bytes(pieces)))
}

/// `POST /admin/v1/quarantine/{app}/{stream}/{id}/redeliver`.
pub(super) async fn redeliver(
    parts: &Parts,
    turns: &Turns,
    trace: &mut Trace,
    which: &QuarantinePath,
) -> Result<Done, Rejection> {
    let QuarantinePath { app, stream, id } = which;
    let _turn = turns.of(format!("{app}/{}/{id}", stream.as_str())).await;
    let newest = parts.events.quarantined(app, *stream, id.saturating_add(1), 1).await?;
    let before = newest.first().filter(|entry| entry.id == *id).ok_or_else(none)?;
    let change = trace.changes(Facts::of("delivered", before.delivered));
    let read = parts.events.read_again(app, *stream, *id).await?.ok_or_else(none)?;
    let after = Facts::of("delivered", read.delivered).and("redelivered", read.redelivered);
    let content = json!({ "redelivered": read.redelivered, "delivered": read.delivered });
    Ok(change.done(after, Content::Json(content)))
}
