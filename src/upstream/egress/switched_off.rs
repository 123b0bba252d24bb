//! What the vendor has switched off for an app, as far as it has said so.
//!
//! A 403 says that the App ID, or the feature that the endpoint belongs to, is switched off at the vendor: nothing that
//! a caller or the gateway can mend, so an operator must see it.
//!
//! Invariants: an endpoint of a region is in here from the first 403 on until it answers 2xx; other answers, and other
//! regions, say nothing about it. The path of an app without any takes no lock.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::StatusCode;

use crate::kernel::clock::UnixMillis;
use crate::kernel::names::{AppId, RegionName};
use crate::kernel::sync::lock;
use crate::kernel::trouble::Part;
use crate::vendor::order::Endpoint;

/// One app's endpoints that answer 403, and since when.
#[derive(Debug, Default)]
pub(super) struct SwitchedOff {
    any: AtomicBool,
    since: Mutex<BTreeMap<(&'static str, RegionName), UnixMillis>>,
}

/// An endpoint that answers 403.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchedOffEndpoint {
    /// Its name.
    pub endpoint: &'static str,
    /// Where.
    pub region: RegionName,
    /// Since when.
    pub since: UnixMillis,
}

/// Which part of the gateway's work fails while an endpoint is switched off.
pub(super) fn part(endpoint: &str) -> Part {
    let is_of_events = [Endpoint::UserEvents, Endpoint::ChannelEvents].iter().any(|one| one.as_str() == endpoint);
    if is_of_events { Part::Events } else { Part::Messages }
}

impl SwitchedOff {
    /// The endpoint answered in a region.
    pub(super) fn tell(
        &self,
        (app, region): (&AppId, &RegionName),
        endpoint: &'static str,
        status: StatusCode,
        now: impl FnOnce() -> UnixMillis,
    ) {
        let forbidden = status == StatusCode::FORBIDDEN;
        // A success says something only where there is something to end.
        let ends = status.is_success() && self.any.load(Ordering::Acquire);
        if !(forbidden || ends) {
            return;
        }
        let mut since = lock(&self.since);
        let here = (endpoint, region.clone());
        if !forbidden {
            if since.remove(&here).is_some() {
                tracing::warn!(%app, endpoint, %region, "the vendor serves this app again here");
            }
        } else if let Entry::Vacant(begun) = since.entry(here) {
            begun.insert(now());
            tracing::error!(
                %app, endpoint, %region,
                "the vendor answers 403: the App ID or this feature of it is switched off there"
            );
        }
        self.any.store(!since.is_empty(), Ordering::Release);
    }

    /// Those in these regions, in the order of their names. Of a region that is not asked any more nothing is known.
    pub(super) fn list<'a>(&self, regions: impl Iterator<Item = &'a RegionName> + Clone) -> Vec<SwitchedOffEndpoint> {
        let since = lock(&self.since);
        let here = since.iter().filter(|((_, region), _)| regions.clone().any(|asked| asked == region));
        let all = here.map(|((endpoint, region), since)| SwitchedOffEndpoint {
            endpoint,
            region: region.clone(),
            since: *since,
        });
        all.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_switched_off_from_its_first_403_until_it_succeeds_in_each_region_by_itself() {
        let (off, app) = (SwitchedOff::default(), AppId::parse("a").unwrap());
        let [cn, eu] = ["cn", "eu"].map(|name| RegionName::parse(name).unwrap());
        let tell = |endpoint, region: &RegionName, status, at| {
            off.tell((&app, region), endpoint, StatusCode::from_u16(status).unwrap(), || UnixMillis(at));
            let all = off.list([&cn, &eu].into_iter()).into_iter();
            all.map(|one| (one.endpoint, one.region.to_string(), one.since.0)).collect::<Vec<_>>()
        };
        let at = |endpoint, region: &RegionName, since| (endpoint, region.to_string(), since);
        assert_eq!(tell("a", &cn, 200, 1), []);
        assert_eq!(tell("a", &cn, 403, 2), [at("a", &cn, 2)]);
        assert_eq!(tell("b", &cn, 403, 3), [at("a", &cn, 2), at("b", &cn, 3)]);
        for status in [403, 404, 500, 408] {
            assert_eq!(tell("a", &cn, status, 4).len(), 2, "{status}");
        }
        // Where another region serves, it is neither over nor begun anew with each answer.
        assert_eq!(tell("a", &eu, 200, 5), [at("a", &cn, 2), at("b", &cn, 3)]);
        assert_eq!(tell("a", &eu, 403, 6), [at("a", &cn, 2), at("a", &eu, 6), at("b", &cn, 3)]);
        assert_eq!(off.list([&eu].into_iter()).len(), 1, "of a region that is gone nothing is told");
        assert_eq!(tell("a", &cn, 204, 7), [at("a", &eu, 6), at("b", &cn, 3)]);
        assert_eq!(tell("b", &cn, 200, 8), [at("a", &eu, 6)]);
    }
}
