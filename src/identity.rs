//! Who calls: a request's head in, a [`Client`] out, or 401.
//!
//! Invariants: only this module makes a [`Client`]. Each method of proof stands by itself and says one of three things:
//! known, wrong, or nothing shown. The first that says anything decides; wrong credentials are never forgiven because
//! another method would have let the caller in. `anonymous_client` is only for callers that showed nothing at all.

pub mod api_key;

use std::collections::HashSet;

use hyper::HeaderMap;

use crate::clock::UnixMillis;
use crate::config::Config;
use crate::conn::Conn;
use crate::names::ClientName;
use crate::refusal::Refusal;

use api_key::ApiKeys;

/// A caller we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    name: ClientName,
}

impl Client {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ClientName {
        &self.name
    }

    #[cfg(test)]
    pub(crate) fn for_tests(name: &str) -> Self {
        Self { name: ClientName::parse(name).unwrap() }
    }
}

/// What one method of proof found.
#[derive(Debug, PartialEq, Eq)]
enum Shown<'a> {
    Nothing,
    Wrong,
    Known(&'a ClientName),
}

/// All ways to know a caller.
#[derive(Debug)]
pub struct Identity {
    api_keys: ApiKeys,
    anonymous: Option<ClientName>,
    names: HashSet<ClientName>,
}

impl Identity {
    /// The ways a configuration gives.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            api_keys: ApiKeys::new(&config.clients),
            anonymous: config.server.anonymous_client.clone(),
            names: config.clients.iter().map(|client| client.name.clone()).collect(),
        }
    }

    /// Whether `name` is that of a client other than `client`.
    #[must_use]
    pub fn is_another_client(&self, name: &str, client: &ClientName) -> bool {
        name != client.as_str() && self.names.iter().any(|other| other.as_str() == name)
    }

    /// Says who calls, by what is known of the connection, what the head shows, and the time.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`] when nothing known was shown, or something wrong.
    pub fn identify(&self, _conn: &Conn, headers: &HeaderMap, _now: UnixMillis) -> Result<Client, Refusal> {
        let name = match self.api_keys.identify(headers) {
            Shown::Known(name) => Some(name),
            Shown::Wrong => None,
            Shown::Nothing => self.anonymous.as_ref(),
        };
        name.map(|name| Client { name: name.clone() }).ok_or(Refusal::Unauthenticated)
    }
}
