//! The issuer's keys: where they come from, which are believed now, and how they are kept fresh.
//!
//! Invariants:
//! - A request never fetches. One task does, one fetch at a time: every `jwks_refresh`, and when a token names a key
//!   that is not there, but never within [`ASK_GAP`] of the fetch before, so that a stranger cannot make us hammer the
//!   issuer.
//! - A set that was fetched replaces the one before whole: a key that the issuer no longer publishes opens nothing.
//! - A fetch that fails changes nothing: the last good set stays in force, and that it is stale is logged, counted and
//!   shown. It is believed for [`BELIEVED_FOR`] at most, judged where it is used, so that nothing but the clock is
//!   needed for it to end.
//! - The start waits for no issuer. Without keys nobody is refused as unknown: the answer is "not now".
//! - The address is one that [`crate::kernel::targets`] lets through, and no redirect is followed.
//!
//! | part | does |
//! | --- | --- |
//! | `set` | a JWK set as what it can check |
//! | `fetch` | one fetch, bounded in time and size |
//! | `keeper` | the task that fetches, when and how often |
//! | `source` | what the configuration says, and whether it changed |

mod fetch;
mod keeper;
pub mod set;
mod source;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Jwt;
use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::metrics::Metrics;
use crate::kernel::proof::Proofs;
use crate::kernel::sync::lock;
use crate::kernel::task::{Kind, Tasks};
use crate::tls::Role;
use keeper::Keeper;
use set::KeySet;
pub use source::BuildError;
use source::Source;

/// An unknown key makes us fetch at most this often, whoever asks.
pub const ASK_GAP: Duration = Duration::from_secs(10);
/// How long a caller waits for a fetch that its token asked for.
pub const ASK_WAIT: Duration = Duration::from_secs(2);
/// How many callers wait at a time. More are told at once to come again.
const ASKERS: usize = 64;
/// How long a set is believed that no fetch has confirmed: an issuer may be away for a night, a key that it took back
/// must not work for ever.
pub const BELIEVED_FOR: Duration = Duration::from_secs(24 * 3600);

/// The keys of one source.
#[derive(Debug)]
pub struct Keys {
    state: ArcSwap<KeyState>,
    /// Number of fetches begun and ended.
    rounds: watch::Sender<Rounds>,
    refresh_wanted: Notify,
    askers: Semaphore,
    retired: CancellationToken,
    /// Told when what is held is another set.
    proofs: Proofs,
    clock: Clock,
}

/// What is held of the issuer, and since when.
#[derive(Clone, Debug, Default)]
struct KeyState {
    set: Option<Arc<KeySet>>,
    digest: [u8; 32],
    /// The last good fetch; `None` for a file, which is what it is.
    confirmed: Option<(Instant, UnixMillis)>,
    /// Why the last fetch failed, when it did.
    fault: Option<String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Rounds {
    begun: u64,
    ended: u64,
    last_began: Option<Instant>,
}

/// What came of asking for a newer set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// The issuer was asked just now, or within [`ASK_GAP`]: what is held is what it says.
    Fresh,
    /// The issuer could not be asked, or not in time: what it would say is not known.
    InVain,
}

impl Keys {
    fn new(state: KeyState, proofs: Proofs, clock: Clock) -> Self {
        Self {
            state: ArcSwap::from_pointee(state),
            rounds: watch::Sender::new(Rounds::default()),
            refresh_wanted: Notify::new(),
            askers: Semaphore::new(ASKERS),
            retired: CancellationToken::new(),
            proofs,
            clock,
        }
    }

    /// Keys that never change.
    #[must_use]
    pub fn fixed(set: KeySet, clock: Clock) -> Self {
        let state = KeyState { set: Some(Arc::new(set)), ..KeyState::default() };
        Self::new(state, Proofs::new(clock.clone()), clock)
    }

    /// The set that is believed now.
    #[must_use]
    pub fn current(&self) -> Option<Arc<KeySet>> {
        let state = self.state.load();
        let is_stale = state.confirmed.is_some_and(|(at, _)| self.clock.now().duration_since(at) > BELIEVED_FOR);
        state.set.clone().filter(|_| !is_stale)
    }

    /// Asks that the issuer be asked, because a token names a key that is not held; waits for the answer, not for long.
    pub async fn refresh(&self) -> RefreshOutcome {
        if self.state.load().confirmed.is_none() && self.state.load().set.is_some() {
            return RefreshOutcome::Fresh; // a file
        }
        // A flood of tokens with made-up keys holds up so many requests, and no more.
        let Ok(_waiting) = self.askers.try_acquire() else { return RefreshOutcome::InVain };
        let mut rounds = self.rounds.subscribe();
        let seen = *rounds.borrow_and_update();
        let under_way = seen.begun > seen.ended;
        if !under_way && self.is_too_soon(seen) {
            return self.verdict();
        }
        if !under_way {
            self.refresh_wanted.notify_one();
        }
        match tokio::time::timeout(ASK_WAIT, rounds.wait_for(|now| now.ended > seen.ended)).await {
            Ok(Ok(_)) => self.verdict(),
            Ok(Err(_)) | Err(_) => RefreshOutcome::InVain,
        }
    }

    fn is_too_soon(&self, rounds: Rounds) -> bool {
        rounds.last_began.is_some_and(|at| self.clock.now().duration_since(at) < ASK_GAP)
    }

    fn verdict(&self) -> RefreshOutcome {
        if self.state.load().fault.is_none() { RefreshOutcome::Fresh } else { RefreshOutcome::InVain }
    }

    /// How it stands with them, for the operator.
    #[must_use]
    pub fn status(&self) -> Status {
        let state = self.state.load();
        let set = state.set.as_deref();
        Status {
            keys: set.map_or(0, KeySet::len),
            ignored: set.map_or(0, KeySet::ignored),
            kids: set.map(|set| set.kids().map(str::to_owned).collect()).unwrap_or_default(),
            believed: self.current().is_some(),
            confirmed_at: state.confirmed.map(|(_, at)| at.to_string()),
            age_seconds: state.confirmed.map(|(at, _)| self.clock.now().duration_since(at).as_secs()),
            fault: state.fault.clone(),
        }
    }
}

/// How it stands with an issuer's keys.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Status {
    /// How many can be used.
    pub keys: usize,
    /// How many were published and cannot.
    pub ignored: usize,
    /// Their names (`kid`), of those that can be used.
    pub kids: Vec<String>,
    /// Whether tokens are checked by them now.
    pub believed: bool,
    /// When the issuer last said so. `None`: never, or they are in a file.
    pub confirmed_at: Option<String>,
    /// How long ago that was.
    pub age_seconds: Option<u64>,
    /// Why the last fetch failed, if it did.
    pub fault: Option<String>,
}

/// The keys of the configured issuer, through reloads. Cheap to clone.
#[derive(Clone)]
pub struct Jwks {
    slot: Arc<Mutex<Option<Slot>>>,
    tasks: Tasks,
    proofs: Proofs,
    clock: Clock,
    metrics: Metrics,
}

struct Slot {
    source: Source,
    keys: Arc<Keys>,
    /// What fetches them, until it is started.
    keeper: Option<Keeper>,
}

/// Keys that are ready to be put in force.
pub struct Prepared(Option<Slot>);

impl Prepared {
    /// The keys, if tokens are configured.
    #[must_use]
    pub fn keys(&self) -> Option<Arc<Keys>> {
        self.0.as_ref().map(|slot| slot.keys.clone())
    }
}

impl Jwks {
    /// None yet; what fetches runs in `tasks`, and tells `proofs` when the keys change.
    #[must_use]
    pub fn new(tasks: Tasks, proofs: Proofs, clock: Clock, metrics: Metrics) -> Self {
        Self { slot: Arc::default(), tasks, proofs, clock, metrics }
    }

    /// Reads what the configuration names, without fetching anything or changing what is in force. The same keys as
    /// before when their source is the same; the last good set of the same address in any case.
    ///
    /// # Errors
    /// When a file cannot be read, or is not what it should be.
    pub fn prepare(&self, config: Option<&Jwt>) -> Result<Prepared, BuildError> {
        let Some(config) = config else { return Ok(Prepared(None)) };
        let source = Source::read(&config.keys)?;
        let before = lock(&self.slot);
        if let Some(slot) = &*before
            && slot.source == source
        {
            return Ok(Prepared(Some(Slot { source, keys: slot.keys.clone(), keeper: None })));
        }
        let state = match (&source, &*before) {
            (Source::File { document, .. }, _) => {
                KeyState { set: Some(Arc::new(KeySet::parse(document)?)), ..KeyState::default() }
            }
            (Source::Url { .. }, Some(slot)) if slot.source.is_same_address(&source) => {
                KeyState::clone(&slot.keys.state.load())
            }
            (Source::Url { .. }, _) => KeyState::default(),
        };
        let keys = Arc::new(Keys::new(state, self.proofs.clone(), self.clock.clone()));
        let keeper = match &source {
            Source::File { .. } => None,
            Source::Url { settings, anchors } => Some(Keeper::new(
                keys.clone(),
                settings,
                anchors.as_ref().map(|pem| pem.as_slice()),
                self.metrics.clone(),
            )?),
        };
        Ok(Prepared(Some(Slot { source, keys, keeper })))
    }

    /// Puts prepared keys in force. The keys before are fetched no more.
    pub fn commit(&self, prepared: Prepared) {
        let ends = prepared.0.as_ref().and_then(|slot| slot.source.ca_ends());
        Role::JwksCa.ends(ends, &self.metrics, &self.clock);
        let mut slot = lock(&self.slot);
        match (&*slot, prepared.0) {
            // The same keys go on as they are.
            (Some(old), Some(new)) if Arc::ptr_eq(&old.keys, &new.keys) => {}
            (old, new) => {
                if let Some(old) = old {
                    old.keys.retired.cancel();
                }
                *slot = new;
            }
        }
    }

    /// Starts to fetch what is in force and not fetched yet.
    pub fn start(&self) {
        let mut slot = lock(&self.slot);
        if let Some(keeper) = slot.as_mut().and_then(|slot| slot.keeper.take()) {
            self.tasks.spawn(Kind::KeyKeeper, keeper.run(self.tasks.stopping()));
        }
    }

    /// How it stands, for the operator; `None` when no tokens are configured.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        lock(&self.slot).as_ref().map(|slot| slot.keys.status())
    }

    /// Brings the gauges up to date.
    pub fn observe(&self) {
        let status = self.status();
        let keys = status.as_ref().filter(|status| status.believed).map_or(0, |status| status.keys);
        self.metrics.jwks_keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
        let age = status.and_then(|status| status.age_seconds).unwrap_or_default();
        self.metrics.jwks_age.set(i64::try_from(age).unwrap_or(i64::MAX));
    }
}
