//! Callers with tokens, and where their issuer's keys come from.

use rtm_gateway::kernel::clock::Clock;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::stage::{Answer, DEADLINE, RTM, Stage, request};
use crate::support::issuer::{Issuer, Says, Signer, published};

const SUBJECT: &str = "system:serviceaccount:prod:billing";

/// A gateway that believes an issuer.
async fn stage(issuer: &Issuer, more: &str) -> (Stage, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.crt");
    std::fs::write(&ca, &issuer.ca).unwrap();
    let jwt = format!(
        r#"
[identity.jwt]
issuer = "https://kubernetes.default.svc"
audience = "rtm-gateway"
jwks_url = "https://{}/openid/v1/jwks"
jwks_ca_file = "{}"
{more}
[[clients]]
name = "billing"
jwt_subject = "{SUBJECT}"
allow = [{{ app = "*", actions = ["events"] }}]
"#,
        issuer.addr,
        ca.display()
    );
    (Stage::with("", &jwt).await, folder)
}

const LOCAL: &str = "jwks_allow_private_targets = true";

fn token(signer: &Signer) -> String {
    let now = Clock::system().wall_ms().seconds();
    let claims =
        json!({ "iss": "https://kubernetes.default.svc", "sub": SUBJECT, "aud": ["rtm-gateway"], "exp": now + 600 });
    signer.honest("ES256", &claims)
}

async fn show(stage: &Stage, token: &str) -> Answer {
    let target = format!("{RTM}/vendor/user_events");
    stage.raw(format!("GET {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n")).await
}

/// Shows a token until it is answered so.
async fn until(stage: &Stage, token: &str, status: u16) -> Answer {
    let asking = async {
        loop {
            let answer = show(stage, token).await;
            if answer.status == status {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, asking).await.expect("the answer in time")
}

#[tokio::test]
async fn a_service_account_is_known_by_keys_from_an_api_that_wants_a_token_of_ours_which_is_read_each_time() {
    let (k1, stranger) = (Signer::p256("k1"), Signer::p256("k1"));
    let issuer = Issuer::start(Says::Keys(published(&[&k1]))).await;
    issuer.demands("ours-1");
    let own = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(own.path(), "ours-1\n").unwrap();
    let more = format!("{LOCAL}\njwks_refresh = \"100ms\"\njwks_token_file = \"{}\"", own.path().display());
    let (stage, _folder) = stage(&issuer, &more).await;
    assert_eq!(show(&stage, &token(&k1)).await.status, 200);
    assert_eq!(show(&stage, &token(&stranger)).await.status, 401);
    // A key beside decides, right or wrong.
    let target = format!("{RTM}/vendor/user_events");
    let both = format!("Authorization: Bearer {}\r\n", token(&k1));
    assert_eq!(stage.raw(request("GET", &target, "nobody", &both, "")).await.status, 403);
    assert_eq!(stage.raw(request("GET", &target, "wrong", &both, "")).await.status, 401);
    issuer.demands("ours-2");
    std::fs::write(own.path(), "ours-2\n").unwrap();
    let renewed = async {
        while issuer.asked().last() != Some(&Some("Bearer ours-2".to_owned())) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, renewed).await.unwrap();
    assert_eq!(show(&stage, &token(&k1)).await.status, 200);
    stage.stopped().await;
}

#[tokio::test]
async fn a_key_that_the_issuer_takes_back_opens_nothing_any_more() {
    let (old, new) = (Signer::p256("old"), Signer::p256("new"));
    let issuer = Issuer::start(Says::Keys(published(&[&old]))).await;
    let (stage, _folder) = stage(&issuer, &format!("{LOCAL}\njwks_refresh = \"100ms\"")).await;
    let (by_old, by_new) = (token(&old), token(&new));
    assert_eq!(show(&stage, &by_old).await.status, 200);
    assert_eq!(show(&stage, &by_old).await.status, 200);
    issuer.says(Says::Keys(published(&[&old, &new])));
    until(&stage, &by_new, 200).await;
    assert_eq!(show(&stage, &by_old).await.status, 200);
    issuer.says(Says::Keys(published(&[&new])));
    until(&stage, &by_old, 401).await;
    // An issuer that is away changes nothing.
    issuer.says(Says::Status(500, None));
    let asked = issuer.asked().len();
    while issuer.asked().len() < asked + 2 {
        assert_eq!(show(&stage, &by_new).await.status, 200);
    }
    // Whether it would take the other back cannot be known now.
    assert_eq!(show(&stage, &by_old).await.status, 503);
    let status = stage.parts.jwks.status().unwrap();
    assert!(status.believed && status.fault.is_some_and(|why| why.contains("500")));
    stage.stopped().await;
}

#[tokio::test]
async fn strangers_with_unknown_keys_do_not_make_us_ask_the_issuer_again_and_again() {
    let (known, unknown) = (Signer::p256("known"), Signer::p256("unknown"));
    let issuer = Issuer::start(Says::Keys(published(&[&known]))).await;
    let (stage, _folder) = stage(&issuer, LOCAL).await;
    assert_eq!(show(&stage, &token(&known)).await.status, 200);
    for _ in 0..20 {
        assert_eq!(show(&stage, &token(&unknown)).await.status, 401);
    }
    assert_eq!(issuer.asked().len(), 1);
    stage.stopped().await;
}

#[tokio::test]
async fn without_keys_a_token_is_answered_not_now_and_everything_else_is_served() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let trap = format!("http://{}/keys", elsewhere.local_addr().unwrap());
    let signer = Signer::p256("k1");
    let huge = format!("{{\"keys\":[],\"filler\":\"{}\"}}", "x".repeat(2 << 20));
    let many = format!("{{\"keys\":[{}]}}", vec!["{}"; 101].join(","));
    for (says, more, why) in [
        (Says::Status(302, Some(trap.clone())), LOCAL, "redirects are not followed"),
        (Says::Status(307, Some(trap)), LOCAL, "redirects are not followed"),
        (Says::Status(503, None), LOCAL, "503"),
        (Says::Keys("<html>hello</html>".into()), LOCAL, "not a JWK set"),
        (Says::Keys(huge), LOCAL, "bytes"),
        (Says::Keys(many), LOCAL, "101 keys"),
    ] {
        let issuer = Issuer::start(says).await;
        issuer.demands("ours");
        let own = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(own.path(), "ours").unwrap();
        let more = format!("{more}\njwks_token_file = \"{}\"", own.path().display());
        let (stage, _folder) = stage(&issuer, &more).await;
        let answer = show(&stage, &token(&signer)).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"), "{why}");
        assert!(answer.header("retry-after").is_some());
        let status = stage.parts.jwks.status().unwrap();
        assert!(!status.believed && status.fault.as_ref().is_some_and(|fault| fault.contains(why)), "{status:?}");
        assert_eq!(stage.get(&format!("{RTM}/vendor/user_events")).await.status, 200);
        stage.stopped().await;
    }
    // The redirects led nobody there, with our token or without.
    assert!(futures_util::FutureExt::now_or_never(elsewhere.accept()).is_none());
}

#[tokio::test]
async fn a_slow_issuer_holds_a_caller_for_two_seconds_and_a_stop_not_at_all() {
    let issuer = Issuer::start(Says::Nothing).await;
    let (stage, _folder) = stage(&issuer, LOCAL).await;
    let answer = show(&stage, &token(&Signer::p256("k1"))).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
    stage.stopped().await;
}

#[tokio::test]
async fn a_server_that_nobody_we_trust_vouches_for_is_not_shown_our_token() {
    let (mut impostor, other) = (Issuer::start(Says::Nothing).await, Issuer::start(Says::Nothing).await);
    let own = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(own.path(), "ours").unwrap();
    impostor.ca.clone_from(&other.ca);
    let (stage, _folder) = stage(&impostor, &format!("{LOCAL}\njwks_token_file = \"{}\"", own.path().display())).await;
    assert_eq!(show(&stage, &token(&Signer::p256("k1"))).await.status, 503);
    assert!(stage.parts.jwks.status().unwrap().fault.unwrap().contains("certificate"));
    assert_eq!(impostor.asked(), []);
    stage.stopped().await;
}

/// A stream opened with a token, up to its first event.
async fn listen(stage: &Stage, token: &str) -> tokio::net::TcpStream {
    let mut tcp = stage.connect().await;
    let target = "/v1/apps/demo-app/events/user_events?from=latest&subscription=";
    let name = format!("s{}", token.bytes().map(u64::from).sum::<u64>());
    let ask = format!(
        "GET {target}{name} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    tcp.write_all(ask.as_bytes()).await.unwrap();
    read_until(&mut tcp, "retry: 2000\n").await;
    tcp
}

async fn read_until(tcp: &mut tokio::net::TcpStream, words: &str) -> String {
    let mut got = Vec::new();
    let reading = async {
        while !got.ends_with(words.as_bytes()) {
            got.push(tcp.read_u8().await.expect("more"));
        }
    };
    tokio::time::timeout(DEADLINE, reading).await.unwrap_or_else(|_| panic!("{words}"));
    String::from_utf8(got).unwrap()
}

const END: &str = "\r\n0\r\n\r\n";

#[tokio::test]
async fn a_stream_ends_with_the_key_that_signed_its_token_and_not_when_keys_are_added_or_the_issuer_is_away() {
    let (old, new) = (Signer::p256("old"), Signer::p256("new"));
    let issuer = Issuer::start(Says::Keys(published(&[&old]))).await;
    let (stage, _folder) = stage(&issuer, &format!("{LOCAL}\njwks_refresh = \"100ms\"")).await;
    let mut by_old = listen(&stage, &token(&old)).await;
    issuer.says(Says::Keys(published(&[&old, &new])));
    until(&stage, &token(&new), 200).await;
    let mut by_new = listen(&stage, &token(&new)).await;
    issuer.says(Says::Status(500, None));
    let asked = issuer.asked().len();
    while issuer.asked().len() < asked + 2 {
        tokio::task::yield_now().await;
    }
    stage.parts.apply(&stage.parts.config.load_full()).await.unwrap();
    stage.sim.emit_many("demo-app", rtm_gateway::kernel::names::Stream::UserEvents, 1);
    read_until(&mut by_old, "data: ").await;
    read_until(&mut by_new, "data: ").await;
    issuer.says(Says::Keys(published(&[&new])));
    read_until(&mut by_old, END).await;
    stage.sim.emit_many("demo-app", rtm_gateway::kernel::names::Stream::UserEvents, 1);
    read_until(&mut by_new, "data: ").await;
    // The issuer that is believed is another one now.
    let mut config = rtm_gateway::config::Config::clone(&stage.parts.config.load());
    config.jwt.as_mut().unwrap().audience = vec!["somebody-else".to_owned()];
    stage.parts.apply(&config).await.unwrap();
    read_until(&mut by_new, END).await;
    drop((by_old, by_new));
    stage.stopped().await;
}

#[tokio::test]
async fn a_stream_goes_on_while_its_token_is_for_one_of_the_audiences_whichever_that_is_and_ends_when_it_is_for_none() {
    let signer = Signer::p256("k1");
    let issuer = Issuer::start(Says::Keys(published(&[&signer]))).await;
    let (stage, _folder) = stage(&issuer, LOCAL).await;
    let now = Clock::system().wall_ms().seconds();
    let for_all = |aud: serde_json::Value| json!({ "iss": "https://kubernetes.default.svc", "sub": SUBJECT, "aud": aud, "exp": now + 600 });
    let of_three = signer.honest("ES256", &for_all(json!(["first", "rtm-gateway", "second"])));
    let of_one = signer.honest("ES256", &for_all(json!("rtm-gateway")));
    let (mut three, mut one) = (listen(&stage, &of_three).await, listen(&stage, &of_one).await);
    let audience = async |names: &[&str]| {
        let mut config = rtm_gateway::config::Config::clone(&stage.parts.config.load());
        config.jwt.as_mut().unwrap().audience = names.iter().map(|&name| name.to_owned()).collect();
        stage.parts.apply(&config).await.unwrap();
    };
    // None of these was configured when it was verified.
    for names in [&["third", "second"][..], &["first"]] {
        audience(names).await;
        assert_eq!(show(&stage, &of_three).await.status, 200);
        assert_eq!(show(&stage, &of_one).await.status, 401);
        stage.sim.emit_many("demo-app", rtm_gateway::kernel::names::Stream::UserEvents, 1);
        read_until(&mut three, "data: ").await;
    }
    assert!(!read_until(&mut one, END).await.contains("data: "));
    audience(&["third"]).await;
    stage.sim.emit_many("demo-app", rtm_gateway::kernel::names::Stream::UserEvents, 1);
    assert!(!read_until(&mut three, END).await.contains("data: "));
    drop((three, one));
    stage.stopped().await;
}

#[tokio::test]
async fn a_stream_and_a_long_poll_end_when_their_token_expires() {
    let signer = Signer::p256("k1");
    let issuer = Issuer::start(Says::Keys(published(&[&signer]))).await;
    let (stage, _folder) = stage(&issuer, &format!("{LOCAL}\nleeway = \"0s\"")).await;
    let now = Clock::system().wall_ms().seconds();
    let claims =
        json!({ "iss": "https://kubernetes.default.svc", "sub": SUBJECT, "aud": ["rtm-gateway"], "exp": now + 4 });
    let token = signer.honest("ES256", &claims);
    let mut stream = listen(&stage, &token).await;
    let mut poll = stage.connect().await;
    let target = format!("{RTM}/vendor/user_events?wait=60s");
    let ask = format!("GET {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
    poll.write_all(ask.as_bytes()).await.unwrap();
    read_until(&mut stream, END).await;
    assert_eq!(Answer::read(&mut poll).await.status, 401);
    assert!(Clock::system().wall_ms().seconds() >= now + 4);
    drop((stream, poll));
    stage.stopped().await;
}
