//! What opens the vendor's door: secrets kept current, shown as headers, and guarded when the vendor refuses them.
//!
//! Invariants:
//! - Nothing leaves without a [`Signed`], and only this module makes one: from an order, a seat, a [`Pass`] and a base
//!   taken from the checked configuration. The caller's headers are copied by allow-list, so its own credentials cannot
//!   be among them.
//! - A secret that cannot be read stops what needs it, after [`GRACE`] in which its last good value still serves. An
//!   empty or partly written file never replaces a good value. All of it mends itself.
//! - After the vendor said 401 to a secret, at most one request at a time goes out with it until the vendor took one;
//!   when the second is refused too, none but one probe each [`breaker::PROBE_EVERY`] does, until the secret changes.
//! - A secret leaves this module only as a header value marked sensitive.

mod basic;
mod breaker;
mod in_force;
mod minted;
mod secret_cache;
mod signed;
pub mod token;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config;
use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::names::AppId;
use crate::kernel::secret::SecretError;
use crate::kernel::secret::redact::Redactor;
use crate::kernel::task;
use crate::kernel::trouble::Symptom;
use crate::vendor::Vendor;
pub(crate) use basic::basic_header;
use breaker::{CredentialBreaker, CredentialStatus, Entry};
pub use in_force::SecretState;
use secret_cache::{CredentialHeaders, SecretCache};
pub(crate) use signed::Base;
pub use signed::Signed;

/// How long the last good value of a secret is used after the secret could no longer be read.
pub const GRACE: Duration = Duration::from_secs(30);

/// How often secrets' files are looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The same while one of them is being written.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// At every such look files are read whose marks say that they are the same: on some file systems marks lie.
const READ_ANYHOW: u64 = 120;

/// The uid of a token credential cannot stand in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("uid cannot stand in a header")]
pub struct BadUid;

/// How a credential is, for the admin API. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CredentialState {
    /// Whose.
    pub app: String,
    /// `basic` or `token`.
    pub kind: &'static str,
    /// `good`, `grace` (unreadable, the last good value still serves), `unavailable`, `doubted` (refused once) or
    /// `refused` (the vendor is not asked but by probes).
    pub state: &'static str,
    /// What is wrong, naming the place of the secret, never its value.
    pub problem: Option<String>,
    /// Which secret is shown, and whether the vendor takes it; `None` before one could be read.
    pub secret: Option<SecretState>,
}

impl CredentialState {
    /// Whether it can be read and the vendor has not refused it.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self.state, "good" | "doubted")
    }
}

/// One app's credential.
pub(crate) struct Credential {
    app: AppId,
    source: config::Credential,
    vendor: Vendor,
    secrets: SecretCache,
    breaker: CredentialBreaker,
    clock: Clock,
}

/// Looks at the files of these credentials, the `round`th time. Says whether one of them is being written. Not for the
/// threads of the runtime.
pub(crate) fn look_at(credentials: &[Arc<Credential>], round: u64) -> bool {
    let all: Vec<_> = (round..).zip(credentials).map(|(n, one)| (&one.secrets, n % READ_ANYHOW == 0)).collect();
    let again = SecretCache::glance(&all);
    credentials.iter().for_each(|credential| credential.notice_change());
    again
}

/// Reads these credentials' secrets now (a start, a reload). Not for the threads of the runtime once requests are
/// served.
pub(crate) fn read<'a>(credentials: impl IntoIterator<Item = &'a Arc<Credential>>) {
    let credentials: Vec<_> = credentials.into_iter().collect();
    let all: Vec<_> = credentials.iter().map(|credential| &credential.secrets).collect();
    SecretCache::look(&all);
    credentials.iter().for_each(|credential| credential.notice_change());
}

/// Why an order may not go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PassError {
    /// The secret cannot be read.
    Unavailable(SecretError),
    /// The vendor refuses it.
    Refused,
    /// Whether the vendor still takes it was not known before the deadline.
    Undecided,
}

/// The right to send one request with a credential. The vendor's verdict is told by [`Pass::accepted`] or
/// [`Pass::refused`]; dropped, there was none.
pub(crate) struct Pass {
    credential: Arc<Credential>,
    shown: Arc<CredentialHeaders>,
    /// The content that is on trial by this pass, if one is.
    trial: Option<u64>,
}

impl Credential {
    /// A credential whose secret is still to be read (see [`read`]). One that cannot be read is no error: it may come.
    pub(crate) fn new(
        app: &AppId,
        source: &config::Credential,
        vendor: Vendor,
        clock: &Clock,
    ) -> Result<Arc<Self>, BadUid> {
        let recipe: Box<dyn secret_cache::Recipe> = match source {
            config::Credential::Basic { .. } => Box::new(basic::BasicRecipe),
            config::Credential::Token { uid, .. } => Box::new(minted::TokenRecipe::new(app.clone(), uid, vendor)?),
        };
        let sources = match source {
            config::Credential::Basic { api_key, api_secret } => vec![api_key.clone(), api_secret.clone()],
            config::Credential::Token { app_certificate, .. } => vec![app_certificate.clone()],
        };
        let secrets = SecretCache::new(app.clone(), sources, recipe, clock.clone());
        Ok(Arc::new(Self {
            app: app.clone(),
            source: source.clone(),
            vendor,
            secrets,
            breaker: CredentialBreaker::new(app.clone(), clock.clone()),
            clock: clock.clone(),
        }))
    }

    /// Whether it is what this configuration asks for.
    pub(crate) fn is(&self, source: &config::Credential, vendor: Vendor) -> bool {
        self.source == *source && self.vendor == vendor
    }

    /// The app's requests go elsewhere from now on: what was refused there may be tried here at once.
    pub(crate) fn try_anew(&self) {
        self.breaker.try_anew();
    }

    /// Nothing new is sent with it, for this reason. What the log says to be wrong with it ends with that.
    pub(crate) fn retire(&self, why: &'static str) {
        let (was_refused, was_unreadable) = (self.breaker.retire(), self.secrets.retire());
        if was_refused || was_unreadable {
            tracing::info!(app = %self.app, why, "the credential is used no more");
        }
    }

    /// Its secret may have been read anew.
    fn notice_change(&self) {
        if let Some(content) = self.secrets.content() {
            self.breaker.replaced_by(content);
        }
    }

    /// Waits until there may be a pass: not at all, but while another order tries whether the vendor still takes the
    /// secret. Takes nothing: who then waits for a seat holds nobody up.
    pub(crate) async fn clear(&self, deadline: Instant) -> Result<(), PassError> {
        loop {
            let verdict = self.breaker.verdict();
            tokio::pin!(verdict);
            // Listens before it looks: a verdict between the two is not missed.
            verdict.as_mut().enable();
            let shown = self.secrets.current().map_err(PassError::Unavailable)?;
            match self.breaker.look(shown.content) {
                Entry::Go { .. } => return Ok(()),
                Entry::Refused => return Err(PassError::Refused),
                Entry::Wait if tokio::time::timeout_at(deadline, verdict).await.is_err() => {
                    return Err(PassError::Undecided);
                }
                Entry::Wait => {}
            }
        }
    }

    /// The right to send now. `None`: another order has begun a trial meanwhile, wait again.
    pub(crate) fn pass(self: &Arc<Self>) -> Result<Option<Pass>, PassError> {
        let shown = self.secrets.current().map_err(PassError::Unavailable)?;
        match self.breaker.enter(shown.content) {
            Entry::Go { trial } => {
                let trial = trial.then_some(shown.content);
                Ok(Some(Pass { credential: self.clone(), shown, trial }))
            }
            Entry::Wait => Ok(None),
            Entry::Refused => Err(PassError::Refused),
        }
    }

    /// How it is.
    pub(crate) fn state(&self, app: &AppId) -> CredentialState {
        let kind = match self.source {
            config::Credential::Basic { .. } => "basic",
            config::Credential::Token { .. } => "token",
        };
        let (state, problem) = match (self.secrets.current(), self.secrets.problem()) {
            (Err(problem), _) => ("unavailable", Some(problem.to_string())),
            (Ok(shown), problem) => match (self.breaker.status(shown.content), problem) {
                (CredentialStatus::Closed { .. }, _) => ("refused", Some("the vendor answered 401".to_owned())),
                (CredentialStatus::Doubted, _) => ("doubted", Some("the vendor answered 401 once".to_owned())),
                (CredentialStatus::Open, Some(problem)) => ("grace", Some(problem.to_string())),
                (CredentialStatus::Open, None) => ("good", None),
            },
        };
        let secret = self.secrets.in_force().map(|secret| secret.state());
        CredentialState { app: app.to_string(), kind, state, problem, secret }
    }

    /// Why nothing can be sent with it, for probes, and since when.
    pub(crate) fn trouble(&self) -> Option<(Symptom, UnixMillis)> {
        match self.secrets.current() {
            Err(_) => Some((Symptom::CredentialUnavailable, self.secrets.failing_since()?)),
            Ok(shown) => match self.breaker.status(shown.content) {
                CredentialStatus::Closed { since } => Some((Symptom::CredentialRefused, since)),
                CredentialStatus::Open | CredentialStatus::Doubted => None,
            },
        }
    }
}

impl Pass {
    /// Knows what is shown by it, for answers that repeat it.
    fn redactor(&self) -> Arc<Redactor> {
        self.shown.redactor.clone()
    }

    /// The vendor took the credential.
    pub(crate) fn accepted(mut self) {
        self.shown.in_force.accepted(self.credential.clock.wall_ms());
        if let Some(content) = self.trial.take() {
            self.credential.breaker.accepted(content);
        }
    }

    /// The vendor answered 401. Lets the breaker know at once, has the secret read again elsewhere, and lets the
    /// breaker know whether it is still the same: until then no other request goes out with it.
    pub(crate) fn refused(mut self) {
        let (tried, was_trial) = (self.shown.content, self.trial.is_some());
        self.shown.in_force.refused(self.credential.clock.wall_ms());
        if !self.credential.breaker.doubt(tried, self.credential.secrets.content(), was_trial) {
            return;
        }
        // Whatever becomes of the reading: dropped, this ends the others' wait.
        self.trial = Some(tried);
        task::detached(move || {
            let current = self.credential.secrets.look_again(&self.shown);
            self.trial = None;
            if self.credential.breaker.refused(tried, current, was_trial) {
                tracing::error!(
                    app = %self.credential.app,
                    secret = self.shown.in_force.name(),
                    why = "the vendor answered 401",
                    "the vendor refuses the credential: no more requests until it changes"
                );
            }
        });
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(content) = self.trial {
            self.credential.breaker.no_verdict(content);
        }
    }
}

#[cfg(test)]
mod tests;
