//! Ceilings and overload: no client keeps another from being served, what is refused costs nothing, and what ends, however
//! it ends, makes room.

use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rtm_gateway::config::{Config, Limit, QuotaRule};
use rtm_gateway::kernel::metrics::{CeilingLabels, ShedLabels, WouldRefuseLabels};
use rtm_gateway::simulator::{Endpoint, Fault};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use super::stage::{Answer, RTM, Stage, exchange, request};
use crate::support::waiting::eventually;

const EVENTS: &str = r#"allow = [{ app = "*", actions = ["events"] }]"#;
const ALL: &str = r#"allow = [{ app = "*", actions = ["events", "history", "count", "messages"] }]"#;

/// A client more, whose key is its name and `-key`, with these lines.
fn client(name: &str, lines: &str) -> String {
    let digest: String = Sha256::digest(format!("{name}-key")).iter().map(|b| format!("{b:02x}")).collect();
    format!("[[clients]]\nname = \"{name}\"\napi_key_sha256 = \"{digest}\"\n{lines}\n")
}

async fn stage(server: &str, clients: &[String]) -> Stage {
    Stage::with(server, &clients.concat()).await
}

fn poll(client: &str) -> String {
    request("GET", &format!("{RTM}/vendor/user_events?wait=60s"), client, "", "")
}

fn look(client: &str) -> String {
    request("GET", &format!("{RTM}/vendor/user_events"), client, "", "")
}

fn count(client: &str) -> String {
    request("GET", &format!("{RTM}/message/history/count?source=a&start_time=0&end_time=9999999999"), client, "", "")
}

fn message(client: &str, headers: &str, body: &str) -> String {
    request("POST", &format!("{RTM}/users/u/peer_messages"), client, headers, body)
}

const SOUND: &str = r#"{"destination":"x","payload":"y"}"#;

fn in_hand(stage: &Stage) -> usize {
    stage.parts.gateway.admission.in_hand()
}

/// A long poll that has been admitted.
async fn hold(stage: &Stage, client: &str) -> TcpStream {
    let before = in_hand(stage);
    let mut caller = stage.connect().await;
    caller.write_all(poll(client).as_bytes()).await.unwrap();
    eventually(|| in_hand(stage) == before + 1).await;
    caller
}

fn shed(stage: &Stage, reason: &str) -> u64 {
    stage.parts.metrics.requests_shed.get_or_create(&ShedLabels { reason: reason.into() }).get()
}

async fn reload(stage: &Stage, change: impl FnOnce(&mut Config)) {
    let mut config = Config::clone(&stage.parts.config.load());
    change(&mut config);
    stage.parts.apply(&config).await.unwrap();
}

fn client_of<'a>(config: &'a mut Config, name: &str) -> &'a mut rtm_gateway::config::Client {
    config.clients.iter_mut().find(|c| c.name.as_str() == name).unwrap()
}

#[tokio::test]
async fn a_client_that_floods_keeps_no_other_from_being_served() {
    let stage = stage("max_requests = 20", &[client("other", EVENTS)]).await;
    let mut held = Vec::new();
    for _ in 0..18 {
        held.push(hold(&stage, "all").await);
    }
    for n in 1..=20 {
        let refused = stage.raw(poll("all")).await;
        assert_eq!((refused.status, refused.code().as_str()), (503, "unavailable"), "{refused:?}");
        let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=3).contains(&seconds));
        assert_eq!(shed(&stage, "fair_share"), n);
        // In between, every time.
        assert_eq!(stage.raw(look("other")).await.status, 200);
        assert_eq!(stage.raw(look("reader")).await.status, 200);
    }
    drop(held.pop());
    eventually(|| in_hand(&stage) == 17).await;
    assert_eq!(stage.raw(look("all")).await.status, 200);
}

#[tokio::test]
async fn a_full_gateway_says_so_at_once_and_well_formed_whoever_asks() {
    let stage = stage("max_requests = 1", &[]).await;
    let held = hold(&stage, "all").await;
    for asked in
        [look("reader"), look("unknown"), message("all", "", SOUND), "PUT /x HTTP/1.1\r\nHost: a\r\n\r\n".into()]
    {
        let refused = stage.raw(asked).await;
        assert_eq!((refused.status, refused.code().as_str()), (503, "unavailable"));
        assert!(refused.header("retry-after").is_some());
    }
    assert_eq!(shed(&stage, "max_requests"), 4);
    assert_eq!(stage.sim.stats().of(Endpoint::PeerMessages).counted, 0);
    drop(held);
    eventually(|| in_hand(&stage) == 0).await;
    assert_eq!(stage.raw(look("unknown")).await.status, 401);
    reload(&stage, |config| config.server.max_requests = 2).await;
    let (_one, _two) = (hold(&stage, "all").await, hold(&stage, "reader").await);
    assert_eq!(stage.raw(look("all")).await.status, 503);
}

#[tokio::test]
async fn max_concurrent_holds_over_all_listeners_and_through_reloads() {
    let few = format!("max_concurrent = 2\n{EVENTS}");
    let stage = stage("", &[client("few", &few)]).await;
    let first = hold(&stage, "few").await;
    let mut unix = UnixStream::connect(stage.socket_path()).await.unwrap();
    unix.write_all(poll("few").as_bytes()).await.unwrap();
    eventually(|| in_hand(&stage) == 2).await;

    let refused = stage.raw(look("few")).await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "client_limit_exceeded"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("ratelimit"), Some(r#""max_concurrent";r=0"#));
    assert_eq!(refused.header("ratelimit-policy"), Some(r#""max_concurrent";q=2;qu="concurrent-requests""#));
    let labels = CeilingLabels { client: "few".into(), limit: "max_concurrent".into() };
    assert_eq!(stage.parts.metrics.client_limit_rejections.get_or_create(&labels).get(), 1);
    assert_eq!(stage.raw(look("all")).await.status, 200, "it is nobody else's");

    reload(&stage, |config| client_of(config, "few").max_concurrent = NonZeroU32::new(3)).await;
    assert_eq!(in_hand(&stage), 2, "nothing is cut, nothing forgotten");
    let third = hold(&stage, "few").await;
    assert_eq!(stage.raw(look("few")).await.status, 429);
    reload(&stage, |config| client_of(config, "few").max_concurrent = NonZeroU32::new(1)).await;
    for (left, caller) in [(2, first), (1, third)] {
        drop(caller);
        eventually(|| in_hand(&stage) == left).await;
        assert_eq!(stage.raw(look("few")).await.status, 429, "{left} in hand");
    }
    drop(unix);
    eventually(|| in_hand(&stage) == 0).await;
    assert_eq!(stage.raw(look("few")).await.status, 200);
}

#[tokio::test]
async fn the_rate_holds_at_the_vendor_too_and_reloads_do_not_refill_it() {
    let slow = format!("requests_per_second = 5\n{ALL}");
    let stage = stage("", &[client("slow", &slow)]).await;
    let mut caller = stage.connect().await;
    let (began, mut served, mut refused) = (Instant::now(), 0_u64, 0_u64);
    for n in 0..200 {
        let answer = exchange(&mut caller, &message("slow", "", SOUND)).await;
        match answer.status {
            200 => served += 1,
            _ => {
                assert_eq!((answer.status, answer.code().as_str()), (429, "client_limit_exceeded"));
                assert_eq!(answer.header("ratelimit-policy"), Some(r#""requests_per_second";q=5;w=1"#));
                refused += 1;
            }
        }
        if n % 20 == 0 {
            reload(&stage, |config| config.log.access = n % 40 == 0).await;
        }
    }
    let most = 5.0 * (began.elapsed().as_secs_f64() + 1.0);
    assert!(served >= 5 && served as f64 <= most, "{served} in {:?}", began.elapsed());
    assert!(refused > 0, "200 requests took {:?}", began.elapsed());
    assert_eq!(stage.sim.stats().of(Endpoint::PeerMessages).counted, served);
}

#[tokio::test]
async fn what_is_refused_takes_nothing_of_the_rate() {
    let slow =
        "requests_per_second = 1\nallow = [{ app = \"demo-app\", actions = [\"events\", \"messages\", \"history\"] }]";
    let stage = stage("", &[client("slow", slow)]).await;
    // From now on there is no seat for an hour.
    let one = Limit { requests: NonZeroU32::MIN, per: Duration::from_secs(3600) };
    reload(&stage, |config| config.apps[0].quota.messages = QuotaRule::Own(one)).await;
    for _ in 0..10 {
        assert_eq!(stage.raw(count("slow")).await.status, 403);
        assert_eq!(stage.raw(request("GET", "/nowhere", "slow", "", "")).await.status, 404);
        // These two were admitted, and give back what they took.
        let bad = request("POST", &format!("{RTM}/message/history/query"), "slow", "", "{}");
        assert_eq!(stage.raw(bad).await.status, 400);
        assert_eq!(stage.raw(message("slow", "Prefer: wait=1\r\n", SOUND)).await.code(), "quota_exceeded");
    }
    assert_eq!(stage.raw(look("slow")).await.status, 200);
    assert_eq!(stage.sim.stats().of(Endpoint::PeerMessages).counted, 0);
}

#[tokio::test]
async fn report_mode_does_what_it_would_refuse_and_counts_it() {
    let trial = "mode = \"report\"\nmax_concurrent = 1\nrequests_per_second = 1\n\
                 allow = [{ app = \"demo-app\", actions = [\"events\"] }]";
    let stage = stage("", &[client("trial", trial)]).await;
    let would = |reason: &str| {
        let labels = WouldRefuseLabels { client: "trial".into(), reason: reason.into() };
        stage.parts.metrics.would_refuse.get_or_create(&labels).get()
    };
    for n in 1..=3 {
        assert_eq!(stage.raw(message("trial", "", SOUND)).await.status, 200);
        assert_eq!(would("forbidden"), n);
    }
    let held = hold(&stage, "trial").await;
    assert_eq!(stage.raw(look("trial")).await.status, 200);
    assert_eq!((would("max_concurrent"), would("requests_per_second")), (1, 0));
    drop(held);
    eventually(|| in_hand(&stage) == 0).await;
    let began = Instant::now();
    let mut asked = 0;
    while would("requests_per_second") == 0 {
        assert_eq!(stage.raw(look("trial")).await.status, 200);
        asked += 1;
        assert!(f64::from(asked) <= began.elapsed().as_secs_f64() + 2.0, "the rate is not looked at");
    }
    // What cannot be done is refused as ever.
    let elsewhere = RTM.replace("demo-app", "no-such-app");
    let nowhere = request("GET", &format!("{elsewhere}/vendor/user_events"), "trial", "", "");
    assert_eq!(stage.raw(nowhere).await.status, 403);
    assert_eq!(stage.raw(request("GET", "/nowhere", "trial", "", "")).await.status, 404);
    assert_eq!(stage.raw(look("trial").replace("trial-key", "wrong")).await.status, 401);
    let anothers = request("GET", &format!("{RTM}/vendor/user_events?subscription=all"), "trial", "", "");
    assert_eq!(stage.raw(anothers).await.status, 403, "another client's events are not its to take");
}

#[tokio::test]
async fn a_stream_that_is_reset_makes_room() {
    let few = format!("max_concurrent = 3\n{EVENTS}");
    let stage = stage("", &[client("few", &few)]).await;
    let (mut sender, connection) =
        http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(stage.connect().await))
            .await
            .unwrap();
    let driving = rtm_gateway::kernel::task::Tasks::new();
    driving.spawn(rtm_gateway::kernel::task::Kind::Linger, async { drop(connection.await) });
    let mut ask = |wait: &str| {
        let uri = format!("http://gateway{RTM}/vendor/user_events?wait={wait}");
        let request = Request::builder().uri(uri).header("x-api-key", "few-key").body(Empty::new()).unwrap();
        sender.send_request(request)
    };
    for _ in 0..10 {
        let mut polls: Vec<_> = (0..3).map(|_| Box::pin(ask("60s"))).collect();
        for poll in &mut polls {
            assert!(futures_util::poll!(poll).is_pending());
        }
        eventually(|| in_hand(&stage) == 3).await;
        assert_eq!(ask("0s").await.unwrap().status(), 429);
        drop(polls);
        eventually(|| in_hand(&stage) == 0).await;
    }
    assert_eq!(ask("0s").await.unwrap().status(), 200);
}

#[tokio::test]
async fn bodies_on_their_way_are_accounted_for() {
    let stage = stage("", &[]).await;
    let bytes = || stage.parts.metrics.request_body_bytes.get();
    let whole = message("all", "", &"x".repeat(60_000));
    let mut caller = stage.connect().await;
    caller.write_all(&whole.as_bytes()[..whole.len() - 20_000]).await.unwrap();
    eventually(|| bytes() == 40_000).await;
    drop(caller);
    eventually(|| bytes() == 0).await;
    assert_eq!(stage.raw(whole).await.status, 400);
    eventually(|| bytes() == 0).await;
}

#[tokio::test]
async fn an_answer_that_is_not_taken_is_in_hand_until_its_caller_goes() {
    let stage = stage("", &[]).await;
    let answer = stage.raw(count("all")).await;
    assert_eq!(answer.status, 200);
    eventually(|| in_hand(&stage) == 0).await;
    let mut caller = stage.connect().await;
    caller.write_all(look("all").repeat(50).as_bytes()).await.unwrap();
    for _ in 0..50 {
        assert_eq!(Answer::read(&mut caller).await.status, 200);
        assert!(in_hand(&stage) <= 1);
    }
    eventually(|| in_hand(&stage) == 0).await;
}

#[tokio::test]
async fn a_message_that_is_not_to_wait_is_refused_or_sent_and_answered() {
    let allow = "allow = [{ app = \"demo-app\", actions = [\"messages\"] }]";
    let refusing = stage("", &[client("one", allow)]).await;
    let limit = Limit { requests: NonZeroU32::MIN, per: Duration::from_secs(3600) };
    reload(&refusing, |config| config.apps[0].quota.messages = QuotaRule::Own(limit)).await;
    let spent = refusing.raw(message("one", "Prefer: wait=0\r\n", SOUND)).await;
    assert_eq!((spent.status, &*spent.code()), (429, "quota_exceeded"));
    assert!(spent.header("retry-after").is_some());
    assert_eq!(refusing.sim.stats().of(Endpoint::PeerMessages).received, 0);

    let stage = stage("", &[client("one", allow)]).await;
    assert_eq!(stage.raw(message("one", "", SOUND)).await.status, 200, "seats are free from here on");
    stage.sim.on(Endpoint::PeerMessages, Fault::DelayAfter(Duration::from_millis(300)));
    let sent = stage.raw(message("one", "Prefer: wait=0\r\n", SOUND)).await;
    assert_eq!((sent.status, sent.header("preference-applied")), (200, Some("wait=0")));
    // Who would wait for less than the vendor takes is told that it was sent.
    stage.sim.on(Endpoint::PeerMessages, Fault::DelayAfter(Duration::from_secs(3)));
    let doubted = stage.raw(message("one", "Prefer: wait=1\r\n", SOUND)).await;
    assert_eq!((doubted.status, &*doubted.code()), (504, "upstream_timeout"));
    assert!(doubted.text().contains("it may have acted on the request"), "{}", doubted.text());
    assert_eq!(stage.sim.stats().of(Endpoint::PeerMessages).received, 3);
}
