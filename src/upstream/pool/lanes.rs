//! The lanes of an app in a region: what is asked there in different ways hangs, and runs out, in different ways.
//!
//! Invariants: reads of events are the gateway's own and sacred, so nothing that callers ask for is in their lane;
//! messages come in bursts of hundreds and may each hang at the vendor, history polls are slow by nature: neither holds
//! up the other. A lane without requests has no connection.

use std::sync::Arc;

use super::Upstream;
use super::lane::Lane;
use crate::kernel::metrics::{LaneLabels, Metrics};
use crate::kernel::names::{AppId, RegionName};
use crate::vendor::order::Operation;

/// Of one app in one region.
pub(crate) struct Lanes {
    upstream: Arc<Upstream>,
    events: Lane,
    history: Lane,
    messages: Lane,
}

impl Lanes {
    /// Without connections.
    pub(crate) fn new(upstream: &Arc<Upstream>, metrics: &Metrics, app: &AppId, region: &RegionName) -> Self {
        let lane = |kind: &str| {
            let labels = LaneLabels { app: app.to_string(), region: region.to_string(), kind: kind.to_owned() };
            Lane::new(upstream.clone(), metrics.upstream_connections.get_or_create(&labels).clone())
        };
        Self {
            upstream: upstream.clone(),
            events: lane("events"),
            history: lane("history"),
            messages: lane("messages"),
        }
    }

    /// Whether they are made of this.
    pub(crate) fn are_of(&self, upstream: &Arc<Upstream>) -> bool {
        Arc::ptr_eq(&self.upstream, upstream)
    }

    /// That of an operation.
    pub(crate) fn of(&self, operation: &Operation) -> &Lane {
        match operation {
            Operation::ReadEvents(_) => &self.events,
            Operation::CreateHistory(_) | Operation::FetchHistory(_) | Operation::CountHistory(_) => &self.history,
            Operation::PeerMessage(_) | Operation::ChannelMessage(_) => &self.messages,
        }
    }
}
