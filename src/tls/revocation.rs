//! Certificate revocation lists (RFC 5280, 5).
//!
//! What is decided, and why:
//! - The whole chain is looked up, not only the caller's own certificate: a revoked intermediate authority is the worst
//!   that can be revoked.
//! - A certificate whose authority has no list here is refused. Who names a list says that revocation matters; a list
//!   that is missing would otherwise go unnoticed until it is needed. So there is a list for every authority between
//!   the certificate and the one in `client_ca`, that one included; an authority of which no list is needed can be
//!   spared by putting the one below it into `client_ca`.
//! - A list that has run out counts for nothing: certificates of its authority are refused until there is a new one.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::error::X509Error;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

use super::TlsError;
use super::material::unusable;
use crate::clock::UnixMillis;

/// The lists.
#[derive(Debug, Default)]
pub(super) struct Revocation {
    pub(super) lists: Vec<CertificateRevocationListDer<'static>>,
    /// Of each, when it runs out in seconds since 1970, and its file.
    ends: Vec<(i64, PathBuf)>,
}

impl Revocation {
    /// Reads the lists in these files (PEM, or one in DER). The authorities are those of `client_ca`: a list of one of
    /// them must be signed by it. Lists of authorities below them are checked at the handshake, where these are shown.
    pub(super) fn read(
        paths: &[PathBuf],
        contents: &[Vec<u8>],
        authorities: &[CertificateDer<'static>],
    ) -> Result<Self, TlsError> {
        let authorities: Vec<X509Certificate<'_>> =
            authorities.iter().filter_map(|der| X509Certificate::from_der(der).ok()).map(|(_, it)| it).collect();
        let mut all = Self::default();
        let mut issuers = Vec::new();
        for (path, content) in paths.iter().zip(contents) {
            let lists = lists(path, content)?;
            for list in lists {
                let (issuer, end) = checked(&list, path, &authorities)?;
                issuers.push(issuer);
                all.ends.push((end, path.clone()));
                all.lists.push(list);
            }
        }
        for authority in
            authorities.iter().filter(|it| !issuers.is_empty() && !issuers.contains(&it.subject().as_raw().to_vec()))
        {
            tracing::warn!(authority = %authority.subject(), "server.tls.client_crl: holds no list of this authority: certificates that it signed are refused");
        }
        Ok(all)
    }

    /// When the first list runs out.
    pub(super) fn ends(&self) -> Option<i64> {
        self.ends.iter().map(|(end, _)| *end).min()
    }

    /// Finds a list that has run out.
    pub(super) fn has_not_run_out(&self, now: UnixMillis) -> Result<(), TlsError> {
        let now = i64::try_from(now.seconds()).unwrap_or(i64::MAX);
        match self.ends.iter().find(|(end, _)| *end <= now) {
            None => Ok(()),
            Some((_, path)) => Err(unusable("client_crl", path, "holds a revocation list that has run out")),
        }
    }
}

fn lists(path: &Path, content: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    // Authorities publish lists in DER (RFC 5280, 4.2.1.13), which begins with the tag of a sequence.
    if content.first() == Some(&0x30) {
        return Ok(vec![CertificateRevocationListDer::from(content.to_vec())]);
    }
    let all = CertificateRevocationListDer::pem_slice_iter(content).collect::<Result<Vec<_>, _>>();
    match all {
        Err(_) => Err(unusable("client_crl", path, "is neither PEM nor DER")),
        Ok(all) if all.is_empty() => Err(unusable("client_crl", path, "holds no revocation list")),
        Ok(all) => Ok(all),
    }
}

/// Whose list it is, and when it runs out.
fn checked(
    der: &CertificateRevocationListDer<'_>,
    path: &Path,
    authorities: &[X509Certificate<'_>],
) -> Result<(Vec<u8>, i64), TlsError> {
    let bad = |why: &str| unusable("client_crl", path, why);
    let list = match CertificateRevocationList::from_der(der) {
        Ok(([], list)) => list,
        _ => return Err(bad("holds a revocation list that cannot be read")),
    };
    let Some(end) = list.next_update() else {
        return Err(bad("holds a revocation list that does not say how long it holds"));
    };
    let mut of_that_name = authorities.iter().filter(|it| it.subject().as_raw() == list.issuer().as_raw()).peekable();
    if of_that_name.peek().is_some() {
        // An algorithm that only the TLS library knows is left to the handshake.
        let signed = |it: &X509Certificate<'_>| {
            !matches!(list.verify_signature(it.public_key()), Err(X509Error::SignatureVerificationError))
        };
        if !of_that_name.any(signed) {
            return Err(bad("holds a revocation list that its authority has not signed"));
        }
    }
    Ok((list.issuer().as_raw().to_vec(), end.timestamp()))
}
