use std::time::SystemTime;

use super::*;
use test_support::certificates::{Authority, Says};

fn client(name: &str, spiffe_id: &[&str], dns_san: &[&str]) -> config::Client {
    config::Client {
        spiffe_id: spiffe_id.iter().map(|id| SpiffeId::parse(id).unwrap()).collect(),
        dns_san: dns_san.iter().map(|&name| name.to_owned()).collect(),
        ..config::Client::named(ClientName::parse(name).unwrap(), Vec::new())
    }
}

#[test]
fn a_certificate_is_the_clients_whose_whole_name_is_in_it_and_of_nobody_in_doubt() {
    let certificates = Certificates::new(&[
        client("billing", &["spiffe://corp/billing", "spiffe://corp/billing2"], &["billing.svc"]),
        client("crm", &["spiffe://corp/crm"], &["crm.svc", "prod.svc"]),
    ]);
    let authority = Authority::new("ca");
    let now = SystemTime::UNIX_EPOCH;
    for (uris, dns, expected) in [
        (&["spiffe://corp/billing"][..], &[][..], Some("billing")),
        (&["spiffe://corp/billing2"], &[], Some("billing")),
        (&["spiffe://corp/crm"], &["crm.svc", "other.svc"], Some("crm")),
        (&[], &["CRM.svc"], Some("crm")),
        (&["https://corp/crm"], &["crm.svc"], Some("crm")),
        // A workload that no client is, at a host that one is.
        (&["spiffe://corp/unknown"], &["crm.svc"], Some("crm")),
        (&[], &[], None),
        (&["spiffe://corp/crm/x"], &[], None),
        (&["spiffe://corp/Crm"], &[], None),
        (&[], &["*.svc"], None),
        (&[], &["sub.prod.svc"], None),
        (&[], &["crm.svc", "billing.svc"], None),
        (&["spiffe://corp/billing"], &["crm.svc"], None),
        // Breaks the rules of SVIDs: its DNS name does not help.
        (&["spiffe://corp/crm", "https://corp/crm"], &["crm.svc"], None),
        (&["spiffe://corp"], &["crm.svc"], None),
    ] {
        let says = Says { uris: uris.to_vec(), dns: dns.to_vec(), ..Says::nothing(now) };
        let certificate = PeerCertificate::read(authority.issue(&says).chain).unwrap();
        let found = match certificates.identify(&certificate) {
            AuthOutcome::Known(name, _) => Some(name.as_str()),
            AuthOutcome::Wrong(_) => None,
            AuthOutcome::Nothing => panic!("a certificate is something"),
        };
        assert_eq!(found, expected, "{uris:?} {dns:?}");
    }
}
