//! What is read at `/admin/v1/…`: everything that runs, as JSON.
//!
//! Invariant: nothing here changes anything, and no secret is in any answer.

use std::time::Duration;

use serde_json::{Value, json};

use super::answer::Content;
use super::operations::{Needs, Operation};
use super::rejection::Rejection;
use super::trace::{Done, Facts, Trace};
use crate::events::LogShare;
use crate::services::Parts;
use crate::store::Space;

/// What there is, for who opens the port in a browser.
pub(super) fn open_operations() -> Value {
    let open = Operation::all().filter(|operation| operation.needs() == Needs::Nothing).map(listed);
    json!({ "service": "rtm-gateway", "operations": open.collect::<Value>(), "more": "/admin/v1/" })
}

/// All that there is.
pub(super) fn operations() -> Value {
    json!({ "operations": Operation::all().map(listed).collect::<Value>() })
}

fn listed(operation: Operation) -> Value {
    json!({
        "operation": operation.id(), "method": operation.method(), "path": operation.path(),
        "needs": operation.needs().as_str(),
    })
}

/// The store as it is now, as a data file. It holds all events: whoever may read it may read them.
pub(super) async fn backup(parts: &Parts, trace: &mut Trace) -> Result<Done, Rejection> {
    let (file, length) = parts.backup().await.and_then(|file| {
        // With its length whoever fetches it knows whether all of it came.
        let length = file.metadata().map_err(|why| crate::store::Error::Io(why.to_string()))?.len();
        Ok((file, length))
    })?;
    Ok(trace.shows(Facts::of("bytes", length), Content::File(file, length)))
}

/// Where each subscription stands now. If the store fails, or hangs, with what was seen of it a few seconds ago.
pub(super) async fn subscriptions(parts: &Parts) -> Content {
    let _ = tokio::time::timeout(LONGEST_LOOK, parts.events.look_at_oldest()).await;
    Content::Json(json!({ "subscriptions": parts.events.subscriptions() }))
}

/// So long may a look at the store take, and nobody waits for a disk that hangs.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

pub(super) fn apps(parts: &Parts) -> Value {
    let config = parts.config.load();
    let credentials = parts.egress.credential_states();
    let apps: Vec<Value> = config
        .apps
        .iter()
        .map(|app| {
            let regions: Vec<Value> = app
                .regions
                .iter()
                .map(|r| json!({ "name": r.name.as_str(), "base_url": r.base_url.to_string() }))
                .collect();
            let streams: Vec<&str> = app.events.streams.iter().map(|s| s.as_str()).collect();
            let credential = credentials.iter().find(|state| state.app == app.id.as_str());
            let off = parts.egress.switched_off(&app.id).into_iter();
            let off: Vec<Value> = off
                .map(|one| {
                    json!({ "endpoint": one.endpoint, "region": one.region.as_str(), "since": one.since.to_string() })
                })
                .collect();
            json!({
                "id": app.id.as_str(), "regions": regions, "streams": streams, "credential": credential,
                "switched_off": off,
            })
        })
        .collect();
    json!({ "apps": apps })
}

pub(super) fn quotas(parts: &Parts) -> Value {
    json!({ "quotas": parts.egress.quotas() })
}

/// The store's room as it was found last, at most a few seconds ago unless the disk hangs.
pub(super) fn store(parts: &Parts) -> Value {
    let Some(report) = parts.events.space() else {
        return json!({ "looked_at": null, "error": "nobody has looked yet", "logs": [] });
    };
    let logs: Vec<Value> = report
        .logs
        .iter()
        .map(|LogShare { log, bytes, limit }| {
            json!({
                "app": log.app.as_str(), "stream": log.stream.as_str(), "bytes": bytes, "limit_bytes": limit,
            })
        })
        .collect();
    let (space, error) = match &report.space {
        Ok(space) => (Some(space), None),
        Err(why) => (None, Some(why.to_string())),
    };
    json!({
        "looked_at": report.looked_at.to_string(), "error": error,
        "data_bytes": space.map(|space| space.taken), "used_bytes": space.map(|space| space.used),
        "free_bytes": space.map(|space| space.free), "reserve_bytes": space.map(|space| space.reserve),
        "left_bytes": space.map(Space::left), "limit_bytes": report.limit(),
        "full_in_seconds": report.full_in.map(|time| time.as_secs()), "logs": logs,
    })
}
