//! The task that fetches an issuer's keys: when, how often, and what is said when it fails.
//!
//! Invariants: one fetch at a time. After a good one the next comes `jwks_refresh` later, or sooner when the issuer's
//! `Cache-Control` says so (but not within [`ASK_GAP`]); after a failed one in growing steps. Times are spread, so that
//! replicas that start together do not ask together for ever.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fetch::{FetchError, FetchedSet, Fetcher};
use super::{ASK_GAP, BELIEVED_FOR, BuildError, KeyState, Keys};
use crate::config::JwksUrl;
use crate::kernel::backoff::Backoff;
use crate::kernel::metrics::{Metrics, OutcomeLabels, outcomes_from_the_start};

/// The wait after the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// How a fetch ends, as the metric has it.
const FETCHED: &str = "ok";
const FAILED: &str = "failed";

/// Keeps one source's keys fresh.
pub(super) struct Keeper {
    keys: Arc<Keys>,
    fetcher: Fetcher,
    refresh: Duration,
    metrics: Metrics,
    backoff: Backoff,
}

impl Keeper {
    pub(super) fn new(
        keys: Arc<Keys>,
        settings: &JwksUrl,
        anchors: Option<&[u8]>,
        metrics: Metrics,
    ) -> Result<Self, BuildError> {
        outcomes_from_the_start(&metrics.jwks_fetches, [FETCHED, FAILED]);
        Ok(Self {
            keys,
            fetcher: Fetcher::new(settings, anchors)?,
            refresh: settings.refresh,
            metrics,
            backoff: Backoff::new(FIRST_PAUSE, MAX_PAUSE),
        })
    }

    /// Fetches until it is told to stop or other keys are put in force.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let retired = self.keys.retired.clone();
        let work = async {
            loop {
                let pause = self.round().await;
                self.rest(pause).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = retired.cancelled() => {}
            () = work => {}
        }
    }

    /// Fetches once. Says how long to rest.
    async fn round(&mut self) -> Duration {
        let began = self.keys.clock.now();
        self.keys.rounds.send_modify(|rounds| {
            rounds.begun += 1;
            rounds.last_began = Some(began);
        });
        let pause = match self.fetcher.fetch(began).await {
            Ok(fetched) => self.take(fetched),
            Err(why) => self.fail(&why),
        };
        self.keys.rounds.send_modify(|rounds| rounds.ended += 1);
        pause
    }

    fn take(&mut self, fetched: FetchedSet) -> Duration {
        self.count(FETCHED);
        let confirmed = Some((self.keys.clock.now(), self.keys.clock.wall_ms()));
        let before = self.keys.state.load_full();
        let was_known = self.keys.current().is_some();
        let set = match &before.set {
            // What was verified by these very keys stays verified.
            Some(same) if before.digest == fetched.digest => same.clone(),
            _ => {
                let (keys, ignored) = (fetched.set.len(), fetched.set.ignored());
                if fetched.set.is_empty() {
                    tracing::warn!(ignored, "the issuer publishes no key that can be used: no token will be believed");
                } else {
                    tracing::info!(keys, ignored, "the issuer's keys changed");
                }
                Arc::new(fetched.set)
            }
        };
        if self.backoff.failures() > 0 {
            tracing::info!(failures = self.backoff.failures(), "the issuer's keys can be fetched again");
        }
        self.backoff.reset();
        let is_same = was_known && before.set.as_ref().is_some_and(|same| Arc::ptr_eq(same, &set));
        self.keys.state.store(Arc::new(KeyState { set: Some(set), digest: fetched.digest, confirmed, fault: None }));
        if !is_same {
            self.keys.proofs.changed();
        }
        let asked_for = fetched.max_age.map_or(self.refresh, |age| age.max(ASK_GAP));
        spread(self.refresh.min(asked_for))
    }

    fn fail(&mut self, why: &FetchError) -> Duration {
        self.count(FAILED);
        let before = self.keys.state.load_full();
        let age = before.confirmed.map(|(at, _)| self.keys.clock.now().duration_since(at));
        let age_seconds = age.map(|age| age.as_secs());
        match age {
            Some(age) if age <= BELIEVED_FOR => {
                tracing::warn!(%why, age_seconds, "the issuer's keys could not be fetched; the last stay in force");
            }
            _ => {
                tracing::error!(%why, age_seconds, "the issuer's keys could not be fetched: no token can be checked");
            }
        }
        self.keys.state.store(Arc::new(KeyState { fault: Some(why.to_string()), ..KeyState::clone(&before) }));
        spread(self.backoff.next_wait().min(self.refresh.max(FIRST_PAUSE)))
    }

    /// Waits, until the time is over or a caller's token asks for a key that is not held and it is not too soon.
    async fn rest(&self, pause: Duration) {
        let until: Instant = self.keys.clock.now() + pause;
        let asked = async {
            loop {
                self.keys.refresh_wanted.notified().await;
                let rounds = *self.keys.rounds.borrow();
                if !self.keys.is_too_soon(rounds) {
                    return;
                }
            }
        };
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            () = asked => {}
        }
    }

    fn count(&self, outcome: &str) {
        self.metrics.jwks_fetches.get_or_create(&OutcomeLabels { outcome: outcome.to_owned() }).inc();
    }
}

/// A tenth less to a tenth more.
fn spread(time: Duration) -> Duration {
    time.mul_f64(rand::rng().random_range(0.9..=1.1))
}
