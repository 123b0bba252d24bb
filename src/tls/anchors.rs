//! Whom we trust when we are the client: the public authorities, those of a file, or both.
//!
//! Invariants: the cryptography is passed explicitly, so that no other crate in the build can change it; there is no
//! way to turn verification off. A file that adds nothing is a fault, never the same as no file.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::Wall;
use super::material::not_after;
use crate::kernel::cause::Cause;
use crate::kernel::clock::Clock;

/// Whose certificates a server may show us. A file's content is PEM.
#[derive(Clone, Copy, Debug)]
pub enum Anchors<'a> {
    /// The public authorities.
    Public,
    /// The public authorities and those of a file.
    Beside(&'a [u8]),
    /// Those of a file alone.
    InPlace(&'a [u8]),
}

/// Why there is no TLS client. Each reads on after the file's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnchorsError {
    /// The file is not PEM.
    #[error("is not PEM: {0}")]
    NotPem(#[source] Cause),
    /// A certificate that cannot be an anchor.
    #[error("holds a certificate that cannot be used: {0}")]
    Unusable(#[source] Cause),
    /// The file has no certificate.
    #[error("holds no certificate")]
    Empty,
    /// The TLS library refuses its set-up.
    #[error("TLS: {0}")]
    Tls(#[source] Cause),
}

impl<'a> Anchors<'a> {
    /// The anchors of this file in place of the public ones, if there is one.
    #[must_use]
    pub fn or_public(file: Option<&'a [u8]>) -> Self {
        file.map_or(Self::Public, Self::InPlace)
    }

    /// A TLS client that trusts these. Without ALPN: hyper-rustls adds it.
    ///
    /// # Errors
    /// When the file holds no certificate, or one that cannot be used.
    pub fn client(self) -> Result<ClientConfig, AnchorsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Ok(ClientConfig::builder_with_details(provider, Arc::new(Wall(Clock::system())))
            .with_safe_default_protocol_versions()
            .map_err(|why| AnchorsError::Tls(Cause::new(why)))?
            .with_root_certificates(self.roots()?)
            .with_no_client_auth())
    }

    /// When the first of a file's runs out, in seconds since 1970. The public ones go with the program.
    #[must_use]
    pub fn first_end(self) -> Option<i64> {
        match self {
            Self::Public => None,
            Self::Beside(pem) | Self::InPlace(pem) => {
                CertificateDer::pem_slice_iter(pem).flatten().filter_map(|found| not_after(&found)).min()
            }
        }
    }

    fn roots(self) -> Result<RootCertStore, AnchorsError> {
        let mut roots = match self {
            Self::Public | Self::Beside(_) => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
            Self::InPlace(_) => RootCertStore::empty(),
        };
        if let Self::Beside(pem) | Self::InPlace(pem) = self {
            let before = roots.len();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|why| AnchorsError::NotPem(Cause::new(why)))?;
                roots.add(certificate).map_err(|why| AnchorsError::Unusable(Cause::new(why)))?;
            }
            if roots.len() == before {
                return Err(AnchorsError::Empty);
            }
        }
        Ok(roots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused_in_either_place() {
        for pem in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(Anchors::Beside(pem.as_bytes()).client().is_err(), "{pem:?}");
            assert!(Anchors::InPlace(pem.as_bytes()).client().is_err(), "{pem:?}");
        }
        assert!(Anchors::or_public(None).client().is_ok());
    }

    #[test]
    fn a_file_stands_beside_the_public_anchors_or_in_their_place() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let pem = made.cert.pem();
        let public = webpki_roots::TLS_SERVER_ROOTS.len();
        assert_eq!(Anchors::Public.roots().unwrap().len(), public);
        assert_eq!(Anchors::Beside(pem.as_bytes()).roots().unwrap().len(), public + 1);
        assert_eq!(Anchors::InPlace(pem.as_bytes()).roots().unwrap().len(), 1);
    }
}
