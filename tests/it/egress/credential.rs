//! Secrets that change, are refused, or cannot be read.

use std::time::Duration;

use futures_util::future::join_all;
use rtm_gateway::config::Credential as Configured;
use rtm_gateway::kernel::names::AppId;
use rtm_gateway::kernel::secret::{Secret, SecretSource};
use rtm_gateway::simulator::{App, Credential, Endpoint, Fault, Sim};
use rtm_gateway::upstream::egress::Failure;

use super::rig::{APP, KEY, Rig, SECRET, count, message, read, vendor, vendor_app};
use crate::support::log_lines::LogLines;
use crate::support::waiting::found;

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
async fn a_refusal_is_begun_and_ended_in_the_log_once_however_it_ends() {
    const TOLD: &str = "told-app";
    let app = AppId::parse(TOLD).unwrap();
    let lines = LogLines::of_this_process();
    let told = || -> Vec<String> {
        let about = |line: &serde_json::Value| {
            let message = line["message"].as_str().unwrap_or_default();
            line["app"] == TOLD
                && (message.contains("refuses the credential") || message.contains("credential is used"))
        };
        lines.those(about).iter().map(|line| line["why"].as_str().unwrap().to_owned()).collect()
    };
    let (mut refusing, taking) = (Vec::new(), Sim::start(App::new(TOLD).basic(KEY, SECRET)).await.unwrap());
    for _ in 0..2 {
        refusing.push(Sim::start(App::new(TOLD).basic(KEY, "another-secret")).await.unwrap());
    }
    let rig = Rig::with(&refusing[0].base_url(), |config| config.apps[0].id = app.clone());
    let at = |sim: &Sim| {
        let mut config = rig.config.clone();
        config.apps[0].regions[0].base_url = sim.base_url().parse().unwrap();
        config
    };
    let ask = async || {
        let mut order = count();
        order.app = app.clone();
        rig.egress.send(order).await.map_err(|failed| failed.why).map(drop)
    };
    // What is read again after a 401 is read elsewhere, and told there.
    let begun = async |expected: &mut Vec<&str>| {
        assert_eq!(ask().await, Err(Failure::CredentialRefused));
        expected.push("the vendor answered 401");
        found(async || (told().len() == expected.len()).then_some(())).await;
        assert_eq!(told(), *expected);
    };
    let mut expected = Vec::new();
    begun(&mut expected).await;

    // Its requests go elsewhere, and there it is refused too: nothing new. Then where it is taken.
    rig.egress.apply(&at(&refusing[1])).unwrap();
    assert_eq!(ask().await, Err(Failure::CredentialRefused));
    found(async || (rig.egress.credential_states()[0].state == "refused").then_some(())).await;
    rig.egress.apply(&at(&taking)).unwrap();
    expected.push("the vendor takes it");
    assert_eq!(ask().await, Ok(()));
    assert_eq!(told(), expected);

    // Another secret is in the file, and nobody asks.
    rig.egress.apply(&at(&refusing[0])).unwrap();
    begun(&mut expected).await;
    std::fs::write(rig.folder.path().join("secret"), "a-third-secret").unwrap();
    rig.egress.apply(&at(&refusing[0])).unwrap();
    expected.push("its secret has changed");
    assert_eq!(told(), expected);

    // Another file is configured; then there is no such app.
    for (n, why) in ["another is configured", "its app is not configured any more"].into_iter().enumerate() {
        begun(&mut expected).await;
        let mut config = at(&refusing[0]);
        let path = rig.folder.path().join(format!("file-{n}"));
        std::fs::write(&path, "a-fourth-secret").unwrap();
        let api_key = SecretSource::File(rig.folder.path().join("key"));
        config.apps[0].credential = Configured::Basic { api_key, api_secret: SecretSource::File(path) };
        config.apps.truncate(1 - n);
        rig.egress.apply(&config).unwrap();
        expected.push(why);
        assert_eq!(told(), expected);
    }
    for sim in refusing.into_iter().chain([taking]) {
        sim.stop().await;
    }
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
