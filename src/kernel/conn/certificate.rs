//! A caller's certificate, read once for its connection: the names in it, and what it may be used for.
//!
//! Invariants: what is read here was verified by the handshake; this adds the rules that path validation (RFC 5280)
//! leaves to its user. Names are taken as they stand: no wildcard, no common name, nothing mended. A certificate that
//! claims to be an X.509-SVID (it has a `spiffe` URI) and breaks the SVID's rules has no name at all, not even its DNS
//! names. Connections that show the same certificates share one of these, and what is found of it
//! ([`CertificateTable`]).

mod certificate_table;

use std::sync::{Arc, Mutex};

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedMutexGuard;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::kernel::clock::UnixMillis;
use crate::kernel::names::SpiffeId;
use crate::kernel::sync::lock;
pub use certificate_table::CertificateTable;

/// A certificate with more names than this is not looked at: each is a look-up for each request.
const MAX_NAMES: usize = 100;

/// The certificate that a caller showed in its handshake.
#[derive(Debug)]
pub struct PeerCertificate {
    /// What the caller sent, its own first.
    chain: Vec<CertificateDer<'static>>,
    names: Result<Names, BadNames>,
    /// Seconds since 1970; the certificate is good through this second.
    not_after: i64,
    digests: Digests,
    issuer: Vec<u8>,
    serial: Vec<u8>,
    last_check: Mutex<Option<ChainCheck>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// The names in a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The workload, if it is an X.509-SVID.
    pub spiffe_id: Option<SpiffeId>,
    /// DNS names, in lower case.
    pub dns: Vec<String>,
}

/// Of what a caller sent.
#[derive(Clone, Copy, Debug)]
struct Digests {
    chain: [u8; 32],
    /// All but its own certificate, and who signed that.
    above: [u8; 32],
    /// The first of those above that runs out, in seconds since 1970.
    above_until: Option<i64>,
}

/// Why a certificate that was taken is taken no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lapse {
    /// Its time is over, or that of something that it rests on.
    Expired,
    /// It was revoked, or is trusted no more.
    Refused,
}

/// What was last found when the chain was held against what is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainCheck {
    /// Which trust it was held against.
    pub epoch: u64,
    pub at: UnixMillis,
    /// Why the caller may show it no more, if it may not.
    pub lapse: Option<Lapse>,
    /// Which authorities a path was found to, the last time that one was looked for and found.
    pub path: Option<[u8; 32]>,
}

/// Why a certificate cannot be used to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCertificate {
    /// It cannot be read.
    #[error("is malformed")]
    Malformed,
    /// It signs certificates or revocation lists: an authority's (X509-SVID, 5.2; RFC 5280, 4.2.1.3).
    #[error("is for signing certificates or revocation lists")]
    Authority,
    /// Its key usage does not allow the signature that a handshake is proved by (RFC 5280, 4.2.1.3).
    #[error("is not for digital signatures")]
    NoSignatures,
}

/// Why the names in a certificate are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNames {
    /// A name that is no text.
    #[error("holds a name that cannot be read")]
    Unreadable,
    /// More than are looked at.
    #[error("holds more than 100 names")]
    TooMany,
    /// A SPIFFE ID and another URI (X509-SVID, 2: exactly one).
    #[error("holds a SPIFFE ID beside another URI")]
    SecondUri,
    /// A `spiffe` URI that names no workload.
    #[error("holds what is no SPIFFE ID of a workload, which {0}")]
    SpiffeId(#[from] crate::kernel::names::BadSpiffeId),
    /// An SVID without key usage (X509-SVID, 4.3).
    #[error("holds a SPIFFE ID but does not say what its key is for")]
    NoKeyUsage,
}

impl PeerCertificate {
    /// Reads the first certificate of a chain.
    ///
    /// # Errors
    /// When it cannot be used to call.
    pub fn read(chain: Vec<CertificateDer<'static>>) -> Result<Self, BadCertificate> {
        let first = chain.first().ok_or(BadCertificate::Malformed)?;
        let leaf = parse(first)?;
        let has_key_usage = usage(&leaf)?;
        let not_after = leaf.validity().not_after.timestamp();
        let names = names(&leaf, has_key_usage);
        // As they are written, not as they are read: revocation lists name certificates by these bytes.
        let (issuer, serial) = (leaf.issuer().as_raw().to_vec(), leaf.raw_serial().to_vec());
        let digests = Digests::of(&chain, &issuer);
        Ok(Self {
            chain,
            names,
            not_after,
            digests,
            issuer,
            serial,
            last_check: Mutex::new(None),
            turn: Arc::default(),
        })
    }

    /// Whether a certificate may be used to call at all, whomever it names.
    ///
    /// # Errors
    /// Why not.
    pub fn fits(der: &CertificateDer<'_>) -> Result<(), BadCertificate> {
        usage(&parse(der)?).map(drop)
    }

    /// What an operator knows a certificate by, however bad it is: a name in it, at most so much of it as fits a log
    /// line.
    #[must_use]
    pub fn describe(der: &CertificateDer<'_>) -> String {
        // It goes to the log before anything in it is trusted, so each part of it is cut to a length.
        let Ok(leaf) = parse(der) else { return "malformed".to_owned() };
        let serial = leaf.raw_serial_as_string();
        let name = match names(&leaf, true) {
            Ok(Names { spiffe_id: Some(id), .. }) => id.to_string(),
            Ok(names) => names.dns.into_iter().next().unwrap_or_default(),
            Err(why) => why.to_string(),
        };
        format!("{} (serial {})", short(&name), short(&serial))
    }

    /// What the caller sent, its own first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Tells it, with those that came with it, from others.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digests.chain
    }

    /// Tells who signed it, and those that came with it, from others.
    #[must_use]
    pub fn above(&self) -> &[u8; 32] {
        &self.digests.above
    }

    /// When the first of those that came with it runs out, in seconds since 1970.
    #[must_use]
    pub fn above_until(&self) -> Option<i64> {
        self.digests.above_until
    }

    /// The last second at which it is good.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Who signed it, as it is written in it.
    #[must_use]
    pub fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// Its number, by which its authority revokes it.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The names in it.
    ///
    /// # Errors
    /// Why they are not taken.
    pub fn names(&self) -> Result<&Names, BadNames> {
        self.names.as_ref().map_err(|why| *why)
    }

    /// Whether its time is over.
    #[must_use]
    pub fn has_expired(&self, now: UnixMillis) -> bool {
        i64::try_from(now.seconds()).is_ok_and(|now| now > self.not_after)
    }

    /// What was last found of it.
    #[must_use]
    pub fn last_check(&self) -> Option<ChainCheck> {
        *lock(&self.last_check)
    }

    /// The turn of who judges it: what one found, the others need not look for.
    pub async fn turn(&self) -> OwnedMutexGuard<()> {
        self.turn.clone().lock_owned().await
    }

    /// Keeps what was found of it.
    pub fn judged(&self, check: ChainCheck) {
        *lock(&self.last_check) = Some(check);
    }
}

impl Digests {
    fn of(chain: &[CertificateDer<'static>], issuer: &[u8]) -> Self {
        let (mut whole, mut above) = (Sha256::new(), Sha256::new());
        let mut above_until = None;
        above.update(issuer);
        for (place, der) in chain.iter().enumerate() {
            let digest = Sha256::digest(der);
            whole.update(digest);
            if place > 0 {
                above.update(digest);
                let until = parse(der).map(|it| it.validity().not_after.timestamp()).ok();
                above_until = above_until.into_iter().chain(until).min();
            }
        }
        Self { chain: whole.finalize().into(), above: above.finalize().into(), above_until }
    }
}

fn short(text: &str) -> &str {
    text.get(..text.floor_char_boundary(200)).unwrap_or_default()
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, BadCertificate> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(BadCertificate::Malformed),
    }
}

/// Whether the certificate says what its key is for.
fn usage(leaf: &X509Certificate<'_>) -> Result<bool, BadCertificate> {
    let constraints = leaf.basic_constraints().map_err(|_| BadCertificate::Malformed)?;
    if constraints.is_some_and(|c| c.value.ca) {
        return Err(BadCertificate::Authority);
    }
    match leaf.key_usage().map_err(|_| BadCertificate::Malformed)? {
        None => Ok(false),
        Some(usage) if usage.value.key_cert_sign() || usage.value.crl_sign() => Err(BadCertificate::Authority),
        Some(usage) if !usage.value.digital_signature() => Err(BadCertificate::NoSignatures),
        Some(_) => Ok(true),
    }
}

fn names(leaf: &X509Certificate<'_>, has_key_usage: bool) -> Result<Names, BadNames> {
    let Some(found) = leaf.subject_alternative_name().map_err(|_| BadNames::Unreadable)? else {
        return Ok(Names::default());
    };
    let found = &found.value.general_names;
    if found.len() > MAX_NAMES {
        return Err(BadNames::TooMany);
    }
    let (mut uris, mut dns) = (Vec::new(), Vec::new());
    for name in found {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::DNSName(name) => dns.push(name.to_ascii_lowercase()),
            GeneralName::Invalid(..) => return Err(BadNames::Unreadable),
            _ => {}
        }
    }
    let claims = |uri: &&str| uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"));
    let spiffe_id = match (uris.iter().find(|uri| claims(uri)), uris.len()) {
        (None, _) => None,
        (Some(_), 2..) => return Err(BadNames::SecondUri),
        (Some(_), _) if !has_key_usage => return Err(BadNames::NoKeyUsage),
        (Some(uri), _) => Some(SpiffeId::parse(uri)?),
    };
    Ok(Names { spiffe_id, dns })
}

#[cfg(test)]
mod tests;
