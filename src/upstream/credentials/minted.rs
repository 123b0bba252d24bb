//! A minted token and the uid it is for, as two headers named by the vendor.
//!
//! Invariants: the vendor honours a token for [`token::LIFE`] by its clock (*field*); one is used for at most half of
//! that by any of ours, so that neither a slow renewal nor clocks hours apart or jumping let a dead one go out. A jump
//! costs one minting, not one for each request.

use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};

use super::secret_cache::{Headers, Recipe, header_value};
use super::{BadUid, token};
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::AppId;
use crate::kernel::secret::{Secret, SecretError, SecretSource};
use crate::vendor::Vendor;

/// How long a token is used.
const USE: Duration = Duration::from_secs(token::LIFE.as_secs() / 2);

/// Made of one secret: the app certificate.
pub(super) struct TokenRecipe {
    app: AppId,
    uid: String,
    token_name: HeaderName,
    uid_header: (HeaderName, HeaderValue),
}

impl TokenRecipe {
    pub(super) fn new(app: AppId, uid: &str, vendor: Vendor) -> Result<Self, BadUid> {
        let value = HeaderValue::from_bytes(uid.as_bytes()).map_err(|_| BadUid)?;
        Ok(Self {
            app,
            uid: uid.to_owned(),
            token_name: vendor.token_header(),
            uid_header: (vendor.uid_header(), value),
        })
    }
}

impl Recipe for TokenRecipe {
    fn headers(&self, sources: &[SecretSource], secrets: &[Secret], now: UnixMillis) -> Result<Headers, SecretError> {
        let unusable = || SecretError::Unusable(sources.first().map(SecretSource::to_string).unwrap_or_default());
        let [certificate] = secrets else { return Err(unusable()) };
        let ts = now.seconds().saturating_add(token::LIFE.as_secs());
        let ts = u32::try_from(ts).unwrap_or(u32::MAX);
        let minted = token::mint(&self.app, certificate, &self.uid, rand::random(), ts, ts);
        let value = header_value(minted).map_err(|_| unusable())?;
        Ok(vec![(self.token_name.clone(), value), self.uid_header.clone()])
    }

    fn lasts(&self) -> Option<Duration> {
        Some(USE)
    }
}
