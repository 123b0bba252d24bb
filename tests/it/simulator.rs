//! The simulated vendor keeps to the vendor's page, counts exactly, and fails exactly as scripted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::{Method, StatusCode, Version};
use rtm_gateway::kernel::clock::Clock;
use rtm_gateway::kernel::names::{BucketName, Stream};
use rtm_gateway::simulator::{
    AcceptFault, App, DeadHandle, Endpoint, EventCounts, Fault, HandleStyle, Idle, Limit, Limits, Listen, Message,
    Options, Profile, Sim, ViolationKind, World,
};
use serde_json::{Value, json};

use crate::support::client::{Client, DEADLINE, raw};
use crate::support::waiting::pass;

const APP: &str = "demo-app";
const USER_EVENTS: &str = "/dev/v2/project/demo-app/rtm/vendor/user_events";
const CHANNEL_EVENTS: &str = "/dev/v2/project/demo-app/rtm/vendor/channel_events";
const QUERY: &str = "/dev/v2/project/demo-app/rtm/message/history/query";
const COUNT: &str = "/dev/v2/project/demo-app/rtm/message/history/count";

fn app() -> App {
    App::new(APP).basic("key", "secret")
}

fn unlimited() -> Limits {
    Limits::all(Limit::per_second(1_000_000))
}

async fn start() -> Sim {
    Sim::start(app().limits(unlimited())).await.unwrap()
}

async fn client(sim: &Sim) -> Client {
    Client::http1(sim.addr()).await.basic("key", "secret")
}

async fn client2(sim: &Sim) -> Client {
    Client::http2(sim.addr()).await.basic("key", "secret")
}

fn kinds(sim: &Sim) -> Vec<ViolationKind> {
    sim.violations().into_iter().map(|v| v.kind).collect()
}

#[tokio::test]
async fn events_come_once_in_order_and_in_the_vendors_words() {
    let sim = start().await;
    let login = sim.emit_user_event(APP, "Login", "web923909240");
    let join = sim.emit_channel_event(APP, "Join", "example_channel_id", "userA");
    let mut client = client(&sim).await;

    let reply = client.get(USER_EVENTS).await.unwrap();
    let id = reply.json()["request_id"].as_str().unwrap().to_owned();
    assert_eq!(reply.text(), format!(r#"{{"result":"success","request_id":"{id}","events":[{login}]}}"#));
    assert_eq!(client.get(USER_EVENTS).await.unwrap().json()["events"], json!([]));
    let reply = client.get(CHANNEL_EVENTS).await.unwrap();
    assert_eq!(reply.json()["events"], json!([serde_json::from_str::<Value>(&join).unwrap()]));

    let all = sim.emit_many(APP, Stream::UserEvents, 2500);
    let mut read = Vec::new();
    for expected in [1000, 1000, 0] {
        let reply = client.get(USER_EVENTS).await.unwrap().json();
        let events = reply["events"].as_array().unwrap().clone();
        assert_eq!(events.len(), expected);
        read.extend(events);
    }
    let kept: Vec<Value> = all[500..].iter().map(|e| serde_json::from_str(e).unwrap()).collect();
    assert_eq!(read, kept);

    let stats = sim.wait_until(|s| s.of(Endpoint::UserEvents).ok == 5).await.unwrap();
    assert_eq!(stats.events, EventCounts { emitted: 2502, handed: 2002, lost: 0, overwritten: 500 });
    let ledger = sim.ledger(APP, Stream::UserEvents);
    assert_eq!(ledger.handed[1..], all[500..]);
    assert_eq!(ledger.overwritten, all[..500]);
    assert_eq!(sim.violations(), []);
    sim.stop().await;
}

#[tokio::test]
async fn every_window_is_counted_over_all_regions_of_an_app() {
    let world = World::new(Clock::system(), Options::default());
    world.add(app().limits(
        Limits::default().with(BucketName::UserEvents, Limit::Own { requests: 3, per: Duration::from_secs(3600) }),
    ));
    world.set_rules(APP, |rules| rules.retry_after = Some("7".into()));
    let cn = Sim::listen(&world, "cn", Listen::default()).await.unwrap();
    let eu = Sim::listen(&world, "eu", Listen::default()).await.unwrap();
    let (mut near, mut far) = (client(&cn).await, client2(&eu).await);
    for _ in 0..2 {
        assert_eq!(near.get(USER_EVENTS).await.unwrap().status, 200);
    }
    assert_eq!(far.get(USER_EVENTS).await.unwrap().status, 200);
    assert_eq!(world.violations(), []);
    let refused = near.get(USER_EVENTS).await.unwrap();
    assert_eq!((refused.status, refused.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, Some("7")));
    // Other buckets are counted by themselves.
    assert_eq!(far.get(CHANNEL_EVENTS).await.unwrap().status, 200);
    let breaches = world.breaches();
    assert_eq!(breaches.len(), 1);
    assert_eq!(breaches[0].region, "cn");
    assert!(matches!(breaches[0].kind, ViolationKind::OverLimit { bucket: BucketName::UserEvents, requests: 4, .. }));
    assert!(cn.seen().iter().all(|s| s.counted.is_some()));
    cn.stop().await;
    eu.stop().await;
}

#[tokio::test]
async fn somebody_else_on_the_app_id_makes_callers_be_refused_without_blame() {
    let sim = Sim::start(app()).await.unwrap();
    sim.world().spend(APP, BucketName::UserEvents, 10);
    assert_eq!(client(&sim).await.get(USER_EVENTS).await.unwrap().status, 429);
    assert_eq!(sim.violations(), []);
    sim.stop().await;
}

#[tokio::test]
async fn wrong_credentials_leaks_and_odd_paths_are_refused_or_recorded() {
    let sim = start().await;
    sim.emit_user_event(APP, "Login", "a");
    let mut stranger = Client::http1(sim.addr()).await.basic("key", "Secret");
    assert_eq!(stranger.get(USER_EVENTS).await.unwrap().status, 401);
    assert!(matches!(&kinds(&sim)[..], [ViolationKind::BadCredential { .. }]));
    let _ = sim.world().take_violations();

    let mut client = client(&sim).await;
    let leaky = [("cookie", "a=b"), ("x-forwarded-for", "::1"), ("traceparent", "00"), ("x-api-key", "k")];
    assert_eq!(client.request(Method::GET, USER_EVENTS, &leaky, "").await.unwrap().status, 200);
    let names = kinds(&sim).into_iter().map(|kind| match kind {
        ViolationKind::Header { name } => name,
        other => panic!("{other:?}"),
    });
    assert_eq!(names.collect::<Vec<_>>(), ["cookie", "x-forwarded-for", "traceparent", "x-api-key"]);
    let _ = sim.world().take_violations();

    for (target, status) in [
        ("/dev/v2/project/demo-app/rtm/vendor/User_Events", 404),
        ("/dev/v2/project/demo-app/rtm/vendor//user_events", 404),
        ("/dev/v2/project/demo-app/rtm/message/history/query/a%2fb", 400),
        (QUERY, 405),
        ("/dev/v2/project/demo-app/rtm/vendor/user_events?limit=1", 200),
        ("/dev/v2/project/Demo-app/rtm/vendor/user_events", 401),
    ] {
        assert_eq!(client.get(target).await.unwrap().status.as_u16(), status, "{target}");
        assert_eq!(sim.world().take_violations().len(), 1, "{target}");
    }
    let ledger = sim.ledger(APP, Stream::UserEvents);
    assert_eq!((ledger.counts.handed, ledger.counts.lost), (1, 0));
    sim.stop().await;
}

fn filter(start: u64, end: u64) -> String {
    json!({"filter": {"source": "a", "destination": "", "start_time": start, "end_time": end.to_string()},
           "offset": 1, "limit": 20, "order": "desc"})
    .to_string()
}

/// The clock's own second, from which the tests below count.
fn now(sim: &Sim) -> u64 {
    sim.world().clock().wall_ms().seconds()
}

/// Time is paused and the connection is in memory, so that the vendor's two seconds cost none.
#[tokio::test(start_paused = true)]
async fn history_is_in_progress_then_ready_once_then_gone() {
    let clock = Clock::anchored(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    let world = World::new(clock, Options::default());
    world.add(app().rules(|rules| {
        rules.in_progress = 1;
        rules.handles = HandleStyle::Awkward;
    }));
    let sim = Sim::listen(&world, "default", Listen::default()).await.unwrap();
    let mut client = Client::http1_over(sim.connect(), "sim").await.basic("key", "secret");
    let now = now(&sim);
    for n in 0..3 {
        world.add_message(APP, Message::peer("a", "b", &format!("m{n}")).at((now - 10 + n) * 1000));
    }
    let created = client.post(QUERY, &filter(now - 100, now)).await.unwrap();
    let location = created.json()["location"].as_str().unwrap().to_owned();
    assert_eq!(
        created.text(),
        format!(r#"{{"result":"success","offset":1,"limit":20,"order":"desc","location":"{location}"}}"#)
    );
    let handle = location.strip_prefix("~/rtm/message/history/query/").unwrap();
    assert!(handle.contains('/') && handle.contains('='));
    let encoded = handle.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D");
    let target = format!("{QUERY}/{encoded}");

    assert_eq!(client.get(&target).await.unwrap().json()["code"], "in progress");
    pass(Duration::from_secs(2)).await;
    let fetched = client.get(&target).await.unwrap();
    assert_eq!(sim.violations(), []);
    let id = fetched.json()["request_id"].as_str().unwrap().to_owned();
    let message = |n: u64| {
        let ms = (now - 10 + n) * 1000;
        format!(r#"{{"dst":"b","message_type":"peer_message","ms":{ms},"payload":"m{n}","src":"a"}}"#)
    };
    assert_eq!(
        fetched.text(),
        format!(r#"{{"code":"ok","messages":[{},{}],"request_id":"{id}","result":"success"}}"#, message(1), message(0))
    );
    assert_eq!(client.get(&target).await.unwrap().json()["code"], "resource not exist");
    world.set_rules(APP, |rules| rules.dead_handle = DeadHandle::Gone);
    assert_eq!(client.get(&target).await.unwrap().status, 410);
    assert!(matches!(&kinds(&sim)[..], [ViolationKind::DeadHandle { .. }, ViolationKind::DeadHandle { .. }]));
    sim.stop().await;
}

#[tokio::test(start_paused = true)]
async fn asking_again_too_soon_is_recorded_unless_in_progress_was_never_heard() {
    let world = World::new(Clock::system(), Options::default());
    world.add(app().rules(|rules| rules.in_progress = 2));
    let sim = Sim::listen(&world, "default", Listen::default()).await.unwrap();
    let connect = async || Client::http1_over(sim.connect(), "sim").await.basic("key", "secret");
    let target = format!("{COUNT}?&source=%22a%22&destination=&start_time=1&end_time=2");
    sim.on(Endpoint::HistoryCount, Fault::DropAfter);
    assert!(connect().await.get(&target).await.is_err());
    let mut client = connect().await;
    assert_eq!(client.get(&target).await.unwrap().json()["code"], "in progress");
    assert_eq!(sim.violations(), []);
    pass(Duration::from_millis(1500)).await;
    let reply = client.get(&target).await.unwrap();
    assert_eq!(reply.text(), r#"{"result":"success","code":"ok","count":0}"#);
    let early = Duration::from_millis(500);
    let of = target.split_once('?').unwrap().1.to_owned();
    assert_eq!(kinds(&sim), [ViolationKind::TooSoon { endpoint: Endpoint::HistoryCount, early, of }]);
    sim.stop().await;
}

#[tokio::test]
async fn history_and_count_have_their_own_retention_and_see_arrivals() {
    let sim = start().await;
    let now = now(&sim);
    let days = move |d: u64| (now - d * 24 * 3600) * 1000;
    for age in [1, 8, 15] {
        sim.add_message(APP, Message::peer("a", "b", "x").at(days(age)));
    }
    let mut client = client(&sim).await;
    let counted = format!("{COUNT}?source=a&start_time=0&end_time={now}");
    assert_eq!(client.get(&counted).await.unwrap().json()["count"], 2);
    let body = json!({"filter": {"source": "a", "start_time": 0, "end_time": now}}).to_string();
    let location = client.post(QUERY, &body).await.unwrap().json()["location"].as_str().unwrap().to_owned();
    sim.world().before_each(move |world, endpoint| {
        if endpoint == Endpoint::HistoryGet {
            world.add_message(APP, Message::peer("a", "b", "between").at(days(2)));
        }
    });
    let target = location.replace("~/", "/dev/v2/project/demo-app/").replace('=', "%3D");
    let messages = client.get(&target).await.unwrap().json()["messages"].clone();
    assert_eq!(messages.as_array().unwrap().iter().map(|m| &m["payload"]).collect::<Vec<_>>(), ["between", "x"]);
    assert_eq!(sim.violations(), []);
    sim.stop().await;
}

#[tokio::test]
async fn sent_messages_can_be_found_in_the_history() {
    let sim = start().await;
    let mut client = client2(&sim).await;
    let users = "/dev/v2/project/demo-app/rtm/users/%E7%94%A8";
    let kept = r#"{"destination":"b","payload":"hi","enable_historical_messaging":true}"#;
    let reply = client.post(&format!("{users}/peer_messages?wait_for_ack=true"), kept).await.unwrap();
    assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (200, &json!("message_sent")));
    let passing = r#"{"channel_name":"room","payload":"hi"}"#;
    assert_eq!(client.post(&format!("{users}/channel_messages"), passing).await.unwrap().status, 200);
    assert_eq!(client.post(&format!("{users}/channel_messages"), "{}").await.unwrap().status, 400);
    let end = now(&sim) + 1;
    let counted = format!("{COUNT}?source=%E7%94%A8&start_time=0&end_time={end}");
    assert_eq!(client.get(&counted).await.unwrap().json()["count"], 1);
    sim.stop().await;
}

/// What a fault at an event read does to the events: whether they are (still waiting, handed, lost).
async fn after_fault(fault: Fault, http2: bool) -> (usize, u64, u64) {
    let sim = start().await;
    sim.emit_many(APP, Stream::UserEvents, 5);
    sim.on(Endpoint::UserEvents, fault);
    let mut client = if http2 { client2(&sim).await } else { client(&sim).await };
    let reply = client.get(USER_EVENTS).await;
    if reply.is_err() || reply.unwrap().broken {
        sim.wait_until(|s| s.open == 0).await.unwrap();
    } else {
        sim.wait_until(|s| s.in_flight == 0).await.unwrap();
    }
    let ledger = sim.ledger(APP, Stream::UserEvents);
    sim.stop().await;
    (ledger.waiting.len(), ledger.counts.handed, ledger.counts.lost)
}

#[tokio::test]
async fn the_ledger_knows_what_each_fault_does_to_events() {
    for http2 in [false, true] {
        let (kept, handed, lost) = ((5, 0, 0), (0, 5, 0), (0, 0, 5));
        for (fault, expected) in [
            (Fault::DropBefore, kept),
            (Fault::ResetBefore, kept),
            (Fault::status(503), kept),
            (Fault::too_many(Some("1")), kept),
            (Fault::DropAfter, lost),
            (Fault::ResetAfter, lost),
            (Fault::status_but_acted(408), lost),
            (Fault::garbage("<html>"), lost),
            (Fault::CutBody { keep: 40 }, lost),
            (Fault::all([Fault::Chunked, Fault::CutBody { keep: 40 }]), lost),
            (Fault::Chunked, handed),
            (Fault::Pad(300_000), handed),
            (Fault::Drip { bytes: 100, every: Duration::from_millis(1) }, handed),
            (Fault::CloseAfter, handed),
            (
                Fault::all([
                    Fault::DelayBefore(Duration::from_millis(1)),
                    Fault::JitterAfter(Duration::from_millis(1)),
                ]),
                handed,
            ),
        ] {
            assert_eq!(after_fault(fault.clone(), http2).await, expected, "{fault:?}, http2: {http2}");
        }
    }
}

#[tokio::test]
async fn a_cut_body_arrives_as_far_as_it_was_let() {
    let sim = start().await;
    sim.emit_many(APP, Stream::UserEvents, 100);
    for fault in [Fault::CutBody { keep: 40 }, Fault::all([Fault::Chunked, Fault::CutBody { keep: 40 }])] {
        sim.on(Endpoint::UserEvents, fault);
        let reply = client(&sim).await.get(USER_EVENTS).await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.broken, reply.body.len()), (200, true, 40));
        assert!(reply.text().starts_with(r#"{"result":"success","request_id":"#));
    }
    sim.stop().await;
}

#[tokio::test]
async fn events_of_an_answer_nobody_waited_for_are_lost() {
    let sim = start().await;
    for (number, fault) in [(1, Fault::Hang), (2, Fault::StallBody { keep: 10 })] {
        sim.emit_many(APP, Stream::UserEvents, 5);
        sim.on(Endpoint::UserEvents, fault);
        let mut client = client(&sim).await;
        tokio::select! {
            _ = client.get(USER_EVENTS) => panic!("answered"),
            done = sim.wait_until(|s| s.of(Endpoint::UserEvents).counted == number) => drop(done.unwrap()),
        }
        drop(client);
        sim.wait_until(|s| s.events.lost == 5 * number).await.unwrap();
    }
    sim.stop().await;
}

#[tokio::test]
async fn connections_are_closed_when_idle_without_a_word() {
    let sim = start().await;
    sim.idle(Idle::CloseAfterEach);
    let mut first = client(&sim).await;
    let reply = first.get(USER_EVENTS).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.header("connection")), (200, None));
    first.ended().await;
    sim.idle(Idle::CloseAfter(Duration::from_millis(5)));
    let mut second = client2(&sim).await;
    assert_eq!(second.get(USER_EVENTS).await.unwrap().status, 200);
    second.ended().await;
    sim.idle(Idle::Keep);
    let mut third = client(&sim).await;
    for _ in 0..3 {
        third.get(USER_EVENTS).await.unwrap();
    }
    sim.wait_until(|s| s.in_flight == 0).await.unwrap();
    sim.close_idle();
    third.ended().await;
    assert_eq!(sim.wait_until(|s| s.open == 0).await.unwrap().connections, 3);
    assert_eq!(sim.seen().iter().map(|s| s.connection).collect::<Vec<_>>(), [1, 2, 3, 3, 3]);
    sim.stop().await;
}

#[tokio::test]
async fn while_down_connections_are_refused_and_come_back_up_at_the_same_address() {
    let sim = start().await;
    let mut client1 = client(&sim).await;
    client1.get(USER_EVENTS).await.unwrap();
    sim.down().await;
    client1.ended().await;
    let refused = tokio::net::TcpStream::connect(sim.addr()).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    sim.up().await.unwrap();
    assert_eq!(client(&sim).await.get(USER_EVENTS).await.unwrap().status, 200);
    sim.on_accept(AcceptFault::Reset);
    assert_eq!(raw(sim.addr(), b"GET / HTTP/1.1\r\n\r\n").await, b"");
    sim.stop().await;
}

#[tokio::test]
async fn an_event_of_one_region_can_be_read_in_all_when_regions_replicate() {
    let world = World::new(Clock::system(), Options { replicate: true, ..Options::default() });
    world.add(app());
    let cn = Sim::listen(&world, "cn", Listen::default()).await.unwrap();
    let eu = Sim::listen(&world, "eu", Listen::default()).await.unwrap();
    let event = cn.emit_user_event(APP, "Login", "a");
    for sim in [&cn, &eu] {
        client(sim).await.get(USER_EVENTS).await.unwrap();
        sim.wait_until(|s| s.events.handed == 1).await.unwrap();
        assert_eq!(sim.ledger(APP, Stream::UserEvents).handed, std::slice::from_ref(&event));
        sim.stop().await;
    }
}

#[tokio::test]
async fn a_panic_inside_is_raised_by_stop() {
    let sim = start().await;
    sim.world().before_each(|_, _| panic!("an expectation failed"));
    assert!(client(&sim).await.get(USER_EVENTS).await.is_err());
    assert!(client2(&sim).await.get(USER_EVENTS).await.is_err());
    let raised = std::panic::AssertUnwindSafe(sim.stop());
    let raised = futures_util::FutureExt::catch_unwind(raised).await.unwrap_err();
    assert_eq!(raised.downcast_ref::<&str>(), Some(&"an expectation failed"));
}

#[tokio::test]
async fn people_can_drive_it_with_curl() {
    let sim = start().await;
    let mut curl = Client::http1(sim.addr()).await;
    let events = "/_sim/apps/demo-app/events/user_events";
    assert_eq!(curl.post(events, r#"{"count":3}"#).await.unwrap().text(), r#"{"done":3}"#);
    assert_eq!(curl.post(events, r#"[{"type":"New", "n": 1.50}]"#).await.unwrap().text(), r#"{"done":1}"#);
    let message = r#"{"src":"a","dst":"b","message_type":"peer_message","payload":"hi"}"#;
    assert_eq!(curl.post("/_sim/apps/demo-app/messages", message).await.unwrap().text(), r#"{"done":1}"#);
    let fault = r#"{"endpoint":"user_events","fault":{"answer":{"status":503,"retry_after":"3"}}}"#;
    assert_eq!(curl.post("/_sim/faults", fault).await.unwrap().text(), r#"{"done":1}"#);
    let mut client = client(&sim).await;
    assert_eq!(client.get(USER_EVENTS).await.unwrap().status, 503);
    let read = client.get(USER_EVENTS).await.unwrap();
    assert!(read.text().ends_with(r#"{"type":"New", "n": 1.50}]}"#), "{}", read.text());
    let delay = r#"{"endpoint":"history_get","fault":{"delay_before":"20ms"},"always":true}"#;
    assert_eq!(curl.post("/_sim/faults", delay).await.unwrap().status, 200);
    assert_eq!(curl.request(Method::DELETE, "/_sim/faults", &[], "").await.unwrap().status, 200);
    assert_eq!(curl.post("/_sim/faults", r#"{"endpoint":"x"}"#).await.unwrap().status, 400);
    let stats = curl.get("/_sim/stats").await.unwrap().json();
    assert_eq!((&stats["events"]["handed"], &stats["endpoints"]["user_events"]["other"]), (&json!(4), &json!(1)));
    assert_eq!(curl.get("/_sim/violations").await.unwrap().json(), json!([]));
    sim.stop().await;
}

/// Before it has read the SETTINGS a client does not know better; the vendor counts all the same.
#[tokio::test]
async fn more_requests_at_a_time_than_a_connection_takes_are_a_violation() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    for (most, violations) in [(3, 0), (2, 1), (1, 2)] {
        let sim = start().await;
        sim.max_streams(most);
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        for stream in [1, 3, 5] {
            // GET, http, /.
            bytes.extend([0, 0, 3, 1, 5, 0, 0, 0, stream, 0x82, 0x86, 0x84]);
        }
        let mut tcp = tokio::net::TcpStream::connect(sim.addr()).await.unwrap();
        tcp.write_all(&bytes).await.unwrap();
        tcp.shutdown().await.unwrap();
        // The end of the vendor's side shows that it has read all.
        let mut answers = Vec::new();
        let reading = tcp.read_to_end(&mut answers);
        let _ = tokio::time::timeout(DEADLINE, reading).await.expect("the connection was ended");
        let too_many = sim.violations().into_iter().filter(|v| matches!(v.kind, ViolationKind::TooManyStreams { .. }));
        assert_eq!(too_many.count(), violations, "{most}");
        sim.stop().await;
    }
}

#[tokio::test]
async fn chance_delays_requests_and_loses_nothing_by_itself() {
    let sim = start().await;
    sim.random(Profile::seeded(1).with(1.0, Fault::JitterBefore(Duration::from_millis(2))).with_at(
        Endpoint::UserEvents,
        0.5,
        Fault::status(500),
    ));
    let emitted = sim.emit_many(APP, Stream::UserEvents, 50).len() as u64;
    let mut client = client(&sim).await;
    while sim.stats().events.handed < emitted {
        client.get(USER_EVENTS).await.unwrap();
    }
    assert!(sim.stats().of(Endpoint::UserEvents).faulted > 0);
    sim.stop().await;
}

#[tokio::test]
async fn over_tls_the_protocol_is_negotiated() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let world = World::new(Clock::system(), Options::default());
    world.add(app());
    let sim = Sim::listen(&world, "tls", Listen { addr: None, tls: Some(Arc::new(server)) }).await.unwrap();
    assert!(sim.base_url().starts_with("https://"));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    for (protocol, version) in [("h2", Version::HTTP_2), ("http/1.1", Version::HTTP_11)] {
        let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.into()];
        let tcp = tokio::net::TcpStream::connect(sim.addr()).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        let client = match version {
            Version::HTTP_2 => Client::http2_over(tls, "localhost").await,
            _ => Client::http1_over(tls, "localhost").await,
        };
        let reply = client.basic("key", "secret").get(USER_EVENTS).await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.version), (200, version));
    }
    assert_eq!(sim.violations(), []);
    sim.stop().await;
}

#[tokio::test]
async fn many_requests_at_once_are_seen_at_once() {
    let sim = start().await;
    sim.always(Endpoint::UserEvents, Fault::Hang);
    let addr: SocketAddr = sim.addr();
    let asking = (0..20).map(|_| async move {
        let mut client = Client::http1(addr).await.basic("key", "secret");
        drop(tokio::time::timeout(DEADLINE, client.get(USER_EVENTS)).await);
    });
    tokio::select! {
        _ = futures_util::future::join_all(asking) => panic!("answered"),
        stats = sim.wait_until(|s| s.in_flight == 20) => assert_eq!(stats.unwrap().max_in_flight, 20),
    }
    sim.stop().await;
}
