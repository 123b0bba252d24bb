//! An issuer's keys: made, published as a JWK set, and used to sign whatever a test wants signed.

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A key and its name.
pub struct Signer {
    pub kid: &'static str,
    pair: Pair,
}

enum Pair {
    Rsa(&'static RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// Made once: it takes long.
static RSA: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());

impl Signer {
    pub fn rsa(kid: &'static str) -> Self {
        Self { kid, pair: Pair::Rsa(&RSA) }
    }

    pub fn p256(kid: &'static str) -> Self {
        Self { kid, pair: Pair::P256(EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()) }
    }

    pub fn p384(kid: &'static str) -> Self {
        Self { kid, pair: Pair::P384(EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap()) }
    }

    pub fn ed25519(kid: &'static str) -> Self {
        Self { kid, pair: Pair::Ed25519(Ed25519KeyPair::generate().unwrap()) }
    }

    /// Its public key, as the issuer publishes it.
    pub fn jwk(&self) -> Value {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let ec = |pair: &EcdsaKeyPair, crv: &str| {
            let point = &pair.public_key().as_ref()[1..];
            let (x, y) = point.split_at(point.len() / 2);
            json!({ "kty": "EC", "crv": crv, "x": b64(x), "y": b64(y) })
        };
        let mut jwk = match &self.pair {
            Pair::Rsa(_) => {
                let (n, e) = self.rsa_components();
                json!({ "kty": "RSA", "n": b64(&n), "e": b64(&e) })
            }
            Pair::P256(pair) => ec(pair, "P-256"),
            Pair::P384(pair) => ec(pair, "P-384"),
            Pair::Ed25519(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref()) }),
        };
        jwk["kid"] = self.kid.into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// The public key's DER (PKCS #1 or a raw point): what an attacker would use as an HMAC secret.
    pub fn public_der(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Pair::P256(pair) | Pair::P384(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    fn rsa_components(&self) -> (Vec<u8>, Vec<u8>) {
        // SEQUENCE { INTEGER n, INTEGER e }, lengths of n in two bytes: 30 82 LL LL 02 82 LL LL 00 n… 02 03 e…
        let der = self.public_der();
        let length = usize::from(der[6]) << 8 | usize::from(der[7]);
        let (n, e) = der[8..].split_at(length);
        (n[1..].to_vec(), e[2..].to_vec())
    }

    /// Signs these bytes by an algorithm, whatever the key is usually used for.
    pub fn signature(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let how: &'static dyn signature::RsaEncoding = match alg {
                    "RS256" => &signature::RSA_PKCS1_SHA256,
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    _ => &signature::RSA_PSS_SHA512,
                };
                let mut made = vec![0; pair.public_modulus_len()];
                pair.sign(how, &random, message, &mut made).unwrap();
                made
            }
            Pair::P256(pair) | Pair::P384(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// A token with this header and these claims, as they are written.
    pub fn token(&self, header: &str, claims: &str, alg: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.signature(alg, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A token as an honest issuer makes it.
    pub fn honest(&self, alg: &str, claims: &Value) -> String {
        self.token(&json!({ "alg": alg, "kid": self.kid }).to_string(), &claims.to_string(), alg)
    }
}

/// The document that publishes these keys.
pub fn published(signers: &[&Signer]) -> String {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() }).to_string()
}
