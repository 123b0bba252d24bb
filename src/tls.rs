//! TLS of our listeners, the callers' and the operators': the certificate we show, the certificates we take, and how
//! both change while connections live. And whom we trust when we are the client ([`Anchors`]).
//!
//! Invariants:
//! - What is in force is one [`Live`], made whole from files that were read together and fit each other, or not made.
//!   It is swapped as one; a connection keeps what it was made with.
//! - Files that have not changed change nothing: no other [`Live`], so that sessions go on and a revocation list that
//!   ran out does not keep other changes of the configuration out.
//! - Each [`Live`] has its own keys for session tickets. A session of an earlier one cannot be resumed, so nobody comes
//!   past a changed authority or revocation list by resuming.
//! - TLS 1.2 and 1.3, by the library's own choice of suites; no early data; no renegotiation (rustls has neither 1.1
//!   nor that). The cryptography is passed explicitly, so that no other crate in the build can change it.
//!
//! | part | does |
//! | --- | --- |
//! | `material` | the files, read together, and what is made of them |
//! | `revocation` | revocation lists: whole, signed by whom they say, not run out |
//! | `tickets` | what callers resume sessions by |
//! | `anchors` | whom we trust when we are the client |
//! | `role` | what each is for: by that its expiry is told |
//! | `trust` | whose certificates callers may show, asked at the handshake and at each request after |

mod anchors;
mod material;
mod revocation;
mod role;
mod tickets;
mod trust;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use rustls::ServerConfig;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use crate::config::ServerTls;
use crate::kernel::cause::Cause;
use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::conn::CertificateTable;
use crate::kernel::files::Unreadable;
use crate::kernel::metrics::{Metrics, OutcomeLabels};
pub use anchors::{Anchors, AnchorsError};
use material::Material;
pub use role::{Role, TlsDoor};
pub use trust::ClientTrust;

/// TLS of the callers' listeners, or of the operators'. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tls {
    live: Arc<ArcSwap<Live>>,
    clock: Clock,
    /// What callers showed, of the connections that are open.
    pub shown: Arc<CertificateTable>,
    /// Counts handshakes by how they ended.
    pub handshakes: Family<OutcomeLabels, Counter>,
    door: TlsDoor,
    metrics: Metrics,
}

/// What connections are made with.
#[derive(Debug)]
pub struct Live {
    /// For the handshakes.
    pub server: Arc<ServerConfig>,
    /// Whose certificates callers may show.
    pub trust: Arc<ClientTrust>,
    /// When what we show and hold runs out.
    pub expiry: Expiry,
    made_of: [u8; 32],
}

/// When what we show and hold runs out, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Our own certificate.
    pub certificate: i64,
    /// The authority of callers' certificates that runs out first.
    pub client_ca: Option<i64>,
    /// The revocation list that runs out first.
    pub revocation: Option<i64>,
}

/// Why TLS cannot be had from these files. Names the key and the file, never what is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{section}.{fault}")]
pub struct TlsError {
    section: &'static str,
    #[source]
    fault: TlsFault,
}

/// The same, whichever section names the files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum TlsFault {
    /// A file cannot be read.
    #[error("{key}: cannot read {path}: {why}")]
    Unreadable {
        key: &'static str,
        path: PathBuf,
        #[source]
        why: Unreadable,
    },
    /// What is in a file cannot be used.
    #[error("{key}: {path} {why}")]
    Unusable {
        key: &'static str,
        path: PathBuf,
        #[source]
        why: Cause,
    },
    /// The certificate is another key's.
    #[error("key: {key} is not the key of the certificate in {cert}")]
    Mismatch { cert: PathBuf, key: PathBuf },
    /// Client certificates are asked for, and no authority is named.
    #[error("client_ca: is needed for client_auth")]
    NoAuthority,
    /// The TLS library refuses its set-up.
    #[error("cert: the TLS library cannot be set up with it: {0}")]
    Library(#[source] Cause),
}

impl TlsFault {
    fn unusable(key: &'static str, path: &Path, why: impl Into<Cause>) -> Self {
        Self::Unusable { key, path: path.to_owned(), why: why.into() }
    }

    fn of(self, door: TlsDoor) -> TlsError {
        TlsError { section: door.section(), fault: self }
    }
}

/// Whether what has run out is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RunOut {
    /// At the start: it is used, and the log says so. Not to run at all would be worse: nobody would read the events.
    /// What has run out stays without force by itself: callers refuse our certificate, and we those that a revocation
    /// list which has run out says nothing about.
    Tell,
    /// On a reload: what is in force is better.
    Refuse,
}

impl Tls {
    /// Reads the files. What has run out is told in the log; it does not keep the gateway from running.
    ///
    /// # Errors
    /// When a file cannot be read or used, or the key is another certificate's.
    pub fn open(config: &ServerTls, door: TlsDoor, clock: &Clock, metrics: &Metrics) -> Result<Self, TlsError> {
        let material = Material::read(door, config)?;
        let live = Live::make(&material, config, clock, 1, RunOut::Tell)?;
        let (live, shown) = (Arc::new(ArcSwap::from_pointee(live)), Arc::default());
        let (handshakes, metrics) = (door.handshakes(metrics).clone(), metrics.clone());
        let tls = Self { live, clock: clock.clone(), shown, handshakes, door, metrics };
        tls.show_expiry();
        Ok(tls)
    }

    /// Reads the files anew, for [`Tls::put_in_force`]. What is in force stays when they have not changed.
    ///
    /// # Errors
    /// Like [`Tls::open`], and when what would take the place of what is in force has run out.
    pub fn prepare(&self, config: &ServerTls) -> Result<Arc<Live>, TlsError> {
        let material = Material::read(self.door, config)?;
        let live = self.live.load_full();
        if live.made_of == material.digest() {
            return Ok(live);
        }
        let epoch = live.trust.epoch() + 1;
        Live::make(&material, config, &self.clock, epoch, RunOut::Refuse).map(Arc::new)
    }

    /// Makes what was prepared the one that connections are made with from now on.
    pub fn put_in_force(&self, live: Arc<Live>) {
        self.live.store(live);
        self.show_expiry();
    }

    fn show_expiry(&self) {
        let Expiry { certificate, client_ca, revocation } = self.live.load().expiry;
        for (role, at) in self.door.roles().into_iter().zip([Some(certificate), client_ca, revocation]) {
            role.ends(at, &self.metrics, &self.clock);
        }
    }

    /// What is in force.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        self.clock.wall_ms()
    }
}

/// Our clock, for the TLS library, whose own does not bear a time before 1970. Certificates are not valid yet then.
#[derive(Debug)]
struct Wall(Clock);

impl TimeProvider for Wall {
    fn current_time(&self) -> Option<UnixTime> {
        let since = self.0.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(UnixTime::since_unix_epoch(since))
    }
}

#[cfg(test)]
mod tests;
