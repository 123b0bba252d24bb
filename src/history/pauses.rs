//! [`Pauses`]: when each count may be asked for again.
//!
//! Invariants: the vendor wants two seconds after `in progress` (its page says so), whoever asks for the same. So the pause
//! belongs to the question, not to the job that met it. An answer that did not come may have said so, too. (A handle is
//! one job's alone, and its pauses with it.)

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::{Instant, sleep_until};

use crate::clock::Clock;
use crate::names::AppId;
use crate::vendor::history::{Filter, IN_PROGRESS_PAUSE};

/// All pauses there are. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Pauses {
    until: Arc<Mutex<HashMap<(AppId, Filter), Instant>>>,
    clock: Clock,
}

impl Pauses {
    pub(super) fn new(clock: Clock) -> Self {
        Self { until: Arc::default(), clock }
    }

    /// The vendor has said, or may have, that it is still counting.
    pub(super) fn begin(&self, app: &AppId, filter: &Filter) {
        let now = self.clock.now();
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.retain(|_, until| now < *until);
        until.insert((app.clone(), filter.clone()), now + IN_PROGRESS_PAUSE);
    }

    /// Waits until this may be asked.
    pub(super) async fn over(&self, app: &AppId, filter: &Filter) {
        let question = (app.clone(), filter.clone());
        let until = |pauses: &Self| pauses.until.lock().unwrap_or_else(PoisonError::into_inner).get(&question).copied();
        while let Some(until) = until(self).filter(|until| self.clock.now() < *until) {
            sleep_until(until).await;
        }
    }
}
