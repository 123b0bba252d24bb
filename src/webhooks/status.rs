//! How a webhook stands, for the operator.
//!
//! Invariant: what is said of the last tries outlives a restart: it is of the condition, which is stored.

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
    /// Events that it has not taken yet, and that its filter may pass over.
    pub lag: u64,
    /// What has to happen before anything is sent: `store` (its condition is being read), `enable` (it is disabled),
    /// `answer` (to requests under way), `endpoint` (it asked for quiet), `retry` (the time of the next try) or
    /// `events` (there is nothing to send).
    pub waits_for: &'static str,
    /// Tries in vain of what was tried most.
    pub failures: u32,
    /// Tries in vain since the last that was taken, of whatever.
    pub consecutive_failures: u32,
    /// As `next_attempt_at`.
    pub next_try_at: Option<String>,
    /// When the next try is due, if one waits for its time.
    pub next_attempt_at: Option<String>,
    pub last_try_at: Option<String>,
    /// As `last_success_at`.
    pub last_delivery_at: Option<String>,
    /// When the endpoint took a request last. After a crash this may be a minute old.
    pub last_success_at: Option<String>,
    pub last_error_at: Option<String>,
    pub last_error: Option<String>,
    /// Which try of what was sent came to that.
    pub last_error_attempt: Option<u32>,
    /// The answer's status, if there was an answer.
    pub last_error_status: Option<u16>,
    /// Which events it is sent; of a member without patterns all.
    pub filter: FilterStatus,
    /// Of keys that are ed25519: what receivers verify by.
    pub public_keys: Vec<String>,
}

/// The patterns of a webhook's `filter`.
#[derive(Clone, Debug, Serialize)]
pub struct FilterStatus {
    #[serde(rename = "type")]
    pub kinds: Vec<String>,
    pub user_id: Vec<String>,
    pub group_id: Vec<String>,
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
        let Condition { disabled, fault, consecutive_failures, last_success, .. } = condition.unwrap_or_default();
        let config = &target.config;
        let failures = tries.iter().map(|tries| tries.failures).max().unwrap_or(0);
        let (now, held) = (clock.now(), tries.iter().map(|tries| tries.open).sum());
        let quiet = status.quiet_until.filter(|&until| until > now && held > 0);
        let due = tries.iter().filter_map(|tries| tries.next).min();
        let next_try = due.max(quiet).filter(|&at| at > now && status.has_room && disabled.is_none());
        let waits_for = match next_try {
            _ if !is_known => "store",
            _ if disabled.is_some() => "enable",
            _ if status.in_flight > 0 => "answer",
            Some(_) if quiet.is_some() => "endpoint",
            Some(_) => "retry",
            None => "events",
        };
        let next_try = next_try.map(|at| UnixMillis::from(clock.wall() + at.saturating_duration_since(now)));
        let next_try = next_try.map(|at| at.to_string());
        let state = match &status {
            _ if !is_known => "starting",
            _ if disabled.is_some() => "disabled",
            LoopStatus { slowed: true, .. } => "slowed",
            _ if failures > 0 => "retrying",
            _ => "delivering",
        };
        let last_success = Some(UnixMillis(last_success)).filter(|at| *at > UnixMillis(0));
        let fault_at = fault.as_ref().map(|fault| UnixMillis(fault.at));
        let last_try = last_success.max(fault_at);
        let last_success = last_success.map(|at| at.to_string());
        let patterns = &config.filter;
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
            lag: tries.iter().map(|tries| tries.lag).sum(),
            waits_for,
            failures,
            consecutive_failures,
            next_try_at: next_try.clone(),
            next_attempt_at: next_try,
            last_try_at: last_try.map(|at| at.to_string()),
            last_delivery_at: last_success.clone(),
            last_success_at: last_success,
            last_error_at: fault_at.map(|at| at.to_string()),
            last_error_attempt: fault.as_ref().map(|fault| fault.attempt).filter(|&attempt| attempt > 0),
            last_error_status: fault.as_ref().and_then(|fault| fault.status),
            last_error: fault.map(|fault| fault.why),
            filter: FilterStatus {
                kinds: patterns.kinds.clone(),
                user_id: patterns.user_ids.clone(),
                group_id: patterns.group_ids.clone(),
            },
            public_keys: target.public_keys(),
        }
    }
}
