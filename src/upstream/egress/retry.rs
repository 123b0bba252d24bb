//! What is sent again, and when: the one place that decides it.
//!
//! Invariants: an order that may have been acted on is sent again only if it is idempotent; nothing is sent again after
//! its deadline, or where no region may be asked; every cause has its own bound, but the vendor's 429, which the deadline
//! bounds. What failed for the vendor's sake is sent again only within the client's budget (`budget`); after a 401 or a 429
//! other bounds hold: the guard's and the bucket's.

use std::time::Duration;

use hyper::StatusCode;
use tokio::time::Instant;

use super::attempt::Answer;
use super::{Egress, Failure};
use crate::kernel::names::{AppId, ClientName, RegionName};
use crate::vendor::order::Safety;

/// How often an order is sent again because no connection could be made, or the vendor did not begin to process it.
const UNSENT: u32 = 2;

/// How often an idempotent order is sent again because its answer was lost or late or was the vendor's own failure.
const DOUBTFUL: u32 = 2;

/// The first pause, before jitter; each is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(50);

/// How an attempt ended.
pub(super) enum Outcome {
    /// With an answer for whoever ordered.
    Answered(Answer),
    /// With a 429: not processed. The bucket knows.
    OverLimit,
    /// With a 401: not processed. The guard knows.
    Unauthorized,
    /// Without an answer.
    Failed(Failure),
}

impl Outcome {
    /// How long the vendor wants to be left alone before this order is sent there again.
    pub(super) fn asked(&self) -> Duration {
        match self {
            Self::Answered(answer) if is_vendors_failure(answer.status) => answer.retry_after,
            Self::Answered(_) | Self::OverLimit | Self::Unauthorized | Self::Failed(_) => Duration::ZERO,
        }
    }

    /// How long it wants to be left alone by all orders of the kind.
    pub(super) fn asked_to_wait(&self) -> Option<Duration> {
        let is_503 = matches!(self, Self::Answered(answer) if answer.status == StatusCode::SERVICE_UNAVAILABLE);
        is_503.then(|| self.asked()).filter(|asked| !asked.is_zero())
    }

    /// What came, in words.
    pub(super) fn why(&self) -> String {
        match self {
            Self::Failed(why) => why.to_string(),
            Self::Answered(answer) => format!("it answered {}", answer.status.as_u16()),
            Self::OverLimit => "it answered 429".to_owned(),
            Self::Unauthorized => "it answered 401".to_owned(),
        }
    }
}

/// What to do next.
pub(super) enum Next {
    /// Try again after this pause.
    Again(Duration),
    /// End with this.
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
pub(super) struct Terms {
    pub(super) safety: Safety,
    /// How long its region is left alone after a time-out.
    pub(super) rest: Duration,
    pub(super) now: Instant,
    pub(super) deadline: Instant,
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
        Self { begun: true, unsent: UNSENT, doubtful: DOUBTFUL, ..Self::default() }
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

    /// Whether it did.
    pub(super) fn has_failed(&self, region: &RegionName) -> bool {
        self.failed.contains(region)
    }

    /// What follows an attempt's end. `elsewhere`: whether the next would go to another region; `None`: to none. `may`
    /// decides, when all else allows it.
    pub(super) fn after(
        &mut self,
        outcome: Outcome,
        Terms { safety, rest, now, deadline }: Terms,
        elsewhere: Option<bool>,
        may: impl FnOnce(Reason) -> bool,
    ) -> Next {
        let idempotent = safety == Safety::Idempotent;
        let again = match &outcome {
            // The bucket says when: waiting for its next seat knows the deadline.
            Outcome::OverLimit => {
                may(Reason::OverLimit);
                return Next::Again(Duration::ZERO);
            }
            // The guard says when.
            Outcome::Unauthorized => {
                let first = !std::mem::replace(&mut self.unauthorized, true);
                first.then_some((Reason::Unauthorized, Duration::ZERO))
            }
            Outcome::Failed(why) if may_reconnect(why) => {
                // A region that was not tried yet needs no rest.
                let rest = |pause| if elsewhere == Some(true) { Duration::ZERO } else { pause };
                spend(&mut self.unsent, UNSENT).map(|pause| (Reason::Unreachable, rest(pause)))
            }
            // The vendor turned it away, so it is as good as not sent.
            Outcome::Failed(Failure::Unprocessed(_)) => {
                spend(&mut self.unsent, UNSENT).map(|pause| (Reason::Unprocessed, pause))
            }
            Outcome::Failed(Failure::Lost { .. }) if idempotent => {
                spend(&mut self.doubtful, DOUBTFUL).map(|pause| (Reason::Lost, pause))
            }
            Outcome::Failed(Failure::TimedOut { sent: true }) if idempotent => {
                // What one region wants binds no other.
                let rest = if elsewhere == Some(true) { Duration::ZERO } else { rest };
                spend(&mut self.doubtful, DOUBTFUL).map(|pause| (Reason::TimedOut, pause + rest))
            }
            Outcome::Answered(answer) if idempotent && is_vendors_failure(answer.status) => {
                let asked = if elsewhere == Some(true) { Duration::ZERO } else { answer.retry_after };
                spend(&mut self.doubtful, DOUBTFUL).map(|pause| (Reason::VendorFailed, pause.max(asked)))
            }
            Outcome::Failed(_) | Outcome::Answered(_) => None,
        };
        let again = again.filter(|(_, pause)| elsewhere.is_some() && now + *pause < deadline);
        match (again.filter(|(reason, _)| may(*reason)), outcome) {
            (Some((_, pause)), _) => Next::Again(pause),
            (_, Outcome::OverLimit | Outcome::Unauthorized) => Next::Done(Err(Failure::CredentialRefused)),
            (_, Outcome::Failed(why)) => Next::Done(Err(why)),
            (_, Outcome::Answered(answer)) => Next::Done(Ok(answer)),
        }
    }
}

impl Egress {
    /// Whether a client's order that failed may be sent once more as another ([`Order::is_repeat`]). If so that is spent of
    /// the client's retry budget.
    ///
    /// [`Order::is_repeat`]: crate::vendor::order::Order::is_repeat
    #[must_use]
    pub fn may_repeat(&self, app: &AppId, client: &ClientName) -> bool {
        let table = self.0.table.load();
        table.desks.get(app).is_some_and(|desk| desk.may_send_again(Reason::Repeated, client, self.0.clock.now()))
    }
}

/// Whether nothing was sent because no connection could be made.
fn may_reconnect(why: &Failure) -> bool {
    matches!(why, Failure::Unreachable(_) | Failure::TimedOut { sent: false })
}

/// 408 is the vendor's word for its own time-out (its page).
pub(super) fn is_vendors_failure(status: StatusCode) -> bool {
    status == StatusCode::REQUEST_TIMEOUT || status.is_server_error()
}

/// The pause before another try, if one is left: with full jitter from half, so that many orders do not come as one.
fn spend(tries: &mut u32, most: u32) -> Option<Duration> {
    if *tries >= most {
        return None;
    }
    *tries += 1;
    Some((PAUSE * (1 << (*tries - 1).min(16))).mul_f64(rand::random_range(0.5..1.5)))
}

#[cfg(test)]
mod tests;
