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

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::error::X509Error;
use x509_parser::oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

use super::{TlsDoor, TlsFault};
use crate::kernel::clock::UnixMillis;
use crate::kernel::files::Content;

/// The lists.
#[derive(Debug, Default)]
pub(super) struct Revocation {
    pub(super) lists: Vec<CertificateRevocationListDer<'static>>,
    /// Of each, when it runs out in seconds since 1970, and its file.
    ends: Vec<(i64, PathBuf)>,
}

/// What the lists say, to be looked up by number.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// Of each authority that has one, as its name is written: the numbers, in order.
    revoked: HashMap<Vec<u8>, Vec<u128>>,
    /// When each runs out, in seconds since 1970.
    ends: Vec<i64>,
    /// A list that does not stand for all that its authority signed is not looked up.
    has_parts: bool,
}

/// What the lists say of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RevocationStatus {
    /// Its authority has a list, and it is not in it; or there are no lists at all.
    Good,
    /// It is in one.
    Revoked,
    /// It cannot be told by looking it up.
    Nothing,
}

impl Lists {
    pub(super) fn status_of(&self, issuer: &[u8], serial: &[u8]) -> RevocationStatus {
        if self.ends.is_empty() {
            return RevocationStatus::Good;
        }
        match self.revoked.get(issuer) {
            None => RevocationStatus::Nothing,
            Some(_) if self.has_parts => RevocationStatus::Nothing,
            Some(revoked) => match revoked.binary_search(&number(serial)) {
                Err(_) => RevocationStatus::Good,
                Ok(_) if significant(serial).len() <= size_of::<u128>() => RevocationStatus::Revoked,
                // Another may end with the same digits.
                Ok(_) => RevocationStatus::Nothing,
            },
        }
    }

    /// When each runs out, in seconds since 1970.
    pub(super) fn ends(&self) -> impl Iterator<Item = i64> {
        self.ends.iter().copied()
    }
}

/// A serial number's last sixteen bytes; it has twenty at most (RFC 5280, 4.1.2.2).
fn number(serial: &[u8]) -> u128 {
    serial.iter().fold(0, |number, byte| (number << 8) | u128::from(*byte))
}

fn significant(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}

impl Revocation {
    /// Reads the lists in these files (PEM, or one in DER). The authorities are those of `client_ca`: a list of one of
    /// them must be signed by it. Lists of authorities below them are checked at the handshake, where these are shown.
    pub(super) fn read(
        door: TlsDoor,
        paths: &[PathBuf],
        contents: &[Content],
        authorities: &[CertificateDer<'static>],
    ) -> Result<Self, TlsFault> {
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
            let (key, authority) = (format_args!("{}.client_crl", door.section()), authority.subject());
            tracing::warn!(%key, %authority, "holds no list of this authority: certificates that it signed are refused");
        }
        Ok(all)
    }

    /// When the first list runs out.
    pub(super) fn ends(&self) -> Option<i64> {
        self.ends.iter().map(|(end, _)| *end).min()
    }

    /// What the lists say, by number.
    pub(super) fn look_up(&self) -> Lists {
        let mut all = Lists { ends: self.ends.iter().map(|(end, _)| *end).collect(), ..Lists::default() };
        for der in &self.lists {
            // `read` has parsed it already.
            let Ok((_, list)) = CertificateRevocationList::from_der(der) else { continue };
            all.has_parts |= list.extensions().iter().any(|it| it.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT);
            let issuer = list.issuer().as_raw().to_vec();
            // Two lists of one authority: which of them counts is the TLS library's to say.
            all.has_parts |= all.revoked.contains_key(&issuer);
            let revoked = all.revoked.entry(issuer).or_default();
            revoked.extend(list.iter_revoked_certificates().map(|it| number(it.raw_serial())));
        }
        all.revoked.values_mut().for_each(|revoked| revoked.sort_unstable());
        all
    }

    /// Finds a list that has run out.
    pub(super) fn has_not_run_out(&self, now: UnixMillis) -> Result<(), TlsFault> {
        let now = i64::try_from(now.seconds()).unwrap_or(i64::MAX);
        match self.ends.iter().find(|(end, _)| *end <= now) {
            None => Ok(()),
            Some((_, path)) => Err(TlsFault::unusable("client_crl", path, "holds a revocation list that has run out")),
        }
    }
}

fn lists(path: &Path, content: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsFault> {
    // Authorities publish lists in DER (RFC 5280, 4.2.1.13), which begins with the tag of a sequence.
    if content.first() == Some(&0x30) {
        return Ok(vec![CertificateRevocationListDer::from(content.to_vec())]);
    }
    let all = CertificateRevocationListDer::pem_slice_iter(content).collect::<Result<Vec<_>, _>>();
    match all {
        Err(_) => Err(TlsFault::unusable("client_crl", path, "is neither PEM nor DER")),
        Ok(all) if all.is_empty() => Err(TlsFault::unusable("client_crl", path, "holds no revocation list")),
        Ok(all) => Ok(all),
    }
}

/// Whose list it is, and when it runs out.
fn checked(
    der: &CertificateRevocationListDer<'_>,
    path: &Path,
    authorities: &[X509Certificate<'_>],
) -> Result<(Vec<u8>, i64), TlsFault> {
    let bad = |why: &str| TlsFault::unusable("client_crl", path, why);
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
