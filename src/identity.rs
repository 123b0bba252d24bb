//! Who calls: a request's head in, a [`Client`] out, or 401.
//!
//! Invariants: only this module makes a [`Client`]. Each method of proof stands by itself and says one of three things:
//! known, wrong, or nothing shown. The first that says anything decides; wrong credentials are never forgiven because
//! another method would have let the caller in. `anonymous_client` is only for callers that showed nothing at all. One
//! exception, and why, is in `mtls`: a certificate that names nobody does not stand in the way of a key.

pub mod api_key;
mod mtls;

use std::collections::HashSet;
use std::sync::Arc;

use hyper::HeaderMap;

use crate::clock::UnixMillis;
use crate::config::Config;
use crate::conn::Conn;
use crate::names::ClientName;
use crate::refusal::Refusal;
use crate::tls::ClientTrust;

use api_key::ApiKeys;
use mtls::Certificates;

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
    certificates: Certificates,
    trust: Arc<ClientTrust>,
    anonymous: Option<ClientName>,
    names: HashSet<ClientName>,
}

impl Identity {
    /// The ways a configuration gives; certificates are held against `trust`.
    #[must_use]
    pub fn new(config: &Config, trust: Arc<ClientTrust>) -> Self {
        Self {
            api_keys: ApiKeys::new(&config.clients),
            certificates: Certificates::new(&config.clients),
            trust,
            anonymous: config.server.anonymous_client.clone(),
            names: config.clients.iter().map(|client| client.name.clone()).collect(),
        }
    }

    /// Whether there is a client of that name.
    #[must_use]
    pub fn knows(&self, name: &ClientName) -> bool {
        self.names.contains(name)
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
    pub fn identify(&self, conn: &Conn, headers: &HeaderMap, now: UnixMillis) -> Result<Client, Refusal> {
        let by_certificate = match conn.certificate() {
            None => Shown::Nothing,
            Some(certificate) if self.trust.vouches_for(certificate, now) => self.certificates.identify(certificate),
            Some(_) => {
                // Expired, revoked or of an authority that is trusted no more. Another handshake says which.
                conn.end_soon();
                return Err(Refusal::Unauthenticated);
            }
        };
        let name = match self.api_keys.identify(headers) {
            Shown::Known(name) => Some(name),
            Shown::Wrong => None,
            Shown::Nothing => match by_certificate {
                Shown::Known(name) => Some(name),
                Shown::Wrong => None,
                Shown::Nothing => self.anonymous.as_ref(),
            },
        };
        name.map(|name| Client { name: name.clone() }).ok_or(Refusal::Unauthenticated)
    }
}

#[cfg(test)]
mod tests;
