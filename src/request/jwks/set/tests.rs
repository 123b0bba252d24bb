use super::*;
use serde_json::{Value, json};

/// RFC 7515, A.2 and A.3; RFC 8037, A.2.
const RSA_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-\
    SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-\
    UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
const EC_X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const EC_Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
const ED_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const CLAIMS: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

fn set(keys: &[Value]) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn rsa_key() -> Value {
    json!({ "kty": "RSA", "n": RSA_N, "e": "AQAB" })
}

fn ec_key() -> Value {
    json!({ "kty": "EC", "crv": "P-256", "x": EC_X, "y": EC_Y })
}

fn with(mut key: Value, name: &str, value: impl Into<Value>) -> Value {
    key[name] = value.into();
    key
}

fn is_found(set: &KeySet, kid: Option<&str>, algorithm: JwtAlgorithm) -> bool {
    matches!(set.find(kid, algorithm), KeyMatch::One(..))
}

#[test]
fn the_published_examples_are_verified_and_a_changed_bit_is_not() {
    let set = set(&[rsa_key(), ec_key(), json!({ "kty": "OKP", "crv": "Ed25519", "x": ED_X })]);
    for (algorithm, header, payload, signature) in [
        (
            JwtAlgorithm::RS256,
            "eyJhbGciOiJSUzI1NiJ9",
            CLAIMS,
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CU\
             Ar7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_d\
             O--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0ig\
             cN_IoypGlUPQGe77Rw",
        ),
        (
            JwtAlgorithm::ES256,
            "eyJhbGciOiJFUzI1NiJ9",
            CLAIMS,
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
        (
            JwtAlgorithm::EdDSA,
            "eyJhbGciOiJFZERTQSJ9",
            "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
    ] {
        let KeyMatch::One(key, _) = set.find(None, algorithm) else { panic!("{algorithm:?}") };
        let (signed, mut signature) = (format!("{header}.{payload}"), bytes(signature).unwrap());
        assert!(key.verify_sig(signed.as_bytes(), &signature).is_ok(), "{algorithm:?}");
        signature[7] ^= 1;
        assert!(key.verify_sig(signed.as_bytes(), &signature).is_err(), "{algorithm:?}");
    }
}

#[test]
fn a_key_checks_only_what_it_is_for() {
    let all = |key: Value| -> Vec<&str> {
        let set = set(&[key]);
        JwtAlgorithm::ALL.iter().filter(|alg| is_found(&set, None, **alg)).map(|alg| alg.as_str()).collect()
    };
    assert_eq!(all(rsa_key()), ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]);
    assert_eq!(all(with(rsa_key(), "alg", "PS384")), ["PS384"]);
    assert_eq!(all(ec_key()), ["ES256"]);
    for useless in [
        with(rsa_key(), "alg", "ES256"),
        with(rsa_key(), "alg", "HS256"),
        with(rsa_key(), "alg", "none"),
        with(rsa_key(), "alg", "RSA-OAEP"),
        with(rsa_key(), "use", "enc"),
        with(rsa_key(), "key_ops", json!(["encrypt"])),
        with(ec_key(), "alg", "ES384"),
    ] {
        assert_eq!(all(useless.clone()), [""; 0], "{useless}");
    }
    assert_eq!(all(with(with(ec_key(), "use", "sig"), "key_ops", json!(["sign", "verify"]))), ["ES256"]);
}

#[test]
fn what_is_no_public_key_for_signatures_is_left_out_and_the_others_stay() {
    let short_rsa = URL_SAFE_NO_PAD.encode([0xff; 128]);
    let zero_first = URL_SAFE_NO_PAD.encode([&[0][..], &bytes(RSA_N).unwrap()].concat());
    let useless = [
        json!({ "kty": "oct", "k": "c2VjcmV0", "alg": "HS256" }),
        json!({ "kty": "oct", "k": "c2VjcmV0", "alg": "RS256" }),
        with(rsa_key(), "n", short_rsa),
        with(rsa_key(), "n", zero_first),
        with(rsa_key(), "n", format!("{RSA_N}=")),
        with(rsa_key(), "n", ""),
        with(rsa_key(), "crv", "P-256"),
        json!({ "kty": "RSA", "e": "AQAB" }),
        with(ec_key(), "crv", "P-521"),
        with(ec_key(), "crv", "secp256k1"),
        // The right lengths of another curve, a point off the curve, a coordinate too short.
        with(ec_key(), "crv", "P-384"),
        with(ec_key(), "y", EC_X),
        with(ec_key(), "x", &EC_X[..40]),
        json!({ "kty": "OKP", "crv": "X25519", "x": ED_X }),
        json!({ "kty": "OKP", "crv": "Ed25519", "x": "AAAA" }),
        json!({ "kty": 7 }),
        json!("text"),
        json!(null),
    ];
    for key in &useless {
        let set = set(&[key.clone(), ec_key()]);
        assert_eq!((set.len(), set.ignored()), (1, 1), "{key}");
    }
    let twice = format!(r#"{{"keys":[{{"kty":"EC","kty":"EC","crv":"P-256","x":"{EC_X}","y":"{EC_Y}"}}]}}"#);
    assert_eq!(KeySet::parse(twice.as_bytes()).unwrap().ignored(), 1);
}

#[test]
fn a_token_says_which_key_unless_there_is_only_one_that_could_be() {
    let two = set(&[with(ec_key(), "kid", "a"), with(rsa_key(), "kid", "b")]);
    assert!(is_found(&two, Some("a"), JwtAlgorithm::ES256));
    assert!(is_found(&two, None, JwtAlgorithm::ES256));
    // The name of one key does not make it another kind of key, nor is a near name its name.
    for kid in ["b", "A", "a ", "", "../a", "a' OR '1'='1"] {
        assert!(matches!(two.find(Some(kid), JwtAlgorithm::ES256), KeyMatch::Nothing), "{kid}");
    }
    let same_kind = set(&[with(ec_key(), "kid", "a"), with(ec_key(), "kid", "b")]);
    assert!(matches!(same_kind.find(None, JwtAlgorithm::ES256), KeyMatch::Several));
    let same_name = set(&[with(ec_key(), "kid", "a"), with(ec_key(), "kid", "a")]);
    assert!(matches!(same_name.find(Some("a"), JwtAlgorithm::ES256), KeyMatch::Several));
    // A key without a name is nobody's key who names one.
    assert!(!is_found(&set(&[ec_key()]), Some("a"), JwtAlgorithm::ES256));
}

#[test]
fn what_is_no_set_or_too_large_a_set_is_refused_whole() {
    for document in
        ["", "{}", "[]", "{\"keys\":{}}", "{\"keys\":null}", "<html>", "{\"keys\":[]} x", "{\"keys\":[],\"keys\":[]}"]
    {
        assert_eq!(KeySet::parse(document.as_bytes()).unwrap_err(), BadSet::NotASet, "{document}");
    }
    let many = |n: usize| format!("{{\"keys\":[{}]}}", vec!["{}"; n].join(","));
    assert_eq!(KeySet::parse(many(MAX_KEYS).as_bytes()).unwrap().ignored(), MAX_KEYS);
    assert_eq!(KeySet::parse(many(MAX_KEYS + 1).as_bytes()).unwrap_err(), BadSet::TooManyKeys(MAX_KEYS + 1));
    assert!(KeySet::parse(b"{\"keys\":[]}").unwrap().is_empty());
    let deep = format!("{{\"keys\":[{}1{}]}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(KeySet::parse(deep.as_bytes()).unwrap().ignored(), 1);
}
