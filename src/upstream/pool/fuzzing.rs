//! A door for the fuzz targets (`fuzz/`) and the corpus test: how `Retry-After` and `no_proxy` are read.
//!
//! Invariant: only what an exchange and a connector themselves call is called here; nothing is decided.

use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderValue;

use super::{no_proxy, retry_after};
use crate::kernel::clock::UnixMillis;

/// How long a `Retry-After` asks to wait.
#[must_use]
pub fn retry_after(value: &HeaderValue, now: UnixMillis) -> Option<Duration> {
    retry_after::parse(value, now)
}

/// Whether these entries of `no_proxy` let this be reached directly.
#[must_use]
pub fn is_direct(entries: &[String], to: &Uri) -> bool {
    no_proxy::NoProxy::new(entries).covers(to)
}
