//! [`Basis`]: what a proof is made of: who, by what, and for what.
//!
//! Invariants: of keys and tokens only digests are here. Two bases are equal when whatever makes one good makes the
//! other good.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::kernel::clock::UnixMillis;
use crate::kernel::conn::PeerCertificate;
use crate::kernel::names::{Action, AppId, ClientName};

/// What a proof is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Basis {
    pub client: ClientName,
    pub evidence: Evidence,
    /// Of which app something was granted.
    pub app: AppId,
    pub action: Action,
    /// As whom a message is sent.
    pub user: Option<Arc<str>>,
}

/// What showed who calls.
#[derive(Clone)]
pub struct Evidence {
    pub by: By,
    /// The connection's certificate: while the connection has one it must be good, whoever it names.
    pub certificate: Option<Arc<PeerCertificate>>,
}

/// What decided who calls.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum By {
    /// A key, by its SHA-256.
    Key([u8; 32]),
    Token(Arc<Token>),
    Certificate,
    /// The user at the other end of a Unix socket.
    User(u32),
    /// Nothing: `anonymous_client`.
    Nothing,
}

/// What is remembered of a token.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Token {
    pub digest: [u8; 32],
    pub issuer: Arc<str>,
    /// All whom it is for: which of them are configured may change.
    pub audience: Vec<Arc<str>>,
    pub subject: Arc<str>,
    /// How it is signed.
    pub algorithm: &'static str,
    /// The key that signed it, by its digest.
    pub key: [u8; 32],
    /// When it expires, without leeway.
    pub expires: UnixMillis,
}

/// Nothing of what a token says.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// How long a proof is good by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// From then on it has expired.
    pub until: UnixMillis,
    /// Then it must be judged anew: something that it rests on runs out.
    pub again: UnixMillis,
}

/// Later than any time.
const NEVER: UnixMillis = UnixMillis(u64::MAX);

impl Life {
    /// Time does nothing to it.
    pub const ENDLESS: Self = Self { until: NEVER, again: NEVER };

    /// Good while both are.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { until: self.until.min(other.until), again: self.again.min(other.again) }
    }

    /// It is good until then, and need not be judged before.
    #[must_use]
    pub fn until(until: UnixMillis) -> Self {
        Self { until, ..Self::ENDLESS }
    }
}

impl PartialEq for Evidence {
    fn eq(&self, other: &Self) -> bool {
        let chain = |it: &Self| it.certificate.as_ref().map(|certificate| *certificate.digest());
        self.by == other.by && chain(self) == chain(other)
    }
}

impl Eq for Evidence {}

impl Hash for Evidence {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.by.hash(state);
        self.certificate.as_ref().map(|certificate| certificate.digest()).hash(state);
    }
}

/// Says of which kind it is.
impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.by)?;
        if self.certificate.is_some() { f.write_str(" with a certificate") } else { Ok(()) }
    }
}

/// Says of which kind it is.
impl fmt::Debug for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key(_) => "key",
            Self::Token(_) => "token",
            Self::Certificate => "certificate",
            Self::User(_) => "user",
            Self::Nothing => "nothing",
        })
    }
}
