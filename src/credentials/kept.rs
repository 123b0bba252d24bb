//! A secret kept current: read, shown as headers, looked at again.
//!
//! Invariants: what is shown was made from one whole reading of all the secret's parts; a reading that fails changes
//! nothing but the time it failed; headers are made once for each content, never for each request.
//!
//! A request reads nothing: it is shown what the last look found, which [`super::look_at`] repeats and a reload or a 401
//! asks for. So a file that hangs holds up nobody: its last good value serves its grace. A look that is made by the clock
//! passes over files whose [`Mark`]s are the same, and takes what has changed only when the next look finds the same: a
//! file in the middle of being written is left until it rests.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue, InvalidHeaderValue};
use tokio::time::Instant;

use super::GRACE;
use crate::clock::{Clock, UnixMillis};
use crate::files::{self, Mark, Unreadable};
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
    /// Held while the files are read, so that what was read first is not put in force last. Never by a request.
    reading: Mutex<()>,
}

#[derive(Default)]
struct State {
    good: Option<Good>,
    /// What a look by the clock found that is not in use yet.
    pending: Option<Vec<Secret>>,
    /// The files before they were last read, if all could be.
    marks: Vec<Mark>,
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
        Self { app, sources, recipe, clock, state: Mutex::default(), reading: Mutex::default() }
    }

    /// The credential to send now.
    pub(super) fn current(&self) -> Result<Arc<Shown>, SecretError> {
        let now = self.clock.now();
        let mut state = self.lock();
        self.renew(&mut state);
        match (&state.good, &state.failing) {
            (Some(good), None) => Ok(good.shown.clone()),
            (Some(good), Some((since, _))) if now.saturating_duration_since(*since) < GRACE => Ok(good.shown.clone()),
            (_, Some((_, why))) => Err(why.clone()),
            // A look leaves one of the two behind.
            (None, None) => Err(SecretError::Unusable(format!("the credential of app {}", self.app))),
        }
    }

    /// Which content is now shown, if any.
    pub(super) fn content(&self) -> Option<u64> {
        self.lock().good.as_ref().map(|good| good.shown.content)
    }

    /// Reads the secret now, and takes what is there. Not for the threads of the runtime.
    pub(super) fn look(&self) {
        let _turn = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let (marks, read) = self.read();
        self.take(&mut self.lock(), marks, read);
    }

    /// The files that the secret is in.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().filter_map(SecretSource::file)
    }

    /// Reads the secret if these marks of its files, or `anyhow`, give cause to. Says whether it has to be looked at again
    /// soon. Not for the threads of the runtime.
    pub(super) fn glance(&self, marks: &[Result<Mark, Unreadable>], anyhow: bool) -> bool {
        let _turn = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let wall = self.clock.wall();
        let is_same = |state: &State| {
            let same = state.marks.iter().map(|mark| Ok(*mark)).eq(marks.iter().copied());
            same && state.marks.iter().all(|mark| mark.is_settled(wall))
        };
        {
            let state = self.lock();
            if !anyhow && state.failing.is_none() && state.pending.is_none() && is_same(&state) {
                return false;
            }
        }
        let (marks, read) = self.read();
        let mut state = self.lock();
        if let (Some(good), Ok(secrets)) = (&state.good, &read)
            && good.secrets != *secrets
            && state.pending.as_ref() != Some(secrets)
        {
            state.pending = read.ok();
            return true;
        }
        self.take(&mut state, marks, read);
        false
    }

    /// After a 401: reads the secret now, makes a token anew unless that has happened since `tried`, and says which
    /// content is now shown. Not for the threads of the runtime.
    pub(super) fn look_again(&self, tried: &Arc<Shown>) -> u64 {
        self.look();
        let mut state = self.lock();
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

    /// Makes headers anew that are too old.
    fn renew(&self, state: &mut State) {
        let (now, wall) = (self.clock.now(), self.clock.wall_ms());
        if let Some(good) = &mut state.good
            && self.recipe.stale(good.made, wall, now.saturating_duration_since(good.since))
            && let Ok(headers) = self.recipe.headers(&self.sources, &good.secrets, wall)
        {
            good.shown = Shown::new(good.shown.content, &good.secrets, headers);
            good.made = wall;
            good.since = now;
        }
    }

    /// The files before they are read, and what is in them.
    fn read(&self) -> (Vec<Mark>, Result<Vec<Secret>, SecretError>) {
        let marks = files::marks(self.files().map(Path::to_owned).collect());
        let marks = marks.into_iter().collect::<Result<_, _>>().unwrap_or_default();
        (marks, self.sources.iter().map(SecretSource::read).collect())
    }

    fn take(&self, state: &mut State, marks: Vec<Mark>, read: Result<Vec<Secret>, SecretError>) {
        let (now, wall) = (self.clock.now(), self.clock.wall_ms());
        state.pending = None;
        state.marks = marks;
        let fresh = read.and_then(|secrets| match &state.good {
            Some(good) if good.secrets == secrets => Ok(None),
            good => {
                let content = good.as_ref().map_or(1, |old| old.shown.content + 1);
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
                    if state.good.is_some() {
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
