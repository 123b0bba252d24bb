use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};

use super::*;
use crate::config::JwtKeys;
use crate::kernel::clock::Clock;
use test_support::tokens::{Signer, published};

/// Some day in 2026, in seconds.
const NOW: u64 = 1_795_000_000;
const ISSUER: &str = "https://kubernetes.default.svc";
const SUBJECT: &str = "system:serviceaccount:prod:billing";

fn claims() -> Value {
    json!({ "iss": ISSUER, "sub": SUBJECT, "aud": ["rtm-gateway"], "exp": NOW + 3600, "nbf": NOW - 10, "iat": NOW - 10 })
}

fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    match value.into() {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

fn tokens_by(signers: &[&Signer], algorithms: &[JwtAlgorithm]) -> Tokens {
    let config = config::Jwt {
        issuer: ISSUER.into(),
        audience: vec!["rtm-gateway".into(), "https://gateway".into()],
        keys: JwtKeys::File("unused".into()),
        algorithms: algorithms.to_vec(),
        leeway: Duration::from_secs(30),
    };
    let client = config::Client {
        jwt_subject: vec![SUBJECT.into()],
        ..config::Client::named(ClientName::parse("billing").unwrap(), Vec::new())
    };
    let set = KeySet::parse(published(signers).as_bytes()).unwrap();
    let keys = Keys::fixed(set, Clock::anchored(UNIX_EPOCH + Duration::from_secs(NOW)));
    Tokens::new(&config, &[client], Arc::new(keys), Metrics::new())
}

async fn verdict(tokens: &Tokens, token: &str) -> Result<String, Fault> {
    tokens.verify(token, UnixMillis(NOW * 1000)).await.map(|(name, _, _)| name.to_string())
}

/// A token signed by a key that is trusted, and who trusts it.
struct Honest {
    signer: Signer,
    tokens: Tokens,
}

impl Honest {
    fn new() -> Self {
        let signer = Signer::p256("k1");
        let tokens = tokens_by(&[&signer], &JwtAlgorithm::ALL);
        Self { signer, tokens }
    }

    async fn says(&self, token: &str) -> Result<String, Fault> {
        verdict(&self.tokens, token).await
    }

    /// Signed well, with this header and these claims as written.
    async fn signed(&self, header: &str, claims: &str) -> Result<String, Fault> {
        self.says(&self.signer.token(header, claims, "ES256")).await
    }

    async fn claiming(&self, claims: Value) -> Result<String, Fault> {
        self.says(&self.signer.honest("ES256", &claims)).await
    }
}

const HEADER: &str = r#"{"alg":"ES256","kid":"k1"}"#;

#[tokio::test]
async fn each_algorithm_is_verified_by_a_key_of_its_kind_and_only_when_it_is_listed() {
    let (rsa, p256, p384, ed) = (Signer::rsa("r"), Signer::p256("p"), Signer::p384("q"), Signer::ed25519("e"));
    let all = tokens_by(&[&rsa, &p256, &p384, &ed], &JwtAlgorithm::ALL);
    for (signer, algorithms) in [
        (&rsa, &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"][..]),
        (&p256, &["ES256"]),
        (&p384, &["ES384"]),
        (&ed, &["EdDSA"]),
    ] {
        for algorithm in algorithms {
            let token = signer.honest(algorithm, &claims());
            assert_eq!(verdict(&all, &token).await.as_deref(), Ok("billing"), "{algorithm}");
            let others: Vec<_> = JwtAlgorithm::ALL.into_iter().filter(|alg| alg.as_str() != *algorithm).collect();
            let without = tokens_by(&[&rsa, &p256, &p384, &ed], &others);
            assert_eq!(verdict(&without, &token).await, Err(Fault::Algorithm), "{algorithm}");
        }
    }
    // A key of one kind is not asked to check a signature of another.
    for (signer, alg) in [(&rsa, "ES256"), (&p256, "ES384"), (&p256, "EdDSA"), (&ed, "ES256"), (&p384, "ES256")] {
        let header = json!({ "alg": alg, "kid": signer.kid }).to_string();
        let token = signer.token(&header, &claims().to_string(), alg);
        assert_eq!(verdict(&all, &token).await, Err(Fault::UnknownKey), "{} {alg}", signer.kid);
    }
}

#[tokio::test]
async fn unsigned_tokens_and_tokens_signed_with_the_public_key_are_nobodys() {
    let rsa = Signer::rsa("r");
    let tokens = tokens_by(&[&rsa], &JwtAlgorithm::ALL);
    let body = URL_SAFE_NO_PAD.encode(claims().to_string());
    for alg in ["none", "None", "NONE", "nOnE", "", " none", "HS256", "hs256", "rs256", "RS256 ", "RS1"] {
        let header = URL_SAFE_NO_PAD.encode(json!({ "alg": alg, "kid": "r" }).to_string());
        for signature in ["", "AAAA"] {
            let token = format!("{header}.{body}.{signature}");
            assert_eq!(verdict(&tokens, &token).await, Err(Fault::Algorithm), "{alg}");
        }
    }
    // The public key, as DER and as PEM, as the secret of an HMAC.
    let der = rsa.public_der();
    let lines = base64::engine::general_purpose::STANDARD.encode(&der);
    let pem = format!("-----BEGIN RSA PUBLIC KEY-----\n{lines}\n-----END RSA PUBLIC KEY-----\n");
    for secret in [der.as_slice(), pem.as_bytes(), rsa.jwk().to_string().as_bytes()] {
        for (claimed, expected) in [("HS256", Fault::Algorithm), ("RS256", Fault::Signature)] {
            let header = URL_SAFE_NO_PAD.encode(json!({ "alg": claimed, "kid": "r" }).to_string());
            let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret).unwrap();
            mac.update(format!("{header}.{body}").as_bytes());
            let token = format!("{header}.{body}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()));
            assert_eq!(verdict(&tokens, &token).await, Err(expected), "{claimed}");
        }
    }
    // An algorithm that is no text, is missing, or is there twice.
    for header in [r#"{"alg":null}"#, "{}", r#"{"alg":["ES256"]}"#, r#"{"alg":"none","alg":"RS256"}"#] {
        let token = rsa.token(header, &claims().to_string(), "RS256");
        assert_eq!(verdict(&tokens, &token).await, Err(Fault::Malformed), "{header}");
    }
}

#[tokio::test]
async fn a_key_that_a_token_brings_along_is_not_looked_at() {
    let (honest, mallory) = (Honest::new(), Signer::p256("k1"));
    let jwk = mallory.jwk();
    for header in [
        json!({ "alg": "ES256", "kid": "k1", "jwk": jwk }),
        json!({ "alg": "ES256", "kid": "k1", "jku": "http://127.0.0.1:1/keys" }),
        json!({ "alg": "ES256", "kid": "k1", "x5u": "http://127.0.0.1:1/cert", "x5c": ["AAAA"] }),
    ] {
        let forged = mallory.token(&header.to_string(), &claims().to_string(), "ES256");
        assert_eq!(honest.says(&forged).await, Err(Fault::Signature), "{header}");
        // Nor does it disturb where the signature is good.
        assert!(honest.signed(&header.to_string(), &claims().to_string()).await.is_ok(), "{header}");
    }
    for kid in ["k2", "", "k1 ", "../../dev/null", "k1' UNION SELECT 'x", "K1", "\u{0}", "k1\u{0}"] {
        let header = json!({ "alg": "ES256", "kid": kid, "jwk": jwk }).to_string();
        assert_eq!(honest.signed(&header, &claims().to_string()).await, Err(Fault::UnknownKey), "{kid:?}");
    }
    for header in [
        r#"{"alg":"ES256","kid":"k2","kid":"k1"}"#,
        r#"{"alg":"ES256","kid":1}"#,
        r#"{"alg":"ES256","kid":"k1","k\u0069d":"k1"}"#,
    ] {
        assert_eq!(honest.signed(header, &claims().to_string()).await, Err(Fault::Malformed), "{header}");
    }
}

#[tokio::test]
async fn a_signature_of_nothing_signs_nothing() {
    let honest = Honest::new();
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(claims().to_string()));
    let order = "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551";
    let order: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&order[2 * i..2 * i + 2], 16).unwrap()).collect();
    let good = honest.signer.signature("ES256", signed.as_bytes());
    for signature in [
        vec![0; 64], // "psychic": r = s = 0
        [order.clone(), order.clone()].concat(),
        [good[..32].to_vec(), vec![0; 32]].concat(),
        Vec::new(),
        good[..63].to_vec(),
        [good.as_slice(), &[0]].concat(),
        // DER, as TLS writes it, and 96 bytes, as P-384 does.
        [&[0x30, 0x44, 0x02, 0x20][..], &good[..32], &[0x02, 0x20], &good[32..]].concat(),
        vec![0; 96],
    ] {
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&signature));
        assert_eq!(honest.says(&token).await, Err(Fault::Signature), "{signature:02x?}");
    }
    // Signed by the same key, but something else.
    let other = honest.signer.signature("ES256", b"something else");
    assert_eq!(honest.says(&format!("{signed}.{}", URL_SAFE_NO_PAD.encode(other))).await, Err(Fault::Signature));
}

#[tokio::test]
async fn there_is_one_way_to_write_a_token() {
    let honest = Honest::new();
    let token = honest.signer.honest("ES256", &claims());
    assert!(honest.says(&token).await.is_ok());
    let parts: Vec<&str> = token.split('.').collect();
    let [header, body, signature] = parts[..] else { panic!() };
    // 64 bytes end in a character of which four bits are of no use: one of 16 is canonical.
    let last = signature.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let next = alphabet.chars().nth(alphabet.find(last).unwrap() + 1).unwrap();
    let bent = format!("{}{next}", &signature[..signature.len() - 1]);
    for (wrong, why) in [
        (format!("{token}="), "padding"),
        (format!("{header}.{body}.{signature}=="), "padding"),
        (format!("{}.{body}.{signature}", URL_SAFE.encode(r#"{"alg":"ES256","kid":"k"}"#)), "padding of the header"),
        (format!("{header}.{body}.{bent}"), "bits that should be zero"),
        (format!("{token}\n"), "a line break"),
        (format!("{token}.AAAA"), "a fourth part"),
        (format!("{header}.{body} .{signature}"), "a space"),
        (format!("{header}..{signature}"), "no claims"),
        (format!("{header}.{body}.+/+/"), "the other base64"),
    ] {
        assert_eq!(honest.says(&wrong).await, Err(Fault::Malformed), "{why}");
    }
    // One character more is one byte more.
    assert_eq!(honest.says(&format!("{token}A")).await, Err(Fault::Signature));
    let object = claims().to_string();
    for (header, claims) in [
        (HEADER, "[]"),
        (HEADER, "\"text\""),
        (HEADER, ""),
        (HEADER, &format!("{object} {object}")),
        (HEADER, &format!("{object}x")),
        (HEADER, &format!(" {object}")),
        (r#"["ES256","k1",null,null,null,null,null,null]"#, &object),
    ] {
        assert_eq!(honest.signed(header, claims).await, Err(Fault::Malformed), "{header} {claims}");
    }
    for strange in [
        "\"crit\":[\"exp\"]",
        "\"crit\":[]",
        "\"b64\":true",
        "\"zip\":\"DEF\"",
        "\"enc\":\"A128GCM\"",
        "\"cty\":\"JWT\"",
        "\"typ\":\"logout+jwt\"",
        "\"typ\":\"secevent+jwt\"",
        "\"typ\":\"\"",
    ] {
        let header = format!(r#"{{"alg":"ES256","kid":"k1",{strange}}}"#);
        assert_eq!(honest.signed(&header, &object).await, Err(Fault::Unsupported), "{strange}");
    }
    for usual in ["JWT", "jwt", "at+jwt", "application/at+jwt", "JOSE"] {
        let header = format!(r#"{{"alg":"ES256","kid":"k1","typ":"{usual}"}}"#);
        assert!(honest.signed(&header, &object).await.is_ok(), "{usual}");
    }
    let long = with("filler", "x".repeat(MAX_TOKEN));
    assert_eq!(honest.claiming(long).await, Err(Fault::TooLong));
}

#[tokio::test]
async fn a_token_of_another_issuer_or_for_another_audience_opens_nothing() {
    let honest = Honest::new();
    for iss in
        [json!(null), json!(""), json!("https://kubernetes.default.svc/"), json!("HTTPS://kubernetes.default.svc")]
    {
        assert_eq!(honest.claiming(with("iss", iss.clone())).await, Err(Fault::Issuer), "{iss}");
    }
    for aud in [
        json!(null),
        json!(""),
        json!([]),
        json!("rtm-gateway2"),
        json!(["other", "rtm-gatewa"]),
        json!("RTM-gateway"),
        json!(["rtm-gateway, other"]),
    ] {
        assert_eq!(honest.claiming(with("aud", aud.clone())).await, Err(Fault::Audience), "{aud}");
    }
    for aud in [json!("rtm-gateway"), json!("https://gateway"), json!(["other", "rtm-gateway"])] {
        assert_eq!(honest.claiming(with("aud", aud.clone())).await.as_deref(), Ok("billing"), "{aud}");
    }
    for (name, value) in [
        ("aud", json!([["rtm-gateway"]])),
        ("aud", json!({})),
        ("iss", json!([ISSUER])),
        ("sub", json!(7)),
        ("sub", json!(null)),
    ] {
        assert_eq!(honest.claiming(with(name, value.clone())).await, Err(Fault::Malformed), "{name} {value}");
    }
    for sub in
        ["", "system:serviceaccount:prod:billing2", "system:serviceaccount:prod", "SYSTEM:serviceaccount:prod:billing"]
    {
        assert_eq!(honest.claiming(with("sub", sub)).await, Err(Fault::UnknownSubject), "{sub}");
    }
    let object = claims().to_string();
    for twice in [format!(r#"{{"sub":"x",{}"#, &object[1..]), format!(r#"{{"\u0065xp":1,{}"#, &object[1..])] {
        assert_eq!(honest.signed(HEADER, &twice).await, Err(Fault::Malformed), "{twice}");
    }
}

#[tokio::test]
async fn a_token_is_good_from_nbf_until_exp_with_leeway_on_both_sides() {
    let honest = Honest::new();
    for (name, value, expected) in [
        ("exp", json!(null), Err(Fault::Expired)),
        ("exp", json!(NOW), Ok(())), // within the leeway of 30 s
        ("exp", json!(NOW - 29), Ok(())),
        ("exp", json!(NOW - 30), Err(Fault::Expired)),
        ("exp", json!(0), Err(Fault::Expired)),
        ("exp", json!(NOW as f64 - 29.5), Ok(())),
        ("exp", json!(-1), Err(Fault::Malformed)),
        ("exp", json!(NOW * 1000), Err(Fault::Malformed)), // milliseconds
        ("exp", json!(1e300), Err(Fault::Malformed)),
        ("exp", json!((NOW + 1).to_string()), Err(Fault::Malformed)),
        ("nbf", json!(NOW + 30), Ok(())),
        ("nbf", json!(NOW + 31), Err(Fault::NotYet)),
        ("nbf", json!(null), Ok(())),
        ("iat", json!(NOW + 31), Err(Fault::NotYet)),
        ("iat", json!(null), Ok(())),
        ("iat", json!(true), Err(Fault::Malformed)),
    ] {
        let verdict = honest.claiming(with(name, value.clone())).await.map(drop);
        assert_eq!(verdict, expected, "{name} {value}");
    }
}

#[tokio::test]
async fn what_was_verified_before_is_judged_by_the_clock_and_the_keys_again() {
    let honest = Honest::new();
    let token = honest.signer.honest("ES256", &with("exp", NOW + 60));
    let at = |seconds: u64| UnixMillis((NOW + seconds) * 1000);
    let how = |result: Result<(&ClientName, Arc<Token>, &'static str), Fault>| result.map(|(.., how)| how);
    assert_eq!(how(honest.tokens.verify(&token, at(0)).await), Ok("verified"));
    assert_eq!(how(honest.tokens.verify(&token, at(1)).await), Ok("seen"));
    assert_eq!(how(honest.tokens.verify(&token, at(89)).await), Ok("seen"));
    assert_eq!(how(honest.tokens.verify(&token, at(90)).await), Err(Fault::Expired));
    // A token that differs in its last bit is another token.
    let mut bent = token.into_bytes();
    let last = bent.len() - 2;
    bent[last] = if bent[last] == b'A' { b'B' } else { b'A' };
    let bent = String::from_utf8(bent).unwrap();
    assert_eq!(how(honest.tokens.verify(&bent, at(1)).await), Err(Fault::Signature));
}

#[test]
fn what_is_a_token_and_what_is_a_key_is_told_by_its_form() {
    for token in ["eyJhbGciOiJub25lIn0.e30.", "e30.e30.AAAA", "eyJ.x.y", "ew.=.="] {
        assert!(is_token(token), "{token}");
    }
    for key in ["", "key", "a.b.c", "eyJ.b", "eyJ.b.c.d.e", "e y.b.c", "eyJ=.b.c", "rtm_0123456789"] {
        assert!(!is_token(key), "{key}");
    }
}
