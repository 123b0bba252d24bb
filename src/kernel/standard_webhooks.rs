//! Signatures by the Standard Webhooks specification (1.0.0, github.com/standard-webhooks/standard-webhooks): the keys
//! as they are written down, and what is signed.
//!
//! Invariants: a key is of one scheme, which its prefix names; what its text says beyond that is refused, not guessed.
//! What is signed is `{id}.{timestamp}.{body}`, so an id must hold no full stop; ours cannot. Keys are wiped when
//! dropped and cannot be printed.
//!
//! | prefix | key | signature |
//! | --- | --- | --- |
//! | `whsec_` | base64 of 24 to 64 random bytes | `v1,` and base64 of HMAC-SHA256 |
//! | `whsk_` | base64 of an ed25519 seed (32 bytes), or of seed and public key (64) | `v1a,` and base64 of ed25519 |

use std::fmt;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::kernel::secret::Secret;

/// A key that signs.
pub struct Key(Scheme);

enum Scheme {
    Symmetric(Zeroizing<Vec<u8>>),
    Asymmetric(Box<Ed25519KeyPair>),
}

/// Text that is no key. Says nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    #[error("begins with neither whsec_ nor whsk_")]
    Prefix,
    #[error("is not base64 after its prefix")]
    Base64,
    /// Too short to be safe, or longer than the specification allows.
    #[error("must hold 24 to 64 bytes after whsec_")]
    Length,
    #[error("must hold an ed25519 key after whsk_: the seed of 32 bytes, or seed and public key")]
    NoKeyPair,
}

impl Key {
    /// Reads a key.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &Secret) -> Result<Self, BadKey> {
        let text = text.expose();
        if let Some(key) = text.strip_prefix("whsec_") {
            let key = decode(key)?;
            let fits = LEAST_SYMMETRIC <= key.len() && key.len() <= MAX_SYMMETRIC;
            return fits.then_some(Self(Scheme::Symmetric(key))).ok_or(BadKey::Length);
        }
        let key = decode(text.strip_prefix("whsk_").ok_or(BadKey::Prefix)?)?;
        // The seed alone, or with its public half behind it: makers of keys write either.
        let pair = match key.split_at_checked(SEED) {
            Some((seed, [])) => Ed25519KeyPair::from_seed_unchecked(seed),
            Some((seed, public)) => Ed25519KeyPair::from_seed_and_public_key(seed, public),
            None => return Err(BadKey::NoKeyPair),
        };
        Ok(Self(Scheme::Asymmetric(Box::new(pair.map_err(|_| BadKey::NoKeyPair)?))))
    }

    /// The signature as it stands in `webhook-signature`.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        // What is signed is not only the body: a signature must not be good for another message, nor for all time.
        let head = format!("{id}.{timestamp}.");
        match &self.0 {
            Scheme::Symmetric(key) => {
                // HMAC takes a key of any length.
                let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
                mac.update(head.as_bytes());
                mac.update(body);
                format!("v1,{}", general_purpose::STANDARD.encode(mac.finalize().into_bytes()))
            }
            Scheme::Asymmetric(pair) => {
                let signature = pair.sign(&[head.as_bytes(), body].concat());
                format!("v1a,{}", general_purpose::STANDARD.encode(signature))
            }
        }
    }

    /// The public half as receivers are given it, `whpk_…`; `None` for a symmetric key.
    #[must_use]
    pub fn public(&self) -> Option<String> {
        match &self.0 {
            Scheme::Symmetric(_) => None,
            Scheme::Asymmetric(pair) => {
                Some(format!("whpk_{}", general_purpose::STANDARD.encode(pair.public_key().as_ref())))
            }
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The value of `webhook-signature`: one signature of each key, in their order, with spaces between.
#[must_use]
pub fn signatures(keys: &[Key], id: &str, timestamp: u64, body: &[u8]) -> String {
    keys.iter().map(|key| key.sign(id, timestamp, body)).collect::<Vec<_>>().join(" ")
}

/// Padding is optional: the specification's own libraries differ on it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn decode(text: &str) -> Result<Zeroizing<Vec<u8>>, BadKey> {
    BASE64.decode(text).map(Zeroizing::new).map_err(|_| BadKey::Base64)
}

/// Bytes of a symmetric key, by the specification.
const LEAST_SYMMETRIC: usize = 24;
const MAX_SYMMETRIC: usize = 64;

/// Bytes of an ed25519 seed.
const SEED: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the specification's own libraries: id, time and body of their test vectors.
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIME: u64 = 1_614_265_330;
    const BODY: &[u8] = b"{\"test\": 2432232314}";

    fn key(text: &str) -> Result<Key, BadKey> {
        Key::parse(&Secret::new(text.to_owned()))
    }

    #[test]
    fn signatures_are_those_of_the_specifications_own_libraries() {
        let symmetric = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let asymmetric = key("whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk=").unwrap();
        let both = signatures(&[symmetric, asymmetric], ID, TIME, BODY);
        assert_eq!(
            both,
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= \
             v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag=="
        );
    }

    #[test]
    fn an_ed25519_key_may_stand_with_its_public_half_but_not_with_another() {
        let seed = *b"TESTSIGNINGKEYDONOTUSETHISFORANY";
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        let public = pair.public_key().as_ref();
        let written = |public: &[u8]| format!("whsk_{}", general_purpose::STANDARD.encode([&seed, public].concat()));
        let whole = key(&written(public)).unwrap();
        assert_eq!(whole.sign(ID, TIME, BODY), key(&written(b"")).unwrap().sign(ID, TIME, BODY));
        assert_eq!(whole.public().unwrap(), format!("whpk_{}", general_purpose::STANDARD.encode(public)));
        assert_eq!(key(&written(&[7; 32])).unwrap_err(), BadKey::NoKeyPair);
    }

    #[test]
    fn what_is_no_key_is_refused_without_repeating_it() {
        let bytes = |n: usize| general_purpose::STANDARD.encode(vec![7; n]);
        for (text, why) in [
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(), BadKey::Prefix),
            ("whpk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(), BadKey::Prefix),
            ("whsec_not base64".to_owned(), BadKey::Base64),
            (format!("whsec_{}", bytes(23)), BadKey::Length),
            (format!("whsec_{}", bytes(65)), BadKey::Length),
            ("whsec_".to_owned(), BadKey::Length),
            (format!("whsk_{}", bytes(31)), BadKey::NoKeyPair),
            (format!("whsk_{}", bytes(33)), BadKey::NoKeyPair),
        ] {
            assert_eq!(key(&text).unwrap_err(), why, "{text}");
        }
        assert!(key(&format!("whsec_{}", bytes(32).trim_end_matches('='))).is_ok(), "padding is optional");
        assert_eq!(format!("{:?}", key(&format!("whsec_{}", bytes(32)))), "Ok(Key(..))");
    }
}
