//! Who may call, and what those who may not are told.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::stage::{APP, RTM, Stage, request};

fn with(headers: &str, target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n{headers}\r\n")
}

#[tokio::test]
async fn each_form_of_a_key_opens_and_anything_else_is_401() {
    let stage = Stage::start().await;
    let target = format!("{RTM}/vendor/user_events");
    let basic = |pair: &str| format!("Authorization: Basic {}\r\n", STANDARD.encode(pair));
    for (headers, status) in [
        ("X-API-Key: all-key\r\n".to_owned(), 200),
        ("Authorization: Bearer all-key\r\n".to_owned(), 200),
        (basic("all:all-key"), 200),
        (format!("X-API-Key: all-key\r\n{}", basic("vendor:secret")), 200),
        (String::new(), 401),
        (basic("reader:all-key"), 401),
        (basic("vendor:secret"), 401),
        ("X-API-Key: wrong\r\nAuthorization: Bearer all-key\r\n".to_owned(), 401),
        ("X-API-Key: all-key\r\nX-API-Key: all-key\r\n".to_owned(), 401),
        ("Authorization: Bearer\r\n".to_owned(), 401),
    ] {
        let answer = stage.raw(with(&headers, &target)).await;
        assert_eq!(answer.status, status, "{headers}");
        if status == 401 {
            assert_eq!(answer.code(), "unauthenticated");
            assert!(answer.header("www-authenticate").is_some_and(|v| v.starts_with("Bearer")), "{answer:?}");
        }
    }
    // Nobody unknown learns what is there.
    assert_eq!(stage.raw(with("", "/nowhere")).await.status, 401);
    stage.stopped().await;
}

#[tokio::test]
async fn what_is_not_allowed_and_what_does_not_exist_are_told_in_the_same_words() {
    let stage = Stage::start().await;
    let mut answers = Vec::new();
    for (client, target) in [
        ("reader", format!("/dev/v2/project/{APP}/rtm/message/history/count?source=a")),
        ("reader", "/dev/v2/project/no-such-app/rtm/message/history/count?source=a".to_owned()),
        ("reader", "/dev/v2/project/no.such.app/rtm/vendor/user_events".to_owned()),
        ("all", "/v1/apps/no-such-app/events/user_events".to_owned()),
        ("nobody", format!("/v1/apps/{APP}/events/user_events")),
        ("bot", format!("/v1/apps/{APP}/events/user_events")),
    ] {
        let answer = stage.raw(request("GET", &target, client, "X-Request-Id: same\r\n", "")).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{client} {target}");
        answers.push(answer.body);
    }
    assert!(answers.windows(2).all(|two| two[0] == two[1]));
}

#[tokio::test]
async fn only_callers_without_credentials_are_anonymous() {
    let stage = Stage::with("anonymous_client = \"reader\"", "").await;
    let target = format!("{RTM}/vendor/user_events");
    let local = |headers: &str, target: &str| with(headers, target).replace("Host: a", "Host: localhost");
    for (headers, status) in [("", 200), ("X-API-Key: wrong\r\n", 401), ("Authorization: Basic eA==\r\n", 401)] {
        assert_eq!(stage.raw(local(headers, &target)).await.status, status, "{headers}");
    }
    assert_eq!(stage.raw(local("", &format!("{RTM}/message/history/count?source=a"))).await.status, 403);
}

#[tokio::test]
async fn a_sane_request_id_is_kept_and_every_answer_has_one() {
    let stage = Stage::start().await;
    let target = format!("{RTM}/vendor/user_events");
    let ask = |id: &str| request("GET", &target, "all", &format!("X-Request-Id: {id}\r\n"), "");
    assert_eq!(stage.raw(ask("order-7_a.b~c")).await.header("x-request-id"), Some("order-7_a.b~c"));
    let answer = stage.raw(ask("a\"b")).await;
    assert_eq!(answer.header("x-request-id").map(str::len), Some(32));
    assert_eq!(answer.json()["request_id"].as_str(), answer.header("x-request-id"));
}
