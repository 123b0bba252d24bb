//! Authorities, certificates and revocation lists.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;

pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// An authority, and the certificates that lead from it to the anchor.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    above: Vec<CertificateDer<'static>>,
}

/// What a certificate says.
#[derive(Clone)]
pub struct Says {
    pub uris: Vec<&'static str>,
    pub dns: Vec<&'static str>,
    pub usages: Vec<KeyUsagePurpose>,
    pub purposes: Vec<ExtendedKeyUsagePurpose>,
    pub authority: bool,
    pub serial: u8,
    pub from: SystemTime,
    pub until: SystemTime,
}

/// A certificate with its key.
pub struct Made {
    /// Its own, then those between it and the anchor.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: KeyPair,
}

impl Says {
    /// Good for both ends, from yesterday until tomorrow, of no name.
    pub fn nothing(now: SystemTime) -> Self {
        Self {
            uris: Vec::new(),
            dns: Vec::new(),
            usages: vec![KeyUsagePurpose::DigitalSignature],
            purposes: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            authority: false,
            serial: 7,
            from: now - DAY,
            until: now + DAY,
        }
    }

    pub fn uri(now: SystemTime, uri: &'static str) -> Self {
        Self { uris: vec![uri], ..Self::nothing(now) }
    }

    pub fn dns(now: SystemTime, name: &'static str) -> Self {
        Self { dns: vec![name], ..Self::nothing(now) }
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        let uri = |uri: &&str| SanType::URI((*uri).try_into().unwrap());
        let dns = |name: &&str| match name.parse() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName((*name).try_into().unwrap()),
        };
        params.subject_alt_names = self.uris.iter().map(uri).chain(self.dns.iter().map(dns)).collect();
        params.key_usages.clone_from(&self.usages);
        params.extended_key_usages.clone_from(&self.purposes);
        params.is_ca = if self.authority { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        params.serial_number = Some(SerialNumber::from(vec![self.serial]));
        params.distinguished_name.push(DnType::CommonName, "a caller");
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (self.from.into(), self.until.into());
        params
    }
}

impl Authority {
    /// An anchor.
    pub fn new(name: &str) -> Self {
        let issuer = CertifiedIssuer::self_signed(authority(name), KeyPair::generate().unwrap()).unwrap();
        Self { issuer, above: Vec::new() }
    }

    /// An authority between the anchor and certificates.
    pub fn below(&self, name: &str, serial: u8) -> Self {
        let mut params = authority(name);
        params.serial_number = Some(SerialNumber::from(vec![serial]));
        let issuer = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.issuer).unwrap();
        let above = [vec![issuer.der().clone()], self.above.clone()].concat();
        Self { issuer, above }
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub fn issue(&self, says: &Says) -> Made {
        let key = KeyPair::generate().unwrap();
        let own = says.params().signed_by(&key, &self.issuer).unwrap();
        Made { chain: [vec![own.der().clone()], self.above.clone()].concat(), key }
    }

    /// A revocation list in PEM.
    pub fn revokes(&self, serials: &[u8], until: SystemTime) -> String {
        self.revocation_list(serials, until).pem().unwrap()
    }

    pub fn revocation_list(&self, serials: &[u8], until: SystemTime) -> rcgen::CertificateRevocationList {
        let revoked = |serial: &u8| RevokedCertParams {
            serial_number: SerialNumber::from(vec![*serial]),
            revocation_time: (until - 30 * DAY).into(),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: (until - 30 * DAY).into(),
            next_update: until.into(),
            crl_number: SerialNumber::from(vec![1]),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap()
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Made {
    /// The chain in PEM.
    pub fn pem(&self) -> String {
        let certificate = |der: &CertificateDer<'_>| {
            let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
            format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
        };
        self.chain.iter().map(certificate).collect()
    }

    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}
