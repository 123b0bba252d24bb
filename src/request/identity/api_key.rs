//! Callers' keys: `X-API-Key: KEY`, `Authorization: Bearer KEY`, `Authorization: Basic base64(NAME:KEY)`.
//!
//! Invariants: only SHA-256 digests of keys are kept. A key is found by the first bytes of its digest and compared
//! whole without timing leaks; who times us learns of a digest, not of a key.

use aws_lc_rs::digest::{self, SHA256};
use subtle::ConstantTimeEq as _;

use super::credential::Credential;
use super::{AuthFault, AuthOutcome};
use crate::config;
use crate::kernel::names::ClientName;
use crate::kernel::proof::By;

/// All clients' keys.
#[derive(Debug)]
pub(super) struct ApiKeys {
    /// In the order of the digests.
    all: Vec<([u8; 32], ClientName)>,
}

impl ApiKeys {
    pub(super) fn new(clients: &[config::Client]) -> Self {
        let of = |client: &config::Client| -> Vec<_> {
            client.api_key_sha256.iter().map(|digest| (*digest, client.name.clone())).collect()
        };
        let mut all: Vec<_> = clients.iter().flat_map(of).collect();
        all.sort_by_key(|(digest, _)| *digest);
        Self { all }
    }

    /// Whose key it is.
    pub(super) fn identify(&self, shown: &Credential<'_>) -> AuthOutcome<'_> {
        match shown {
            Credential::Nothing => AuthOutcome::Nothing,
            Credential::Wrong => AuthOutcome::Wrong(AuthFault::Unreadable),
            Credential::Key(key) | Credential::Bearer(key) => self.known(key),
            Credential::Pair(pair) => {
                let Some((name, key)) = pair.split_once(':') else {
                    return AuthOutcome::Wrong(AuthFault::Unreadable);
                };
                match self.known(key) {
                    AuthOutcome::Known(known, _) if known.as_str() != name => AuthOutcome::Wrong(AuthFault::WrongName),
                    outcome => outcome,
                }
            }
        }
    }

    fn known(&self, key: &str) -> AuthOutcome<'_> {
        let digest = sha256(key);
        self.owner(&digest)
            .map_or(AuthOutcome::Wrong(AuthFault::WrongKey), |name| AuthOutcome::Known(name, By::Key(digest)))
    }

    /// Whose key has this digest.
    pub(super) fn owner(&self, digest: &[u8; 32]) -> Option<&ClientName> {
        // How long the look-up takes tells of eight bytes of a digest, of which no key can be made.
        let first = self.all.partition_point(|(known, _)| prefix(known) < prefix(digest));
        let candidates = self.all[first..].iter().take_while(|(known, _)| prefix(known) == prefix(digest));
        candidates.into_iter().find(|(known, _)| bool::from(known.ct_eq(digest))).map(|(_, name)| name)
    }
}

/// By the library that does TLS, whose assembler is faster than what Rust compiles to.
fn sha256(key: &str) -> [u8; 32] {
    let mut whole = [0; 32];
    whole.copy_from_slice(digest::digest(&SHA256, key.as_bytes()).as_ref());
    whole
}

fn prefix([a, b, c, d, e, f, g, h, ..]: &[u8; 32]) -> u64 {
    u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::headers::X_API_KEY;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use hyper::HeaderMap;
    use hyper::header::{AUTHORIZATION, HeaderName};

    fn keys() -> ApiKeys {
        let client = |name: &str, key: &str| config::Client {
            api_key_sha256: vec![sha256(key)],
            ..config::Client::named(ClientName::parse(name).unwrap(), Vec::new())
        };
        ApiKeys::new(&[client("billing", "kb"), client("crm", "k:c")])
    }

    fn shown(pairs: &[(HeaderName, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value.parse().unwrap());
        }
        match keys().identify(&Credential::of(&headers)) {
            AuthOutcome::Known(name, _) => name.to_string(),
            AuthOutcome::Wrong(fault) => fault.to_string(),
            AuthOutcome::Nothing => "Nothing".to_owned(),
        }
    }

    #[test]
    fn a_key_is_known_in_each_of_its_three_forms() {
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for (authorization, expected) in [
            ("Bearer kb", "billing"),
            ("bearer   k:c", "crm"),
            ("Bearer nope", "wrong_key"),
            ("Bearer", "wrong_key"),
            ("Digest kb", "unreadable"),
            ("", "unreadable"),
            (&basic("billing:kb"), "billing"),
            (&basic("crm:k:c"), "crm"),
            (&basic("crm:kb"), "wrong_name"),
            (&basic("billing"), "unreadable"),
            (&basic(":"), "wrong_key"),
            ("Basic %%%", "unreadable"),
        ] {
            assert_eq!(shown(&[(AUTHORIZATION, authorization)]), expected, "{authorization}");
        }
        assert_eq!(shown(&[(X_API_KEY, "kb")]), "billing");
        assert_eq!(shown(&[]), "Nothing");
    }

    #[test]
    fn x_api_key_alone_decides_when_it_is_there() {
        assert_eq!(shown(&[(X_API_KEY, "kb"), (AUTHORIZATION, "Basic dmVuZG9yOnNlY3JldA==")]), "billing");
        assert_eq!(shown(&[(X_API_KEY, "nope"), (AUTHORIZATION, "Bearer kb")]), "wrong_key");
        assert_eq!(shown(&[(X_API_KEY, "kb"), (X_API_KEY, "kb")]), "unreadable");
        assert_eq!(shown(&[(AUTHORIZATION, "Bearer kb"), (AUTHORIZATION, "Bearer kb")]), "unreadable");
    }
}
