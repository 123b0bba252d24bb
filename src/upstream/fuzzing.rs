//! A door for the fuzz targets (`fuzz/`) and the corpus test: how `Retry-After` is read.
//!
//! Invariant: only what an exchange itself calls is called here; nothing is decided.

use std::time::Duration;

use hyper::header::HeaderValue;

use super::retry_after;
use crate::clock::UnixMillis;

/// How long a `Retry-After` asks to wait.
#[must_use]
pub fn retry_after(value: &HeaderValue, now: UnixMillis) -> Option<Duration> {
    retry_after::parse(value, now)
}
