//! Out of file descriptors: the gateway lives, its health can be asked, events are read on, and all comes back.

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use rtm_gateway::kernel::names::Stream;
use rustix::process::{Resource, Rlimit};

use super::gateway::{APP, Gateway, Home, api, client, vendor};
use crate::support::child::BINARY;
use crate::support::client::Client;

/// A gateway that may have so many descriptors, and lets idle callers stay.
async fn limited(home: &Home, sim: &rtm_gateway::simulator::Sim, descriptors: u32) -> Gateway {
    let base = home.base(sim).replacen("[server]", "[server]\nheader_read_timeout = \"10m\"", 1);
    home.write(&format!("{base}{}{}", client("one"), client("two")));
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -n {descriptors} && exec \"$0\" \"$@\""), BINARY]);
    Gateway::of(shell, &home.config())
}

/// What a metric without labels stands at.
async fn metric(operators: &mut Client, name: &str) -> f64 {
    let series = format!("rtm_gateway_{name} ");
    let metrics = operators.get("/metrics").await.unwrap();
    let value = metrics.text().lines().find_map(|line| line.strip_prefix(&series));
    value.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

/// Idle connections, more than can be served.
fn crowd(addr: SocketAddr) -> Vec<TcpStream> {
    (0..200).map_while(|_| TcpStream::connect_timeout(&addr, Duration::from_secs(5)).ok()).collect()
}

/// Whether the poller has read all that the vendor has.
async fn read_on(gateway: &Gateway, sim: &rtm_gateway::simulator::Sim, events: usize, so_far: u64) {
    sim.emit_many(APP, Stream::UserEvents, events);
    let all = so_far + events as u64;
    gateway
        .admin_says("/admin/v1/pollers", |_, body| {
            let pollers = body["pollers"].as_array().unwrap();
            pollers.iter().map(|p| p["events"].as_u64().unwrap()).sum::<u64>() == all
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_cannot_take_the_last_descriptors() {
    let sim = vendor().await;
    let home = Home::new(&sim);
    let gateway = limited(&home, &sim, 96).await;
    let crowd = crowd(gateway.callers);
    assert!(crowd.len() > 96, "only {} connections", crowd.len());
    for _ in 0..20 {
        assert_eq!(gateway.admin("/healthz").await.0, 200);
    }
    read_on(&gateway, &sim, 50, 0).await;
    drop(crowd);
    let mut caller = gateway.caller("one").await;
    assert_eq!(
        caller.get(&api("vendor/user_events?wait=20s")).await.unwrap().json()["events"].as_array().unwrap().len(),
        50
    );
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_no_descriptor_left_it_lives_and_comes_back() {
    let sim = vendor().await;
    let home = Home::new(&sim);
    let gateway = limited(&home, &sim, 256).await;
    read_on(&gateway, &sim, 10, 0).await;
    let mut kept = Client::http1(gateway.operators).await;
    let mut caller = gateway.caller("one").await;
    assert_eq!(kept.get("/healthz").await.unwrap().status, 200);
    // Answered, so it is past the system's queue: the two ports are served by threads of their own.
    assert_eq!(caller.get(&api("vendor/channel_events")).await.unwrap().status, 200);

    let all = rustix::process::prlimit(Some(gateway.pid()), Resource::Nofile, limit(3, 256)).unwrap();
    let crowd = crowd(gateway.callers);
    // What is open goes on: health, events (if the vendor's connection was), callers.
    for _ in 0..20 {
        assert_eq!(kept.get("/healthz").await.unwrap().status, 200);
        assert_eq!(kept.get("/metrics").await.unwrap().status, 200);
    }
    let limit_in_force = metric(&mut kept, "connections_limit").await;
    assert!(limit_in_force > 0.0 && limit_in_force < 256.0, "{limit_in_force}");
    let said = String::from_utf8(gateway.written()).unwrap();
    assert!(said.contains(&format!(r#""in_force":{limit_in_force}"#)), "as the warning at the start says");
    gateway.logged("new connections cannot be taken: pausing until they can");
    let told = kept.get("/readyz?for=callers").await.unwrap();
    assert_eq!((told.status.as_u16(), &told.json()["degraded"][0]["code"]), (503, &"accept_paused".into()));
    assert_eq!(kept.get("/readyz").await.unwrap().status, 200);
    assert_eq!(metric(&mut kept, "accept_pauses_total").await, 1.0, "one, however often it is tried");
    let read = caller.get(&api("vendor/user_events")).await.unwrap();
    assert_eq!((read.status.as_u16(), read.json()["events"].as_array().unwrap().len()), (200, 10));
    sim.emit_many(APP, Stream::UserEvents, 5);

    rustix::process::prlimit(Some(gateway.pid()), Resource::Nofile, all).unwrap();
    drop(crowd);
    let read = caller.get(&api("vendor/user_events?wait=20s")).await.unwrap();
    assert_eq!(read.json()["events"].as_array().unwrap().len(), 5, "{}", read.text());
    let mut newcomer = gateway.caller("two").await;
    assert_eq!(newcomer.get(&api("vendor/user_events")).await.unwrap().status, 200);
    assert_eq!(gateway.admin("/healthz").await.0, 200);
    assert!(gateway.logged("new connections are taken again")["paused_seconds"].as_f64() > Some(0.0));
    assert_eq!(gateway.admin("/readyz?for=callers").await.0, 200);
    assert!(metric(&mut kept, "accept_paused_seconds_total").await > 0.0);
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_kept_do_not_close_the_operators_port() {
    let sim = vendor().await;
    let home = Home::new(&sim);
    let gateway = Gateway::start(&home);
    // More than there are slots, each kept for later by who has asked once.
    let mut kept = Vec::new();
    for _ in 0..200 {
        let mut one = Client::http1(gateway.operators).await;
        assert_eq!(one.get("/healthz").await.unwrap().status, 200);
        kept.push(one);
    }
    let mut last = TcpStream::connect(gateway.operators).unwrap();
    std::io::Write::write_all(&mut last, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    last.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut answer = [0; 12];
    last.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

fn limit(current: u64, maximum: u64) -> Rlimit {
    Rlimit { current: Some(current), maximum: Some(maximum) }
}
