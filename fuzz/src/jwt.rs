//! Tokens of an issuer and its key set: what they say, and whose claims would do.
//!
//! Input: a token; also, a header and claims in JSON, a line each; also, a key set.

use rtm_gateway::config::JwtAlgorithm;
use rtm_gateway::kernel::clock::UnixMillis;
use rtm_gateway::request::identity::fuzzing::{AUDIENCE, ISSUER, LEEWAY, read};
use rtm_gateway::request::jwks::set::{KeyMatch, KeySet, MAX_KEYS};
use serde_json::Value;

/// A time in 2023, in seconds since 1970.
const NOW: u64 = 1_700_000_000;

/// Takes any bytes; panics when a promise is broken.
pub fn check(data: &[u8]) {
    let now = UnixMillis(NOW * 1000);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = read(text, now);
    }
    let (header, claims) = data.split_at(data.iter().position(|&b| b == b'\n').unwrap_or(data.len()));
    let claims = claims.get(1..).unwrap_or_default();
    let token = format!("{}.{}.AAAA", base64url(header), base64url(claims));
    let said = read(&token, now);
    // Of a member that is there twice `Value` keeps the last; where it decides, such a token is refused.
    if let (Some(said), Ok(header), Ok(claims)) = (said, value(header), value(claims)) {
        assert_eq!(header["alg"], *said.algorithm);
        assert_eq!(header["kid"].as_str(), said.key.as_deref());
        assert!(["crit", "b64", "enc", "zip", "cty"].iter().all(|name| header[*name].is_null()), "{header}");
        assert_eq!(claims["sub"], *said.subject);
        if said.will_do {
            the_claims_are_as_they_must_be(&claims);
        }
        // One character more or fewer is no token, or another text of it.
        assert!(read(&format!("{token}="), now).is_none() && read(&format!("{token}.AAAA"), now).is_none());
    }
    key_set(data);
}

fn value(json: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(json)
}

fn the_claims_are_as_they_must_be(claims: &Value) {
    assert_eq!(claims["iss"], ISSUER);
    let for_us = match &claims["aud"] {
        Value::Array(all) => all.iter().any(|aud| aud == AUDIENCE),
        one => one == AUDIENCE,
    };
    assert!(for_us, "{claims}");
    let (now, leeway) = (NOW as f64, LEEWAY.as_secs_f64());
    assert!(claims["exp"].as_f64().is_some_and(|exp| now < exp + leeway), "{claims}");
    for begin in ["nbf", "iat"] {
        assert!(claims[begin].as_f64().is_none_or(|begin| begin <= now + leeway), "{claims}");
        assert!(claims[begin].is_null() || claims[begin].is_number(), "{claims}");
    }
}

fn key_set(data: &[u8]) {
    let Ok(set) = KeySet::parse(data) else { return };
    assert!(set.len() <= MAX_KEYS);
    let Ok(value) = value(data) else { return };
    let keys = value["keys"].as_array().map_or(&[][..], Vec::as_slice);
    assert_eq!(set.len() + set.ignored(), keys.len(), "{value}");
    // A secret is never taken for a public key, or HMAC with what everyone knows would pass.
    assert!(set.len() <= keys.iter().filter(|key| key["kty"] != "oct").count(), "{value}");
    for kid in set.kids() {
        assert!(keys.iter().any(|key| key["kid"] == kid), "{value}");
    }
    for algorithm in [JwtAlgorithm::RS256, JwtAlgorithm::ES256, JwtAlgorithm::EdDSA] {
        assert!(!set.is_empty() || !matches!(set.find(None, algorithm), KeyMatch::One(..)), "{value}");
    }
}

fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().chain([0; 2].iter()).take(3).fold(0usize, |bits, byte| bits << 8 | usize::from(*byte));
        text.extend((0..=three.len()).map(|n| char::from(LETTERS[bits >> (18 - 6 * n) & 63])));
    }
    text
}
