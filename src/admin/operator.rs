//! Who asks at the operators' port: by which key, or by none where none is needed.
//!
//! Invariants: both digests are compared whatever the first comparison says, and neither comparison takes longer for a
//! key that is nearly right. Without `api_key_sha256` there is no `read_key_sha256` (the configuration's checks), so
//! who needs no key may do everything.

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::config::Admin;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    /// Who showed the key of `admin.api_key_sha256`.
    Key,
    /// Who showed the key of `admin.read_key_sha256`.
    ReadKey,
    /// Anybody, at a port that needs no key.
    Local,
}

/// Why a request is nobody's, or not for who showed this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyFault {
    /// No key was shown.
    Missing,
    /// What was shown is no key of this port.
    Wrong,
    /// What was asked takes the operator's own key, and the read-only one was shown.
    ReadOnly,
    /// The certificate that the connection was made with is good no more.
    Certificate,
}

impl KeyFault {
    pub(super) const ALL: [Self; 4] = [Self::Missing, Self::Wrong, Self::ReadOnly, Self::Certificate];

    /// Its label in the metrics and in the log.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "no_key",
            Self::Wrong => "wrong_key",
            Self::ReadOnly => "read_key",
            Self::Certificate => "certificate",
        }
    }
}

impl Operator {
    /// Who asks, by the key in the head: a Bearer token, or `X-API-Key`.
    ///
    /// # Errors
    /// When a key is needed, and none of this port's was shown.
    pub(super) fn of(admin: &Admin, headers: &HeaderMap) -> Result<Self, KeyFault> {
        let Some(key) = admin.api_key_sha256 else { return Ok(Self::Local) };
        let bearer = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
        let shown = headers.get("x-api-key").and_then(|v| v.to_str().ok()).or(bearer);
        // Digests are of one length: how long a comparison takes says nothing of the key.
        let digest: [u8; 32] = Sha256::digest(shown.unwrap_or_default().as_bytes()).into();
        // Without a read-only key this is the other comparison once more.
        let (is_key, is_read_key) = (digest.ct_eq(&key), digest.ct_eq(&admin.read_key_sha256.unwrap_or(key)));
        match (bool::from(is_key), bool::from(is_read_key)) {
            (true, _) => Ok(Self::Key),
            (false, true) => Ok(Self::ReadKey),
            (false, false) if headers.contains_key(AUTHORIZATION) || headers.contains_key("x-api-key") => {
                Err(KeyFault::Wrong)
            }
            (false, false) => Err(KeyFault::Missing),
        }
    }

    /// As the log has it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::ReadKey => "read_key",
            Self::Local => "local",
        }
    }

    /// Whether it may do more than look.
    pub(super) fn may_act(self) -> bool {
        match self {
            Self::Key | Self::Local => true,
            Self::ReadKey => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderName;

    use super::*;

    fn shown(headers: &[(&'static str, &str)]) -> HeaderMap {
        headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn each_key_is_known_by_its_digest_and_nothing_else_is() {
        let digest = |key: &str| Some(<[u8; 32]>::from(Sha256::digest(key)));
        let one = Admin { api_key_sha256: digest("whole"), ..Admin::default() };
        let both = Admin { read_key_sha256: digest("looks"), ..one.clone() };
        for (admin, headers, expected) in [
            (&Admin::default(), &[][..], Ok(Operator::Local)),
            (&Admin::default(), &[("x-api-key", "anything")], Ok(Operator::Local)),
            (&both, &[("x-api-key", "whole")], Ok(Operator::Key)),
            (&both, &[("authorization", "Bearer whole")], Ok(Operator::Key)),
            (&both, &[("x-api-key", "looks")], Ok(Operator::ReadKey)),
            (&both, &[("authorization", "Bearer looks")], Ok(Operator::ReadKey)),
            (&both, &[("x-api-key", "other")], Err(KeyFault::Wrong)),
            (&both, &[("x-api-key", "")], Err(KeyFault::Wrong)),
            (&both, &[("authorization", "Basic whole")], Err(KeyFault::Wrong)),
            (&both, &[], Err(KeyFault::Missing)),
            (&one, &[("x-api-key", "whole")], Ok(Operator::Key)),
            (&one, &[("x-api-key", "looks")], Err(KeyFault::Wrong)),
            (&one, &[], Err(KeyFault::Missing)),
        ] {
            assert_eq!(Operator::of(admin, &shown(headers)), expected, "{headers:?}");
        }
    }
}
