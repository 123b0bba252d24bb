//! [`Error`]: why a question about history has no answer.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;

use crate::upstream::egress::{Failure, Reply};

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A parameter is wrong; the text names it. 400.
    #[error("{0}")]
    BadRequest(String),
    /// The deadline passed; the work goes on. 504 with `code: "in progress"` and this `location`, when there is one.
    #[error("the deadline passed; the work goes on")]
    StillRunning {
        /// Where the result will be; `None` for a count.
        location: Option<String>,
    },
    /// No such handle, or not this client's, or expired. 410 with `code: "resource not exist"`.
    #[error("no such handle")]
    NoSuchHandle,
    /// The vendor refused the caller's request, or can serve nobody now (503): its status and body pass through.
    #[error("the vendor refused the request")]
    Refused(Arc<Reply>),
    /// The vendor has switched the app, or its history, off. 502.
    #[error("the vendor refuses this app (403)")]
    AppRefused,
    /// The vendor failed. 502.
    #[error("the vendor answered {status}")]
    Failing {
        /// What it answered with: 408 or a 5xx.
        status: StatusCode,
        /// Its `Retry-After`; zero when it named none.
        retry_after: Duration,
    },
    /// The vendor's answers cannot be understood. 502.
    #[error("the vendor's answer cannot be understood: {0}")]
    BadUpstream(String),
    #[error(transparent)]
    Egress(#[from] Failure),
    /// Too much is being resolved already. 503.
    #[error("too many queries under way")]
    Crowded,
}

impl Error {
    /// How long the vendor wants to be left alone by what it has answered so.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Self::Refused(reply) => reply.retry_after().unwrap_or_default(),
            Self::Failing { retry_after, .. } => *retry_after,
            _ => Duration::ZERO,
        }
    }
}
