//! (f) Which version and which configuration run?

use rtm_gateway::app::reload::Reloader;
use rtm_gateway::kernel::version::{COMMIT, VERSION};
use serde_json::Value;

use crate::support::client::Client;
use crate::support::settings;
use crate::support::stage::Stage;

/// What the operators' port says of the configuration.
async fn shown(stage: &Stage) -> Value {
    Client::http1(stage.admin).await.get("/admin/v1/config").await.unwrap().json()
}

/// The value of a metric, labels and all.
async fn metric(stage: &Stage, name: &str) -> Option<String> {
    let page = Client::http1(stage.admin).await.get("/metrics").await.unwrap();
    let line = page.text().lines().find(|line| line.starts_with(&format!("rtm_gateway_{name}")))?;
    Some(line.rsplit_once(' ')?.1.to_owned())
}

#[tokio::test]
async fn a_changed_configuration_is_told_from_one_that_only_looks_changed_and_from_one_that_was_refused() {
    let mut stage = Stage::new().await;
    let listen = "[server]\nlisten = [\"127.0.0.1:0\"]\n";
    let (app, caller) =
        (stage.demo_app(""), settings::client("all", r#"allow = [{ app = "*", actions = ["messages"] }]"#));
    stage.configure(&format!("{listen}{app}{caller}"));
    stage.run().await;
    let reloader = Reloader::new(stage.config_file(), stage.parts.clone(), None);

    let first = shown(&stage).await;
    assert_eq!((first["version"].as_str(), first["commit"].as_str()), (Some(VERSION), Some(COMMIT)));
    let hash = |shown: &Value| shown["hash"].as_str().unwrap().to_owned();
    let in_force = |shown: &Value| format!("config_info{{hash=\"{}\"}}", hash(shown));
    assert_eq!(metric(&stage, &in_force(&first)).await.as_deref(), Some("1"));
    let build = format!("build_info{{version=\"{VERSION}\",commit=\"{COMMIT}\"}}");
    assert_eq!(metric(&stage, &build).await.as_deref(), Some("1"));
    assert_eq!(metric(&stage, "config_last_reload_successful ").await.as_deref(), Some("1"));

    // The look-alike: another file that says the same.
    stage.configure(&format!("# By another hand.\n{listen}max_connections = 10000\n{app}{caller}"));
    let same = hash(&first);
    reloader.reload().await;
    let again = shown(&stage).await;
    assert_eq!((hash(&again), again["reload"]["applied"].as_u64()), (same.clone(), Some(1)), "{again}");

    stage.configure(&format!(
        "{listen}{app}{}",
        settings::client("all", r#"allow = [{ app = "*", actions = ["events"] }]"#)
    ));
    reloader.reload().await;
    let other = shown(&stage).await;
    assert_ne!(hash(&other), same);
    assert_eq!(metric(&stage, &in_force(&other)).await.as_deref(), Some("1"));
    assert_eq!(metric(&stage, &in_force(&first)).await, None, "of the one before nothing is left");

    // The other look-alike: the file was changed, and what runs was not.
    stage.configure("[server]\nlisten = 7\n");
    reloader.reload().await;
    let refused = shown(&stage).await;
    assert_eq!((hash(&refused), &refused["in_force_since"]), (hash(&other), &other["in_force_since"]));
    assert!(refused["reload"]["last_refusal"].to_string().contains("server.listen"), "{refused}");
    assert_eq!(metric(&stage, "config_last_reload_successful ").await.as_deref(), Some("0"));
    assert_eq!(metric(&stage, "reloads_total{outcome=\"refused\"}").await.as_deref(), Some("1"));

    stage.configure(&format!("{listen}{app}{caller}"));
    reloader.reload().await;
    assert_eq!(hash(&shown(&stage).await), same, "what it was at first");
    assert_eq!(metric(&stage, "config_last_reload_successful ").await.as_deref(), Some("1"));
    drop(reloader);
    stage.stopped().await;
}
