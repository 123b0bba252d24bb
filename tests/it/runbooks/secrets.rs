//! (g) Is the rotated secret in force everywhere?

use std::process::Command;

use rtm_gateway::kernel::secret::Secret;
use rtm_gateway::simulator::{Credential, Endpoint, Fault, ViolationKind};
use serde_json::{Value, json};

use crate::support::client::{Client, Reply};
use crate::support::settings;
use crate::support::stage::{APP, Stage, VENDOR_SECRET};
use crate::support::waiting::found;

const NEW: &str = "the-next-s3cret-of-the-vendor";
const RTM: &str = "/dev/v2/project/demo-app/rtm";

/// A gateway that reads events all the time, and whose client `all` may do everything.
async fn gateway() -> Stage {
    let mut stage = Stage::new().await;
    let all = r#"allow = [{ app = "*", actions = ["events", "history", "count", "messages"] }]"#;
    let text = format!("[server]\nlisten = [\"127.0.0.1:0\"]\n{}{}", stage.demo_app(""), settings::client("all", all));
    stage.configure(&text);
    stage.run().await;
    stage
}

/// From now on the vendor takes this secret and no other.
fn rotate_at_the_vendor(stage: &Stage, secret: &str) {
    let secret = Secret::new(secret.to_owned());
    stage.sim.world().set_credentials(APP, vec![Credential::Basic { key: "vendor-key".to_owned(), secret }]);
}

async fn ask(stage: &Stage, path: &str) -> Reply {
    Client::http1(stage.admin).await.get(path).await.unwrap()
}

/// What `/admin/v1/apps` says of the credential, once it is as wanted.
async fn credential(stage: &Stage, wanted: impl Fn(&Value) -> bool) -> Value {
    found(async || {
        let apps = ask(stage, "/admin/v1/apps").await.json();
        let credential = apps["apps"][0]["credential"].clone();
        wanted(&credential).then_some(credential)
    })
    .await
}

/// The status of `/readyz` with this query, and part and code of all that it says to be degraded.
async fn ready(stage: &Stage, query: &str) -> (u16, Vec<(String, String)>) {
    let reply = ask(stage, &format!("/readyz{query}")).await;
    let body = reply.json();
    let of = |one: &Value, member: &str| one[member].as_str().unwrap().to_owned();
    let all = body["degraded"].as_array().unwrap().iter();
    let told = all.map(|one| {
        assert_eq!(one["app"], APP, "{body}");
        (of(one, "part"), of(one, "code"))
    });
    (reply.status.as_u16(), told.collect())
}

fn both_parts(code: &str) -> Vec<(String, String)> {
    ["events", "messages"].map(|part| (part.to_owned(), code.to_owned())).to_vec()
}

async fn state_gauge(stage: &Stage) -> String {
    let text = ask(stage, "/metrics").await.text().to_owned();
    let series = r#"rtm_gateway_credential_state{app="demo-app"} "#;
    text.lines().find_map(|line| line.strip_prefix(series)).unwrap().to_owned()
}

/// Status and code of what a caller with this key is answered to a message.
async fn caller(stage: &Stage, key: &str) -> (u16, String) {
    let mut caller = Client::http1(stage.addr).await.with("x-api-key", key);
    let body = r#"{"destination":"b","payload":"hello"}"#;
    let reply = caller.post(&format!("{RTM}/users/a/peer_messages"), body).await.unwrap();
    (reply.status.as_u16(), reply.json()["code"].as_str().unwrap_or_default().to_owned())
}

/// Stops it. The vendor may have seen secrets that it does not take, and nothing else that it should not.
async fn stopped(stage: &Stage) {
    let seen = stage.sim.world().take_violations();
    assert!(seen.iter().all(|one| matches!(one.kind, ViolationKind::BadCredential { .. })), "{seen:?}");
    stage.stopped().await;
}

/// What the page's own command computes of a file.
fn digest_by_the_page(stage: &Stage) -> String {
    let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbooks.md"));
    let line = page.lines().find(|line| line.starts_with("tr -d")).expect("the page has the command");
    let mut shell = Command::new("sh");
    let output = shell.args(["-c", line]).env("APP", APP).env("SECRET", stage.path("secret")).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_is_seen_at_each_gateway_that_has_it_and_the_one_that_has_not_is_named() {
    let (has, lacks) = (gateway().await, gateway().await);
    for stage in [&has, &lacks] {
        let before = credential(stage, |now| now["secret"]["accepted"].as_u64() > Some(0)).await;
        assert_eq!(
            (&before["state"], &before["secret"]["digest"]),
            (&"good".into(), &digest_by_the_page(stage).into())
        );
        assert_eq!((state_gauge(stage).await.as_str(), ready(stage, "").await), ("1", (200, vec![])));
    }
    let old = digest_by_the_page(&lacks);
    has.write("secret", NEW);
    let new = digest_by_the_page(&has);
    assert!(new != old && new.len() == 8, "{old} {new}");
    for stage in [&has, &lacks] {
        rotate_at_the_vendor(stage, NEW);
    }

    let there =
        credential(&has, |now| now["secret"]["digest"] == *new && now["secret"]["accepted"].as_u64() > Some(0)).await;
    assert_eq!((&there["state"], &there["problem"]), (&"good".into(), &Value::Null), "{there}");
    assert!(there["secret"]["last_accepted_at"].as_str() >= there["secret"]["since"].as_str(), "{there}");
    assert_eq!(ready(&has, "?for=messages").await, (200, vec![]));

    let lacking = credential(&lacks, |now| now["state"] == "refused").await;
    assert_eq!(lacking["secret"]["digest"], *old, "{lacking}");
    assert!(
        lacking["secret"]["last_refused_at"].as_str() >= lacking["secret"]["last_accepted_at"].as_str(),
        "{lacking}"
    );
    assert_eq!(state_gauge(&lacks).await, "0");
    assert_eq!(ready(&lacks, "").await, (200, both_parts("credential_refused")));
    assert_eq!(ready(&lacks, "?for=callers").await, (200, vec![]));
    for query in ["?for=events", "?for=messages", "?app=demo-app"] {
        assert_eq!(ready(&lacks, query).await.0, 503, "{query}");
    }
    assert_eq!(caller(&lacks, "all-key").await, (502, "credential_refused".to_owned()));

    lacks.write("secret", NEW);
    let mended = credential(&lacks, |now| now["secret"]["accepted"].as_u64() > Some(0) && now["state"] == "good").await;
    assert_eq!(mended["secret"]["digest"], *new, "the same as at the other gateway");
    assert_eq!((state_gauge(&lacks).await.as_str(), ready(&lacks, "?for=messages").await), ("1", (200, vec![])));
    for stage in [has, lacks] {
        stopped(&stage).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_secret_that_the_vendor_does_not_take_yet_is_told_from_an_old_one() {
    let stage = gateway().await;
    credential(&stage, |now| now["secret"]["accepted"].as_u64() > Some(0)).await;
    stage.write("secret", NEW);
    let refused = credential(&stage, |now| now["state"] == "refused").await;
    let secret = &refused["secret"];
    assert_eq!((&secret["digest"], &secret["accepted"]), (&digest_by_the_page(&stage).into(), &json!(0)), "{refused}");
    assert!(secret["refused"].as_u64() >= Some(2), "{refused}");
    assert_eq!(ready(&stage, "").await, (200, both_parts("credential_refused")));
    // Back to what the vendor takes.
    stage.write("secret", VENDOR_SECRET);
    credential(&stage, |now| now["state"] == "good" && now["secret"]["accepted"].as_u64() > Some(0)).await;
    stopped(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_the_vendor_has_switched_off_and_a_caller_s_own_wrong_key_are_no_refused_secret() {
    let stage = gateway().await;
    credential(&stage, |now| now["secret"]["accepted"].as_u64() > Some(0)).await;
    assert_eq!(caller(&stage, "wrong-key").await, (401, "unauthenticated".to_owned()));
    assert_eq!(ready(&stage, "").await, (200, vec![]));

    stage.sim.always(Endpoint::PeerMessages, Fault::status(403));
    assert_eq!(caller(&stage, "all-key").await, (502, "app_refused".to_owned()));
    let app_refused = vec![("messages".to_owned(), "app_refused".to_owned())];
    assert_eq!(ready(&stage, "").await, (200, app_refused.clone()));
    assert_eq!(ready(&stage, "?for=messages&app=demo-app").await, (503, app_refused));
    assert_eq!(ready(&stage, "?for=events").await, (200, vec![]));
    let good = credential(&stage, |_| true).await;
    assert_eq!((&good["state"], &good["secret"]["refused"]), (&"good".into(), &json!(0)), "{good}");
    assert_eq!(state_gauge(&stage).await, "1");
    stage.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_cannot_be_read_is_told_before_its_grace_is_over_and_a_short_one_has_no_digest() {
    let stage = gateway().await;
    credential(&stage, |now| now["secret"]["accepted"].as_u64() > Some(0)).await;
    std::fs::remove_file(stage.path("secret")).unwrap();
    let unread = credential(&stage, |now| now["state"] == "grace").await;
    assert!(unread["problem"].as_str().unwrap().contains("secret"), "{unread}");
    // What was read last still serves.
    assert_eq!((state_gauge(&stage).await.as_str(), ready(&stage, "?for=messages").await), ("0", (200, vec![])));
    stage.write("secret", "short");
    rotate_at_the_vendor(&stage, "short");
    let short = credential(&stage, |now| now["state"] == "good" && now["secret"]["digest"].is_null()).await;
    assert_eq!(short["secret"]["digest"], Value::Null);
    assert!(short["secret"]["no_digest"].as_str().unwrap().contains("16"), "{short}");
    assert_eq!(state_gauge(&stage).await, "1");
    stopped(&stage).await;
}
