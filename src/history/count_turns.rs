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

/// Whose turn it is to ask for which count. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct CountTurns {
    turns: Arc<Mutex<HashMap<(AppId, Filter), NextAsk>>>,
    clock: Clock,
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
        Self { turns: Arc::default(), clock }
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
        let now = self.clock.now();
        let mut turns = lock(&self.turns);
        // What nobody holds or waits for, and what is over, is as if it had never been.
        turns.retain(|_, turns| {
            let is_over = turns.try_lock().is_ok_and(|until| until.is_none_or(|until| until <= now));
            Arc::strong_count(turns) > 1 || !is_over
        });
        Arc::clone(turns.entry((app.clone(), filter.clone())).or_default())
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
