//! How a webhook stands, for the operator.

use serde::Serialize;
use tokio::time::Instant;

use super::condition::Condition;
use crate::events::Tries;
use crate::kernel::clock::{Clock, UnixMillis};

/// What an endpoint's task last said of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct LoopStatus {
    pub(super) in_flight: usize,
    pub(super) slowed: bool,
    /// Whether not all requests that may be are under way.
    pub(super) has_room: bool,
    /// Nothing is sent before.
    pub(super) quiet_until: Option<Instant>,
    pub(super) last_try: Option<UnixMillis>,
    pub(super) last_delivery: Option<UnixMillis>,
}

/// What the admin API shows of a webhook.
#[derive(Clone, Debug, Serialize)]
pub struct WebhookStatus {
    pub app: String,
    pub name: String,
    pub url: String,
    pub streams: Vec<&'static str>,
    pub format: &'static str,
    /// `starting` (what holds for it is being read from the store: nothing is sent yet), `delivering`, `retrying` (the
    /// last try failed), `slowed` (the endpoint said that it has too much to do) or `disabled`.
    pub state: &'static str,
    pub disabled: Option<DisabledStatus>,
    pub in_flight: usize,
    /// Events looked at and not done.
    pub held: usize,
    /// Tries in vain of what was tried most.
    pub failures: u32,
    pub next_try_at: Option<String>,
    pub last_try_at: Option<String>,
    pub last_delivery_at: Option<String>,
    pub last_error_at: Option<String>,
    pub last_error: Option<String>,
    /// Of keys that are ed25519: what receivers verify by.
    pub public_keys: Vec<String>,
}

/// Since when, and why, nothing is sent.
#[derive(Clone, Debug, Serialize)]
pub struct DisabledStatus {
    pub since: String,
    pub why: String,
}

impl WebhookStatus {
    /// As an endpoint's task says it stands, and as its condition, if that is known, and its subscriptions do.
    pub(super) fn new(
        target: &super::target::Target,
        status: LoopStatus,
        condition: Option<Condition>,
        tries: &[Tries],
        clock: &Clock,
    ) -> Self {
        let is_known = condition.is_some();
        let Condition { disabled, fault, .. } = condition.unwrap_or_default();
        let config = &target.config;
        let failures = tries.iter().map(|tries| tries.failures).max().unwrap_or(0);
        let (now, held) = (clock.now(), tries.iter().map(|tries| tries.open).sum());
        let quiet = status.quiet_until.filter(|&until| until > now && held > 0);
        let due = tries.iter().filter_map(|tries| tries.next).min();
        let next_try = due.max(quiet).filter(|&at| at > now && status.has_room && disabled.is_none());
        let next_try = next_try.map(|at| UnixMillis::from(clock.wall() + at.saturating_duration_since(now)));
        let state = match &status {
            _ if !is_known => "starting",
            _ if disabled.is_some() => "disabled",
            LoopStatus { slowed: true, .. } => "slowed",
            _ if failures > 0 => "retrying",
            _ => "delivering",
        };
        let (fault_at, fault) = fault.map(|fault| (UnixMillis(fault.at), fault.why)).unzip();
        Self {
            app: target.app.to_string(),
            name: config.name.to_string(),
            url: target.url().to_string(),
            streams: config.streams.iter().map(|stream| stream.as_str()).collect(),
            format: config.format.as_str(),
            state,
            disabled: disabled.map(|d| DisabledStatus { since: UnixMillis(d.since).to_string(), why: d.why }),
            in_flight: status.in_flight,
            held,
            failures,
            next_try_at: next_try.map(|at| at.to_string()),
            last_try_at: status.last_try.map(|at| at.to_string()),
            last_delivery_at: status.last_delivery.map(|at| at.to_string()),
            last_error_at: fault_at.map(|at| at.to_string()),
            last_error: fault,
            public_keys: target.public_keys(),
        }
    }
}
