//! Reload: a changed file or SIGHUP is applied whole; what does not validate changes nothing.

use std::fs;

use rtm_gateway::kernel::names::Stream;
use rtm_gateway::kernel::secret::Secret;
use rtm_gateway::simulator::Credential;
use rustix::process::Signal;

use super::gateway::{APP, Gateway, Home, api, client, vendor};
use crate::support::client::Client;

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_applied_without_dropping_a_connection_and_a_bad_one_is_refused_whole() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let gateway = Gateway::start(&home);
    let mut kept = gateway.caller("one").await;
    assert_eq!(kept.get(&api("vendor/user_events")).await.unwrap().status, 200);
    let mut newcomer = gateway.caller("three").await;
    assert_eq!(newcomer.get(&api("vendor/user_events")).await.unwrap().status, 401);

    home.write(&format!("{}{}{}", home.base(&vendor), client("one"), client("three")));
    gateway.admin_says("/admin/v1/config", |_, body| body["reload"]["applied"] == 1).await;
    assert_eq!(newcomer.get(&api("vendor/user_events")).await.unwrap().status, 200);
    assert_eq!(kept.get(&api("vendor/user_events")).await.unwrap().status, 200, "on the same connection");

    home.write("[server]\nlisten = 7\n");
    let body = gateway.admin_says("/admin/v1/config", |_, body| body["reload"]["refused"] == 1).await;
    assert!(body["reload"]["last_refusal"].to_string().contains("server.listen"), "{body}");
    assert_eq!(newcomer.get(&api("vendor/user_events")).await.unwrap().status, 200, "the old one stays");

    home.write(&format!("{}{}", home.base(&vendor), client("one")));
    gateway.signal(Signal::HUP);
    gateway.admin_says("/admin/v1/config", |_, body| body["reload"]["applied"] == 2).await;
    assert_eq!(newcomer.get(&api("vendor/user_events")).await.unwrap().status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_is_taken_up_and_no_event_is_missed() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let gateway = Gateway::start(&home);
    let second = Credential::Basic { key: "api-key".into(), secret: Secret::new("second".into()) };
    vendor.world().set_credentials(APP, vec![second]);
    vendor.emit_many(APP, Stream::UserEvents, 3);
    fs::write(home.path("secret"), "second").unwrap();
    let mut caller = gateway.caller("one").await;
    let reply = caller.get(&api("vendor/user_events?wait=15s")).await.unwrap();
    assert_eq!(reply.json()["events"].as_array().unwrap().len(), 3, "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_for_a_new_address_does_not_open_the_one_that_is_bound() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let clients = format!("{}{}", client("one"), client("two"));
    let everywhere = home.base(&vendor).replacen("127.0.0.1:0", "0.0.0.0:0", 1);
    home.write(&format!("{everywhere}{clients}"));
    let gateway = Gateway::start(&home);
    let anonymous = home.base(&vendor).replacen("[server]", "[server]\nanonymous_client = \"one\"", 1);
    home.write(&format!("{anonymous}{clients}"));
    gateway.admin_says("/admin/v1/config", |_, body| body["reload"]["applied"] == 1).await;
    let mut stranger = Client::http1(gateway.callers).await;
    assert_eq!(stranger.get(&api("vendor/user_events")).await.unwrap().status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_another_client_s_default_subscription() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let gateway = Gateway::start(&home);
    let mut two = gateway.caller("two").await;
    assert_eq!(two.get(&api("vendor/user_events?subscription=one")).await.unwrap().status, 403);
    assert_eq!(two.get(&api("vendor/user_events?subscription=two")).await.unwrap().status, 200);
    assert_eq!(two.get(&api("vendor/user_events?subscription=more")).await.unwrap().status, 200);
}
