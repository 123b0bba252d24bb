//! What an endpoint's answers do.

use std::time::Duration;

use rtm_gateway::kernel::clock::Clock;

use super::rig::{Rig, webhook};
use crate::support::issuer::{Issuer, Says};
use crate::support::receiver::{Answer, Receiver, Seen};

#[tokio::test]
async fn a_failed_event_is_tried_again_under_its_id_and_nothing_overtakes_it() {
    let receiver = Receiver::start().await;
    receiver.next([400, 404, 500, 501].map(Answer::Status));
    let mut rig = Rig::start(&webhook("crm", &receiver.url("/"), "")).await;
    rig.emit(&["a", "b"]);
    let seen = receiver.requests(6).await;
    let users: Vec<String> = seen.iter().map(Seen::user).collect();
    assert_eq!(users, ["a", "a", "a", "a", "a", "b"]);
    assert!(seen[..5].iter().all(|s| s.id() == seen[0].id() && s.body == seen[0].body));
    assert_ne!(seen[5].id(), seen[0].id());
    let refused = r#"rtm_gateway_webhook_attempts_total{app="demo-app",webhook="crm",outcome="refused"}"#;
    assert_eq!(rig.metric(refused), 4.0);
    let status = rig.stands("crm", |status| status.state == "delivering").await;
    assert!(status.last_error.unwrap().contains("501"));
    rig.stop().await;
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_never_followed() {
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    let elsewhere = other.url("/");
    receiver.next([301, 302, 303, 307, 308].map(|status| Answer::With(status, "location", elsewhere.clone())));
    let mut rig = Rig::start(&webhook("crm", &receiver.url("/"), "")).await;
    rig.emit(&["a"]);
    let seen = receiver.requests(6).await;
    assert!(seen.iter().all(|s| s.id() == seen[0].id()));
    rig.idle("crm").await;
    assert!(other.seen().is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn an_endpoint_with_too_much_to_do_is_left_alone_for_as_long_as_it_says() {
    for is_date in [false, true] {
        let receiver = Receiver::start().await;
        receiver.rule(move |seen| match seen.user().as_str() {
            "busy" => Answer::With(503, "retry-after", if is_date { date_in(3) } else { "1".into() }),
            _ => Answer::Status(204),
        });
        let more = "max_in_flight = 8\nretry = { initial = \"10ms\", max = \"1m\" }";
        let mut rig = Rig::start(&webhook("crm", &receiver.url("/"), more)).await;
        rig.emit(&["busy"]);
        let first = receiver.requests(1).await[0].clone();
        rig.stands("crm", |status| status.state == "slowed").await;
        receiver.rule(|_| Answer::Status(204));
        // Others wait too.
        rig.emit(&["b", "c"]);
        let seen = receiver.requests(4).await;
        assert!(seen[1..].iter().all(|s| s.at - first.at >= Duration::from_millis(990)), "{seen:#?}");
        rig.stands("crm", |status| status.state == "delivering").await;
        rig.stop().await;
    }
}

/// The time after so many seconds, of which rounding takes up to one.
fn date_in(seconds: u64) -> String {
    httpdate::fmt_http_date(Clock::system().wall() + Duration::from_secs(seconds))
}

#[tokio::test]
async fn the_longest_wait_of_the_configuration_bounds_what_an_endpoint_may_ask_for() {
    let receiver = Receiver::start().await;
    receiver.next([Answer::With(429, "retry-after", "86400".to_owned())]);
    let mut rig = Rig::start(&webhook("crm", &receiver.url("/"), "")).await;
    rig.emit(&["a"]);
    let seen = receiver.requests(2).await;
    assert_eq!(seen[0].id(), seen[1].id());
    rig.stop().await;
}

#[tokio::test]
async fn gone_disables_until_it_is_enabled_and_then_goes_on_from_where_it_was() {
    let receiver = Receiver::start().await;
    receiver.rule(|seen| Answer::Status(if seen.user() == "b" { 410 } else { 204 }));
    let mut rig = Rig::start(&webhook("crm", &receiver.url("/"), "")).await;
    rig.emit(&["a", "b", "c"]);
    let status = rig.stands("crm", |status| status.state == "disabled").await;
    assert_eq!(status.disabled.unwrap().why, "gone");
    assert_eq!(rig.metric(r#"rtm_gateway_webhook_disabled{app="demo-app",webhook="crm"}"#), 1.0);
    // It stays so over a restart.
    rig.stop().await;
    rig.run().await;
    rig.stands("crm", |status| status.state == "disabled").await;
    rig.emit(&["d"]);
    receiver.rule(|_| Answer::Status(204));
    let before = receiver.seen().len();
    rig.enable("crm").await;
    receiver.requests(before + 3).await;
    rig.idle("crm").await;
    let users: Vec<String> = receiver.seen().iter().map(Seen::user).collect();
    assert_eq!(users, ["a", "b", "b", "c", "d"]);
    assert_eq!(rig.status("crm").state, "delivering");
    assert_eq!(rig.metric(r#"rtm_gateway_webhook_disabled{app="demo-app",webhook="crm"}"#), 0.0);
    rig.stop().await;
}

#[tokio::test]
async fn an_operator_may_disable_and_enable_at_any_time() {
    let receiver = Receiver::start().await;
    let mut rig = Rig::start(&webhook("crm", &receiver.url("/"), "")).await;
    rig.emit(&["a"]);
    rig.idle("crm").await;
    rig.disable("crm").await;
    rig.disable("crm").await;
    assert_eq!(rig.stands("crm", |s| s.state == "disabled").await.disabled.unwrap().why, "operator");
    rig.emit(&["b"]);
    rig.stop().await;
    rig.run().await;
    rig.enable("crm").await;
    rig.enable("crm").await;
    let seen = receiver.requests(2).await;
    assert_eq!(seen.iter().map(Seen::user).collect::<Vec<_>>(), ["a", "b"]);
    rig.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_says_nothing_delays_no_other_and_is_given_up_in_time() {
    let (silent, well) = (Receiver::start().await, Receiver::start().await);
    silent.rule(|_| Answer::Never);
    let hooks = webhook("silent", &silent.url("/"), "timeout = \"300ms\"") + &webhook("well", &well.url("/"), "");
    let mut rig = Rig::start(&hooks).await;
    let users: Vec<String> = (0..30).map(|n| format!("u{n}")).collect();
    rig.emit(&users.iter().map(String::as_str).collect::<Vec<_>>());
    let seen = well.requests(30).await;
    assert_eq!(seen.iter().map(Seen::user).collect::<Vec<_>>(), users);
    let tries = silent.requests(2).await;
    assert_eq!(tries[0].id(), tries[1].id());
    assert!(rig.status("silent").last_error.unwrap().contains("did not answer within 300ms"));
    rig.stop().await;
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_is_not_asked_unless_that_is_allowed() {
    let receiver = Receiver::start().await;
    // A name of loopback that does not look like one, where the system knows it.
    let url = format!("http://ip6-localhost:{}/", receiver.port());
    let hook = webhook("crm", &url, "").replace("allow_private_targets = true", "");
    let mut rig = Rig::start(&hook).await;
    rig.emit(&["a"]);
    let status = rig.stands("crm", |status| status.last_error.is_some()).await;
    let why = status.last_error.unwrap();
    assert!(why.contains("may not be asked") || why.contains("cannot be reached"), "{why}");
    assert!(receiver.seen().is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn over_tls_the_endpoint_must_be_vouched_for_by_the_configured_authority() {
    let endpoint = Issuer::start(Says::Keys(String::new())).await;
    let url = format!("https://{}/hook", endpoint.addr);
    let mut rig = Rig::start(&webhook("crm", &url, "")).await;
    rig.emit(&["a"]);
    let status = rig.stands("crm", |status| status.last_error.is_some()).await;
    assert!(status.last_error.unwrap().contains("certificate"), "of no public authority");
    rig.write("ca.pem", &endpoint.ca);
    rig.reload(&webhook("crm", &url, "ca_file = \"$DIR/ca.pem\"")).await;
    rig.idle("crm").await;
    assert!(rig.status("crm").last_delivery_at.is_some());
    rig.stop().await;
}
