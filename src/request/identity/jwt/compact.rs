//! The text of a token (JWS compact serialization, RFC 7515, 7.1) as its three parts.
//!
//! Invariants: each part is base64url without padding, and is the only way to write its bytes. Of the header only what
//! decides is kept; a member that decides and is given twice is an error, as is anything that changes how the rest is
//! to be read: `crit`, `b64`, `enc`, `zip`, a nested token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Fault;
use super::claims::Claims;

/// A token's parts.
#[derive(Debug)]
pub(super) struct Compact<'a> {
    /// Header and claims as they were signed.
    signed: &'a str,
    header: &'a str,
    claims: &'a str,
    signature: Vec<u8>,
}

/// What a token says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) kid: Option<String>,
}

#[derive(Deserialize)]
struct RawHeader {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    cty: Option<IgnoredAny>,
    crit: Option<IgnoredAny>,
    b64: Option<IgnoredAny>,
    enc: Option<IgnoredAny>,
    zip: Option<IgnoredAny>,
}

/// The kinds of token that say who calls. Others are signed by the same keys for other ends: a logout token must not
/// log in (RFC 8725, 3.11).
const KINDS: [&str; 3] = ["JWT", "at+jwt", "JOSE"];

impl<'a> Compact<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, Fault> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Fault::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Fault::Malformed)?;
        // A further dot is no base64url.
        Ok(Self { signed, header, claims, signature: decode(signature)? })
    }

    pub(super) fn header(&self) -> Result<Header, Fault> {
        let raw: RawHeader = object(&decode(self.header)?)?;
        let is_strange = [&raw.cty, &raw.crit, &raw.b64, &raw.enc, &raw.zip].into_iter().any(Option::is_some);
        let is_kind = raw.typ.is_none_or(|typ| {
            let kind = typ.strip_prefix("application/").unwrap_or(&typ);
            KINDS.iter().any(|known| known.eq_ignore_ascii_case(kind))
        });
        if is_strange || !is_kind {
            return Err(Fault::Unsupported);
        }
        Ok(Header { alg: raw.alg, kid: raw.kid })
    }

    pub(super) fn claims(&self) -> Result<Claims, Fault> {
        object(&decode(self.claims)?)
    }

    /// What was signed.
    pub(super) fn signed(&self) -> &[u8] {
        self.signed.as_bytes()
    }

    pub(super) fn signature(&self) -> &[u8] {
        &self.signature
    }
}

fn decode(part: &str) -> Result<Vec<u8>, Fault> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Fault::Malformed)
}

/// A JSON object. An array of the right length would do for serde.
fn object<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<T, Fault> {
    if json.first() != Some(&b'{') {
        return Err(Fault::Malformed);
    }
    serde_json::from_slice(json).map_err(|_| Fault::Malformed)
}
