//! HTTP Basic: `Authorization: Basic base64(api_key:api_secret)` (the vendor's page; RFC 7617).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderValue};
use zeroize::Zeroizing;

use super::kept::{Headers, Recipe};
use crate::clock::UnixMillis;
use crate::secret::{Secret, SecretError, SecretSource};

/// Made of two secrets: the key, then the secret.
pub(super) struct Basic;

impl Recipe for Basic {
    fn headers(&self, sources: &[SecretSource], secrets: &[Secret], _now: UnixMillis) -> Result<Headers, SecretError> {
        let unusable = || SecretError::Unusable(sources.first().map(SecretSource::to_string).unwrap_or_default());
        let [key, secret] = secrets else { return Err(unusable()) };
        // RFC 7617 section 2: a user-id with a colon cannot be told from its password.
        if key.expose().contains(':') {
            return Err(unusable());
        }
        let pair = Zeroizing::new(format!("{}:{}", key.expose(), secret.expose()));
        let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
        let mut value = HeaderValue::from_str(&text).map_err(|_| unusable())?;
        value.set_sensitive(true);
        Ok(vec![(AUTHORIZATION, value)])
    }

    fn stale(&self, _made: UnixMillis, _now: UnixMillis) -> bool {
        false
    }
}
