//! Callers' keys: `X-API-Key: KEY`, `Authorization: Bearer KEY`, `Authorization: Basic base64(NAME:KEY)`.
//!
//! Invariants: only SHA-256 digests of keys are kept. A key is found by the first bytes of its digest and compared
//! whole without timing leaks; who times us learns of a digest, not of a key. `X-API-Key` alone decides when it is
//! there, because old software may go on sending the vendor's `Authorization`. A header given twice proves nothing:
//! which one a proxy before us looked at cannot be known.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::Shown;
use crate::config;
use crate::headers::X_API_KEY;
use crate::names::ClientName;

/// All clients' keys.
#[derive(Debug)]
pub(super) struct ApiKeys {
    by_prefix: HashMap<[u8; 8], Vec<([u8; 32], ClientName)>>,
}

/// A header that may be given at most once.
enum Single<'a> {
    Absent,
    One(&'a str),
    /// Twice, or not text.
    Bad,
}

impl ApiKeys {
    pub(super) fn new(clients: &[config::Client]) -> Self {
        let mut by_prefix: HashMap<_, Vec<_>> = HashMap::new();
        for client in clients {
            for digest in &client.api_key_sha256 {
                by_prefix.entry(prefix(digest)).or_default().push((*digest, client.name.clone()));
            }
        }
        Self { by_prefix }
    }

    pub(super) fn identify(&self, headers: &HeaderMap) -> Shown<'_> {
        match (single(headers, &X_API_KEY), single(headers, &AUTHORIZATION)) {
            (Single::One(key), _) => self.known(key),
            (Single::Bad, _) | (Single::Absent, Single::Bad) => Shown::Wrong,
            (Single::Absent, Single::One(authorization)) => self.authorized(authorization),
            (Single::Absent, Single::Absent) => Shown::Nothing,
        }
    }

    fn authorized(&self, value: &str) -> Shown<'_> {
        let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        let rest = rest.trim_start();
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.known(rest);
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Shown::Wrong;
        }
        let Ok(pair) = STANDARD.decode(rest).map(Zeroizing::new) else { return Shown::Wrong };
        let Some(pair) = std::str::from_utf8(&pair).ok().and_then(|p| p.split_once(':')) else { return Shown::Wrong };
        match self.known(pair.1) {
            Shown::Known(name) if name.as_str() == pair.0 => Shown::Known(name),
            _ => Shown::Wrong,
        }
    }

    fn known(&self, key: &str) -> Shown<'_> {
        let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        let candidates = self.by_prefix.get(&prefix(&digest)).map_or(&[][..], Vec::as_slice);
        let found = candidates.iter().find(|(known, _)| bool::from(known.ct_eq(&digest)));
        found.map_or(Shown::Wrong, |(_, name)| Shown::Known(name))
    }
}

fn prefix(digest: &[u8; 32]) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    first
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Single<'a> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (None, _) => Single::Absent,
        (Some(value), None) => value.to_str().map_or(Single::Bad, Single::One),
        (Some(_), Some(_)) => Single::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> ApiKeys {
        let client = |name: &str, key: &str| config::Client {
            api_key_sha256: vec![Sha256::digest(key).into()],
            ..config::Client::named(ClientName::parse(name).unwrap(), Vec::new())
        };
        ApiKeys::new(&[client("billing", "kb"), client("crm", "k:c")])
    }

    fn shown(pairs: &[(HeaderName, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value.parse().unwrap());
        }
        match keys().identify(&headers) {
            Shown::Known(name) => name.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_key_is_known_in_each_of_its_three_forms() {
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for (authorization, expected) in [
            ("Bearer kb", "billing"),
            ("bearer   k:c", "crm"),
            ("Bearer nope", "Wrong"),
            ("Bearer", "Wrong"),
            ("Digest kb", "Wrong"),
            ("", "Wrong"),
            (&basic("billing:kb"), "billing"),
            (&basic("crm:k:c"), "crm"),
            (&basic("crm:kb"), "Wrong"),
            (&basic("billing"), "Wrong"),
            (&basic(":"), "Wrong"),
            ("Basic %%%", "Wrong"),
        ] {
            assert_eq!(shown(&[(AUTHORIZATION, authorization)]), expected, "{authorization}");
        }
        assert_eq!(shown(&[(X_API_KEY, "kb")]), "billing");
        assert_eq!(shown(&[]), "Nothing");
    }

    #[test]
    fn x_api_key_alone_decides_when_it_is_there() {
        assert_eq!(shown(&[(X_API_KEY, "kb"), (AUTHORIZATION, "Basic dmVuZG9yOnNlY3JldA==")]), "billing");
        assert_eq!(shown(&[(X_API_KEY, "nope"), (AUTHORIZATION, "Bearer kb")]), "Wrong");
        assert_eq!(shown(&[(X_API_KEY, "kb"), (X_API_KEY, "kb")]), "Wrong");
        assert_eq!(shown(&[(AUTHORIZATION, "Bearer kb"), (AUTHORIZATION, "Bearer kb")]), "Wrong");
    }
}
