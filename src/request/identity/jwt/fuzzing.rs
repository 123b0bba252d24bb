//! A door for the fuzz targets (`fuzz/`) and the corpus test: what a token says, and whether its claims would do.
//!
//! Invariant: only what the identification itself calls is called here; nothing is decided. No signature is looked at.

use std::time::Duration;

use super::claims::Expected;
use super::compact::Compact;
use crate::kernel::clock::UnixMillis;

/// Who must have issued the token.
pub const ISSUER: &str = "https://issuer";
/// Whom it must be for.
pub const AUDIENCE: &str = "rtm-gateway";
/// How far clocks may differ.
pub const LEEWAY: Duration = Duration::from_secs(30);

/// What a token says.
#[derive(Debug)]
pub struct TokenSummary {
    pub algorithm: String,
    pub key: Option<String>,
    pub subject: String,
    /// Whether issuer, audience and life are as they must be.
    pub will_do: bool,
}

/// Reads a token. `None` when it is none, or says what is not supported.
#[must_use]
pub fn read(token: &str, now: UnixMillis) -> Option<TokenSummary> {
    let compact = Compact::parse(token).ok()?;
    let header = compact.header().ok()?;
    let claims = compact.claims().ok()?;
    let expected = Expected { issuer: ISSUER.into(), audience: vec![AUDIENCE.into()], leeway: LEEWAY };
    let will_do = expected.check(&claims, now).is_ok();
    Some(TokenSummary { algorithm: header.alg, key: header.kid, subject: claims.sub, will_do })
}
