//! A secret kept current: read, shown as headers, looked at again.
//!
//! Invariants: what is shown was made from one whole reading of all the secret's parts; a reading that fails changes
//! nothing but the time it failed; headers are made once for each content, never for each request.
//!
//! A request reads nothing: it is shown what the last look found, which [`super::look_at`] repeats and a reload or a
//! 401 asks for. So a file that hangs holds up nobody: its last good value serves its grace. A look that is made by the
//! clock passes over files whose [`Mark`]s are the same, and takes what has changed only when the next look finds the
//! same: a file in the middle of being written is left until it rests.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue, InvalidHeaderValue};
use tokio::time::Instant;

use super::GRACE;
use super::in_force::InForce;
use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::files::{self, Mark, Unreadable};
use crate::kernel::names::AppId;
use crate::kernel::secret::redact::Redactor;
use crate::kernel::secret::{Secret, SecretError, SecretSource};
use crate::kernel::sync::lock;

/// How a secret becomes headers.
pub(super) trait Recipe: Send + Sync {
    /// The headers that show these secrets.
    fn headers(&self, sources: &[SecretSource], secrets: &[Secret], now: UnixMillis) -> Result<Headers, SecretError>;

    /// For how long headers are used before they are made anew although the secret is the same; `None`: for ever.
    fn lasts(&self) -> Option<Duration>;
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
pub(super) struct CredentialHeaders {
    /// Rises when the secret's content changes.
    pub(super) content: u64,
    pub(super) headers: Headers,
    /// How the content does; shared by all headers made of it.
    pub(super) in_force: Arc<InForce>,
    /// Knows the secrets, and the headers made of them.
    pub(super) redactor: Arc<Redactor>,
}

impl CredentialHeaders {
    fn new(content: u64, secrets: &[Secret], headers: Headers, in_force: Arc<InForce>) -> Arc<Self> {
        let shown = headers.iter().filter(|(_, value)| value.is_sensitive()).map(|(_, value)| value.as_bytes());
        // `Basic` itself is no secret.
        let shown = shown.map(|value| value.strip_prefix(b"Basic ").unwrap_or(value));
        let redactor = Redactor::new(secrets.iter().map(|secret| secret.expose().as_bytes()).chain(shown));
        Arc::new(Self { content, headers, in_force, redactor: Arc::new(redactor) })
    }

    /// Other headers of the same content.
    fn anew(&self, secrets: &[Secret], headers: Headers) -> Arc<Self> {
        Self::new(self.content, secrets, headers, self.in_force.clone())
    }
}

pub(super) struct SecretCache {
    app: AppId,
    sources: Vec<SecretSource>,
    recipe: Box<dyn Recipe>,
    clock: Clock,
    state: Mutex<CacheState>,
}

/// A reading that has begun.
pub(super) struct SecretReading {
    /// The later, the higher.
    number: u64,
    /// The files before it, if all could be looked at.
    marks: Vec<Mark>,
}

#[derive(Default)]
struct CacheState {
    /// Readings that have begun.
    begun: u64,
    /// So many had begun when one was taken last: which of these came first is not known, so none of them is taken any
    /// more, and what was read first is not put in force last.
    missed: u64,
    good: Option<Good>,
    /// What a look by the clock found that is not in use yet.
    pending: Option<Vec<Secret>>,
    /// The files before they were last read, if all could be.
    marks: Vec<Mark>,
    failing: Option<Failing>,
    /// Nothing new is sent with it: what is found now is no news.
    is_retired: bool,
}

/// It cannot be read.
struct Failing {
    since: Instant,
    /// The same by the wall clock, for people.
    since_wall: UnixMillis,
    why: SecretError,
}

struct Good {
    secrets: Vec<Secret>,
    shown: Arc<CredentialHeaders>,
    made: UnixMillis,
    since: Instant,
}

impl Good {
    /// By the wall clock, which a token's time is of, and which goes on while the machine sleeps; and by the monotonic
    /// one, since a wall clock that is set back again and again would keep a token for ever. What was made in what is
    /// now the future was made by a wrong clock.
    fn is_stale(&self, lasts: Duration, now: Instant, wall: UnixMillis) -> bool {
        let held = now.saturating_duration_since(self.since);
        wall < self.made || wall.since(self.made) >= lasts || held >= lasts
    }
}

impl SecretCache {
    pub(super) fn new(app: AppId, sources: Vec<SecretSource>, recipe: Box<dyn Recipe>, clock: Clock) -> Self {
        Self { app, sources, recipe, clock, state: Mutex::default() }
    }

    /// The credential to send now.
    pub(super) fn current(&self) -> Result<Arc<CredentialHeaders>, SecretError> {
        let mut state = self.lock();
        self.renew(&mut state);
        match (&state.good, &state.failing) {
            (Some(good), None) => Ok(good.shown.clone()),
            (Some(good), Some(failing)) if self.clock.now().saturating_duration_since(failing.since) < GRACE => {
                Ok(good.shown.clone())
            }
            (_, Some(failing)) => Err(failing.why.clone()),
            // A look leaves one of the two behind.
            (None, None) => Err(self.unusable()),
        }
    }

    /// Which content is now shown, if any.
    pub(super) fn content(&self) -> Option<u64> {
        self.lock().good.as_ref().map(|good| good.shown.content)
    }

    /// Reads these secrets now, and takes what is there. Not for the threads of the runtime.
    pub(super) fn look(all: &[&Self]) {
        let mut all = all.to_vec();
        // Another look may have begun later and ended sooner: then this one has missed what it saw, and looks again.
        while !all.is_empty() {
            let due = Self::marked(&all).map(|(secrets, marks)| (secrets, secrets.begin(marks))).collect();
            let missed = Self::read(due)
                .filter_map(|(secrets, reading, read)| (!secrets.take(reading, read)).then_some(secrets));
            all = missed.collect();
        }
    }

    /// Reads those of these secrets whose files' marks, or the word beside them, give cause to. Says whether one has to
    /// be looked at again soon. Not for the threads of the runtime.
    pub(super) fn glance(all: &[(&Self, bool)]) -> bool {
        let (all, anyhow): (Vec<_>, Vec<_>) = all.iter().copied().unzip();
        let due = Self::marked(&all).zip(anyhow).filter_map(|((secrets, marks), anyhow)| {
            (anyhow || secrets.may_have_changed(&marks)).then(|| (secrets, secrets.begin(marks)))
        });
        let due = due.collect();
        let mut again = false;
        for (secrets, reading, read) in Self::read(due) {
            again |= secrets.take_what_rests(reading, read);
        }
        again
    }

    /// Each with the marks of its files.
    fn marked<'a>(all: &[&'a Self]) -> impl Iterator<Item = (&'a Self, Vec<Result<Mark, Unreadable>>)> {
        let files = all.iter().flat_map(|secrets| secrets.files()).map(Path::to_owned).collect();
        let mut marks = files::marks(files).into_iter();
        all.iter().map(move |secrets| (*secrets, marks.by_ref().take(secrets.files().count()).collect()))
    }

    /// All of them at a time: files that hang keep nobody else's waiting for longer than one does.
    fn read(
        due: Vec<(&Self, SecretReading)>,
    ) -> impl Iterator<Item = (&Self, SecretReading, Result<Vec<Secret>, SecretError>)> {
        let sources: Vec<_> = due.iter().flat_map(|(secrets, _)| &secrets.sources).cloned().collect();
        let mut read = SecretSource::read_all(&sources).into_iter();
        due.into_iter().map(move |(secrets, reading)| {
            let own: Vec<_> = read.by_ref().take(secrets.sources.len()).collect();
            (secrets, reading, own.into_iter().collect())
        })
    }

    /// The files that the secret is in.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().filter_map(SecretSource::file)
    }

    fn may_have_changed(&self, marks: &[Result<Mark, Unreadable>]) -> bool {
        let (state, wall) = (self.lock(), self.clock.wall());
        let same = state.marks.iter().map(|mark| Ok(*mark)).eq(marks.iter().copied());
        let is_same = same && state.marks.iter().all(|mark| mark.is_settled(wall));
        state.failing.is_some() || state.pending.is_some() || !is_same
    }

    pub(super) fn begin(&self, marks: Vec<Result<Mark, Unreadable>>) -> SecretReading {
        let mut state = self.lock();
        state.begun += 1;
        SecretReading { number: state.begun, marks: marks.into_iter().collect::<Result<_, _>>().unwrap_or_default() }
    }

    /// Takes what was read if it is what is in use, or what was read the last time. Says whether it has to be looked at
    /// again soon.
    fn take_what_rests(&self, reading: SecretReading, read: Result<Vec<Secret>, SecretError>) -> bool {
        let mut state = self.lock();
        if let (Some(good), Ok(secrets)) = (&state.good, &read)
            && reading.number > state.missed
            && good.secrets != *secrets
            && state.pending.as_ref() != Some(secrets)
        {
            state.pending = read.ok();
            return true;
        }
        drop(state);
        !self.take(reading, read)
    }

    /// After a 401: reads the secret now, makes a token anew unless that has happened since `tried`, and says which
    /// content is now shown. Not for the threads of the runtime.
    pub(super) fn look_again(&self, tried: &Arc<CredentialHeaders>) -> u64 {
        Self::look(&[self]);
        let mut state = self.lock();
        let now = self.clock.wall_ms();
        if let Some(good) = &mut state.good
            && Arc::ptr_eq(&good.shown, tried)
            && let Ok(headers) = self.recipe.headers(&self.sources, &good.secrets, now)
        {
            good.shown = good.shown.anew(&good.secrets, headers);
            good.made = now;
            good.since = self.clock.now();
        }
        state.good.as_ref().map_or(tried.content, |good| good.shown.content)
    }

    /// It is read no more. Says whether the log still says that it cannot be read.
    pub(super) fn retire(&self) -> bool {
        let mut state = self.lock();
        state.is_retired = true;
        state.failing.take().is_some()
    }

    /// Why it cannot be read at present, if so.
    pub(super) fn problem(&self) -> Option<SecretError> {
        self.lock().failing.as_ref().map(|failing| failing.why.clone())
    }

    /// Since when it cannot be read, if so.
    pub(super) fn failing_since(&self) -> Option<UnixMillis> {
        self.lock().failing.as_ref().map(|failing| failing.since_wall)
    }

    /// Which secret was put in force last, if any, and how it does.
    pub(super) fn in_force(&self) -> Option<Arc<InForce>> {
        self.lock().good.as_ref().map(|good| good.shown.in_force.clone())
    }

    /// Makes headers anew that are too old.
    fn renew(&self, state: &mut CacheState) {
        let Some(lasts) = self.recipe.lasts() else { return };
        let (now, wall) = (self.clock.now(), self.clock.wall_ms());
        if let Some(good) = &mut state.good
            && good.is_stale(lasts, now, wall)
            && let Ok(headers) = self.recipe.headers(&self.sources, &good.secrets, wall)
        {
            good.shown = good.shown.anew(&good.secrets, headers);
            good.made = wall;
            good.since = now;
        }
    }

    /// Takes what was read, unless another reading was taken since this one began. Says whether it did.
    pub(super) fn take(&self, reading: SecretReading, read: Result<Vec<Secret>, SecretError>) -> bool {
        let state = &mut *self.lock();
        if state.is_retired {
            return true;
        }
        if reading.number <= state.missed {
            return false;
        }
        let (now, wall) = (self.clock.now(), self.clock.wall_ms());
        state.missed = state.begun;
        state.pending = None;
        state.marks = reading.marks;
        let fresh = read.and_then(|secrets| match &state.good {
            Some(good) if good.secrets == secrets => Ok(None),
            good => {
                let content = good.as_ref().map_or(1, |old| old.shown.content + 1);
                let headers = self.recipe.headers(&self.sources, &secrets, wall)?;
                // The last of them is what the vendor keeps secret; before it stands the name that goes with it.
                let in_force = secrets.last().map(|secret| Arc::new(InForce::new(&self.app, secret, wall)));
                let in_force = in_force.ok_or_else(|| self.unusable())?;
                let shown = CredentialHeaders::new(content, &secrets, headers, in_force);
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
                        let secret = good.shown.in_force.name();
                        tracing::info!(app = %self.app, secret, "the credential has changed");
                    }
                    state.good = Some(good);
                }
            }
            Err(why) => {
                if state.failing.as_ref().is_none_or(|before| before.why != why) {
                    tracing::warn!(app = %self.app, %why, "the credential cannot be read");
                }
                let (since, since_wall) =
                    state.failing.as_ref().map_or((now, wall), |before| (before.since, before.since_wall));
                state.failing = Some(Failing { since, since_wall, why });
            }
        }
        true
    }

    fn unusable(&self) -> SecretError {
        SecretError::Unusable(format!("the credential of app {}", self.app))
    }

    fn lock(&self) -> MutexGuard<'_, CacheState> {
        lock(&self.state)
    }
}
