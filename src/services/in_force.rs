//! [`InForce`]: which configuration is in force, and since when, so that two gateways can be compared.

use sha2::{Digest as _, Sha256};

use crate::config::{Config, show};
use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::metrics::{ConfigLabels, Metrics};

/// Bytes of the digest that are shown: enough to tell any two configurations that somebody has.
const SHOWN: usize = 8;

/// A configuration that was put in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// A digest of the effective configuration, every default filled in, without its secrets: two gateways whose
    /// configurations say the same have the same, however they are written. What secrets' files hold, and callers'
    /// keys, are not in it: with all else known, a key that was guessed could be proved by it.
    pub hash: String,
    /// When it was put in force.
    pub since: UnixMillis,
}

impl InForce {
    /// It is put in force now.
    #[must_use]
    pub fn now(config: &Config, clock: &Clock) -> Self {
        let digest = Sha256::digest(show::toml(config));
        let hash = digest.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
        Self { hash, since: clock.wall_ms() }
    }

    /// Shows it in the metrics.
    pub fn show(&self, metrics: &Metrics) {
        metrics.config.set(ConfigLabels { hash: self.hash.clone() });
        metrics.config_last_reload_success.set(i64::try_from(self.since.seconds()).unwrap_or(i64::MAX));
        metrics.config_last_reload_successful.set(1);
    }
}
