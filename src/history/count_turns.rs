//! [`CountTurns`]: when each count may be asked for again, and by whom.
//!
//! Invariants: the vendor wants two seconds after `in progress` (its page says so), whoever asks for the same. So the
//! pause belongs to the question, not to the job that met it; and so that none goes out while that answer is on its
//! way, or waits for a seat of the quota and goes out after it has come, each question is asked by one at a time. An
//! answer that did not come may have said so, too, also when nobody waited for it any more. (A handle is one job's
//! alone, and its pauses with it.)

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep_until};

use crate::kernel::clock::Clock;
use crate::kernel::names::AppId;
use crate::kernel::sync::lock;
use crate::vendor::history::{Filter, IN_PROGRESS_PAUSE};
use crate::vendor::order::Sent;

/// Held by who asks; in it, until when nobody may.
type NextAsk = Arc<tokio::sync::Mutex<Option<Instant>>>;

/// More counts than this are not kept without a look at which are over.
const SWEPT_FROM: usize = 32;

/// Whose turn it is to ask for which count. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct CountTurns {
    turns: Arc<Mutex<Turns>>,
    clock: Clock,
}

#[derive(Debug)]
struct Turns {
    all: HashMap<(AppId, Filter), NextAsk>,
    /// At so many those that are over are dropped: twice as many as were left by that, so that each count pays for the
    /// look at two.
    sweep_at: usize,
    /// How many were looked at so far.
    #[cfg(test)]
    looked_at: usize,
}

/// Leave to ask for a count, once. Dropped, it is the next one's turn; after a pause, unless the vendor's answer is
/// known to want none.
#[derive(Debug)]
pub(super) struct CountTurn {
    until: OwnedMutexGuard<Option<Instant>>,
    sent: Option<Sent>,
    clock: Clock,
    may_be_in_progress: bool,
}

impl CountTurns {
    pub(super) fn new(clock: Clock) -> Self {
        let turns = Turns {
            all: HashMap::new(),
            sweep_at: SWEPT_FROM,
            #[cfg(test)]
            looked_at: 0,
        };
        Self { turns: Arc::new(Mutex::new(turns)), clock }
    }

    /// Waits until this may be asked. `sent`: whether it was, by who has the turn.
    pub(super) async fn turn(&self, app: &AppId, filter: &Filter, sent: Option<Sent>) -> CountTurn {
        let until = self.of(app, filter).lock_owned().await;
        if let Some(until) = *until {
            sleep_until(until).await;
        }
        CountTurn { until, sent, clock: self.clock.clone(), may_be_in_progress: true }
    }

    fn of(&self, app: &AppId, filter: &Filter) -> NextAsk {
        let mut turns = lock(&self.turns);
        if turns.all.len() >= turns.sweep_at {
            turns.sweep(self.clock.now());
        }
        Arc::clone(turns.all.entry((app.clone(), filter.clone())).or_default())
    }
}

impl Turns {
    /// What nobody holds or waits for, and what is over, is as if it had never been.
    fn sweep(&mut self, now: Instant) {
        #[cfg(test)]
        {
            self.looked_at += self.all.len();
        }
        self.all.retain(|_, turns| {
            let is_over = turns.try_lock().is_ok_and(|until| until.is_none_or(|until| until <= now));
            Arc::strong_count(turns) > 1 || !is_over
        });
        self.sweep_at = (self.all.len() * 2).max(SWEPT_FROM);
    }
}

impl CountTurn {
    /// The vendor was not asked, or has answered and is not counting.
    pub(super) fn end(mut self) {
        self.may_be_in_progress = false;
    }
}

impl Drop for CountTurn {
    fn drop(&mut self) {
        let is_sent = self.sent.as_ref().is_none_or(Sent::is_sent);
        let pauses = self.may_be_in_progress && is_sent;
        *self.until = pauses.then(|| self.clock.now() + IN_PROGRESS_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::pass;

    #[tokio::test(start_paused = true)]
    async fn counts_that_are_over_are_forgotten_and_each_pays_for_the_look_at_few() {
        const COUNTS: usize = 5000;
        let turns = CountTurns::new(Clock::system());
        let app = AppId::parse("app").unwrap();
        let filter = |n: usize| Filter { source: Some(n.to_string().into()), destination: None, start: 0, end: 1 };
        let mut held = Vec::new();
        for n in 0..COUNTS {
            held.push(turns.turn(&app, &filter(n), None).await);
        }
        let looked_at = || lock(&turns.turns).looked_at;
        let before = looked_at();
        assert!(before <= 2 * COUNTS, "{before}");
        // The vendor may count them still: none is forgotten before its pause has passed.
        drop(held);
        let first = filter(0);
        let mut again = std::pin::pin!(turns.turn(&app, &first, None));
        assert!(futures_util::poll!(again.as_mut()).is_pending());
        pass(IN_PROGRESS_PAUSE / 2).await;
        assert!(futures_util::poll!(again.as_mut()).is_pending());
        pass(IN_PROGRESS_PAUSE).await;
        again.await.end();
        for n in 0..COUNTS {
            turns.turn(&app, &filter(n), None).await.end();
        }
        for n in COUNTS..3 * COUNTS {
            turns.turn(&app, &filter(n), None).await.end();
        }
        let all = looked_at();
        assert!(all <= 6 * COUNTS, "{all}");
        let left = lock(&turns.turns).all.len();
        assert!(left <= SWEPT_FROM, "{left}");
    }
}
