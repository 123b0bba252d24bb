//! `[apps.events]`: which streams are read, how often, and how long their events are kept.

use std::time::Duration;

use super::document::node::Node;
use super::document::table::{Table, by_default};
use crate::kernel::names::Stream;

/// An answer is held in memory, twice in a moment.
const MAX_READ_BYTES: u64 = 1 << 30;

/// Every event waits so long. What a region brings later than a minute is no disorder but an outage.
const MAX_ORDER_WINDOW: Duration = Duration::from_secs(60);

/// `[apps.events]`: how the streams of an app are read and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// The streams to read; may be empty.
    pub streams: Vec<Stream>,
    /// Between reads while events flow.
    pub poll_interval: Duration,
    /// Between reads while none do; at least `poll_interval`.
    pub poll_interval_idle: Duration,
    /// How long events are kept.
    pub retention: Duration,
    /// How many bytes of events each stream may keep.
    pub retention_bytes: u64,
    /// The largest answer to a read whose events are delivered whole, in bytes, decoded.
    pub max_read_bytes: u64,
    /// How long an event is remembered, to know it when another region returns it too. Zero turns it off.
    pub dedup_window: Duration,
    /// A subscription that nobody reads for so long is removed, unless it has dead letters. Zero turns it off. Left
    /// out, the greater of 7 days and `retention`.
    pub subscription_ttl: Duration,
    /// How many subscriptions of a stream a client may have.
    pub max_subscriptions_per_client: usize,
    /// How long an event waits for earlier ones of other regions before it gets its place. Zero: events stand in the
    /// order in which they came.
    pub order_window: Duration,
}

impl Default for Events {
    fn default() -> Self {
        by_default("apps.events", events)
    }
}

pub(super) fn events(t: &Table<'_>) -> Events {
    let streams = Stream::ALL.map(|stream| (stream.as_str(), stream));
    let read = |n: Node<'_>| n.set("[\"user_events\", \"channel_events\"]", |entry| entry.one_of(&streams));
    let retention = t.or_default("retention", Node::duration);
    let subscription_ttl = t.or_default("subscription_ttl", Node::duration_or_off);
    let events = Events {
        streams: t.or_default("streams", read),
        poll_interval: t.or_default("poll_interval", Node::duration),
        poll_interval_idle: t.or_default("poll_interval_idle", Node::duration),
        retention,
        retention_bytes: t.or_default("retention_bytes", Node::size),
        max_read_bytes: t.or_default("max_read_bytes", Node::size),
        dedup_window: t.or_default("dedup_window", Node::duration_or_off),
        // Left out, it follows a long retention: else who comes back in time would find events kept, and its place
        // gone.
        subscription_ttl: if t.has("subscription_ttl") { subscription_ttl } else { subscription_ttl.max(retention) },
        max_subscriptions_per_client: t.or_default("max_subscriptions_per_client", |n| n.count(10_000)) as usize,
        order_window: t.or_default("order_window", Node::duration_or_off),
    };
    if events.max_read_bytes > MAX_READ_BYTES
        && let Some(node) = t.take("max_read_bytes")
    {
        node.fault::<()>("is larger than 1GiB", "An answer is held in memory until it is stored: write megabytes");
    }
    if events.order_window > MAX_ORDER_WINDOW
        && let Some(node) = t.take("order_window")
    {
        node.fault::<()>("is longer than a minute", "Events wait as long before anyone sees them: write seconds");
    }
    if t.sound()
        && events.poll_interval > events.poll_interval_idle
        && let Some(node) = t.take("poll_interval_idle").or_else(|| t.take("poll_interval"))
    {
        node.fault::<()>(
            "makes poll_interval longer than poll_interval_idle",
            "Let polling slow down when idle, not speed up",
        );
    }
    if !events.subscription_ttl.is_zero()
        && events.subscription_ttl < events.retention
        && let Some(node) = t.take("subscription_ttl")
    {
        node.warn(
            "is shorter than retention: who reads again after it has lost events that are still kept",
            "Leave it out, or make it at least as long as retention",
        );
    }
    if events.retention < events.dedup_window
        && let Some(node) = t.take("retention").or_else(|| t.take("dedup_window"))
    {
        node.warn(
            "makes retention shorter than dedup_window",
            "Keep events at least as long as their repeats are known",
        );
    }
    events
}
