//! Whose certificates callers may show. Asked at the handshake, and again while the connection lives.
//!
//! Invariants: what the handshake would refuse now is no client now, whenever the connection was made: a certificate is
//! held against what is in force whenever that changed, and once a minute because time passes (a certificate between,
//! or a revocation list, runs out). In between a request costs two comparisons. A path is looked for once for all
//! certificates that one authority signed; when only revocation lists change, the others are looked up by their number,
//! however long the lists are. Whoever serves has paths looked for elsewhere, a few at a time, and each once for all
//! who ask for the same certificate.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use sha2::{Digest as _, Sha256};

use super::revocation::{Lists, RevocationStatus};
use crate::kernel::clock::UnixMillis;
use crate::kernel::conn::{BadCertificate, ChainCheck, Lapse, PeerCertificate};
use crate::kernel::proof::Life;
use crate::kernel::sync::lock;
use crate::kernel::task::Lane;

/// How long a verdict stands while nothing changed.
const STANDS: Duration = Duration::from_secs(60);

/// Whose certificates callers may show.
#[derive(Debug)]
pub struct ClientTrust {
    epoch: u64,
    verifier: Option<Arc<Verifier>>,
    /// Tells these authorities from others.
    authorities: [u8; 32],
    lists: Lists,
    above: Mutex<HashMap<[u8; 32], UnixMillis>>,
    /// For those who wait with a request.
    paths: Lane,
}

/// So many paths are looked for at a time for those who wait with a request.
const PATHS: usize = 4;

/// So many are remembered of what stands between certificates and the authorities.
const ABOVE_MAX: usize = 4096;

impl ClientTrust {
    pub(super) fn new(epoch: u64, verifier: Option<Arc<Verifier>>, authorities: [u8; 32], lists: Lists) -> Self {
        Self { epoch, verifier, authorities, lists, above: Mutex::default(), paths: Lane::new("certificates", PATHS) }
    }

    /// Whatever this takes, after an `epoch` in which other authorities were trusted.
    #[must_use]
    pub fn by(epoch: u64, verifier: Arc<dyn ClientCertVerifier>) -> Arc<Self> {
        let authorities = Sha256::digest(epoch.to_be_bytes()).into();
        Arc::new(Self::new(epoch, Some(Arc::new(Verifier::new(verifier))), authorities, Lists::default()))
    }

    /// Nobody's.
    #[must_use]
    pub fn nobody() -> Arc<Self> {
        Arc::new(Self::new(0, None, [0; 32], Lists::default()))
    }

    /// Counts the changes of what is trusted.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn verifier(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        self.verifier.clone().map(|verifier| verifier as _)
    }

    /// Whether the handshake would take this certificate now, for who waits for it with a request. A path is looked for
    /// once for all who ask meanwhile.
    pub async fn vouches_for(self: &Arc<Self>, certificate: &Arc<PeerCertificate>, now: UnixMillis) -> bool {
        if let Some(known) = self.recall(certificate, now) {
            return known.is_ok();
        }
        let turn = certificate.turn().await;
        if let Some(known) = self.recall(certificate, now) {
            return known.is_ok();
        }
        let (trust, certificate) = (self.clone(), certificate.clone());
        let judging = move || {
            // Not given on before it is known, though nobody may wait any more.
            let _turn = turn;
            trust.judge(&certificate, now)
        };
        // What cannot be judged is not taken.
        self.paths.run(judging).await.is_ok_and(|found| found.is_ok())
    }

    /// Finds out in that lane what [`ClientTrust::recall`] says then. Waits for no request's turn.
    pub async fn prepare(self: &Arc<Self>, lane: &Lane, certificate: &Arc<PeerCertificate>, now: UnixMillis) {
        if self.recall(certificate, now).is_none() {
            let (trust, certificate) = (self.clone(), certificate.clone());
            // What is found is kept with it, if anything is.
            let _ = lane.run(move || trust.judge(&certificate, now)).await;
        }
    }

    /// The same at once, on the thread of whoever asks.
    ///
    /// # Errors
    /// Why the handshake would not.
    pub fn judge(&self, certificate: &PeerCertificate, now: UnixMillis) -> Result<(), Lapse> {
        self.recall(certificate, now).unwrap_or_else(|| {
            let found = self.find_path(certificate, now);
            let path = found.is_ok().then_some(self.authorities);
            certificate.judged(ChainCheck { epoch: self.epoch, at: now, lapse: found.err(), path });
            if found.is_ok() {
                self.remember_above(certificate, now);
            }
            found
        })
    }

    /// A handshake took it at that time.
    pub fn took(&self, certificate: &PeerCertificate, at: UnixMillis) {
        certificate.judged(ChainCheck { epoch: self.epoch, at, lapse: None, path: Some(self.authorities) });
        self.remember_above(certificate, at);
    }

    /// What can be said without looking for a path: what was found a moment ago; and, of a certificate that a path led
    /// to from these very authorities, what the revocation lists say of its number, if what stands between was good
    /// under these lists. `None`: a path must be looked for.
    #[must_use]
    pub fn recall(&self, certificate: &PeerCertificate, now: UnixMillis) -> Option<Result<(), Lapse>> {
        if certificate.has_expired(now) {
            return Some(Err(Lapse::Expired));
        }
        let verdict = certificate.last_check()?;
        // A clock that was set back does not prolong a verdict.
        if verdict.epoch == self.epoch
            && verdict.at <= now
            && now.since(verdict.at) < STANDS
            && !self.ran_out(certificate, verdict.at, now)
        {
            return Some(verdict.lapse.map_or(Ok(()), Err));
        }
        if verdict.path != Some(self.authorities) {
            return None;
        }
        let found = match self.lists.status_of(certificate.issuer(), certificate.serial()) {
            RevocationStatus::Nothing => return None,
            RevocationStatus::Revoked => Err(Lapse::Refused),
            RevocationStatus::Good if self.is_good_above(certificate, now) => Ok(()),
            RevocationStatus::Good => return None,
        };
        let path = found.is_ok().then_some(self.authorities);
        certificate.judged(ChainCheck { epoch: self.epoch, at: now, lapse: found.err(), path });
        Some(found)
    }

    /// Until when time does nothing to it, as far as can be seen now.
    #[must_use]
    pub fn life(&self, certificate: &PeerCertificate, now: UnixMillis) -> Life {
        // Whole seconds: good through the last one. A list has none left in the second that it names.
        let after = |second: i64| {
            u64::try_from(second).map_or(UnixMillis(0), |s| UnixMillis(s.saturating_add(1).saturating_mul(1000)))
        };
        let at = |second: i64| u64::try_from(second).map_or(UnixMillis(0), |s| UnixMillis(s.saturating_mul(1000)));
        let above = certificate.above_until().map(after);
        let again = self.lists.ends().map(at).chain(above).filter(|end| *end > now).min();
        Life { until: after(certificate.not_after()), again: again.unwrap_or(Life::ENDLESS.again) }
    }

    /// Whether something that it rests on ran out in between.
    fn ran_out(&self, certificate: &PeerCertificate, since: UnixMillis, now: UnixMillis) -> bool {
        self.life(certificate, since).again <= now
    }

    fn remember_above(&self, certificate: &PeerCertificate, now: UnixMillis) {
        let mut above = lock(&self.above);
        if above.len() >= ABOVE_MAX {
            // Bounded against chains that a caller makes up; what is forgotten is found again by the next path.
            above.clear();
        }
        above.insert(*certificate.above(), self.life(certificate, now).again);
    }

    fn is_good_above(&self, certificate: &PeerCertificate, now: UnixMillis) -> bool {
        let above = lock(&self.above);
        above.get(certificate.above()).is_some_and(|until| now < *until)
    }

    fn find_path(&self, certificate: &PeerCertificate, now: UnixMillis) -> Result<(), Lapse> {
        let (Some(verifier), Some((own, between))) = (&self.verifier, certificate.chain().split_first()) else {
            return Err(Lapse::Refused);
        };
        let now = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
        verifier.verify_client_cert(own, between, now).map(drop).map_err(|why| match why {
            Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::ExpiredRevocationList
                | CertificateError::ExpiredRevocationListContext { .. },
            ) => Lapse::Expired,
            _ => Lapse::Refused,
        })
    }
}

/// Path validation (RFC 5280) with revocation, and what key usage says.
pub(super) struct Verifier(Arc<dyn ClientCertVerifier>);

impl Verifier {
    pub(super) fn new(path: Arc<dyn ClientCertVerifier>) -> Self {
        Self(path)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified =
            self.0.verify_client_cert(end_entity, intermediates, now).and_then(|verified| match PeerCertificate::fits(
                end_entity,
            ) {
                Ok(()) => Ok(verified),
                Err(BadCertificate::Malformed) => Err(CertificateError::BadEncoding.into()),
                Err(BadCertificate::Authority | BadCertificate::NoSignatures) => {
                    Err(CertificateError::InvalidPurpose.into())
                }
            });
        verified.inspect_err(|why| {
            let certificate = PeerCertificate::describe(end_entity);
            tracing::info!(certificate, %why, "a caller's certificate is not taken");
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.0.requires_raw_public_keys()
    }
}
