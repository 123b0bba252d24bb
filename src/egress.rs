//! The only door out: order -> quota -> credential -> upstream -> reply.
//!
//! To be written by its owner; the signatures are the contract.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};

use crate::config::Limit;
use crate::names::{BucketName, RegionName};
use crate::order::Order;

/// The door. Cheap to clone.
#[derive(Clone)]
pub struct Egress;

/// What sending an order took, for the access log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// Waiting for seats.
    pub queue_wait: Duration,
    /// Waiting for the vendor.
    pub upstream_time: Duration,
    /// Requests sent.
    pub exchanges: u32,
    /// The vendor's `request_id` of the last answer, if it gave one.
    pub upstream_request_id: Option<Arc<str>>,
}

/// The vendor's answer, whole. Any status but 401 and 429.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// The allow-listed headers of the answer: content type, encoding, language, `Retry-After`, `Date`.
    pub headers: HeaderMap,
    /// Its body, decoded from transfer but not content encoding.
    pub body: Bytes,
    /// The region that answered.
    pub region: RegionName,
    /// What it took.
    pub costs: Costs,
}

/// An order that got no answer.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Why.
    pub why: Failure,
    /// What was spent on it.
    pub costs: Costs,
}

/// Why an order got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No seat within the deadline (or the vendor answered 429 until then).
    #[error("no seat in bucket {bucket} within the deadline")]
    QuotaSpent {
        /// Which bucket.
        bucket: BucketName,
        /// Its limit.
        limit: Limit,
        /// When to ask again.
        retry_after: Duration,
    },
    /// Too many orders wait.
    #[error("too many orders wait for bucket {0}")]
    Crowded(BucketName),
    /// The secret cannot be read. Nothing was sent.
    #[error("no credential: {0}")]
    CredentialUnavailable(crate::secret::SecretError),
    /// The vendor refused the credential, now or a while ago.
    #[error("the vendor refuses the gateway's credential")]
    CredentialRefused,
    /// No connection: nothing was sent.
    #[error("cannot connect to the vendor: {0}")]
    Unreachable(String),
    /// The vendor did not answer in time.
    #[error("the vendor did not answer in time (sent: {sent})")]
    TimedOut {
        /// Whether the request may have left.
        sent: bool,
    },
    /// The connection died after the request may have left.
    #[error("the connection died: {why}")]
    Lost {
        /// What happened.
        why: String,
        /// What had come of the body, when the head had come.
        partial: Option<Bytes>,
    },
    /// The answer is larger than any answer may be.
    #[error("the vendor's answer is too large")]
    TooLarge,
    /// The app or region is not configured (any more).
    #[error("no such app or region")]
    NoSuchApp,
    /// The gateway is stopping.
    #[error("stopping")]
    Stopping,
}

impl Failure {
    /// Whether the vendor may have acted on the order although no answer came.
    #[must_use]
    pub fn in_doubt(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::TooLarge => true,
            Self::TimedOut { sent } => *sent,
            Self::QuotaSpent { .. }
            | Self::Crowded(_)
            | Self::CredentialUnavailable(_)
            | Self::CredentialRefused
            | Self::Unreachable(_)
            | Self::NoSuchApp
            | Self::Stopping => false,
        }
    }
}

impl Egress {
    /// Sends an order and waits for the whole answer. Retries what may be retried (see the module's header).
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn send(&self, _order: Order) -> Result<Reply, Failed> {
        unimplemented!()
    }
}
