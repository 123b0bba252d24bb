//! Reload: a changed file or SIGHUP makes the new configuration the one in force, whole or not at all.
//!
//! Invariants: a configuration that does not validate changes nothing; what was in force stays, the fault is logged and
//! shown by the admin API. Files are watched by content: a mounted secret that is swapped by a symlink, and an edit
//! within the clock's grain, are both seen. A file in the middle of being written is left until it rests
//! ([`debounce`]); SIGHUP says that it does. Reading and building happen off the threads that serve requests.

mod debounce;
mod snapshot;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::app::telemetry::Levels;
use crate::config::Config;
use crate::config::load::Loaded;
use crate::kernel::log_list::List;
use crate::kernel::metrics::{OutcomeLabels, outcomes_from_the_start};
use crate::kernel::task::off_the_workers;
use crate::services::{Parts, ReloadState};

use self::debounce::{Debouncer, LOOK, LOOK_AGAIN, Next};
pub use self::snapshot::{Snapshot, read};

/// How a reload ends, as the metric has it: applied, refused.
const OUTCOMES: [&str; 2] = ["applied", "refused"];

/// Reloads the configuration of one gateway.
pub struct Reloader {
    path: PathBuf,
    parts: Arc<Parts>,
    levels: Option<Levels>,
    /// What the process started with: some keys are read only then.
    started_with: Arc<Config>,
}

impl Reloader {
    /// A reloader of the file at `path`, which `parts` were built from.
    #[must_use]
    pub fn new(path: PathBuf, parts: Arc<Parts>, levels: Option<Levels>) -> Self {
        outcomes_from_the_start(&parts.metrics.reloads, OUTCOMES);
        let started_with = parts.config.load_full();
        Self { path, parts, levels, started_with }
    }

    /// Watches the files and SIGHUP until `stop`. What differs from `seen` is a change, also one from before this call.
    pub async fn run(self, seen: Snapshot, stop: CancellationToken) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => Some(hangup),
            Err(why) => {
                tracing::warn!(%why, "SIGHUP cannot be watched; changed files still are");
                None
            }
        };
        let mut debouncer = Debouncer::new(seen);
        let mut pause = LOOK;
        for round in 1.. {
            let hung_up = tokio::select! {
                () = stop.cancelled() => return,
                () = hangup_of(&mut hangup) => true,
                () = tokio::time::sleep(pause) => false,
            };
            let (before, clock) = (debouncer.last().clone(), self.parts.clock.clone());
            let found = off_the_workers(move || before.again(round, &clock)).await;
            pause = match debouncer.found(found.clone(), self.parts.clock.now()) {
                Next::Look(pause) if !hung_up => pause,
                Next::Look(_) | Next::Apply => {
                    // What changes while it is being applied differs from what was read, and is looked at in the next
                    // round.
                    match self.reload_if(if hung_up { None } else { Some(found) }).await {
                        ReloadOutcome::Applied(snapshot) => debouncer.applied(snapshot),
                        ReloadOutcome::Refused(snapshot) => debouncer.refused(snapshot),
                        ReloadOutcome::Changing => {}
                    }
                    LOOK_AGAIN
                }
            };
        }
    }

    /// Reads the files now and applies them, whole or not at all.
    pub async fn reload(&self) {
        self.reload_if(None).await;
    }

    /// Reads the files and applies them, whole or not at all; nothing when they are not what was `expected`.
    async fn reload_if(&self, expected: Option<Snapshot>) -> ReloadOutcome {
        let path = self.path.clone();
        let (read, snapshot) = off_the_workers(move || read(&path)).await;
        if expected.is_some_and(|expected| snapshot.contradicts(&expected)) {
            return ReloadOutcome::Changing;
        }
        let outcome = match read {
            Ok(loaded) => self.put_in_force(loaded).await,
            Err(faults) => Err(faults.to_string().lines().map(str::to_owned).collect()),
        };
        let at = Some(self.parts.clock.wall_ms().to_string());
        let label = OUTCOMES[usize::from(outcome.is_err())];
        self.parts.metrics.reloads.get_or_create(&OutcomeLabels { outcome: label.to_owned() }).inc();
        let mut state = ReloadState::clone(&self.parts.reload.load());
        state.last_at = at;
        let reloaded = match outcome {
            Ok(needs_restart) => {
                state.applied += 1;
                state.last_refusal = None;
                state.needs_restart = needs_restart;
                let waiting: List = state.needs_restart.iter().copied().collect();
                let config = &self.parts.in_force.load().hash;
                tracing::info!(%config, needs_restart = waiting.field(), "configuration applied");
                ReloadOutcome::Applied(snapshot)
            }
            Err(faults) => {
                state.refused += 1;
                let said: List = faults.iter().cloned().collect();
                tracing::error!(faults = said.field(), "configuration refused; the one in force stays");
                self.parts.metrics.config_last_reload_successful.set(0);
                state.last_refusal = Some(faults);
                ReloadOutcome::Refused(snapshot)
            }
        };
        self.parts.reload.store(Arc::new(state));
        reloaded
    }

    /// Says which keys wait for a restart.
    async fn put_in_force(&self, loaded: Loaded) -> Result<Vec<&'static str>, Vec<String>> {
        let (path, Loaded { config, warnings, .. }) = (&self.path, loaded);
        for warning in &warnings {
            tracing::warn!(warning = %warning.in_file(path), "configuration");
        }
        if config.apps.is_empty() && !self.parts.config.load().apps.is_empty() {
            // More likely half of a file than a wish. Who means it can restart.
            return Err(vec![format!("{}: apps: would remove every app", path.display())]);
        }
        let (level, needs_restart) = (config.log.level.clone(), needs_restart(&self.started_with, &config));
        self.parts.put_in_force(config).await.map_err(|why| vec![why.to_string()])?;
        if let Some(levels) = &self.levels
            && let Err(why) = levels.set(&level)
        {
            tracing::warn!(%why, "log level not changed");
        }
        Ok(needs_restart)
    }
}

/// What came of a reload.
enum ReloadOutcome {
    /// It is in force; what its files held.
    Applied(Snapshot),
    /// What was in force stays; what the files held that were refused.
    Refused(Snapshot),
    /// The files are not what they were when it was decided on.
    Changing,
}

/// The keys that are read only at the start and differ now.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut keys = Vec::new();
    let mut differs = |key, is| {
        if is {
            keys.push(key);
        }
    };
    differs("server.listen", old.server.listen != new.server.listen);
    differs("server.proxy_protocol", old.server.proxy_protocol != new.server.proxy_protocol);
    differs("server.max_connections", old.server.max_connections != new.server.max_connections);
    differs("server.header_read_timeout", old.server.header_read_timeout != new.server.header_read_timeout);
    differs("server.idle_timeout", old.server.idle_timeout != new.server.idle_timeout);
    differs("server.write_timeout", old.server.write_timeout != new.server.write_timeout);
    differs("server.unix_mode", old.server.unix_mode != new.server.unix_mode);
    differs("server.unix_owner", old.server.unix_owner != new.server.unix_owner);
    differs("server.tls", old.server.tls.is_some() != new.server.tls.is_some());
    differs("admin", old.admin.without_tls() != new.admin.without_tls());
    differs("admin.tls", old.admin.tls.is_some() != new.admin.tls.is_some());
    differs("log.format", old.log.format != new.log.format);
    differs("store", old.store != new.store);
    keys
}

async fn hangup_of(hangup: &mut Option<tokio::signal::unix::Signal>) {
    if let Some(signal) = hangup
        && signal.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::show::tests::everything;
    use crate::config::{documented, load};

    #[test]
    fn what_is_documented_as_read_at_the_start_only_is_what_waits_for_a_restart() {
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let path = secret.path().to_str().unwrap();
        let text = everything(path, path).replace("0.0.0.0", "127.0.0.1");
        let others: toml::Table = toml::from_str(&text).unwrap();
        let loaded = |text: &str| load::from_text(text, Path::new("x")).map(|loaded| loaded.config);
        let old = loaded("").unwrap();
        let (mut waiting, mut taken) = (0, 0);
        for key in documented::KEYS.iter().filter(|key| key.value.is_some()) {
            let (section, name) = key.path.rsplit_once('.').unwrap();
            let Some(other) = others.get(section).and_then(|section| section.get(name)) else { continue };
            let Ok(new) = loaded(&format!("[{section}]\n{name} = {other}\n")) else { continue };
            let waits = !needs_restart(&old, &new).is_empty();
            assert_eq!(waits, key.is_read_at_start, "{}", key.path);
            if waits { waiting += 1 } else { taken += 1 }
        }
        let documented = documented::KEYS.iter().filter(|key| key.value.is_some() && key.is_read_at_start).count();
        // `store.kind` has but one value, and `admin.read_key_sha256` is nothing without the other key.
        assert_eq!((waiting, taken > 10), (documented - 2, true));
    }
}
