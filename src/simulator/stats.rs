//! Numbers of what a region saw.

use serde_json::{Value, json};

use super::Endpoint;
use super::queue::EventCounts;

/// A look at the numbers of one region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections accepted so far.
    pub connections: u64,
    pub open: u64,
    /// Requests under way now: from the head's arrival until the answer is flushed.
    pub in_flight: u64,
    /// The most that were under way at one time.
    pub max_in_flight: u64,
    /// What callers did wrong, anywhere in the world.
    pub violations: u64,
    /// All events of this region's queues.
    pub events: EventCounts,
    pub(super) endpoints: [EndpointStats; Endpoint::ALL.len()],
}

/// Numbers of one endpoint. `received` counts heads; each request that was answered whole is in exactly one of `ok`,
/// `too_many` and `other`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct EndpointStats {
    pub received: u64,
    /// Requests counted against the limit.
    pub counted: u64,
    /// Requests that met a scripted fault.
    pub faulted: u64,
    pub ok: u64,
    pub too_many: u64,
    pub other: u64,
}

impl EndpointStats {
    /// Answers that went out whole.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.ok + self.too_many + self.other
    }
}

impl Stats {
    /// The numbers of one endpoint.
    #[must_use]
    pub fn of(&self, endpoint: Endpoint) -> EndpointStats {
        self.endpoints[endpoint as usize]
    }

    /// Requests of all endpoints that came.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.endpoints.iter().map(|e| e.received).sum()
    }

    pub(super) fn to_json(&self) -> Value {
        let endpoints = Endpoint::ALL.iter().map(|&e| (e.as_str().to_owned(), json!(self.of(e))));
        json!({
            "connections": self.connections,
            "open": self.open,
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "violations": self.violations,
            "events": self.events,
            "endpoints": endpoints.collect::<serde_json::Map<_, _>>(),
        })
    }
}
