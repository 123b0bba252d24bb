//! [`Password`]: what the proxy is shown.
//!
//! Invariants: it is read for each connection, so a changed file counts from the next one. Where it cannot be read the
//! last good one is shown, for as long as a credential's is ([`GRACE`]); nor does a connection wait for a file that
//! hangs while there is one. After that connections fail, and it is forgotten.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::kernel::clock::Clock;
use crate::kernel::files::Unreadable;
use crate::kernel::secret::{Secret, SecretError, SecretSource};
use crate::kernel::sync::lock;
use crate::upstream::credentials::GRACE;

/// How long a connection waits for the file while there is a good password.
const A_MOMENT: Duration = Duration::from_millis(250);

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Password {
    source: SecretSource,
    clock: Clock,
    state: Arc<Mutex<PasswordState>>,
}

#[derive(Default)]
struct PasswordState {
    good: Option<Secret>,
    failing_since: Option<Instant>,
}

impl Password {
    /// Reads it once; that it cannot be read is no error yet. Not for the threads of the runtime once requests are
    /// served.
    pub(super) fn new(source: SecretSource, clock: Clock) -> Self {
        let state = PasswordState { good: source.read().ok(), failing_since: None };
        Self { source, clock, state: Arc::new(Mutex::new(state)) }
    }

    /// What to show now.
    pub(super) async fn current(&self) -> Result<Secret, SecretError> {
        let (reading, has_good) = (self.source.read_elsewhere(), self.with(|state| state.good.is_some()));
        let read = match self.source.file() {
            Some(path) if has_good => timeout(A_MOMENT, reading).await.unwrap_or_else(|_| Err(hangs(path))),
            _ => reading.await,
        };
        let now = self.clock.now();
        self.with(|state| match read {
            Ok(secret) => {
                if state.failing_since.take().is_some() {
                    tracing::info!("upstream.proxy_password can be read again");
                }
                state.good = Some(secret.clone());
                Ok(secret)
            }
            Err(why) => {
                if state.failing_since.is_none() {
                    tracing::warn!(%why, "upstream.proxy_password cannot be read");
                }
                let since = *state.failing_since.get_or_insert(now);
                if now.saturating_duration_since(since) >= GRACE {
                    state.good = None;
                }
                state.good.clone().ok_or(why)
            }
        })
    }

    /// No section panics.
    fn with<T>(&self, what: impl FnOnce(&mut PasswordState) -> T) -> T {
        what(&mut lock(&self.state))
    }
}

fn hangs(path: &Path) -> SecretError {
    SecretError::Unreadable { path: path.to_owned(), why: Unreadable::Hangs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_good_password_is_shown_for_its_grace_and_a_changed_one_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "one").unwrap();
        let password = Password::new(SecretSource::File(file.clone()), Clock::system());
        let shown = async || password.current().await.map(|secret| secret.expose().to_owned());
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert_eq!(shown().await.unwrap(), "one");
        tokio::time::advance(GRACE - Duration::from_secs(1)).await;
        assert_eq!(shown().await.unwrap(), "one");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(shown().await.is_err());
        std::fs::remove_dir(&file).unwrap();
        std::fs::write(&file, "two").unwrap();
        assert_eq!(shown().await.unwrap(), "two");
        std::fs::write(&file, "three").unwrap();
        assert_eq!(shown().await.unwrap(), "three");
    }
}
