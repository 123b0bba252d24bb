//! An issuer's key set (JWK set, RFC 7517) as what it can be used for: signatures to check, each by one algorithm.
//!
//! Invariants: a key checks only signatures of its own kind, and of its own `alg` and `use` where it says them; a
//! symmetric key is never taken, whatever it says. A key that cannot be used is left out and counted, one that is
//! malformed too, as RFC 7517, 5 wants it; a set that is not a set, or holds more keys than any issuer has, is refused
//! whole. A key is parsed once, when it comes.

use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::config::JwtAlgorithm;

/// Keys of one set. The largest issuers publish a dozen.
pub const MAX_KEYS: usize = 100;

/// A key set in use.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<VerificationKey>,
    ignored: usize,
}

/// One key: its name, and what it can check.
#[derive(Debug)]
struct VerificationKey {
    kid: Option<String>,
    checks: Vec<(JwtAlgorithm, ParsedPublicKey)>,
    /// Tells it from every other, one of the same name too.
    digest: [u8; 32],
}

/// Which key a token means.
#[derive(Debug)]
pub enum KeyMatch<'a> {
    /// This one, and its digest.
    One(&'a ParsedPublicKey, [u8; 32]),
    /// None of the set.
    Nothing,
    /// More than one: the token has to say which, or the set has to give them different names.
    Several,
}

/// Why there is no key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSet {
    /// No JSON, or not `{"keys": […]}`.
    #[error("not a JWK set: no JSON object with \"keys\": […]")]
    NotASet,
    /// More than [`MAX_KEYS`].
    #[error("a JWK set of {0} keys; at most {MAX_KEYS} are taken")]
    TooManyKeys(usize),
}

#[derive(Deserialize)]
struct RawSet<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// The members that matter here. Given twice, they make the key malformed.
#[derive(Deserialize)]
struct RawKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a document.
    ///
    /// # Errors
    /// When it is no key set; a key that cannot be used is none.
    pub fn parse(document: &[u8]) -> Result<Self, BadSet> {
        if !document.trim_ascii_start().starts_with(b"{") {
            // A derived reader would take a list for an object.
            return Err(BadSet::NotASet);
        }
        let raw: RawSet<'_> = serde_json::from_slice(document).map_err(|_| BadSet::NotASet)?;
        if raw.keys.len() > MAX_KEYS {
            return Err(BadSet::TooManyKeys(raw.keys.len()));
        }
        let mut set = Self::default();
        for key in raw.keys {
            let object = Some(key.get()).filter(|text| text.starts_with('{'));
            match object.and_then(|text| serde_json::from_str::<RawKey>(text).ok()).and_then(VerificationKey::of) {
                Some(key) => set.keys.push(key),
                None => set.ignored += 1,
            }
        }
        Ok(set)
    }

    /// The key that a token signed by `algorithm` means: the one of its name. A token that names none means the only
    /// key that could have signed it so.
    #[must_use]
    pub fn find(&self, kid: Option<&str>, algorithm: JwtAlgorithm) -> KeyMatch<'_> {
        let named = self.keys.iter().filter(|key| kid.is_none() || key.kid.as_deref() == kid);
        let able = |key: &'_ VerificationKey| key.checks.iter().any(|(alg, _)| *alg == algorithm);
        let mut able = named.filter(|key| able(key));
        match (able.next(), able.next()) {
            (Some(key), None) => match key.checks.iter().find(|(alg, _)| *alg == algorithm) {
                Some((_, check)) => KeyMatch::One(check, key.digest),
                None => KeyMatch::Nothing,
            },
            (None, _) => KeyMatch::Nothing,
            (Some(_), Some(_)) => KeyMatch::Several,
        }
    }

    /// Whether a key that a token was checked by is still here, for that algorithm.
    #[must_use]
    pub fn holds(&self, digest: &[u8; 32], algorithm: &str) -> bool {
        let checks = |key: &VerificationKey| key.checks.iter().any(|(alg, _)| alg.as_str() == algorithm);
        self.keys.iter().any(|key| key.digest == *digest && checks(key))
    }

    /// How many keys can be used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key can be used.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many keys were left out: symmetric, for encryption, too weak, unknown, malformed.
    #[must_use]
    pub fn ignored(&self) -> usize {
        self.ignored
    }

    /// The names of the keys that can be used. Names are no secrets.
    pub fn kids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().filter_map(|key| key.kid.as_deref())
    }
}

impl VerificationKey {
    fn of(raw: RawKey) -> Option<Self> {
        let is_for_signatures = raw.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && raw.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !is_for_signatures {
            return None;
        }
        let mut checks = match (raw.kty.as_str(), raw.crv.as_deref()) {
            ("RSA", None) => rsa(raw.n?, raw.e?)?,
            ("EC", Some("P-256")) => {
                let point = point(&raw.x?, &raw.y?, 32)?;
                let key = ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).ok()?;
                vec![(JwtAlgorithm::ES256, key)]
            }
            ("EC", Some("P-384")) => {
                let point = point(&raw.x?, &raw.y?, 48)?;
                let key = ParsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point).ok()?;
                vec![(JwtAlgorithm::ES384, key)]
            }
            ("OKP", Some("Ed25519")) => {
                let x = bytes(&raw.x?).filter(|x| x.len() == 32)?;
                vec![(JwtAlgorithm::EdDSA, ParsedPublicKey::new(&signature::ED25519, x).ok()?)]
            }
            // "oct" above all: whoever may check could sign.
            _ => return None,
        };
        if let Some(alg) = &raw.alg {
            checks.retain(|(can, _)| can.as_str() == alg || (alg == "Ed25519" && *can == JwtAlgorithm::EdDSA));
        }
        let mut digest = Sha256::new();
        digest.update([u8::from(raw.kid.is_some())]);
        let name = raw.kid.as_deref().unwrap_or_default();
        digest.update(name.len().to_be_bytes());
        digest.update(name);
        digest.update(checks.first()?.1.as_ref());
        Some(Self { kid: raw.kid, checks, digest: digest.finalize().into() })
    }
}

/// Keys of 2048 to 8192 bits, as the library takes them; it refuses others at each signature, so they are left out
/// here.
fn rsa(n: String, e: String) -> Option<Vec<(JwtAlgorithm, ParsedPublicKey)>> {
    let (n, e) = (bytes(&n)?, bytes(&e)?);
    let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
    if !(2048..=8192).contains(&bits) {
        return None;
    }
    let components = RsaPublicKeyComponents { n, e };
    let all: [(JwtAlgorithm, &'static RsaParameters); 6] = [
        (JwtAlgorithm::RS256, &signature::RSA_PKCS1_2048_8192_SHA256),
        (JwtAlgorithm::RS384, &signature::RSA_PKCS1_2048_8192_SHA384),
        (JwtAlgorithm::RS512, &signature::RSA_PKCS1_2048_8192_SHA512),
        (JwtAlgorithm::PS256, &signature::RSA_PSS_2048_8192_SHA256),
        (JwtAlgorithm::PS384, &signature::RSA_PSS_2048_8192_SHA384),
        (JwtAlgorithm::PS512, &signature::RSA_PSS_2048_8192_SHA512),
    ];
    all.into_iter().map(|(alg, how)| Some((alg, components.to_parsed_public_key(how).ok()?))).collect()
}

/// An uncompressed point (SEC 1, 2.3.3). RFC 7518, 6.2.1.2: each coordinate has the full length of the curve.
fn point(x: &str, y: &str, length: usize) -> Option<Vec<u8>> {
    let whole = |text: &str| bytes(text).filter(|bytes| bytes.len() == length);
    Some([vec![4], whole(x)?, whole(y)?].concat())
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests;
