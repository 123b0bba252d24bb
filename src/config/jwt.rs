//! `[identity.jwt]`: whose tokens are believed, and with which keys they are checked.
//!
//! Invariants: exactly one source of keys; at least one algorithm, none of them symmetric and none of them "none" (the
//! type has no such value); at least one audience, so that a token made for somebody else opens nothing here.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;

use super::document::node::Node;
use super::document::table::Table;
use super::survey::Form;
use super::{pem, secrets, values};
use crate::kernel::files;
use crate::kernel::secret::PrivateUrl;
use crate::kernel::targets::Guard;

/// `[identity.jwt]`: the issuer whose tokens callers may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwt {
    /// What a token's `iss` must be, byte for byte.
    pub issuer: String,
    /// One of these must be in a token's `aud`.
    pub audience: Vec<String>,
    /// Where the issuer's keys are.
    pub keys: JwtKeys,
    /// The signatures that are believed.
    pub algorithms: Vec<JwtAlgorithm>,
    /// How far the issuer's clock may be from ours.
    pub leeway: Duration,
}

/// Where the issuer's keys are: a JWK set (RFC 7517).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtKeys {
    /// In a file, read again when it changes.
    File(PathBuf),
    /// At an address, fetched again and again.
    Url(JwksUrl),
}

/// `jwks_url` and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksUrl {
    /// The address, `https` (or `http` on this machine).
    pub url: PrivateUrl,
    /// PEM file of trust anchors in place of the public ones.
    pub ca_file: Option<PathBuf>,
    /// File of a bearer token for the address, read at each fetch.
    pub token_file: Option<PathBuf>,
    /// How long keys are believed before they are fetched again.
    pub refresh: Duration,
    /// Whether the address may lead to this machine or to link-local addresses.
    pub allow_private_targets: bool,
}

/// A signature algorithm (RFC 7518, RFC 8037). Only asymmetric ones: whoever could check the others could sign too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JwtAlgorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl JwtAlgorithm {
    /// All algorithms that can be configured.
    pub const ALL: [Self; 9] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// The name in a token's `alg`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }
}

/// `[identity]`: nothing but tokens, so far.
pub(super) fn identity(t: &Table<'_>) -> Option<Jwt> {
    t.take("jwt").and_then(|node| node.table(jwt).flatten())
}

fn jwt(t: &Table<'_>) -> Option<Jwt> {
    let issuer = t.need("issuer", "Write the token's iss, as \"https://kubernetes.default.svc\"").and_then(words);
    let audience = t.need("audience", "Write what the tokens are made for, as \"rtm-gateway\"");
    let audience = audience.and_then(|node| node.one_or_more("[\"rtm-gateway\"]", words));
    let keys = keys(t);
    let known = JwtAlgorithm::ALL.map(|algorithm| (algorithm.as_str(), algorithm));
    let algorithms = t.or_default("algorithms", |node| {
        let algorithms = node.clone().set("[\"RS256\", \"ES256\"]", |entry| entry.one_of(&known))?;
        if algorithms.is_empty() {
            return node.fault("must name at least one", "Leave it out for RS256 and ES256");
        }
        Some(algorithms)
    });
    let leeway = t.or_default("leeway", Node::duration_or_off);
    if leeway > Duration::from_secs(600)
        && let Some(node) = t.take("leeway")
    {
        node.warn("lets expired tokens in for longer than ten minutes", "Mend the clocks instead");
    }
    Some(Jwt { issuer: issuer?, audience: audience?, keys: keys?, algorithms, leeway })
}

fn keys(t: &Table<'_>) -> Option<JwtKeys> {
    let of_url = ["jwks_ca_file", "jwks_token_file", "jwks_refresh", "jwks_allow_private_targets"];
    match (t.take("jwks_file"), t.take("jwks_url")) {
        (Some(file), None) => {
            t.refuse(&of_url, "belongs to jwks_url", "Leave it out");
            jwks_file(file).map(JwtKeys::File)
        }
        (None, Some(url)) => {
            let (address, url) = (url.clone(), jwks_url(url));
            let ca_file = t.take("jwks_ca_file");
            // A file that cannot be used must not come to mean the public authorities: others could then hand out the
            // keys.
            let has_bad_ca = ca_file.is_some();
            let ca_file = ca_file.and_then(pem::authorities);
            let has_bad_ca = has_bad_ca && ca_file.is_none();
            let token_file = t.take("jwks_token_file");
            let has_bad_token = token_file.is_some();
            let token_file = token_file.and_then(secrets::file);
            let has_bad_token = has_bad_token && token_file.is_none();
            let refresh = t.or_default("jwks_refresh", Node::duration);
            let allow_private_targets = t.or_default("jwks_allow_private_targets", Node::flag);
            if let Some(Err(why)) = url.as_ref().map(|url| Guard::new(allow_private_targets).judge(url)) {
                return address.fault(
                    format!("may not be fetched: {why}"),
                    "Write another address, or jwks_allow_private_targets = true if it is meant",
                );
            }
            url.filter(|_| !has_bad_ca && !has_bad_token).map(|url| {
                JwtKeys::Url(JwksUrl { url: PrivateUrl::new(url), ca_file, token_file, refresh, allow_private_targets })
            })
        }
        (None, None) => {
            t.spare_the_rest(&of_url);
            t.missing("jwks_url", "Write jwks_url = \"https://…\" or jwks_file = \"PATH\"");
            None
        }
        (Some(file), Some(_)) => {
            t.spare_the_rest(&of_url);
            file.fault("and jwks_url are both there: which holds?", "Keep one of them")
        }
    }
}

fn words(node: Node<'_>) -> Option<String> {
    let text = node.clone().text()?;
    if text.is_empty() || text.chars().any(char::is_control) {
        return node.fault("must be a text without control characters", "Write it as the token has it");
    }
    Some(text.to_owned())
}

fn jwks_file(node: Node<'_>) -> Option<PathBuf> {
    let path = node.clone().path()?;
    node.refers_to(path.clone());
    if !node.looks() {
        return Some(path);
    }
    let text = files::read(&path, files::DOCUMENT);
    let keys = text.map(|text| serde_json::from_slice::<serde_json::Value>(&text));
    match keys {
        Err(why) => node.fault(format!("names a file that cannot be read: {why}"), "Name a readable file"),
        Ok(Ok(set)) if set["keys"].is_array() => Some(path),
        Ok(_) => node.fault("names a file that is no JWK set", "It must be JSON with \"keys\": […] (RFC 7517)"),
    }
}

fn jwks_url(node: Node<'_>) -> Option<Uri> {
    node.must_be(|| Form::Address);
    let text = node.clone().text()?;
    let uri = text.parse::<Uri>().ok().filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    let scheme = uri.as_ref().and_then(Uri::scheme_str).map(str::to_ascii_lowercase);
    let local = uri.as_ref().and_then(Uri::host).is_some_and(values::is_loopback);
    match (uri, scheme.as_deref()) {
        (Some(uri), Some("https")) if !text.contains(['#', '@']) => Some(uri),
        (Some(uri), Some("http")) if local && !text.contains(['#', '@']) => Some(uri),
        _ => node.fault(
            "must be an https:// address without user and fragment",
            "Who can change the keys on their way can be any client",
        ),
    }
}
