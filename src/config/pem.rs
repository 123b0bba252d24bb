//! Files in PEM that the configuration names: authorities, a chain with its key, revocation lists. All are watched.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::document::node::Node;
use crate::kernel::files::{self, Mark, Unreadable};

/// A PEM file of certificates, looked at.
pub(super) fn authorities(node: Node<'_>) -> Option<PathBuf> {
    let path = node.clone().path()?;
    node.refers_to(path.clone());
    if !node.looks() {
        return Some(path);
    }
    match trust_anchors(&path) {
        Ok(()) => Some(path),
        Err(why) => node.fault(format!("names a file that {why}"), "Name a PEM file of CA certificates"),
    }
}

pub(super) fn chain(node: Node<'_>) -> Option<PathBuf> {
    pem(node, |pem| certificates(pem).map(|_| ()))
}

pub(super) fn private_key(node: Node<'_>) -> Option<PathBuf> {
    let path = pem(node.clone(), |pem| {
        PrivateKeyDer::from_pem_slice(pem).map(|_| ()).map_err(|_| "holds no private key in PEM")
    })?;
    // Mounted secrets often are: it is told, not refused.
    if node.looks() && files::marks(vec![path.clone()]).iter().flatten().any(Mark::is_open_to_all) {
        node.warn("names a file that everybody on this machine may read", "Take the others' right away: chmod o-r");
    }
    Some(path)
}

pub(super) fn revocations(node: Node<'_>) -> Option<PathBuf> {
    pem(node, |pem| {
        // As authorities publish it: DER, which begins with the tag of a sequence.
        if pem.first() == Some(&0x30) {
            return Ok(());
        }
        let mut lists = 0;
        for list in CertificateRevocationListDer::pem_slice_iter(pem) {
            list.map_err(|_| "is not PEM")?;
            lists += 1;
        }
        if lists == 0 { Err("holds no revocation list") } else { Ok(()) }
    })
}

/// A PEM file, looked at and watched.
fn pem(node: Node<'_>, judge: impl Fn(&[u8]) -> Result<(), &'static str>) -> Option<PathBuf> {
    let path = node.clone().path()?;
    node.refers_to(path.clone());
    if !node.looks() {
        return Some(path);
    }
    let pem = match read(&path) {
        Ok(pem) => pem,
        Err(why) => return node.fault(format!("names a file that cannot be read: {why}"), "Name a readable file"),
    };
    match judge(&pem) {
        Ok(()) => Some(path),
        Err(why) => node.fault(format!("names a file that {why}"), "Name another, or correct it"),
    }
}

fn trust_anchors(path: &Path) -> Result<(), String> {
    let pem = files::read(path, files::DOCUMENT).map_err(|why| format!("cannot be read: {why}"))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| "is not PEM".to_owned())?;
        roots.add(certificate).map_err(|_| "holds a certificate that cannot be read".to_owned())?;
    }
    if roots.is_empty() { Err("holds no certificate".into()) } else { Ok(()) }
}

fn read(path: &Path) -> Result<files::Content, Unreadable> {
    files::read(path, files::DOCUMENT)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Err(_) => Err("is not PEM"),
        Ok(chain) if chain.is_empty() => Err("holds no certificate in PEM"),
        Ok(chain) => Ok(chain),
    }
}

/// Whether the first certificate is that of the key. Files that cannot be read have their own fault.
pub(super) fn belong_together(cert: &Path, key: &Path) -> bool {
    let (Ok(cert), Ok(key)) = (read(cert), read(key)) else { return true };
    let (Ok(chain), Ok(key)) = (certificates(&cert), PrivateKeyDer::from_pem_slice(&key)) else { return true };
    CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider()).is_ok()
}
