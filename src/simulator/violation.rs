//! What callers did that the vendor forbids or that must never leave the gateway.

use std::time::Duration;

use serde::Serialize;

use super::Endpoint;
use crate::kernel::names::BucketName;

/// One thing a caller did wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The region that saw it.
    pub region: String,
    /// The app it was done to; empty when the path named none.
    pub app: String,
    #[serde(flatten)]
    pub kind: ViolationKind,
}

/// What a caller did wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ViolationKind {
    /// More than the limit in some window.
    OverLimit {
        #[serde(serialize_with = "name")]
        bucket: BucketName,
        /// This many requests (the limit and one) ...
        requests: usize,
        /// ... were counted within this time, which is no longer than the window.
        within: Duration,
    },
    /// More requests on an HTTP/2 connection at a time than its SETTINGS allow.
    TooManyStreams { open: usize },
    /// Asked again before the vendor's 2 seconds after `in progress` were over.
    TooSoon {
        endpoint: Endpoint,
        /// So much too early.
        early: Duration,
        /// Which handle, or a count's parameters as they were sent.
        of: String,
    },
    /// Fetched a handle that never was, or whose messages had been handed over whole.
    DeadHandle { handle: String },
    /// The credential is missing or wrong. Says why, never the credential.
    BadCredential { why: String },
    /// A header that has no business at the vendor: the caller's credentials, cookies, forwarding or tracing.
    Header { name: String },
    /// A path or query that is not the one canonical spelling.
    Target { why: String },
    /// Parameters or a body the vendor answers with 400.
    Malformed { why: String },
}

impl ViolationKind {
    /// Whether it is a breach of a limit.
    #[must_use]
    pub fn is_over_limit(&self) -> bool {
        matches!(self, Self::OverLimit { .. })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn name<S: serde::Serializer>(bucket: &BucketName, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(bucket.as_str())
}
