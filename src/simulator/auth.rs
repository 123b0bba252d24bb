//! The vendor's doorkeeper: HTTP Basic and RTM tokens, checked to the letter.
//!
//! Written from the vendor's own words and not from the gateway's code, so that one checks the other. An app may have
//! several credentials; any of them opens.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use subtle::ConstantTimeEq as _;

use super::app::Dialect;
use super::token;
use crate::kernel::clock::UnixMillis;
use crate::kernel::secret::Secret;

/// What opens an app.
#[derive(Clone, Debug)]
pub enum Credential {
    /// `Authorization: Basic base64(key:secret)`.
    Basic { key: String, secret: Secret },
    /// A token signed with this certificate, and the uid it was made for.
    Certificate(Secret),
}

/// Checks the credential of a request. The error says what is wrong, without the credential.
pub(super) fn verify(
    headers: &HeaderMap,
    app: &str,
    dialect: Dialect,
    credentials: &[Credential],
    now: UnixMillis,
) -> Result<(), String> {
    let (token_header, uid_header) = dialect.token_headers();
    let basic = single(headers, AUTHORIZATION.as_str())?;
    let token = single(headers, token_header)?;
    let uid = single(headers, uid_header)?;
    match (basic, token, uid) {
        (Some(basic), None, None) => verify_basic(basic, credentials),
        (None, Some(token), Some(uid)) => {
            let certificates = credentials.iter().filter_map(|c| match c {
                Credential::Certificate(secret) => Some(secret.expose()),
                Credential::Basic { .. } => None,
            });
            let mut why = "the app has no certificate".to_owned();
            for certificate in certificates {
                match token::verify(token, app, certificate, uid, now.seconds()) {
                    Ok(()) => return Ok(()),
                    Err(refused) => why = refused.to_string(),
                }
            }
            Err(why)
        }
        (None, None, None) => Err("no credential".into()),
        (None, _, _) => Err(format!("{token_header} and {uid_header} belong together")),
        // The vendor's page has two ways and does not say which goes before: whoever sends both has not chosen.
        (Some(_), _, _) => Err("both Basic and a token".into()),
    }
}

fn verify_basic(value: &str, credentials: &[Credential]) -> Result<(), String> {
    let encoded = value.strip_prefix("Basic ").ok_or("Authorization is not Basic")?;
    let decoded = STANDARD.decode(encoded).map_err(|_| "Basic credential is not base64")?;
    let fits = credentials.iter().any(|credential| match credential {
        Credential::Basic { key, secret } => {
            let expected = format!("{key}:{}", secret.expose());
            bool::from(expected.as_bytes().ct_eq(&decoded))
        }
        Credential::Certificate(_) => false,
    });
    if fits { Ok(()) } else { Err("no such key and secret".into()) }
}

fn single<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, String> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(format!("{name} is there twice"));
    }
    first.to_str().map(Some).map_err(|_| format!("{name} is not text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(&'static str, String)], dialect: Dialect) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        let credentials = [
            Credential::Basic { key: "k".into(), secret: Secret::new("s:t".into()) },
            Credential::Certificate(Secret::new("5CFd2fd1755d40ecb72977518be15d3b".into())),
        ];
        verify(&headers, "970CA35de60c44645bbae8a215061b33", dialect, &credentials, UnixMillis(1_000_000_000))
    }

    #[test]
    fn only_the_exact_key_and_secret_open() {
        let basic = |text: &str| ("authorization", format!("Basic {}", STANDARD.encode(text)));
        assert_eq!(check(&[basic("k:s:t")], Dialect::AnyRtc), Ok(()));
        for wrong in ["k:s", "K:s:t", "k:s:t ", ":", ""] {
            assert!(check(&[basic(wrong)], Dialect::AnyRtc).is_err(), "{wrong:?}");
        }
        assert!(check(&[], Dialect::AnyRtc).is_err());
        assert!(check(&[basic("k:s:t"), basic("k:s:t")], Dialect::AnyRtc).is_err());
    }

    #[test]
    fn a_token_goes_with_its_uid_in_the_headers_of_the_dialect() {
        let token = "006970CA35de60c44645bbae8a215061b33IAAsR0qgiCxv0vrpRcpkz5BrbfEWCBZ6kvR6t7qG/wJIQob86ogAAAAAEAABAAAAR/QQAAEA6AOvKDdW";
        let headers = |t, u| [(t, token.to_owned()), (u, "test_user".to_owned())];
        // Its ts is 1111111 and "now" is 1000000 s: not over, but too far ahead is only beyond a day.
        let why = check(&headers("x-ar-token", "x-ar-uid"), Dialect::AnyRtc).unwrap_err();
        assert!(why.contains("more than 24 hours"), "{why}");
        assert_eq!(check(&headers("x-agora-token", "x-agora-uid"), Dialect::AnyRtc).unwrap_err(), "no credential");
        assert!(check(&headers("x-agora-token", "x-agora-uid"), Dialect::Agora).unwrap_err().contains("24 hours"));
    }
}
