//! The files of `[server.tls]` or `[admin.tls]`, read together, and what is made of them.
//!
//! Invariants: a key is kept in memory that is wiped when dropped, as far as it is ours: what the TLS library makes of
//! it is the library's. Nothing of a file's content is in an error.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, sign};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Version};
use zeroize::Zeroize as _;

use super::revocation::{Lists, Revocation};
use super::tickets::Tickets;
use super::trust::Verifier;
use super::{ClientTrust, Expiry, Live, RunOut, TlsDoor, TlsError, TlsFault, Wall};
use crate::config::{ClientAuth, ServerTls};
use crate::kernel::cause::Cause;
use crate::kernel::clock::Clock;
use crate::kernel::conn::Alpn;
use crate::kernel::files::{self, Content};

/// What is in the files.
pub(super) struct Material {
    door: TlsDoor,
    cert: Content,
    key: Content,
    client_ca: Option<Content>,
    crls: Vec<Content>,
    client_auth: ClientAuth,
}

impl Material {
    /// Reads all files.
    pub(super) fn read(door: TlsDoor, config: &ServerTls) -> Result<Self, TlsError> {
        Self::read_all(door, config).map_err(|fault| fault.of(door))
    }

    fn read_all(door: TlsDoor, config: &ServerTls) -> Result<Self, TlsFault> {
        let asks = config.client_auth != ClientAuth::Off;
        let client_ca = config.client_ca.as_deref().filter(|_| asks);
        let crls = config.client_crl.iter().filter(|_| asks);
        Ok(Self {
            door,
            cert: read("cert", &config.cert)?,
            key: read("key", &config.key)?,
            client_ca: client_ca.map(|path| read("client_ca", path)).transpose()?,
            crls: crls.map(|path| read("client_crl", path)).collect::<Result<_, _>>()?,
            client_auth: config.client_auth,
        })
    }

    /// Tells one material from another. Where the files lie does not matter.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut all = Sha256::new();
        let mut add = |part: &[u8]| {
            all.update(part.len().to_be_bytes());
            all.update(part);
        };
        add(&[self.client_auth as u8]);
        add(&self.cert);
        add(&self.key);
        add(self.client_ca.as_ref().map_or(&[], |pem| pem.as_slice()));
        self.crls.iter().for_each(|crl| add(crl));
        all.finalize().into()
    }
}

fn read(key: &'static str, path: &Path) -> Result<Content, TlsFault> {
    files::read(path, files::DOCUMENT).map_err(|why| TlsFault::Unreadable { key, path: path.to_owned(), why })
}

fn no_use(why: Error) -> Cause {
    Cause::of(format!("holds a certificate that cannot be used: {why}"), why)
}

impl Live {
    pub(super) fn make(
        material: &Material,
        config: &ServerTls,
        clock: &Clock,
        epoch: u64,
        run_out: RunOut,
    ) -> Result<Self, TlsError> {
        Self::make_of(material, config, clock, epoch, run_out).map_err(|fault| fault.of(material.door))
    }

    fn make_of(
        material: &Material,
        config: &ServerTls,
        clock: &Clock,
        epoch: u64,
        run_out: RunOut,
    ) -> Result<Self, TlsFault> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (shown, not_after) = own_certificate(material, config)?;
        if i64::try_from(clock.wall_ms().seconds()).is_ok_and(|now| now > not_after) {
            let why = TlsFault::unusable("cert", &config.cert, "holds a certificate that has expired");
            match run_out {
                RunOut::Refuse => return Err(why),
                RunOut::Tell => tracing::error!(why = %why.of(material.door), "callers will refuse it"),
            }
        }
        let (trust, client_ca, revocation) = client_trust(material, config, clock, epoch, run_out, provider.clone())?;
        let server = server(shown, &trust, clock, provider)?;
        let expiry = Expiry { certificate: not_after, client_ca, revocation };
        Ok(Self { server: Arc::new(server), trust: Arc::new(trust), expiry, made_of: material.digest() })
    }
}

/// The certificate that we show with its key, and when it runs out.
fn own_certificate(material: &Material, config: &ServerTls) -> Result<(CertifiedKey, i64), TlsFault> {
    let chain = certificates("cert", &config.cert, &material.cert)?;
    let Some(not_after) = not_after(&chain[0]) else {
        return Err(TlsFault::unusable("cert", &config.cert, "holds a certificate that cannot be read"));
    };
    let mut der = PrivateKeyDer::from_pem_slice(&material.key).map_err(|_| {
        TlsFault::unusable("key", &config.key, "holds no private key in PEM (PKCS#8, PKCS#1 or SEC1, not encrypted)")
    })?;
    let key = sign::any_supported_type(&der);
    der.zeroize();
    let key = key.map_err(|_| {
        TlsFault::unusable("key", &config.key, "holds a key that cannot be used (RSA, ECDSA or Ed25519)")
    })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // All keys of our library show their public half: "unknown" does not happen, and would be no proof.
        Ok(()) => Ok((certified, not_after)),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(TlsFault::Mismatch { cert: config.cert.clone(), key: config.key.clone() })
        }
        Err(why) => Err(TlsFault::unusable("cert", &config.cert, no_use(why))),
    }
}

/// When it runs out, in seconds since 1970; `None` when it cannot be read.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<i64> {
    X509Certificate::from_der(certificate).ok().map(|(_, found)| found.validity().not_after.timestamp())
}

/// The certificates in a PEM file; at least one.
fn certificates(key: &'static str, path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match all {
        Err(_) => Err(TlsFault::unusable(key, path, "is not PEM")),
        Ok(all) if all.is_empty() => Err(TlsFault::unusable(key, path, "holds no certificate in PEM")),
        Ok(all) => Ok(all),
    }
}

/// Whose certificates callers may show, and when the first of these authorities and the first revocation list run out.
fn client_trust(
    material: &Material,
    config: &ServerTls,
    clock: &Clock,
    epoch: u64,
    run_out: RunOut,
    provider: Arc<CryptoProvider>,
) -> Result<(ClientTrust, Option<i64>, Option<i64>), TlsFault> {
    if material.client_auth == ClientAuth::Off {
        return Ok((ClientTrust::new(epoch, None, [0; 32], Lists::default()), None, None));
    }
    let (Some(path), Some(pem)) = (&config.client_ca, &material.client_ca) else { return Err(TlsFault::NoAuthority) };
    let authorities = certificates("client_ca", path, pem)?;
    let first_end = authorities.iter().filter_map(not_after).min();
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        // The anchor of a path need not be an authority's for the TLS library: a client's certificate put here by
        // mistake could sign others.
        let parsed = X509Certificate::from_der(authority);
        if !parsed.is_ok_and(|(_, it)| it.is_ca() || it.version() == X509Version::V1) {
            return Err(TlsFault::unusable("client_ca", path, "holds a certificate that is no authority's"));
        }
        roots.add(authority.clone()).map_err(|why| TlsFault::unusable("client_ca", path, no_use(why)))?;
    }
    let revocation = Revocation::read(material.door, &config.client_crl, &material.crls, &authorities)?;
    if let Err(why) = revocation.has_not_run_out(clock.wall_ms()) {
        match run_out {
            RunOut::Refuse => return Err(why),
            RunOut::Tell => {
                let why = why.of(material.door);
                tracing::error!(%why, "certificates of its authority are refused until there is a new one");
            }
        }
    }
    let (ends, lists) = (revocation.ends(), revocation.look_up());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .with_crls(revocation.lists)
        .enforce_revocation_expiration();
    if material.client_auth == ClientAuth::Optional {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder.build().map_err(|why| TlsFault::Library(Cause::new(why)))?;
    let authorities = Sha256::digest(pem).into();
    Ok((ClientTrust::new(epoch, Some(Arc::new(Verifier::new(verifier))), authorities, lists), first_end, ends))
}

fn server(
    shown: CertifiedKey,
    trust: &ClientTrust,
    clock: &Clock,
    provider: Arc<CryptoProvider>,
) -> Result<ServerConfig, TlsFault> {
    let library = |why: Error| TlsFault::Library(Cause::new(why));
    let builder = ServerConfig::builder_with_details(provider, Arc::new(Wall(clock.clone())))
        .with_safe_default_protocol_versions()
        .map_err(library)?;
    let builder = match trust.verifier() {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    server.alpn_protocols = Alpn::ALL.map(|alpn| alpn.id().to_vec()).to_vec();
    // Sessions are kept by the callers: a store of ours would have to hold as many as there are callers.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.ticketer = Arc::new(Tickets::new(clock).map_err(library)?);
    Ok(server)
}
