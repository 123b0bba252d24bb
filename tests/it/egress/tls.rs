//! TLS to the vendor: whom we trust, and which HTTP is spoken on it.

use hyper::Version;
use rtm_gateway::config::Config;
use rtm_gateway::kernel::clock::Clock;
use rtm_gateway::simulator::{Listen, Options, Sim, World};
use rtm_gateway::upstream::egress::Failure;

use super::rig::{Rig, read, vendor_app};
use crate::support::server_tls::certified;

/// A vendor on TLS that speaks these protocols, and the PEM of the authority that signed its certificate.
pub(super) async fn vendor(alpn: &[&str]) -> (Sim, String) {
    vendor_of(vendor_app(20), alpn).await
}

/// The same, with this app.
pub(crate) async fn vendor_of(app: rtm_gateway::simulator::App, alpn: &[&str]) -> (Sim, String) {
    let (tls, ca) = certified(alpn);
    let world = World::new(Clock::system(), Options::default());
    world.add(app);
    let sim = Sim::listen(&world, "default", Listen { addr: None, tls: Some(tls) }).await.unwrap();
    (sim, ca)
}

fn rig(sim: &Sim, ca: Option<&str>) -> Rig {
    rig_with(&sim.base_url(), ca, |_| {})
}

/// A rig that trusts this authority.
pub(super) fn rig_with(base_url: &str, ca: Option<&str>, change: impl FnOnce(&mut Config)) -> Rig {
    Rig::with(base_url, |config| {
        if let Some(pem) = ca {
            let rtm_gateway::config::Credential::Basic {
                api_key: rtm_gateway::kernel::secret::SecretSource::File(path),
                ..
            } = &config.apps[0].credential
            else {
                panic!("another credential")
            };
            let file = path.with_file_name("ca.pem");
            std::fs::write(&file, pem).unwrap();
            config.upstream.ca_file = Some(file);
        }
        change(config);
    })
}

#[tokio::test]
async fn http_2_is_spoken_where_the_vendor_can_and_http_1_where_it_cannot() {
    for (alpn, version) in [(&["h2", "http/1.1"][..], Version::HTTP_2), (&["http/1.1"], Version::HTTP_11)] {
        let (sim, ca) = vendor(alpn).await;
        let rig = rig(&sim, Some(&ca));
        for _ in 0..3 {
            rig.egress.send(read()).await.unwrap();
        }
        let seen = sim.seen();
        assert!(seen.len() == 3 && seen.iter().all(|s| s.version == version && s.connection == 1), "{seen:?}");
        if version == Version::HTTP_2 {
            let names: Vec<_> = seen[0].headers.keys().map(hyper::header::HeaderName::as_str).collect();
            assert_eq!(names, ["user-agent", "accept-encoding", "authorization"]);
        }
        assert_eq!(sim.violations(), []);
        sim.stop().await;
    }
}

#[tokio::test]
async fn a_vendor_whom_nobody_we_trust_vouches_for_gets_no_byte() {
    let (sim, _) = vendor(&["h2"]).await;
    let (_other, anothers_ca) = vendor(&["h2"]).await;
    for ca in [None, Some(anothers_ca.as_str())] {
        let rig = rig(&sim, ca);
        let failed = rig.egress.send(read()).await.unwrap_err();
        assert!(
            matches!(&failed.why, Failure::Unreachable(why) if why.to_string().contains("certificate")),
            "{failed:?}"
        );
        assert_eq!(rig.free(), 20);
    }
    assert_eq!(sim.stats().received(), 0);
    sim.stop().await;
}
