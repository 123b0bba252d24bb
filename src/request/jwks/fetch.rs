//! One fetch of a key set: bounded in time and size, to one place, with at most one secret.
//!
//! Invariants: the bearer token is read anew for each fetch (Kubernetes replaces it every hour), goes to the configured
//! address and nowhere else, and only where that address's certificate is good. A redirect is a failure. No text of the
//! answer gets into an error.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, HeaderValue, USER_AGENT};
use hyper::{HeaderMap, Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::set::{BadSet, KeySet};
use super::source::BuildError;
use crate::config::JwksUrl;
use crate::kernel::dns::Use;
use crate::kernel::secret::{SecretError, SecretSource};
use crate::kernel::targets::{self, Guard, innermost};
use crate::tls::Anchors;
use crate::upstream::pool::{BodyFault, read_body};

/// All of a fetch.
const TOTAL: Duration = Duration::from_secs(10);
/// A connection, TLS not included.
const CONNECT: Duration = Duration::from_secs(3);
/// Bytes of a set. A hundred RSA keys with their certificates are a third of it.
const MAX_BODY: usize = 1 << 20;
/// Bytes of an answer's head.
const MAX_HEAD: usize = 64 << 10;

/// Why there is no set.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the token for the issuer: {0}")]
    Token(#[from] SecretError),
    #[error("the issuer cannot be reached: {0}")]
    Unreachable(String),
    #[error("the issuer did not answer within {TOTAL:?}")]
    Slow,
    #[error("the issuer answered {0}, and redirects are not followed")]
    Redirected(u16),
    #[error("the issuer answered {0}")]
    Status(u16),
    #[error("the issuer's answer has more than {MAX_BODY} bytes")]
    TooLarge,
    #[error("the issuer's answer was cut off")]
    Cut,
    #[error("the issuer's answer is {0}")]
    Bad(#[from] BadSet),
}

/// What was fetched.
#[derive(Debug)]
pub(super) struct FetchedSet {
    pub(super) set: KeySet,
    /// SHA-256 of the document: the same keys are not taken twice.
    pub(super) digest: [u8; 32],
    /// How long the issuer says that the answer holds.
    pub(super) max_age: Option<Duration>,
}

/// Fetches from one address.
pub(super) struct Fetcher {
    client: Client<HttpsConnector<targets::Connector>, Empty<Bytes>>,
    url: Uri,
    token: Option<SecretSource>,
}

impl Fetcher {
    pub(super) fn new(settings: &JwksUrl, anchors: Option<&[u8]>) -> Result<Self, BuildError> {
        let guard = Guard::new(settings.allow_private_targets);
        guard.judge(settings.url.expose())?;
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(Anchors::or_public(anchors).client().map_err(BuildError::BadAnchors)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(targets::Connector::new(guard, CONNECT, Use::KeySets));
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            // Minutes lie between two fetches, and each shall see whom the name leads to now.
            .pool_max_idle_per_host(0)
            .http1_max_buf_size(MAX_HEAD)
            .build(https);
        let token = settings.token_file.clone().map(SecretSource::File);
        Ok(Self { client, url: settings.url.expose().clone(), token })
    }

    /// Fetches once.
    pub(super) async fn fetch(&self, began: Instant) -> Result<FetchedSet, FetchError> {
        let until = began + TOTAL;
        tokio::time::timeout_at(until, self.exchange(until)).await.unwrap_or(Err(FetchError::Slow))
    }

    async fn exchange(&self, until: Instant) -> Result<FetchedSet, FetchError> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.url.clone();
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/jwk-set+json, application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("rtm-gateway/", env!("CARGO_PKG_VERSION"))));
        if let Some(token) = &self.token {
            headers.insert(AUTHORIZATION, bearer(token).await?);
        }
        let answer = self
            .client
            .request(request)
            .await
            .map_err(|error| FetchError::Unreachable(innermost(&error).to_string()))?;
        let status = answer.status();
        if status.is_redirection() {
            return Err(FetchError::Redirected(status.as_u16()));
        }
        if status != hyper::StatusCode::OK {
            return Err(FetchError::Status(status.as_u16()));
        }
        let max_age = max_age(answer.headers());
        let document = read_body(answer.into_body(), MAX_BODY, until, TOTAL).await.map_err(|fault| match fault {
            BodyFault::Cut { .. } => FetchError::Cut,
            BodyFault::Slow { .. } => FetchError::Slow,
            BodyFault::TooLarge { .. } => FetchError::TooLarge,
        })?;
        let set = KeySet::parse(&document)?;
        Ok(FetchedSet { set, digest: Sha256::digest(&document).into(), max_age })
    }
}

async fn bearer(token: &SecretSource) -> Result<HeaderValue, FetchError> {
    let unusable = || SecretError::Unusable(token.to_string());
    let secret = token.read_elsewhere().await?;
    let text = Zeroizing::new(format!("Bearer {}", secret.expose()));
    let mut value = HeaderValue::from_str(&text).map_err(|_| unusable())?;
    value.set_sensitive(true);
    Ok(value)
}

/// `max-age` of a `Cache-Control`; zero for an answer that is not to be kept.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    let mut shortest = None;
    for directive in lines.flat_map(|line| line.split(',')).map(str::trim) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let age = match name.to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => Some(0),
            // RFC 9111, 1.2.2: what does not fit is a very long time.
            "max-age" => {
                let digits = value.trim().trim_matches('"');
                let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
                is_number.then(|| digits.parse::<u64>().unwrap_or(u64::MAX))
            }
            _ => None,
        };
        shortest = match (shortest, age) {
            (Some(a), Some(b)) => Some(std::cmp::min::<u64>(a, b)),
            (a, b) => a.or(b),
        };
    }
    shortest.map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_life_that_an_answer_is_given_holds() {
        for (lines, expected) in [
            (&[][..], None),
            (&["public, max-age=3600"], Some(3600)),
            (&["Max-Age=\"60\", must-revalidate"], Some(60)),
            (&["max-age=60", "max-age=30"], Some(30)),
            (&["no-store, max-age=60"], Some(0)),
            (&["max-age=99999999999999999999"], Some(u64::MAX)),
            (&["max-age=-1"], None),
            (&["max-age=1e9, max-age"], None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CACHE_CONTROL, HeaderValue::from_static(line));
            }
            assert_eq!(max_age(&headers), expected.map(Duration::from_secs), "{lines:?}");
        }
    }
}
