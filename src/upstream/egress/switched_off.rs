//! What the vendor has switched off for an app, as far as it has said so.
//!
//! A 403 says that the App ID, or the feature that the endpoint belongs to, is switched off at the vendor: nothing that
//! a caller or the gateway can mend, so an operator must see it.
//!
//! Invariants: an endpoint is in here from the first 403 on until it answers 2xx; other answers say nothing about it.
//! The path of an app without any takes no lock.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::StatusCode;

use crate::kernel::clock::UnixMillis;
use crate::kernel::names::AppId;
use crate::kernel::sync::lock;
use crate::kernel::trouble::Part;
use crate::vendor::order::Endpoint;

/// One app's endpoints that answer 403, and since when.
#[derive(Debug, Default)]
pub(super) struct SwitchedOff {
    any: AtomicBool,
    since: Mutex<BTreeMap<&'static str, UnixMillis>>,
}

/// Which part of the gateway's work fails while an endpoint is switched off.
pub(super) fn part(endpoint: &str) -> Part {
    let is_of_events = [Endpoint::UserEvents, Endpoint::ChannelEvents].iter().any(|one| one.as_str() == endpoint);
    if is_of_events { Part::Events } else { Part::Messages }
}

impl SwitchedOff {
    /// The endpoint answered.
    pub(super) fn tell(&self, app: &AppId, endpoint: &'static str, status: StatusCode, now: UnixMillis) {
        let forbidden = status == StatusCode::FORBIDDEN;
        // A success says something only where there is something to end.
        let ends = status.is_success() && self.any.load(Ordering::Acquire);
        if !(forbidden || ends) {
            return;
        }
        let mut since = lock(&self.since);
        if !forbidden {
            if since.remove(endpoint).is_some() {
                tracing::warn!(%app, endpoint, "the vendor serves this app again here");
            }
        } else if !since.contains_key(endpoint) {
            since.insert(endpoint, now);
            tracing::error!(%app, endpoint, "the vendor answers 403: the App ID or this feature of it is switched off there");
        }
        self.any.store(!since.is_empty(), Ordering::Release);
    }

    /// The endpoints, in the order of their names.
    pub(super) fn list(&self) -> Vec<(&'static str, UnixMillis)> {
        lock(&self.since).iter().map(|(name, at)| (*name, *at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_switched_off_from_its_first_403_until_it_succeeds() {
        let (off, app) = (SwitchedOff::default(), AppId::parse("a").unwrap());
        let tell = |endpoint, status, at| {
            off.tell(&app, endpoint, StatusCode::from_u16(status).unwrap(), UnixMillis(at));
            off.list()
        };
        assert_eq!(tell("a", 200, 1), []);
        assert_eq!(tell("a", 403, 2), [("a", UnixMillis(2))]);
        assert_eq!(tell("b", 403, 3), [("a", UnixMillis(2)), ("b", UnixMillis(3))]);
        for status in [403, 404, 500, 408] {
            assert_eq!(tell("a", status, 4).len(), 2, "{status}");
        }
        assert_eq!(tell("a", 204, 5), [("b", UnixMillis(3))]);
        assert_eq!(tell("b", 200, 6), []);
    }
}
