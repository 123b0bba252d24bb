//! Whom we trust to be the vendor: the public authorities, and those of `upstream.ca_file`.
//!
//! Invariants: the cryptography is passed explicitly, so that no other crate in the build can change it; there is no
//! way to turn verification off.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::BuildError;

/// A TLS client (without ALPN: hyper-rustls adds it), trusting the public anchors and those of a PEM file.
pub(super) fn client(anchors: Option<(&Path, &[u8])>) -> Result<ClientConfig, BuildError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some((path, pem)) = anchors {
        let bad = |why: String| BuildError::BadAnchors { path: path.to_owned(), why };
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|e| bad(format!("is not PEM: {e}")))?;
            roots.add(certificate).map_err(|e| bad(format!("holds a certificate that cannot be used: {e}")))?;
        }
        if roots.len() == before {
            return Err(bad("holds no certificate".into()));
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| BuildError::Tls(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let path = Path::new("ca.pem");
        for pem in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let built = client(Some((path, pem.as_bytes())));
            assert!(matches!(built, Err(BuildError::BadAnchors { .. })), "{pem:?}");
        }
        assert!(client(None).is_ok());
    }
}
