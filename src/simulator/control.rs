//! The control API for people with `curl`, under `/_sim/`. Not counted, not authenticated, never scripted.
//!
//! | request | does |
//! | --- | --- |
//! | `POST /_sim/apps/{app}/events/{stream}` | events occur: an event, a list of events, or `{"count": 5}` |
//! | `POST /_sim/apps/{app}/messages` | adds a message, or a list, to the history |
//! | `GET /_sim/violations` | what callers did wrong |
//! | `GET /_sim/stats` | numbers |
//! | `POST /_sim/faults` | `{"endpoint": "user_events", "fault": "drop_after", "always": false}` |
//! | `DELETE /_sim/faults` | no more faults |

use std::sync::Arc;

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use serde_json::value::RawValue;

use super::answer::{Answer, Effect};
use super::fault::Fault;
use super::messages::Message;
use super::region::Region;
use super::sim::Sim;
use super::{Endpoint, lock};
use crate::kernel::names::Stream;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Count {
    count: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scripted {
    endpoint: Endpoint,
    fault: Fault,
    #[serde(default)]
    always: bool,
}

/// Answers a request; `path` is what follows `/_sim/`.
pub(super) fn answer(region: &Arc<Region>, method: &Method, path: &str, body: &[u8]) -> Answer {
    let segments: Vec<&str> = path.split('/').collect();
    match (method, segments.as_slice()) {
        (&Method::POST, ["apps", app, "events", stream]) => match Stream::parse(stream) {
            Some(stream) => done(events(region, app, stream, body)),
            None => Answer::no(StatusCode::NOT_FOUND, "no such stream"),
        },
        (&Method::POST, ["apps", app, "messages"]) => done(messages(region, app, body)),
        (&Method::GET, ["violations"]) => Answer::ok(json!(region.world.violations()).to_string(), Effect::None),
        (&Method::GET, ["stats"]) => Answer::ok(region.stats().to_json().to_string(), Effect::None),
        (&Method::POST, ["faults"]) => done(fault(region, body)),
        (&Method::DELETE, ["faults"]) => {
            Sim::of(region).clear_faults();
            done(Ok(0))
        }
        _ => Answer::no(StatusCode::NOT_FOUND, "no such control"),
    }
}

fn done(result: Result<usize, String>) -> Answer {
    match result {
        Ok(count) => Answer::ok(json!({"done": count}).to_string(), Effect::None),
        Err(why) => Answer::no(StatusCode::BAD_REQUEST, &why),
    }
}

fn events(region: &Arc<Region>, app: &str, stream: Stream, body: &[u8]) -> Result<usize, String> {
    let sim = Sim::of(region);
    if let Ok(Count { count }) = serde_json::from_slice(body) {
        return Ok(sim.emit_many(app, stream, count).len());
    }
    let events: Vec<Box<RawValue>> = one_or_many(body)?;
    for event in &events {
        sim.emit_raw(app, stream, event.get());
    }
    Ok(events.len())
}

fn messages(region: &Arc<Region>, app: &str, body: &[u8]) -> Result<usize, String> {
    let messages: Vec<Message> = one_or_many(body)?;
    let count = messages.len();
    region.world.add_messages(app, messages);
    Ok(count)
}

fn fault(region: &Arc<Region>, body: &[u8]) -> Result<usize, String> {
    let Scripted { endpoint, fault, always } = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let mut script = lock(&region.script);
    if always {
        script.always(endpoint, fault)
    } else {
        script.queue(endpoint, fault)
    }
    Ok(1)
}

fn one_or_many<T: DeserializeOwned>(body: &[u8]) -> Result<Vec<T>, String> {
    if body.trim_ascii_start().starts_with(b"[") {
        return serde_json::from_slice(body).map_err(|e| e.to_string());
    }
    serde_json::from_slice(body).map(|one| vec![one]).map_err(|e| e.to_string())
}
