//! [`Terms`]: on which a caller asks.

use std::time::Duration;

use tokio::time::Instant;

use crate::kernel::proof::Proof;
use crate::upstream::egress::Account;
use crate::vendor::order::Payer;

/// How a caller wants its answer.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Who asks, and whose share of the quota it costs.
    pub payer: Payer,
    /// What let it in.
    pub proof: Proof,
    /// When it gives up waiting.
    pub deadline: Instant,
    /// How old a kept result may be; none is taken when zero, and no work of others. `None`: as old as they are kept.
    pub max_age: Option<Duration>,
    /// `Prefer: respond-async`: after the deadline the answer is that it is accepted, and where it will be.
    pub respond_async: bool,
    /// Where its request finds what is done for it.
    pub account: Account,
}
