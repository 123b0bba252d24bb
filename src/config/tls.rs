//! `[server.tls]`: what callers' connections are encrypted with, and which of them show a certificate.
//!
//! Invariants: the certificate and the key were read, and belong together; a client's certificate can only be asked for
//! where there is an authority to judge it by. All four kinds of file are watched: see `reload`.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::document::{Node, Table};
use crate::kernel::files::{self, Mark, Unreadable};

/// `[server.tls]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// PEM file: the server's certificate, then those that lead to its authority.
    pub cert: PathBuf,
    /// PEM file: the certificate's private key.
    pub key: PathBuf,
    /// PEM file: the authorities that clients' certificates may come from.
    pub client_ca: Option<PathBuf>,
    /// Whether a client shows a certificate.
    pub client_auth: ClientAuth,
    /// Revocation lists, in PEM or DER.
    pub client_crl: Vec<PathBuf>,
}

/// `server.tls.client_auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// No certificate is asked for: there is no `client_ca`.
    Off,
    /// One is asked for; who has none may show itself in another way.
    Optional,
    /// Nobody connects without.
    Required,
}

impl ClientAuth {
    /// As the configuration writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

/// `None`: no TLS, or a fault that was noted.
pub(super) fn server(t: &Table<'_>) -> Option<ServerTls> {
    let pem = "Name a PEM file";
    let certificate = t.need("cert", pem);
    let cert = certificate.clone().and_then(Node::certificate_chain);
    let key = t.need("key", pem).and_then(Node::private_key);
    if let (Some(cert), Some(key), Some(node)) = (&cert, &key, certificate)
        && !belong_together(cert, key)
    {
        node.fault::<()>("is not the certificate of server.tls.key", "Name the two files of one certificate");
    }
    let client_ca = t.take("client_ca").and_then(Node::certificates);
    let asked = t.take("client_auth");
    let has_ca = t.has("client_ca");
    let client_auth = match asked.clone().and_then(|node| {
        node.one_of(&[ClientAuth::Off, ClientAuth::Optional, ClientAuth::Required].map(|auth| (auth.as_str(), auth)))
    }) {
        Some(auth) => auth,
        None if has_ca => ClientAuth::Optional,
        None => ClientAuth::Off,
    };
    if let Some(node) = asked
        && client_auth != ClientAuth::Off
        && !has_ca
    {
        node.fault::<()>("needs client_ca to judge certificates by", "Name the PEM file of the clients' authority");
    }
    let like = "[\"certs/client-crl.pem\"]";
    let crl = t.take("client_crl");
    let client_crl = crl.clone().map_or(Some(Vec::new()), |node| node.one_or_more(like, Node::revocations));
    if let Some(node) = crl
        && client_auth == ClientAuth::Off
    {
        node.warn("is of no use where no client's certificate is asked for", "Name a client_ca too");
    }
    Some(ServerTls { cert: cert?, key: key?, client_ca, client_auth, client_crl: client_crl? })
}

impl Node<'_> {
    fn certificate_chain(self) -> Option<PathBuf> {
        self.pem(|pem| certificates(pem).map(|_| ()))
    }

    fn private_key(self) -> Option<PathBuf> {
        let node = self.clone();
        let path =
            self.pem(|pem| PrivateKeyDer::from_pem_slice(pem).map(|_| ()).map_err(|_| "holds no private key in PEM"))?;
        // Mounted secrets often are: it is told, not refused.
        if node.looks() && files::marks(vec![path.clone()]).iter().flatten().any(Mark::is_open_to_all) {
            node.warn("names a file that everybody on this machine may read", "Take the others' right away: chmod o-r");
        }
        Some(path)
    }

    fn revocations(self) -> Option<PathBuf> {
        self.pem(|pem| {
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
    fn pem(self, judge: impl Fn(&[u8]) -> Result<(), &'static str>) -> Option<PathBuf> {
        let path = self.clone().path()?;
        self.refers_to(path.clone());
        if !self.looks() {
            return Some(path);
        }
        let pem = match read(&path) {
            Ok(pem) => pem,
            Err(why) => return self.fault(format!("names a file that cannot be read: {why}"), "Name a readable file"),
        };
        match judge(&pem) {
            Ok(()) => Some(path),
            Err(why) => self.fault(format!("names a file that {why}"), "Name another, or correct it"),
        }
    }
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
fn belong_together(cert: &Path, key: &Path) -> bool {
    let (Ok(cert), Ok(key)) = (read(cert), read(key)) else { return true };
    let (Ok(chain), Ok(key)) = (certificates(&cert), PrivateKeyDer::from_pem_slice(&key)) else { return true };
    CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider()).is_ok()
}
