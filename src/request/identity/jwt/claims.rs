//! What a token says, against what it must say.
//!
//! Invariants: `iss`, `sub`, `aud` and `exp` must be there and of their type; a claim that matters and is given twice
//! is an error (serde finds it, however its name is escaped). Names are compared byte for byte.

use std::time::Duration;

use serde::Deserialize;

use super::Fault;
use crate::kernel::clock::UnixMillis;

/// The claims that matter.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: Option<String>,
    pub(super) sub: String,
    pub(super) aud: Option<OneOrMore>,
    pub(super) exp: Option<NumericDate>,
    pub(super) nbf: Option<NumericDate>,
    pub(super) iat: Option<NumericDate>,
}

/// `aud` is a text or an array of texts (RFC 7519, 4.1.3).
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// Seconds since 1970, possibly with a fraction (RFC 7519, 2).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(transparent)]
pub(super) struct NumericDate(f64);

/// The latest time that is no mistake: the year 9999. (Milliseconds, a frequent mistake, are beyond it.)
const LATEST: f64 = 253_402_300_799.0;

impl Claims {
    /// All whom it is for.
    pub(super) fn audience(&self) -> &[String] {
        match &self.aud {
            None => &[],
            Some(OneOrMore::One(aud)) => std::slice::from_ref(aud),
            Some(OneOrMore::More(all)) => all,
        }
    }
}

/// What a token must say.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) issuer: String,
    pub(super) audience: Vec<String>,
    pub(super) leeway: Duration,
}

/// When a token is good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Life {
    exp: Option<NumericDate>,
    nbf: Option<NumericDate>,
    iat: Option<NumericDate>,
}

impl Life {
    pub(super) fn of(claims: &Claims) -> Self {
        Self { exp: claims.exp, nbf: claims.nbf, iat: claims.iat }
    }
}

impl Life {
    /// When it expires, as milliseconds since 1970; never, if it does not say.
    pub(super) fn end(&self) -> UnixMillis {
        let end = self.exp.map_or(f64::MAX, |exp| (exp.0 * 1000.0).ceil());
        // A cast of floats saturates.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at an end there is nothing beyond"
        )]
        UnixMillis(end as u64)
    }
}

impl Expected {
    pub(super) fn check(&self, claims: &Claims, now: UnixMillis) -> Result<(), Fault> {
        if claims.iss.as_ref() != Some(&self.issuer) {
            return Err(Fault::Issuer);
        }
        if !claims.audience().iter().any(|aud| self.audience.contains(aud)) {
            return Err(Fault::Audience);
        }
        self.check_life(&Life::of(claims), now)
    }

    pub(super) fn check_life(&self, life: &Life, now: UnixMillis) -> Result<(), Fault> {
        // Whole milliseconds are exact in 53 bits until the year 287396.
        #[expect(clippy::cast_precision_loss, reason = "exact for any time that a clock shows")]
        let now = now.0 as f64 / 1000.0;
        let leeway = self.leeway.as_secs_f64();
        let exp = life.exp.ok_or(Fault::Expired)?.seconds()?;
        // RFC 7519, 4.1.4: not on or after.
        if now >= exp + leeway {
            return Err(Fault::Expired);
        }
        for begin in [life.nbf, life.iat].into_iter().flatten() {
            if now + leeway < begin.seconds()? {
                return Err(Fault::NotYet);
            }
        }
        Ok(())
    }
}

impl NumericDate {
    fn seconds(self) -> Result<f64, Fault> {
        if (0.0..=LATEST).contains(&self.0) { Ok(self.0) } else { Err(Fault::Malformed) }
    }
}
