//! Tokens that were verified before: a service shows the same one with each request until it expires.
//!
//! Invariants: what is remembered holds for the very set of keys that verified it, so a key that the issuer takes back
//! takes its tokens along at once; and it is judged by the clock each time, so it never outlives its token. Only
//! digests and names are kept, no tokens. Bounded, in what they take too: the least used go.
//!
//! Worth it: docs/identity.md has the figures.

use std::sync::{Arc, Weak};

use sha2::{Digest as _, Sha256};

use super::claims::Life;
use crate::kernel::proof::Token;
use crate::request::jwks::set::KeySet;

/// Tokens that are remembered: some 2 MB. Fat ones count for several.
const CAPACITY: u64 = 10_000;

/// Bytes that an ordinary token's names take.
const ORDINARY: usize = 512;

/// The SHA-256 of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    pub(super) fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }

    pub(super) fn bytes(self) -> [u8; 32] {
        self.0
    }
}

/// What is remembered of a token.
#[derive(Clone, Debug)]
struct VerifiedToken {
    /// Weak: the set goes when it is replaced, but its place is not given to another while this is here.
    set: Weak<KeySet>,
    token: Arc<Token>,
    life: Life,
}

impl VerifiedToken {
    fn weight(&self) -> u32 {
        let names = [&self.token.issuer, &self.token.subject].into_iter().chain(&self.token.audience);
        // Each with what points to it and counts it.
        let bytes: usize = names.map(|name| name.len() + 4 * size_of::<usize>()).sum();
        u32::try_from(1 + bytes / ORDINARY).unwrap_or(u32::MAX)
    }
}

/// The tokens.
#[derive(Debug)]
pub(super) struct VerifiedTokens(moka::sync::Cache<Digest, VerifiedToken>);

impl Default for VerifiedTokens {
    fn default() -> Self {
        Self(
            moka::sync::Cache::builder()
                .max_capacity(CAPACITY)
                .weigher(|_, entry: &VerifiedToken| entry.weight())
                .build(),
        )
    }
}

impl VerifiedTokens {
    /// Whose a token is, and when it is good, if a key of this set signed it.
    pub(super) fn find(&self, digest: &Digest, set: &Arc<KeySet>) -> Option<(Arc<Token>, Life)> {
        let entry = self.0.get(digest)?;
        std::ptr::eq(entry.set.as_ptr(), Arc::as_ptr(set)).then_some((entry.token, entry.life))
    }

    pub(super) fn remember(&self, digest: Digest, set: &Arc<KeySet>, token: Arc<Token>, life: Life) {
        self.0.insert(digest, VerifiedToken { set: Arc::downgrade(set), token, life });
    }
}
