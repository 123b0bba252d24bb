//! Why an order got no answer, and whether the vendor may have acted on it all the same.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::config::Limit;
use crate::kernel::cause::Cause;
use crate::kernel::names::{BucketName, RegionName};
use crate::kernel::proof::Ended;
use crate::kernel::secret::SecretError;
use crate::upstream::quota::VendorRefusals;

/// Why an order got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No seat within the deadline (or the vendor answered 429 until then).
    #[error("no seat in bucket {bucket} within the deadline: {}", whose_limit(*.limit, .vendor.as_deref()))]
    QuotaSpent {
        bucket: BucketName,
        limit: Limit,
        /// When to ask again.
        retry_after: Duration,
        /// That it is the vendor's own refusals that hold orders back; `None`: the gateway's count of `limit`.
        vendor: Option<Box<VendorLimit>>,
    },
    /// Too many orders wait.
    #[error("too many orders wait for bucket {0}")]
    Crowded(BucketName),
    /// The secret cannot be read. Nothing was sent.
    #[error("no credential: {0}")]
    CredentialUnavailable(#[source] SecretError),
    /// The vendor refused the credential, now or a while ago.
    #[error("the vendor refuses the gateway's credential")]
    CredentialRefused,
    /// No connection to the region could be made of late, and it is left alone: nothing was sent, no seat was taken.
    #[error("region {region} cannot be connected to and is left alone")]
    RegionDown {
        region: RegionName,
        /// When to ask again.
        retry_after: Duration,
    },
    /// The vendor asked to be left alone with this (503 with `Retry-After`): nothing was sent, no seat was taken.
    #[error("the vendor asked in region {region} to be left alone")]
    AskedToWait {
        region: RegionName,
        /// What is left of it.
        retry_after: Duration,
    },
    /// No connection: nothing was sent.
    #[error("cannot connect to the vendor: {0}")]
    Unreachable(#[source] Cause),
    /// The vendor turned it away before it began to process it (HTTP/2's GOAWAY or REFUSED_STREAM).
    #[error("the vendor did not process the request: {0}")]
    Unprocessed(#[source] Cause),
    /// The vendor did not answer in time.
    #[error("the vendor did not answer in time (sent: {sent})")]
    TimedOut {
        /// Whether the request may have left.
        sent: bool,
    },
    /// The connection died after the request may have left.
    #[error("the connection died: {why}")]
    Lost {
        #[source]
        why: Cause,
        /// What had come of the body, when the head had come.
        partial: Option<Bytes>,
        /// How long the vendor wants to be left alone, by that head.
        retry_after: Option<Duration>,
    },
    /// The answer is larger than any answer may be.
    #[error("the vendor's answer is too large")]
    TooLarge,
    /// The answer to a read of events is larger than is kept of one.
    #[error("the vendor's answer is larger than apps.events.max_read_bytes, by {beyond} bytes at least")]
    Overlong {
        /// How many bytes more there were, as far as they were counted.
        beyond: u64,
        /// As much of it as is kept.
        came: Bytes,
    },
    /// The answer to a read of events cannot be decoded.
    #[error("the vendor's answer cannot be decoded: {why}")]
    Undecodable {
        #[source]
        why: Cause,
        /// What was decoded of it; all of it as it came, where the coding is not known.
        came: Bytes,
    },
    /// The vendor has answered, and there was no memory for its answer within the deadline.
    #[error("no memory for the vendor's answer within the deadline")]
    NoRoom,
    /// What let the caller in was withdrawn before anything was sent.
    #[error(transparent)]
    Unproven(#[from] Ended),
    /// The app or region is not configured (any more).
    #[error("no such app or region")]
    NoSuchApp,
    /// The gateway is stopping.
    #[error("stopping")]
    Stopping,
}

/// What the vendor's refusals (429) have left of a bucket, although the gateway's count had room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VendorLimit {
    /// Requests that are sent in a window for now.
    pub in_force: u32,
    /// How many it has refused,
    pub refused: u64,
    /// in how long.
    pub lasting: Duration,
    /// What the last asked for.
    pub retry_after: Option<Duration>,
}

impl VendorLimit {
    pub(super) fn of(refusals: &VendorRefusals, now: Instant) -> Self {
        Self {
            in_force: refusals.in_force,
            refused: refusals.refused,
            lasting: now.saturating_duration_since(refusals.since),
            retry_after: refusals.retry_after,
        }
    }
}

/// For the operator.
fn whose_limit(limit: Limit, vendor: Option<&VendorLimit>) -> String {
    let per = humantime::format_duration(limit.per);
    let Some(VendorLimit { in_force, refused, lasting, retry_after }) = vendor else {
        return format!("the gateway's own count of {} in {per} has none free in time", limit.requests);
    };
    let asked = retry_after.map(|asked| format!(", the last with Retry-After {} s", asked.as_secs()));
    format!(
        "the vendor answered 429 although the gateway's count had room ({refused} of them, since {:.1} s{}); \
         {in_force} of {} in {per} are in force",
        lasting.as_secs_f64(),
        asked.unwrap_or_default(),
        limit.requests,
    )
}

impl Failure {
    /// Whether the vendor may have acted on the order although no answer came.
    #[must_use]
    pub fn in_doubt(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::TooLarge | Self::Overlong { .. } | Self::Undecodable { .. } | Self::NoRoom => {
                true
            }
            Self::TimedOut { sent } => *sent,
            Self::QuotaSpent { .. }
            | Self::Crowded(_)
            | Self::CredentialUnavailable(_)
            | Self::CredentialRefused
            | Self::RegionDown { .. }
            | Self::AskedToWait { .. }
            | Self::Unreachable(_)
            | Self::Unproven(_)
            | Self::Unprocessed(_)
            | Self::NoSuchApp
            | Self::Stopping => false,
        }
    }
}
