//! Callers' certificates: `spiffe_id` and `dns_san`.
//!
//! Invariants: only names that the certificate's authority vouched for count (the handshake saw to that, and
//! [`crate::tls::ClientTrust`] goes on seeing to it), and only whole: no wildcard, no common name. A certificate whose
//! names show two clients shows neither.
//!
//! How it goes together with what a request's head shows (`identity`): in a mesh every caller has a certificate, of its
//! workload or only of its node. So a certificate that names nobody is no wrong credential where a key or a token is
//! shown too, and decides (401) where nothing else is. Where both name a client, the head's decides: it was put there
//! for this request, the connection may be shared. A certificate that is good no more decides alone.

use std::collections::HashMap;

use super::{AuthFault, AuthOutcome};
use crate::config;
use crate::kernel::conn::PeerCertificate;
use crate::kernel::log_list::List;
use crate::kernel::names::{ClientName, SpiffeId};
use crate::kernel::proof::By;

/// All names of clients' certificates.
#[derive(Debug)]
pub(super) struct Certificates {
    by_spiffe_id: HashMap<SpiffeId, ClientName>,
    /// In lower case, as the configuration has them.
    by_dns_name: HashMap<String, ClientName>,
}

impl Certificates {
    pub(super) fn new(clients: &[config::Client]) -> Self {
        let (mut by_spiffe_id, mut by_dns_name) = (HashMap::new(), HashMap::new());
        for client in clients {
            by_spiffe_id.extend(client.spiffe_id.iter().map(|id| (id.clone(), client.name.clone())));
            by_dns_name.extend(client.dns_san.iter().map(|name| (name.clone(), client.name.clone())));
        }
        Self { by_spiffe_id, by_dns_name }
    }

    /// Whose certificate it is. Never [`AuthOutcome::Nothing`].
    pub(super) fn identify(&self, certificate: &PeerCertificate) -> AuthOutcome<'_> {
        let names = match certificate.names() {
            Ok(names) => names,
            Err(why) => {
                tracing::debug!(%why, "a caller's certificate names nobody");
                return AuthOutcome::Wrong(AuthFault::UnknownCertificate);
            }
        };
        let by_spiffe_id = names.spiffe_id.iter().filter_map(|id| self.by_spiffe_id.get(id));
        let by_dns_name = names.dns.iter().filter_map(|name| self.by_dns_name.get(name));
        let mut found = by_spiffe_id.chain(by_dns_name);
        let first = found.next();
        match first {
            Some(name) if found.all(|other| other == name) => AuthOutcome::Known(name, By::Certificate),
            _ => {
                let why = if first.is_some() { "it names two clients" } else { "no client has such a name" };
                let shown = names.spiffe_id.iter().map(|id| id.as_str().to_owned()).chain(names.dns.iter().cloned());
                let shown: List = shown.collect();
                tracing::debug!(names = shown.field(), why, "a caller's certificate names nobody");
                AuthOutcome::Wrong(AuthFault::UnknownCertificate)
            }
        }
    }
}

#[cfg(test)]
mod tests;
