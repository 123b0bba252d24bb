//! Whose certificates callers may show. Asked at the handshake, and again while the connection lives.
//!
//! Invariants: what the handshake would refuse now is no client now, whenever the connection was made: a certificate is
//! held against what is in force whenever that changed, and once a minute because time passes (a certificate between,
//! or a revocation list, runs out). In between a request costs two comparisons.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::clock::UnixMillis;
use crate::conn::{BadCertificate, PeerCertificate, Verdict};

/// How long a verdict stands while nothing changed.
const STANDS: Duration = Duration::from_secs(60);

/// Whose certificates callers may show.
#[derive(Debug)]
pub struct ClientTrust {
    epoch: u64,
    verifier: Option<Arc<Verifier>>,
}

impl ClientTrust {
    pub(super) fn new(epoch: u64, verifier: Option<Arc<Verifier>>) -> Self {
        Self { epoch, verifier }
    }

    /// Nobody's.
    #[must_use]
    pub fn nobody() -> Arc<Self> {
        Arc::new(Self::new(0, None))
    }

    /// Counts the changes of what is trusted.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn verifier(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        self.verifier.clone().map(|verifier| verifier as _)
    }

    /// Whether the handshake would take this certificate now.
    #[must_use]
    pub fn vouches_for(&self, certificate: &PeerCertificate, now: UnixMillis) -> bool {
        if certificate.has_expired(now) {
            return false;
        }
        if let Some(verdict) = certificate.verdict()
            && verdict.epoch == self.epoch
            // A clock that was set back does not prolong a verdict.
            && verdict.at <= now
            && now.since(verdict.at) < STANDS
        {
            return verdict.good;
        }
        let good = self.verifies(certificate, now);
        certificate.judged(Verdict { epoch: self.epoch, at: now, good });
        good
    }

    fn verifies(&self, certificate: &PeerCertificate, now: UnixMillis) -> bool {
        let (Some(verifier), Some((own, between))) = (&self.verifier, certificate.chain().split_first()) else {
            return false;
        };
        let now = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
        verifier.verify_client_cert(own, between, now).is_ok()
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
