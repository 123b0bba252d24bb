//! What an endpoint of one app has answered in one region of late.
//!
//! Invariants: answers that fail (5xx but 501, lost, late) count for their own app and endpoint alone, so that what one
//! caller's requests bring about says nothing about another app's or about other things asked of the same host. They
//! send orders to another region where there is one that does better, and never hold one back.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::breaker::{Breaker, Role, Seen, Verdict};
use crate::config;
use crate::names::AppId;

/// An endpoint of an app in a region.
pub(super) struct Endpoint {
    app: AppId,
    name: &'static str,
    breaker: Mutex<Breaker>,
}

impl Endpoint {
    pub(super) fn new(app: &AppId, name: &'static str, rule: config::Breaker) -> Self {
        Self { app: app.clone(), name, breaker: Mutex::new(Breaker::new(rule)) }
    }

    /// Whose.
    pub(super) fn app(&self) -> &AppId {
        &self.app
    }

    /// As metrics and logs name it.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Another rule, from now on.
    pub(super) fn reconfigure(&self, rule: config::Breaker) {
        self.breaker().reconfigure(rule);
    }

    /// Whether orders that may go elsewhere should.
    pub(super) fn fails(&self, at: Instant) -> bool {
        self.breaker().look(at).is_err()
    }

    /// An order goes out now.
    pub(super) fn enter(&self, now: Instant) -> Role {
        self.breaker().enter(now).unwrap_or(Role::InSpite)
    }

    /// It has ended. Says whether it began to fail, or fails no more.
    pub(super) fn ended(&self, role: Role, verdict: Verdict, now: Instant) -> Option<Turned> {
        let mut breaker = self.breaker();
        if !breaker.ended(role, verdict, now, rand::random()) {
            return None;
        }
        match breaker.seen(now) {
            Seen::Closed => Some(Turned::Well),
            Seen::Open { retry_after } if !retry_after.is_zero() => Some(Turned::Failing),
            Seen::Open { .. } | Seen::Probing => None,
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How an endpoint has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    Well,
    Failing,
}
