//! `[server.tls]` and `[admin.tls]`: what connections to a port are encrypted with, and which of them show a
//! certificate.
//!
//! Invariants: the certificate and the key were read, and belong together; a client's certificate can only be asked for
//! where there is an authority to judge it by. All four kinds of file are watched: see `reload`.

use std::path::PathBuf;

use super::document::table::Table;
use super::pem;

/// `[server.tls]`, `[admin.tls]`: what TCP listeners are encrypted with.
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

/// `client_auth` of either: whether callers show certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// No certificate is asked for: there is no `client_ca`.
    Off,
    /// One is asked for; who has none may show itself in another way.
    Optional,
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
    let name = "Name a PEM file";
    let certificate = t.need("cert", name);
    let cert = certificate.clone().and_then(pem::chain);
    let key = t.need("key", name).and_then(pem::private_key);
    if let (Some(cert), Some(key), Some(node)) = (&cert, &key, certificate)
        && !pem::belong_together(cert, key)
    {
        node.fault::<()>("is not the certificate of the key beside it", "Name the two files of one certificate");
    }
    let client_ca = t.take("client_ca").and_then(pem::authorities);
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
    let client_crl = crl.clone().map_or(Some(Vec::new()), |node| node.one_or_more(like, pem::revocations));
    if let Some(node) = crl
        && client_auth == ClientAuth::Off
    {
        node.warn("is of no use where no client's certificate is asked for", "Name a client_ca too");
    }
    Some(ServerTls { cert: cert?, key: key?, client_ca, client_auth, client_crl: client_crl? })
}
