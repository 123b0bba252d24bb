//! What is sent again, and when: the one place that decides it.
//!
//! Invariants: an order that may have been acted on is sent again only if it is idempotent; nothing is sent again after
//! its deadline, or where no region may be asked; every cause has its own bound, but the vendor's 429, which the
//! deadline bounds. What failed for the vendor's sake is sent again only within the client's budget (`budget`); after a
//! 401 or a 429 other bounds hold: those of the credential's breaker and of the bucket.

use std::time::Duration;

use tokio::time::Instant;

use super::Failure;
use super::outcome::{Answer, AttemptOutcome, is_vendors_failure};
use crate::kernel::names::RegionName;
use crate::vendor::order::Safety;

/// How often an order is sent again because no connection could be made, or the vendor did not begin to process it.
/// Three tries take some 200 ms: what is down for longer is its host's breaker's affair.
const MAX_UNSENT: u32 = 2;

/// How often an idempotent order is sent again because its answer was lost or late or was the vendor's own failure.
const MAX_DOUBTFUL: u32 = 2;

/// The first pause, before jitter; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// What to do next.
pub(super) enum Next {
    /// Try again after this pause.
    Again(Duration),
    Done(Result<Answer, Failure>),
}

/// Why an order is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Unreachable,
    Unprocessed,
    Lost,
    TimedOut,
    VendorFailed,
    /// As another order, by whoever ordered.
    Repeated,
    OverLimit,
    Unauthorized,
}

impl Reason {
    pub(super) const ALL: [Self; 8] = [
        Self::Unreachable,
        Self::Unprocessed,
        Self::Lost,
        Self::TimedOut,
        Self::VendorFailed,
        Self::Repeated,
        Self::OverLimit,
        Self::Unauthorized,
    ];

    /// As the metric's label names it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Unprocessed => "unprocessed",
            Self::Lost => "lost",
            Self::TimedOut => "timed_out",
            Self::VendorFailed => "vendor_failed",
            Self::Repeated => "repeated",
            Self::OverLimit => "over_limit",
            Self::Unauthorized => "unauthorized",
        }
    }

    /// Whether it takes of the retry budget.
    pub(super) fn is_budgeted(self) -> bool {
        match self {
            Self::Unreachable
            | Self::Unprocessed
            | Self::Lost
            | Self::TimedOut
            | Self::VendorFailed
            | Self::Repeated => true,
            Self::OverLimit | Self::Unauthorized => false,
        }
    }
}

/// What an order goes by when an attempt has ended.
#[derive(Clone, Copy)]
pub(super) struct RetryTerms {
    pub(super) safety: Safety,
    /// How long its region is left alone after a time-out.
    pub(super) rest: Duration,
    pub(super) now: Instant,
    pub(super) deadline: Instant,
    pub(super) next: NextRegion,
}

/// Where the order would be sent next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextRegion {
    /// To another region than the attempt that has ended: nothing that this one wants binds that one.
    Another,
    TheSame,
    /// No region may be asked.
    Nowhere,
}

/// What an order has tried.
#[derive(Debug, Default)]
pub(super) struct Tries {
    begun: bool,
    /// Regions that failed. Few: a list.
    failed: Vec<RegionName>,
    unsent: u32,
    doubtful: u32,
    unauthorized: bool,
}

impl Tries {
    /// Of an order that asks once more what failed: that is counted, and it is not sent again for a failure.
    pub(super) fn of_repeat() -> Self {
        Self { begun: true, unsent: MAX_UNSENT, doubtful: MAX_DOUBTFUL, ..Self::default() }
    }

    /// The order is about to be sent. Tells if it is the first time.
    pub(super) fn begin(&mut self, first: impl FnOnce()) {
        if !std::mem::replace(&mut self.begun, true) {
            first();
        }
    }

    /// A region failed with this order: others are asked before it.
    pub(super) fn note_failed(&mut self, region: &RegionName) {
        if !self.has_failed(region) {
            self.failed.push(region.clone());
        }
    }

    pub(super) fn has_failed(&self, region: &RegionName) -> bool {
        self.failed.contains(region)
    }

    /// What follows an attempt's end. `may` decides, when all else allows it: it is asked last, because asking it
    /// spends of the budget.
    pub(super) fn after(
        &mut self,
        outcome: AttemptOutcome,
        RetryTerms { safety, rest, now, deadline, next }: RetryTerms,
        may: impl FnOnce(Reason) -> bool,
    ) -> Next {
        let idempotent = safety == Safety::Idempotent;
        let here = |pause| if next == NextRegion::Another { Duration::ZERO } else { pause };
        let again = match &outcome {
            // The bucket says when: waiting for its next seat knows the deadline.
            AttemptOutcome::OverLimit => {
                may(Reason::OverLimit);
                return Next::Again(Duration::ZERO);
            }
            // The credential's breaker says when.
            AttemptOutcome::Unauthorized => {
                let first = !std::mem::replace(&mut self.unauthorized, true);
                first.then_some((Reason::Unauthorized, Duration::ZERO))
            }
            AttemptOutcome::Failed(why) if may_reconnect(why) => {
                // A region that was not tried yet needs no rest.
                spend(&mut self.unsent, MAX_UNSENT).map(|pause| (Reason::Unreachable, here(pause)))
            }
            // The vendor turned it away, so it is as good as not sent.
            AttemptOutcome::Failed(Failure::Unprocessed(_)) => {
                spend(&mut self.unsent, MAX_UNSENT).map(|pause| (Reason::Unprocessed, pause))
            }
            AttemptOutcome::Failed(Failure::Lost { .. }) if idempotent => {
                spend(&mut self.doubtful, MAX_DOUBTFUL).map(|pause| (Reason::Lost, pause))
            }
            AttemptOutcome::Failed(Failure::TimedOut { sent: true }) if idempotent => {
                spend(&mut self.doubtful, MAX_DOUBTFUL).map(|pause| (Reason::TimedOut, pause + here(rest)))
            }
            AttemptOutcome::Answered(answer) if idempotent && is_vendors_failure(answer.status) => {
                let asked = here(answer.retry_after);
                spend(&mut self.doubtful, MAX_DOUBTFUL).map(|pause| (Reason::VendorFailed, pause.max(asked)))
            }
            AttemptOutcome::Failed(_) | AttemptOutcome::Answered(_) => None,
        };
        // A try that would begin after the deadline has an answer that nobody waits for.
        let again = again.filter(|(_, pause)| next != NextRegion::Nowhere && now + *pause < deadline);
        match (again.filter(|(reason, _)| may(*reason)), outcome) {
            (Some((_, pause)), _) => Next::Again(pause),
            (_, AttemptOutcome::OverLimit | AttemptOutcome::Unauthorized) => {
                Next::Done(Err(Failure::CredentialRefused))
            }
            (_, AttemptOutcome::Failed(why)) => Next::Done(Err(why)),
            (_, AttemptOutcome::Answered(answer)) => Next::Done(Ok(answer)),
        }
    }
}

/// Whether nothing was sent because no connection could be made.
fn may_reconnect(why: &Failure) -> bool {
    matches!(why, Failure::Unreachable(_) | Failure::TimedOut { sent: false })
}

/// The pause before another try, if one is left: with full jitter from half, so that many orders do not come as one.
fn spend(tries: &mut u32, most: u32) -> Option<Duration> {
    if *tries >= most {
        return None;
    }
    *tries += 1;
    Some((FIRST_PAUSE * (1 << (*tries - 1).min(16))).mul_f64(rand::random_range(0.5..1.5)))
}

#[cfg(test)]
mod tests;
