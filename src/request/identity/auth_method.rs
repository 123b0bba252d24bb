//! How a caller was known, or why it was not: the `proof` of the access log.
//!
//! Invariant: of what was shown nothing is here but its kind and, of a key that is known, which of its client's it is.

use std::fmt;

/// How a caller was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// A key, and where it stands among its client's keys, from 1.
    Key { shown: KeyHeader, number: usize },
    /// A token of the configured issuer.
    Jwt,
    /// The certificate of its connection.
    Certificate,
    /// The user at the other end of a Unix socket.
    UnixPeer,
    /// Nothing was shown: `anonymous_client`.
    Anonymous,
}

/// Where a key was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyHeader {
    /// `Authorization: Bearer`.
    Bearer,
    /// `Authorization: Basic`.
    Basic,
    /// `X-API-Key`.
    XApiKey,
}

/// Why a caller was not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthFault {
    /// Nothing was shown.
    Nothing,
    /// A key that nobody has.
    WrongKey,
    /// Somebody's key, by Basic with the name of another.
    WrongName,
    /// Something that cannot be read as a key or a token, or a header given twice.
    Unreadable,
    /// A token that is not believed; `rtm_gateway_jwt_tokens_total` counts why.
    BadToken,
    /// A token, and the issuer's keys are not known now. Answered 503, not 401.
    UncheckedToken,
    /// A certificate that names no client.
    UnknownCertificate,
    /// A certificate that has expired or is revoked, or whose authority is trusted no more.
    BadCertificate,
}

impl AuthFault {
    /// Each.
    pub const ALL: [Self; 8] = [
        Self::Nothing,
        Self::WrongKey,
        Self::WrongName,
        Self::Unreadable,
        Self::BadToken,
        Self::UncheckedToken,
        Self::UnknownCertificate,
        Self::BadCertificate,
    ];

    /// Its word in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::WrongKey => "wrong_key",
            Self::WrongName => "wrong_name",
            Self::Unreadable => "unreadable",
            Self::BadToken => "bad_token",
            Self::UncheckedToken => "unchecked_token",
            Self::UnknownCertificate => "unknown_certificate",
            Self::BadCertificate => "bad_certificate",
        }
    }
}

/// As `key:1`, `basic:2`, `x_api_key:1`, `jwt`.
impl fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { shown: KeyHeader::Bearer, number } => write!(f, "key:{number}"),
            Self::Key { shown: KeyHeader::Basic, number } => write!(f, "basic:{number}"),
            Self::Key { shown: KeyHeader::XApiKey, number } => write!(f, "x_api_key:{number}"),
            Self::Jwt => f.write_str("jwt"),
            Self::Certificate => f.write_str("certificate"),
            Self::UnixPeer => f.write_str("unix_peer"),
            Self::Anonymous => f.write_str("anonymous"),
        }
    }
}

impl fmt::Display for AuthFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
