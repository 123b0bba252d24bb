use std::time::{Duration, SystemTime};

use hyper::header::{AUTHORIZATION, HeaderName};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::config::{self, ClientAuth, ServerTls};
use crate::http::headers::X_API_KEY;
use crate::kernel::conn::{Peer, PeerCertificate, TlsFacts};
use crate::kernel::metrics::Metrics;
use crate::kernel::names::SpiffeId;
use crate::tls::Tls;
use test_support::certificates::{Authority, DAY, Says};

impl Client {
    /// A caller that is known by name alone.
    pub(crate) fn for_tests(name: &str) -> Self {
        let evidence = Evidence { by: By::Nothing, certificate: None };
        let method = AuthMethod::Anonymous;
        Self { name: ClientName::parse(name).unwrap(), evidence, life: Life::ENDLESS, method }
    }
}

const BILLING: &str = "spiffe://corp/billing";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// Clients `billing` (certificate and key) and `crm` (key); trust in an authority.
fn identity(anonymous: Option<&str>) -> (Identity, Authority) {
    let name = |name: &str| ClientName::parse(name).unwrap();
    let client = |text: &str| config::Client {
        api_key_sha256: vec![Sha256::digest(format!("{text}-key")).into()],
        ..config::Client::named(name(text), Vec::new())
    };
    let mut billing = client("billing");
    billing.spiffe_id.push(SpiffeId::parse(BILLING).unwrap());
    let mut config = Config { clients: vec![billing, client("crm")], ..Config::default() };
    config.server.anonymous_client = anonymous.map(name);

    let (authority, folder) = (Authority::new("clients"), tempfile::tempdir().unwrap());
    let server = authority.issue(&Says::dns(now(), "localhost"));
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let files = ServerTls {
        cert: write("cert", server.pem()),
        key: write("key", server.key_pem()),
        client_ca: Some(write("ca", authority.pem())),
        client_auth: ClientAuth::Optional,
        client_crl: Vec::new(),
    };
    let tls =
        Tls::open(&files, crate::tls::TlsDoor::Callers, &crate::kernel::clock::Clock::anchored(now()), &Metrics::new())
            .unwrap();
    (Identity::new(&config, tls.live().trust.clone(), None, &Metrics::new()), authority)
}

fn conn(certificate: Option<PeerCertificate>) -> Conn {
    let peer = Peer::Tcp(([127, 0, 0, 1], 1).into());
    Conn::new(peer, None).with_tls(TlsFacts { speaks: None, certificate: certificate.map(Arc::new) })
}

fn headers(shown: Option<(HeaderName, &str)>) -> HeaderMap {
    shown.into_iter().map(|(name, value)| (name, value.parse().unwrap())).collect()
}

#[tokio::test]
async fn what_the_head_shows_decides_before_a_certificate_and_a_certificate_before_nothing() {
    let key = |key| Some((X_API_KEY, key));
    for anonymous in [None, Some("crm")] {
        let (identity, authority) = identity(anonymous);
        let billing = || Some(Says::uri(now(), BILLING));
        let stranger = || Some(Says::uri(now(), "spiffe://corp/node"));
        for (certificate, shown, expected) in [
            (billing(), None, Some("billing")),
            (billing(), key("billing-key"), Some("billing")),
            (billing(), key("crm-key"), Some("crm")),
            (billing(), key("wrong"), None),
            (billing(), Some((AUTHORIZATION, "Basic dmVuZG9yOnNlY3JldA==")), None),
            (stranger(), key("crm-key"), Some("crm")),
            (stranger(), key("wrong"), None),
            // Something was shown: not anonymous.
            (stranger(), None, None),
            (None, key("crm-key"), Some("crm")),
            (None, key("wrong"), None),
            (None, None, anonymous),
        ] {
            let what = format!("{:?} {shown:?} {anonymous:?}", certificate.as_ref().map(|says| &says.uris));
            let certificate = certificate.map(|says| PeerCertificate::read(authority.issue(&says).chain).unwrap());
            let conn = conn(certificate);
            let found = identity.identify(&conn, &headers(shown), UnixMillis::from(now())).await;
            assert_eq!(found.as_ref().ok().map(|client| client.name().as_str()), expected, "{what}");
            assert!(!conn.ends_soon());
        }
    }
}

#[tokio::test]
async fn a_certificate_that_is_good_no_more_is_forgiven_by_no_key_and_ends_its_connection() {
    let (identity, authority) = identity(Some("crm"));
    let made = authority.issue(&Says::uri(now(), BILLING));
    let conn = conn(Some(PeerCertificate::read(made.chain).unwrap()));
    let at =
        async |time: SystemTime, shown| identity.identify(&conn, &headers(shown), UnixMillis::from(time)).await.is_ok();
    assert!(at(now(), None).await && at(now() + DAY, None).await && !conn.ends_soon());
    assert!(!at(now() + DAY + Duration::from_secs(1), None).await);
    assert!(conn.ends_soon());
    assert!(!at(now() + DAY + Duration::from_secs(1), Some((X_API_KEY, "crm-key"))).await);
}
