//! Targets that two readers take to two places.

use super::rig::{Ends, judge};
use crate::front::stage::{RTM, Stage, request};

fn get(target: &str) -> Vec<u8> {
    request("GET", target, "all", "X-Request-Id: case\r\n", "").into()
}

fn post(target: &str) -> Vec<u8> {
    request("POST", target, "all", "X-Request-Id: case\r\n", r#"{"destination":"x","payload":"y"}"#).into()
}

#[tokio::test]
async fn a_target_on_somebody_elses_host_or_in_an_odd_form_is_refused() {
    let stage = Stage::with("", "streams = []").await;
    let path = format!("{RTM}/message/history/count?source=a&start_time=0&end_time=9");
    let (vendor, port) = (stage.sim.addr(), stage.sim.addr().port());
    let targets = [
        format!("http://evil.example{path}"),
        format!("https://evil.example{path}"),
        format!("http://evil.example:{port}{path}"),
        format!("http://169.254.169.254{path}"),
        format!("http://[::1]{path}"),
        format!("http://{vendor}@evil.example{path}"),
        format!("http://u@{vendor}{path}"),
        format!("http://u:p@{vendor}{path}"),
        format!("http://{vendor}.evil.example{path}"),
        format!("http://{vendor}:80{path}"),
        format!("http://127.0.0.1:99999{path}"),
        format!("http://127.0.0.1:{path}"),
        format!("http://127.0.0.1:x{path}"),
        format!("http://127.1:{port}{path}"),
        format!("http://2130706433:{port}{path}"),
        format!("http://0x7f000001:{port}{path}"),
        format!("http://{vendor}\\@evil{path}"),
        format!("http://{vendor}%00.evil{path}"),
        format!("http://{vendor}{path}#fragment"),
        format!("http:{path}"),
        format!("http:/{path}"),
        format!("http://{path}"),
        format!("http:///{path}"),
        format!("//{vendor}{path}"),
        format!("///{vendor}{path}"),
        format!("\\\\{vendor}{path}"),
        format!("ftp://{vendor}{path}"),
        format!("file://{path}"),
        format!("gopher://{vendor}{path}"),
        format!("javascript:{path}"),
        format!("HTTP ://{vendor}{path}"),
        format!("{vendor}"),
        "gateway:443".into(),
        "*".into(),
        "".into(),
        "?".into(),
        format!("?{path}"),
        path[1..].to_owned(),
        format!(".{path}"),
        format!("..{path}"),
        format!("@evil{path}"),
        format!("/@evil{path}"),
        format!("#{path}"),
        format!("{path}#"),
        format!("{path}#x"),
    ];
    judge(&stage, "form of the target", Ends::Refused, targets.iter().map(|t| get(t)).collect()).await;
    stage.stopped().await;
}

#[tokio::test]
async fn a_path_that_two_readers_take_to_two_places_is_refused() {
    let stage = Stage::with("", "streams = []").await;
    // Dots, slashes and their disguises, in every place of a path that goes to the vendor.
    let odd = [
        ".",
        "..",
        "%2e",
        "%2e%2e",
        "%2E.",
        ".%2e",
        "%2e%2e%2f",
        "..%2f",
        "%2f..",
        "%2f",
        "%2F",
        "%5c",
        "%5C",
        "\\",
        "..\\",
        "\\..",
        "..%5c",
        "%5c..",
        "a%2fb",
        "a/../b",
        "a/./b",
        "a//b",
        "a\\b",
        "..%00",
        "%00",
        "a%00",
        "%00a",
        "%0d%0a",
        "a%0d%0aX:%20y",
        "%0a",
        "%0d",
        "a%0aHost:%20evil",
        "%09",
        "%7f",
        "%1f",
        "%c2%80",
        "%c2%85",
        "%c0%ae",
        "%c0%ae%c0%ae",
        "%c0%af",
        "%e0%80%af",
        "%f0%80%80%af",
        "%c0%ae%c0%ae%c0%af",
        "%ff",
        "%fe%ff",
        "%ed%a0%80",
        "%f4%90%80%80",
        "%",
        "%2",
        "%zz",
        "%u002e",
        "%u2215",
        "%%32%65",
        "%%",
        "a%2",
        "%2g",
        "%-1",
        "",
        "#",
        "a#b",
    ];
    let users = odd.iter().map(|o| post(&format!("{RTM}/users/{o}/peer_messages")));
    judge(&stage, "user id in the path", Ends::Refused, users.collect()).await;
    let handles = odd.iter().map(|o| get(&format!("{RTM}/message/history/query/{o}")));
    judge(&stage, "handle in the path", Ends::Refused, handles.collect()).await;
    let apps =
        odd.iter().chain(&["*", "demo-app%20", "DEMO-APP", "demo-app;x", "demo-app%3bx", "demo-app:", "%64emo-app/.."]);
    let apps =
        apps.map(|o| get(&format!("/dev/v2/project/{o}/rtm/message/history/count?source=a&start_time=0&end_time=9")));
    judge(&stage, "app id in the path", Ends::Refused, apps.collect()).await;
    // Twice encoded, parameters, and other ways round.
    let others = [
        "/dev/v2/project/demo-app/rtm/vendor/..%252fmessage/history/count",
        "/dev/v2/project/demo-app/rtm/%2576endor/user_events",
        "/dev/v2/project/demo-app/rtm/vendor;x/user_events",
        "/dev/v2/project/demo-app/rtm/vendor/user_events;x=y",
        "/dev/v2/project/demo-app/rtm/vendor/;/user_events",
        "/dev/v2/project/demo-app/rtm/vendor/..;/message/history/count",
        "/dev/v2/project/demo-app/rtm/vendor/user_events/",
        "/dev/v2/project/demo-app/rtm/vendor/user_events.",
        "/dev/v2/project/demo-app/rtm/vendor/user_events..",
        "/dev/v2/project/demo-app/rtm/vendor/user_events%20",
        "/dev/v2/project/demo-app/rtm/vendor/user_events%00",
        "/dev/v2/project/demo-app/rtm/vendor/user_events%3f",
        "/dev/v2/project/demo-app/rtm/vendor/USER_EVENTS",
        "/DEV/V2/project/demo-app/rtm/vendor/user_events",
        "//dev/v2/project/demo-app/rtm/vendor/user_events",
        "/dev//v2/project/demo-app/rtm/vendor/user_events",
        "/./dev/v2/project/demo-app/rtm/vendor/user_events",
        "/x/../dev/v2/project/demo-app/rtm/vendor/user_events",
        "/dev/v2/project/demo-app/rtm/users/u/peer_messages/../../../vendor/user_events",
        "/dev/v2/project/demo-app/rtm/message/history/count/..%2f..%2fvendor%2fuser_events",
        "/dev/v2/project/../../../../etc/passwd",
        "/metrics",
        "/healthz",
        "/admin/v1/apps",
        "/.git/config",
    ];
    judge(&stage, "other paths", Ends::Refused, others.iter().map(|t| get(t)).collect()).await;
    stage.stopped().await;
}
