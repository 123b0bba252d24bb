//! HTTP Basic: `Authorization: BasicRecipe base64(api_key:api_secret)` (the vendor's page; RFC 7617).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderValue};
use zeroize::Zeroizing;

use super::secret_cache::{Headers, Recipe, header_value};
use crate::kernel::clock::UnixMillis;
use crate::kernel::secret::{Secret, SecretError, SecretSource};

/// `BasicRecipe base64(user:password)`, marked sensitive. `None` when it cannot stand in a header.
pub(crate) fn basic_header(user: &str, password: &Secret) -> Option<HeaderValue> {
    let pair = Zeroizing::new([user, ":", password.expose()].concat());
    let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
    header_value(Secret::new(["Basic ", &encoded].concat())).ok()
}

/// Made of two secrets: the key, then the secret.
pub(super) struct BasicRecipe;

impl Recipe for BasicRecipe {
    fn headers(&self, sources: &[SecretSource], secrets: &[Secret], _now: UnixMillis) -> Result<Headers, SecretError> {
        let unusable = || SecretError::Unusable(sources.first().map(SecretSource::to_string).unwrap_or_default());
        let [key, secret] = secrets else { return Err(unusable()) };
        // RFC 7617 section 2: a user-id with a colon cannot be told from its password.
        if key.expose().contains(':') {
            return Err(unusable());
        }
        let value = basic_header(key.expose(), secret).ok_or_else(unusable)?;
        Ok(vec![(AUTHORIZATION, value)])
    }

    fn lasts(&self) -> Option<Duration> {
        None
    }
}
