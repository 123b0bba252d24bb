//! [`Strangers`]: who called and was not known: how many by what they showed, and from where the last few came.
//!
//! Invariants: only addresses are kept, of at most [`MOST`] places, the longest silent making room; nothing of what was
//! shown but its kind. A caller that is known never comes here, so it costs no request a lock but those that are
//! refused.

use std::collections::VecDeque;
use std::sync::Mutex;

use prometheus_client::metrics::counter::Counter;

use super::auth_method::AuthFault;
use crate::kernel::clock::UnixMillis;
use crate::kernel::conn::Peer;
use crate::kernel::metrics::{Metrics, ProofLabels};
use crate::kernel::sync::lock;

/// Of so many places the last are remembered.
const MOST: usize = 32;

/// Who was not known since the process began.
#[derive(Debug)]
pub struct Strangers {
    refused: Vec<(AuthFault, Counter)>,
    /// The one that was silent for longest first.
    places: Mutex<VecDeque<StrangerPlace>>,
}

/// A place that strangers called from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrangerPlace {
    /// Its address without the port, or `unix:uid=…`.
    pub address: String,
    /// Refused requests since it is remembered.
    pub refused: u64,
    /// What was wrong with the last of them.
    pub fault: AuthFault,
    /// When that came.
    pub last: UnixMillis,
}

impl Strangers {
    /// Nobody yet; counted there.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let counter = |fault: AuthFault| {
            let labels = ProofLabels { proof: fault.as_str().to_owned() };
            (fault, metrics.unauthenticated.get_or_create_owned(&labels))
        };
        Self { refused: AuthFault::ALL.into_iter().map(counter).collect(), places: Mutex::default() }
    }

    /// A caller was refused.
    pub fn refused(&self, peer: &Peer, fault: AuthFault, now: UnixMillis) {
        self.refused.iter().filter(|(of, _)| *of == fault).for_each(|(_, counter)| {
            counter.inc();
        });
        let address = address(peer);
        // No section panics half-way.
        let mut places = lock(&self.places);
        let known = places.iter().position(|place| place.address == address);
        let before = known.and_then(|at| places.remove(at)).map_or(0, |place| place.refused);
        if places.len() == MOST {
            places.pop_front();
        }
        places.push_back(StrangerPlace { address, refused: before + 1, fault, last: now });
    }

    /// How many were refused, by what they showed.
    pub fn counts(&self) -> impl Iterator<Item = (AuthFault, u64)> {
        self.refused.iter().map(|(fault, counter)| (*fault, counter.get()))
    }

    /// The last few places that they called from, the last first.
    #[must_use]
    pub fn places(&self) -> Vec<StrangerPlace> {
        lock(&self.places).iter().rev().cloned().collect()
    }
}

/// From where somebody calls: each connection has another port.
fn address(peer: &Peer) -> String {
    match peer {
        Peer::Tcp(address) => address.ip().to_canonical().to_string(),
        Peer::Unix { .. } => peer.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_places_are_kept_each_once_and_everything_is_counted() {
        let metrics = Metrics::new();
        let strangers = Strangers::new(&metrics);
        let from = |last: u8, port: u16| Peer::Tcp(([10, 0, 0, last], port).into());
        strangers.refused(&from(1, 1000), AuthFault::Nothing, UnixMillis(1));
        strangers.refused(&from(2, 1000), AuthFault::WrongKey, UnixMillis(2));
        strangers.refused(&from(1, 2000), AuthFault::WrongKey, UnixMillis(3));
        let place = |address: &str, refused, last| {
            let last = UnixMillis(last);
            StrangerPlace { address: address.to_owned(), refused, fault: AuthFault::WrongKey, last }
        };
        assert_eq!(strangers.places(), [place("10.0.0.1", 2, 3), place("10.0.0.2", 1, 2)]);
        for n in 0..100 {
            strangers.refused(&from(100 + n, 1), AuthFault::WrongKey, UnixMillis(10 + u64::from(n)));
        }
        let places = strangers.places();
        assert_eq!((places.len(), &places[0]), (MOST, &place("10.0.0.199", 1, 109)));
        let text = metrics.text();
        assert!(text.contains(r#"rtm_gateway_unauthenticated_total{proof="none"} 1"#), "{text}");
        assert!(text.contains(r#"rtm_gateway_unauthenticated_total{proof="wrong_key"} 102"#), "{text}");
        assert!(text.contains(r#"rtm_gateway_unauthenticated_total{proof="bad_token"} 0"#), "{text}");
    }
}
