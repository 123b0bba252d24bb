//! Signed tokens (JWT, RFC 7519) of one configured issuer: `Authorization: Bearer TOKEN`.
//!
//! Invariants (RFC 8725 throughout):
//! - A token is believed when its signature was made by a key that the issuer publishes now, by an algorithm that the
//!   configuration lists and that this key is for; and its `iss`, `aud`, `exp`, `nbf` and `iat` are right. What a token
//!   says of keys (`jwk`, `jku`, `x5u`, `x5c`) is not read. There is no symmetric algorithm and no "none" to choose.
//! - There is one way to write a token: three parts in base64url without padding, their last bits zero, no member that
//!   matters given twice, nothing critical that we do not know. What can be read in two ways is refused.
//! - Nothing is read of what is longer than [`MAX_TOKEN`].
//! - An issuer that cannot be asked makes nobody unknown: the answer is 503, not 401.
//! - Neither the token nor what it says gets into an answer or a log; how many came to what is counted.
//!
//! | part | does |
//! | --- | --- |
//! | `compact` | the text of a token as header, claims and signature |
//! | `claims` | what it says, against what it must say |
//! | `verified_tokens` | tokens that were verified before |

mod claims;
mod compact;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod tests;
mod verified_tokens;

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{self, JwtAlgorithm};
use crate::kernel::clock::UnixMillis;
use crate::kernel::metrics::{Metrics, OutcomeLabels, outcomes_from_the_start};
use crate::kernel::names::ClientName;
use crate::kernel::proof::{self, By, Token};
use crate::request::jwks::set::{KeyMatch, KeySet};
use crate::request::jwks::{Keys, RefreshOutcome};
use crate::request::refusal::Refusal;
use claims::{Expected, Life};
use compact::{Compact, Header};
use verified_tokens::{Digest, VerifiedTokens};

use super::{AuthFault, AuthOutcome};

/// Bytes of a token. Those of Kubernetes have about 1 KiB, the fattest of directories 8.
pub(super) const MAX_TOKEN: usize = 16 << 10;

/// Knows callers by their tokens.
pub(super) struct Tokens {
    expected: Expected,
    algorithms: Vec<JwtAlgorithm>,
    subjects: HashMap<String, ClientName>,
    keys: Arc<Keys>,
    verified: VerifiedTokens,
    metrics: Metrics,
}

/// What came of a token that is not believed. Its name is what the metric says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Longer than [`MAX_TOKEN`].
    TooLong,
    /// Not written as a token is.
    Malformed,
    /// `crit`, a nested or encrypted token, or one that is made for something else.
    Unsupported,
    /// Not one of the configured algorithms.
    Algorithm,
    /// No `iss`, or somebody else's.
    Issuer,
    /// Not made for us.
    Audience,
    /// `exp` has passed, or there is none.
    Expired,
    /// `nbf` or `iat` is to come.
    NotYet,
    /// The issuer publishes no such key, or it is not clear which is meant.
    UnknownKey,
    /// The key did not sign this.
    Signature,
    /// Nobody of ours has this `sub`.
    UnknownSubject,
    /// The issuer's keys are not known now.
    NoKeys,
}

/// How a token that is believed was found good, as the metric has it.
const SEEN: &str = "seen";
const VERIFIED: &str = "verified";

impl Fault {
    const ALL: [Self; 12] = [
        Self::TooLong,
        Self::Malformed,
        Self::Unsupported,
        Self::Algorithm,
        Self::Issuer,
        Self::Audience,
        Self::Expired,
        Self::NotYet,
        Self::UnknownKey,
        Self::Signature,
        Self::UnknownSubject,
        Self::NoKeys,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::Algorithm => "algorithm",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::UnknownSubject => "unknown_subject",
            Self::NoKeys => "no_keys",
        }
    }
}

/// Whether this is meant to be a token, right or wrong, and not a key.
pub(super) fn is_token(bearer: &str) -> bool {
    let is_base64url = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let mut parts = bearer.split('.');
    let three = [parts.next(), parts.next(), parts.next()];
    let [Some(header), Some(_), Some(_)] = three else { return false };
    // The header is a JSON object, and `{` makes it begin with `e`.
    parts.next().is_none() && header.starts_with('e') && header.bytes().all(is_base64url)
}

impl Tokens {
    pub(super) fn new(config: &config::Jwt, clients: &[config::Client], keys: Arc<Keys>, metrics: Metrics) -> Self {
        let outcomes = Fault::ALL.map(Fault::as_str).into_iter().chain([SEEN, VERIFIED]);
        outcomes_from_the_start(&metrics.jwt_tokens, outcomes);
        let subjects = clients.iter().flat_map(|client| client.jwt_subject.iter().map(|sub| (sub, &client.name)));
        Self {
            expected: Expected {
                issuer: config.issuer.clone(),
                audience: config.audience.clone(),
                leeway: config.leeway,
            },
            algorithms: config.algorithms.clone(),
            subjects: subjects.map(|(sub, name)| (sub.clone(), name.clone())).collect(),
            keys,
            verified: VerifiedTokens::default(),
            metrics,
        }
    }

    /// Whose token it is. Never [`AuthOutcome::Nothing`].
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when the issuer's keys are not known.
    pub(super) async fn identify(&self, token: &str, now: UnixMillis) -> Result<AuthOutcome<'_>, Refusal> {
        let (outcome, answer) = match self.verify(token, now).await {
            Ok((name, token, how)) => (how, Ok(AuthOutcome::Known(name, By::Token(token)))),
            Err(fault @ Fault::NoKeys) => {
                let why = "the keys of the token issuer are not known now";
                (fault.as_str(), Err(Refusal::Unavailable(why.into())))
            }
            Err(fault) => {
                tracing::debug!(reason = fault.as_str(), "a caller's token is not believed");
                (fault.as_str(), Ok(AuthOutcome::Wrong(AuthFault::BadToken)))
            }
        };
        self.metrics.jwt_tokens.get_or_create(&OutcomeLabels { outcome: outcome.to_owned() }).inc();
        answer
    }

    async fn verify(&self, token: &str, now: UnixMillis) -> Result<(&ClientName, Arc<Token>, &'static str), Fault> {
        if token.len() > MAX_TOKEN {
            return Err(Fault::TooLong);
        }
        let digest = Digest::of(token);
        if let Some(set) = self.keys.current()
            && let Some((token, life)) = self.verified.find(&digest, &set)
        {
            self.expected.check_life(&life, now)?;
            return self.client(&token.subject).map(|name| (name, token, SEEN));
        }
        let parts = Compact::parse(token)?;
        let header = parts.header()?;
        let algorithm = self.algorithms.iter().find(|alg| alg.as_str() == header.alg).ok_or(Fault::Algorithm)?;
        // Before the key is looked for: what would not be believed anyway does not make us ask the issuer.
        let claims = parts.claims()?;
        self.expected.check(&claims, now)?;
        let (set, key) = self.check_signature(&parts, &header, *algorithm).await?;
        let name = self.client(&claims.sub)?;
        let life = Life::of(&claims);
        let token = Arc::new(Token {
            digest: digest.bytes(),
            issuer: self.expected.issuer.as_str().into(),
            audience: claims.audience().iter().map(|aud| aud.as_str().into()).collect(),
            subject: claims.sub.as_str().into(),
            algorithm: algorithm.as_str(),
            key,
            expires: life.end(),
        });
        self.verified.remember(digest, &set, token.clone(), life);
        Ok((name, token, VERIFIED))
    }

    /// Whether a token that was believed would still be, its time aside. `None`: that cannot be known now.
    pub(super) fn still_believes(&self, token: &Token, client: &ClientName) -> Option<bool> {
        let is_expected = *token.issuer == *self.expected.issuer
            && token.audience.iter().any(|aud| self.expected.audience.iter().any(|ours| **ours == **aud))
            && self.algorithms.iter().any(|alg| alg.as_str() == token.algorithm)
            && self.subjects.get(&*token.subject) == Some(client);
        if !is_expected {
            return Some(false);
        }
        self.keys.current().map(|set| set.holds(&token.key, token.algorithm))
    }

    /// How long a token is good by itself.
    pub(super) fn life(&self, token: &Token) -> proof::Life {
        let leeway = u64::try_from(self.expected.leeway.as_millis()).unwrap_or(u64::MAX);
        proof::Life::until(UnixMillis(token.expires.0.saturating_add(leeway)))
    }

    /// Whether the issuer's keys are known now.
    pub(super) fn has_keys(&self) -> bool {
        self.keys.current().is_some()
    }

    fn client(&self, subject: &str) -> Result<&ClientName, Fault> {
        self.subjects.get(subject).ok_or(Fault::UnknownSubject)
    }

    /// The set whose key signed it, and that key.
    async fn check_signature(
        &self,
        parts: &Compact<'_>,
        header: &Header,
        algorithm: JwtAlgorithm,
    ) -> Result<(Arc<KeySet>, [u8; 32]), Fault> {
        let try_with = |set: Option<Arc<KeySet>>| {
            let set = set.ok_or(Fault::NoKeys)?;
            let digest = match set.find(header.kid.as_deref(), algorithm) {
                KeyMatch::One(key, digest) => {
                    key.verify_sig(parts.signed(), parts.signature()).map_err(|_| Fault::Signature)?;
                    digest
                }
                KeyMatch::Nothing | KeyMatch::Several => return Err(Fault::UnknownKey),
            };
            Ok((set, digest))
        };
        let first = try_with(self.keys.current());
        match first {
            // A token without `kid` means the only key; another signature means that there is another key now, perhaps.
            Err(Fault::Signature) if header.kid.is_none() => {}
            Err(Fault::NoKeys | Fault::UnknownKey) => {}
            decided => return decided,
        }
        match self.keys.refresh().await {
            RefreshOutcome::Fresh => try_with(self.keys.current()),
            RefreshOutcome::InVain => try_with(self.keys.current()).map_err(|_| Fault::NoKeys),
        }
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("expected", &self.expected).finish_non_exhaustive()
    }
}
