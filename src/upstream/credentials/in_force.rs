//! Which secret is in force, and whether the vendor has taken it, told without telling the secret.
//!
//! Whoever has rotated a secret wants to know that every gateway shows the new one and that the vendor takes it. So a
//! secret is told by eight hexadecimal digits of HMAC-SHA-256 of it, the same in every gateway and at every start; the
//! key names the App ID, so that one secret has another digest at each app and no table made beforehand fits. What 32
//! bits tell of a secret that chance made is nothing; of one that can be guessed they confirm the guess. Hence:
//!
//! Invariant: of a secret of fewer than [`DIGESTED_FROM`] characters there is no digest.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;

use crate::kernel::clock::UnixMillis;
use crate::kernel::names::AppId;
use crate::kernel::secret::Secret;

/// Shorter ones can be guessed.
const DIGESTED_FROM: usize = 16;

/// A secret that was put in force, and what the vendor has said to it since.
pub(super) struct InForce {
    digest: Option<SecretDigest>,
    since: UnixMillis,
    accepted: Verdicts,
    refused: Verdicts,
}

/// How often the vendor said so, and when it did last.
#[derive(Default)]
struct Verdicts {
    count: AtomicU64,
    /// In milliseconds since 1970; 0: never.
    last: AtomicU64,
}

/// The first 32 bits of a secret's keyed digest, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SecretDigest(String);

/// Which secret an app shows, for the admin API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SecretState {
    /// Eight hexadecimal digits, the same in every gateway that shows this secret; `None` for one too short to have
    /// any.
    pub digest: Option<String>,
    /// Why there is no digest.
    pub no_digest: Option<&'static str>,
    /// When it was read and put in force.
    pub since: String,
    /// Answers of the vendor since then that took it.
    pub accepted: u64,
    /// When the last of them came.
    pub last_accepted_at: Option<String>,
    /// Answers of the vendor since then that refused it (401).
    pub refused: u64,
    /// When the last of them came.
    pub last_refused_at: Option<String>,
}

impl InForce {
    pub(super) fn new(app: &AppId, secret: &Secret, since: UnixMillis) -> Self {
        let digest = SecretDigest::of(app, secret);
        Self { digest, since, accepted: Verdicts::default(), refused: Verdicts::default() }
    }

    /// The vendor took it.
    pub(super) fn accepted(&self, now: UnixMillis) {
        self.accepted.add(now);
    }

    /// The vendor answered 401.
    pub(super) fn refused(&self, now: UnixMillis) {
        self.refused.add(now);
    }

    /// For the log: its digest, or that it has none.
    pub(super) fn name(&self) -> &str {
        self.digest.as_ref().map_or("(too short to be named)", |digest| &digest.0)
    }

    pub(super) fn state(&self) -> SecretState {
        let (accepted, last_accepted_at) = self.accepted.read();
        let (refused, last_refused_at) = self.refused.read();
        SecretState {
            digest: self.digest.as_ref().map(ToString::to_string),
            no_digest: self.digest.is_none().then_some("the secret has fewer than 16 characters"),
            since: self.since.to_string(),
            accepted,
            last_accepted_at,
            refused,
            last_refused_at,
        }
    }
}

impl Verdicts {
    fn add(&self, now: UnixMillis) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.last.store(now.0, Ordering::Relaxed);
    }

    fn read(&self) -> (u64, Option<String>) {
        let last = self.last.load(Ordering::Relaxed);
        (self.count.load(Ordering::Relaxed), (last > 0).then(|| UnixMillis(last).to_string()))
    }
}

impl SecretDigest {
    fn of(app: &AppId, secret: &Secret) -> Option<Self> {
        let secret = secret.expose();
        if secret.chars().count() < DIGESTED_FROM {
            return None;
        }
        let key = format!("rtm-gateway:{app}");
        let mut digest =
            Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length (RFC 2104)");
        digest.update(secret.as_bytes());
        let digest = digest.finalize().into_bytes();
        Some(Self(digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()))
    }
}

impl fmt::Display for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(app: &str, secret: &str) -> Option<String> {
        SecretDigest::of(&AppId::parse(app).unwrap(), &Secret::new(secret.to_owned())).map(|digest| digest.0)
    }

    /// `printf %s the-s3cret-of-the-vendor | openssl dgst -sha256 -hmac rtm-gateway:demo-app` gives the first.
    #[test]
    fn a_secret_has_the_digest_that_openssl_computes_and_another_at_another_app() {
        assert_eq!(digest("demo-app", "the-s3cret-of-the-vendor").as_deref(), Some("a72ee2cf"));
        assert_ne!(digest("other-app", "the-s3cret-of-the-vendor"), digest("demo-app", "the-s3cret-of-the-vendor"));
    }

    #[test]
    fn what_can_be_guessed_has_none() {
        assert_eq!(digest("demo-app", "fifteen-letters"), None);
        assert_eq!(digest("demo-app", "ünfzehn-zeichen"), None, "characters are counted, not bytes");
        assert!(digest("demo-app", "sixteen-letters-").is_some());
    }
}
