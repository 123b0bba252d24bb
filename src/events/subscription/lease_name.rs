//! [`LeaseName`]: what a reader shows to acknowledge, extend or give back what it was leased.
//!
//! Invariant: 128 random bits, so that nobody meets another's by guessing. Its text is 22 characters of A-Z a-z 0-9 -
//! _.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The name of a lease.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseName(u128);

/// Text that is not the name of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a lease")]
pub struct NotALease;

impl LeaseName {
    /// One that nobody else has.
    pub(in crate::events) fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0.to_be_bytes()))
    }
}

impl fmt::Debug for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for LeaseName {
    type Err = NotALease;

    fn from_str(text: &str) -> Result<Self, NotALease> {
        let mut bytes = [0; 16];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(16) if text.len() == 22 => Ok(Self(u128::from_be_bytes(bytes))),
            _ => Err(NotALease),
        }
    }
}
