//! A secret kept current: read, shown as headers, looked at again.
//!
//! Invariants: what is shown was made from one whole reading of all the secret's parts; a reading that fails changes
//! nothing but the time it failed; headers are made once for each content, never for each request.
//!
//! A look reads the (small, local) files whole instead of asking for their times: times lie when a file is written
//! twice within their grain, and a mounted secret of Kubernetes changes by a link. It happens at most once a second, on
//! the thread of the request that is due.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue, InvalidHeaderValue};
use tokio::time::Instant;

use super::{GRACE, LOOK_EVERY};
use crate::clock::{Clock, UnixMillis};
use crate::names::AppId;
use crate::secret::redact::Redactor;
use crate::secret::{Secret, SecretError, SecretSource};

/// How a secret becomes headers.
pub(super) trait Recipe: Send + Sync {
    /// The headers that show these secrets.
    fn headers(&self, sources: &[SecretSource], secrets: &[Secret], now: UnixMillis) -> Result<Headers, SecretError>;

    /// Whether headers made at `made`, and held for so long since, must be made anew although the secret is the same.
    fn stale(&self, made: UnixMillis, now: UnixMillis, held: Duration) -> bool;
}

/// What is added to a request.
pub(super) type Headers = Vec<(HeaderName, HeaderValue)>;

/// A secret as a header's value: marked sensitive, and wiped when its last clone is dropped.
pub(super) fn header_value(secret: Secret) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(secret))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A credential as it goes out.
pub(super) struct Shown {
    /// Rises when the secret's content changes.
    pub(super) content: u64,
    pub(super) headers: Headers,
    /// Knows the secrets, and the headers made of them.
    pub(super) redactor: Arc<Redactor>,
}

impl Shown {
    fn new(content: u64, secrets: &[Secret], headers: Headers) -> Arc<Self> {
        let shown = headers.iter().filter(|(_, value)| value.is_sensitive()).map(|(_, value)| value.as_bytes());
        // `Basic` itself is no secret.
        let shown = shown.map(|value| value.strip_prefix(b"Basic ").unwrap_or(value));
        let redactor = Redactor::new(secrets.iter().map(|secret| secret.expose().as_bytes()).chain(shown));
        Arc::new(Self { content, headers, redactor: Arc::new(redactor) })
    }
}

pub(super) struct Kept {
    app: AppId,
    sources: Vec<SecretSource>,
    recipe: Box<dyn Recipe>,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    good: Option<Good>,
    looked: Option<Instant>,
    /// Since when it cannot be read, and why.
    failing: Option<(Instant, SecretError)>,
}

struct Good {
    secrets: Vec<Secret>,
    shown: Arc<Shown>,
    made: UnixMillis,
    since: Instant,
}

impl Kept {
    pub(super) fn new(app: AppId, sources: Vec<SecretSource>, recipe: Box<dyn Recipe>, clock: Clock) -> Self {
        Self { app, sources, recipe, clock, state: Mutex::default() }
    }

    /// The credential to send now.
    pub(super) fn current(&self) -> Result<Arc<Shown>, SecretError> {
        let now = self.clock.now();
        let mut state = self.lock();
        if state.looked.is_none_or(|at| now.saturating_duration_since(at) >= LOOK_EVERY) {
            self.look_at(&mut state, now);
        }
        match (&state.good, &state.failing) {
            (Some(good), None) => Ok(good.shown.clone()),
            (Some(good), Some((since, _))) if now.saturating_duration_since(*since) < GRACE => Ok(good.shown.clone()),
            (_, Some((_, why))) => Err(why.clone()),
            // A look leaves one of the two behind.
            (None, None) => Err(SecretError::Unusable(format!("the credential of app {}", self.app))),
        }
    }

    /// Reads the secret now.
    pub(super) fn look(&self) {
        self.look_at(&mut self.lock(), self.clock.now());
    }

    /// After a 401: reads the secret now, makes a token anew unless that has happened since `tried`, and says which
    /// content is now shown.
    pub(super) fn look_again(&self, tried: &Arc<Shown>) -> u64 {
        let mut state = self.lock();
        self.look_at(&mut state, self.clock.now());
        let now = self.clock.wall_ms();
        if let Some(good) = &mut state.good
            && Arc::ptr_eq(&good.shown, tried)
            && let Ok(headers) = self.recipe.headers(&self.sources, &good.secrets, now)
        {
            good.shown = Shown::new(good.shown.content, &good.secrets, headers);
            good.made = now;
            good.since = self.clock.now();
        }
        state.good.as_ref().map_or(tried.content, |good| good.shown.content)
    }

    /// Why it cannot be read at present, if so.
    pub(super) fn problem(&self) -> Option<SecretError> {
        self.lock().failing.as_ref().map(|(_, why)| why.clone())
    }

    fn look_at(&self, state: &mut State, now: Instant) {
        state.looked = Some(now);
        let wall = self.clock.wall_ms();
        let read: Result<Vec<Secret>, SecretError> = self.sources.iter().map(SecretSource::read).collect();
        let fresh = read.and_then(|secrets| match &state.good {
            Some(good)
                if good.secrets == secrets
                    && !self.recipe.stale(good.made, wall, now.saturating_duration_since(good.since)) =>
            {
                Ok(None)
            }
            good => {
                let content = good.as_ref().map_or(1, |old| old.shown.content + u64::from(old.secrets != secrets));
                let headers = self.recipe.headers(&self.sources, &secrets, wall)?;
                let shown = Shown::new(content, &secrets, headers);
                Ok(Some(Good { secrets, shown, made: wall, since: now }))
            }
        });
        match fresh {
            Ok(fresh) => {
                if state.failing.take().is_some() {
                    tracing::info!(app = %self.app, "the credential can be read again");
                }
                if let Some(good) = fresh {
                    if state.good.as_ref().is_some_and(|old| old.shown.content != good.shown.content) {
                        tracing::info!(app = %self.app, "the credential has changed");
                    }
                    state.good = Some(good);
                }
            }
            Err(why) => {
                if state.failing.as_ref().is_none_or(|(_, before)| *before != why) {
                    tracing::warn!(app = %self.app, %why, "the credential cannot be read");
                }
                let since = state.failing.as_ref().map_or(now, |(since, _)| *since);
                state.failing = Some((since, why));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
