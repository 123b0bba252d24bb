//! What is sent again, and when: the one place that decides it.
//!
//! Invariants: an order that may have been acted on is sent again only if it is idempotent; nothing is sent again after
//! its deadline; every cause has its own bound, but the vendor's 429, which the deadline bounds.

use std::time::Duration;

use hyper::StatusCode;
use tokio::time::Instant;

use super::Failure;
use super::attempt::Answer;
use crate::order::Safety;

/// How often an order is sent again because no connection could be made.
const UNSENT: u32 = 2;

/// How often an idempotent order is sent again because its answer was lost or was the vendor's own failure.
const DOUBTFUL: u32 = 2;

/// The first pause, before jitter; the second is twice as long.
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

/// What to do next.
pub(super) enum Next {
    /// Try again after this pause.
    Again(Duration),
    /// End with this.
    Done(Result<Answer, Failure>),
}

/// What an order has tried.
#[derive(Debug, Default)]
pub(super) struct Tries {
    unsent: u32,
    doubtful: u32,
    unauthorized: bool,
}

impl Tries {
    /// What follows an attempt's end.
    pub(super) fn after(&mut self, outcome: Outcome, safety: Safety, now: Instant, deadline: Instant) -> Next {
        let pause = match &outcome {
            // The bucket says when: waiting for its next seat knows the deadline.
            Outcome::OverLimit => return Next::Again(Duration::ZERO),
            // The guard says when.
            Outcome::Unauthorized => (!std::mem::replace(&mut self.unauthorized, true)).then_some(Duration::ZERO),
            Outcome::Failed(why) if !why.in_doubt() => {
                may_reconnect(why).then(|| spend(&mut self.unsent, UNSENT)).flatten()
            }
            Outcome::Failed(Failure::Lost { .. }) if safety == Safety::Idempotent => {
                spend(&mut self.doubtful, DOUBTFUL)
            }
            Outcome::Answered(answer) if safety == Safety::Idempotent && is_vendors_failure(answer.status) => {
                spend(&mut self.doubtful, DOUBTFUL).map(|pause| pause.max(answer.retry_after))
            }
            Outcome::Failed(_) | Outcome::Answered(_) => None,
        };
        match (pause, outcome) {
            (Some(pause), _) if now + pause < deadline => Next::Again(pause),
            (_, Outcome::OverLimit | Outcome::Unauthorized) => Next::Done(Err(Failure::CredentialRefused)),
            (_, Outcome::Failed(why)) => Next::Done(Err(why)),
            (_, Outcome::Answered(answer)) => Next::Done(Ok(answer)),
        }
    }
}

/// Whether nothing was sent because no connection could be made.
fn may_reconnect(why: &Failure) -> bool {
    matches!(why, Failure::Unreachable(_) | Failure::TimedOut { sent: false })
}

/// 408 is the vendor's word for its own time-out (its page).
fn is_vendors_failure(status: StatusCode) -> bool {
    status == StatusCode::REQUEST_TIMEOUT || status.is_server_error()
}

/// The pause before another try, if one is left: with full jitter from half, so that many orders do not come as one.
fn spend(tries: &mut u32, most: u32) -> Option<Duration> {
    if *tries >= most {
        return None;
    }
    *tries += 1;
    Some((PAUSE * *tries).mul_f64(rand::random_range(0.5..1.5)))
}

#[cfg(test)]
mod tests;
