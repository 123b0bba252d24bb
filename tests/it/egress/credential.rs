//! Secrets that change, are refused, or cannot be read.

use std::time::Duration;

use futures_util::future::join_all;
use rtm_gateway::config::Credential as Configured;
use rtm_gateway::kernel::secret::{Secret, SecretSource};
use rtm_gateway::simulator::{Credential, Endpoint, Fault, Sim};
use rtm_gateway::upstream::egress::Failure;

use super::rig::{APP, KEY, Rig, count, message, read, vendor, vendor_app};

fn opens_with(sim: &Sim, secret: &str) {
    let secret = Secret::new(secret.to_owned());
    sim.world().set_credentials(APP, vec![Credential::Basic { key: KEY.to_owned(), secret }]);
}

#[tokio::test]
async fn a_rotated_secret_is_found_by_the_401_and_nobody_notices() {
    let sim = vendor().await;
    let rig = Rig::new(&sim.base_url());
    rig.egress.send(message()).await.unwrap();
    opens_with(&sim, "new");
    std::fs::write(rig.folder.path().join("secret"), "new\n").unwrap();
    // Also a read of events and a message: a 401 was not acted on.
    for order in [message(), read(), count()] {
        assert_eq!(rig.egress.send(order).await.unwrap().status.as_u16(), 200);
    }
    assert_eq!(sim.stats().received(), 5);
    assert_eq!(rig.egress.credential_states()[0].state, "good");
    sim.stop().await;
}

#[tokio::test]
async fn a_refused_secret_is_shown_once_more_and_then_not_until_it_changes() {
    let sim = vendor().await;
    let rig = Rig::new(&sim.base_url());
    opens_with(&sim, "other");
    let failed = rig.egress.send(count()).await.unwrap_err();
    assert_eq!((failed.why, failed.costs.exchanges), (Failure::CredentialRefused, 2));
    for order in [count(), read(), message()] {
        assert_eq!(rig.egress.send(order).await.unwrap_err().why, Failure::CredentialRefused);
    }
    assert_eq!(sim.stats().received(), 2);
    assert_eq!(rig.egress.credential_states()[0].state, "refused");

    std::fs::write(rig.folder.path().join("secret"), "other").unwrap();
    rig.egress.apply(&rig.config).unwrap();
    rig.egress.send(read()).await.unwrap();
    assert_eq!(sim.stats().received(), 3);
    sim.stop().await;
}

#[tokio::test]
async fn many_orders_at_once_do_not_show_a_bad_secret_many_times() {
    let sim = vendor().await;
    let rig = Rig::new(&sim.base_url());
    opens_with(&sim, "other");
    sim.always(Endpoint::HistoryCount, Fault::DelayBefore(Duration::from_millis(50)));
    let first = join_all((0..8).map(|_| rig.egress.send(count()))).await;
    let later = join_all((0..50).map(|_| rig.egress.send(count()))).await;
    let refused = first.iter().chain(&later).filter(|r| matches!(r, Err(f) if f.why == Failure::CredentialRefused));
    assert_eq!(refused.count(), 58);
    // Those under way when the first 401 came, and one that tried again for all.
    assert_eq!(sim.stats().received(), 9);
    sim.stop().await;
}

#[tokio::test]
async fn a_401_that_was_a_mistake_passes_unnoticed() {
    let sim = vendor().await;
    let rig = Rig::new(&sim.base_url());
    sim.on(Endpoint::HistoryCount, Fault::status(401));
    let replies = join_all((0..5).map(|_| rig.egress.send(count()))).await;
    assert!(replies.iter().all(Result::is_ok), "{replies:?}");
    assert_eq!(sim.stats().received(), 6);
    assert_eq!(rig.egress.credential_states()[0].state, "good");
    sim.stop().await;
}

#[tokio::test]
async fn a_secret_that_is_not_there_stops_its_app_until_it_is() {
    let sim = vendor().await;
    let rig = Rig::with(&sim.base_url(), |config| {
        let Configured::Basic { api_secret: SecretSource::File(path), .. } = &config.apps[0].credential else {
            panic!("another credential")
        };
        std::fs::remove_file(path).unwrap();
    });
    let failed = rig.egress.send(read()).await.unwrap_err();
    assert!(matches!(failed.why, Failure::CredentialUnavailable(_)), "{failed:?}");
    let state = &rig.egress.credential_states()[0];
    assert_eq!(state.state, "unavailable");
    assert!(state.problem.as_ref().unwrap().contains("secret"));
    assert_eq!((sim.stats().received(), rig.free()), (0, 20));
    std::fs::write(rig.folder.path().join("secret"), super::rig::SECRET).unwrap();
    rig.egress.apply(&rig.config).unwrap();
    rig.egress.send(read()).await.unwrap();
    sim.stop().await;
}

#[tokio::test]
async fn tokens_open_the_vendors_door() {
    let sim = Sim::start(vendor_app(20).certificate("a-certificate")).await.unwrap();
    let rig = Rig::with(&sim.base_url(), |config| {
        let Configured::Basic { api_secret, .. } = config.apps[0].credential.clone() else {
            panic!("another credential")
        };
        let SecretSource::File(path) = &api_secret else { panic!("another source") };
        std::fs::write(path, "a-certificate").unwrap();
        config.apps[0].credential = Configured::Token { app_certificate: api_secret, uid: "gateway".into() };
    });
    for order in [read(), count(), message()] {
        assert_eq!(rig.egress.send(order).await.unwrap().status.as_u16(), 200);
    }
    let seen = sim.seen();
    assert!(seen.iter().all(|s| s.headers["x-ar-token"] == seen[0].headers["x-ar-token"]), "minted once");
    assert!(seen.iter().all(|s| s.headers["x-ar-uid"] == "gateway" && !s.headers.contains_key("authorization")));
    assert_eq!(sim.violations(), []);
    sim.stop().await;
}
