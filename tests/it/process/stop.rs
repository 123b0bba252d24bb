//! SIGTERM: no new connections, what runs is finished, a read in flight is stored, exit 0. A second one hurries that. Other
//! signals end nothing. All of it from the first instructions of `main` on.

use std::process::{Command, Stdio};
use std::time::Duration;

use rtm_gateway::kernel::names::Stream;
use rtm_gateway::simulator::{Endpoint, Fault};
use rustix::fs::inotify;
use rustix::process::Signal;

use super::gateway::{APP, Gateway, Home, api, client, vendor};
use crate::support::child::{BINARY, Running};

#[tokio::test(flavor = "multi_thread")]
async fn a_read_in_flight_is_stored_and_a_waiting_reader_is_answered() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let gateway = Gateway::start(&home);
    let mut waiting = gateway.caller("one").await;
    let poll = tokio::spawn(async move { waiting.get(&api("vendor/channel_events?wait=30s")).await });
    gateway
        .admin_says("/admin/v1/subscriptions", |_, body| {
            body["subscriptions"].as_array().is_some_and(|s| !s.is_empty())
        })
        .await;
    // The next read takes events and answers late: the stop comes in between.
    vendor.on(Endpoint::UserEvents, Fault::DelayAfter(Duration::from_millis(600)));
    vendor.emit_many(APP, Stream::UserEvents, 5);
    vendor.wait_until(|_| vendor.ledger(APP, Stream::UserEvents).waiting.is_empty()).await.unwrap();
    gateway.signal(Signal::TERM);
    let answered = poll.await.unwrap().unwrap();
    assert_eq!(answered.status, 200);
    assert_eq!(answered.json()["events"], serde_json::json!([]));
    gateway.logged("stopped");
    assert_eq!(gateway.ended().await.code(), Some(0));

    let gateway = Gateway::start(&home);
    let reply = gateway.caller("one").await.get(&api("vendor/user_events")).await.unwrap();
    assert_eq!(reply.json()["events"].as_array().unwrap().len(), 5);
    assert_eq!(vendor.violations(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_query_under_way_is_finished() {
    let vendor = vendor().await;
    vendor.add_message(APP, rtm_gateway::simulator::Message::peer("a", "b", "hello"));
    vendor.world().set_rules(APP, |rules| rules.in_progress = 1);
    let home = Home::new(&vendor);
    let gateway = Gateway::start(&home);
    let mut caller = gateway.caller("one").await;
    let query = r#"{"filter":{"source":"a","start_time":1,"end_time":4000000000}}"#;
    let asked = tokio::spawn(async move { caller.post(&api("message/history/query"), query).await });
    vendor.wait_until(|stats| stats.of(Endpoint::HistoryGet).answered() == 1).await.unwrap();
    gateway.signal(Signal::TERM);
    let reply = asked.await.unwrap().unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()["messages"][0]["payload"], "hello");
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_hurries_the_stop_and_a_read_in_flight_is_marked() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let gateway = Gateway::start(&home);
    // Nothing of this is answered within the grace.
    let long = Duration::from_secs(600);
    vendor.on(Endpoint::UserEvents, Fault::DelayAfter(long));
    vendor.on(Endpoint::PeerMessages, Fault::DelayAfter(long));
    vendor.emit_many(APP, Stream::UserEvents, 5);
    vendor.wait_until(|_| vendor.ledger(APP, Stream::UserEvents).waiting.is_empty()).await.unwrap();
    let mut caller = gateway.caller("one").await;
    let asked = tokio::spawn(async move {
        let message = r#"{"destination":"b","payload":"hello"}"#;
        caller.post(&api("users/a/peer_messages"), message).await
    });
    vendor.wait_until(|stats| stats.of(Endpoint::PeerMessages).received == 1).await.unwrap();
    gateway.signal(Signal::TERM);
    let waited_for = gateway.logged("draining: what is waited for");
    let of =
        |line: &serde_json::Value| (line["requests"].clone(), line["clients"].clone(), line["event_reads"].clone());
    let in_hand = (1.into(), serde_json::json!(["one 1"]), 1.into());
    assert_eq!(of(&waited_for), in_hand, "{waited_for}");
    assert!(waited_for["grace_left_seconds"].as_u64() < Some(10), "{waited_for}");
    let hurried = std::time::Instant::now();
    gateway.signal(Signal::INT);
    let cut = gateway.logged("grace is over; cut");
    assert!(cut["pollers"].as_u64().unwrap() > 0, "{cut}");
    assert_eq!(of(&cut), in_hand, "{cut}");
    gateway.logged("stopped");
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert!(hurried.elapsed() < Duration::from_secs(9), "the grace of 10 s is cut short: {:?}", hurried.elapsed());
    assert!(asked.await.unwrap().is_err(), "the caller's connection is cut");

    let gateway = Gateway::start(&home);
    let reply = gateway.caller("one").await.get(&format!("/v1/apps/{APP}/events/user_events")).await.unwrap();
    assert!(reply.text().contains("possible_loss"), "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_that_mean_nothing_here_end_nothing() {
    let vendor = vendor().await;
    let gateway = Gateway::start(&Home::new(&vendor));
    for signal in [Signal::USR1, Signal::USR2] {
        gateway.signal(signal);
    }
    for signal in [Signal::USR1, Signal::USR2, Signal::USR1] {
        gateway.signal(signal);
        assert_eq!(gateway.admin("/healthz").await.0, 200);
    }
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().await.code(), Some(0));
}

/// Nobody waits for it but the quota: what was sent is settled before the process ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_caller_has_left_is_waited_for() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let gateway = Gateway::start(&home);
    vendor.on(Endpoint::PeerMessages, Fault::DelayAfter(Duration::from_millis(700)));
    let mut caller = gateway.caller("one").await;
    let body = r#"{"destination":"bob","payload":"hi"}"#;
    let leaves = tokio::spawn(async move { caller.post(&api("users/alice/peer_messages"), body).await });
    vendor.wait_until(|stats| stats.of(Endpoint::PeerMessages).counted == 1).await.unwrap();
    leaves.abort();
    assert!(leaves.await.unwrap_err().is_cancelled());
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert_eq!(vendor.stats().of(Endpoint::PeerMessages).ok, 1, "its answer was read");
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_that_come_while_the_configuration_is_read_end_nothing() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let many: String = (0..2000).map(|n| client(&format!("client-{n}"))).collect();
    let text = format!("{}{many}", home.base(&vendor));
    home.write(&text);
    let mut command = Command::new(BINARY);
    command.args(["serve", "--log-format", "json", "--config"]).arg(home.config());
    let child = Running::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()));
    let shown = |file: &str, key: &str, radix| {
        let text =
            std::fs::read_to_string(format!("/proc/{}/{file}", child.pid().as_raw_nonzero())).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|number| u64::from_str_radix(number.trim(), radix).ok()).unwrap_or(0)
    };
    let signals = [Signal::HUP, Signal::USR1, Signal::USR2];
    loop {
        // In this order: what was read by then.
        let (read, caught) = (shown("io", "rchar:", 10), shown("status", "SigCgt:", 16));
        if signals.iter().all(|signal| caught & (1 << (signal.as_raw() - 1)) != 0) {
            break;
        }
        assert!(read < text.len() as u64, "the configuration was read, and a signal would end the start");
        tokio::task::yield_now().await;
    }
    for signal in signals {
        child.signal(signal);
    }
    assert!(child.heard("ready").is_some(), "it went on");
    child.kill();
}

fn spawned(home: &Home) -> Running {
    Running::serve(Command::new(BINARY), &home.config())
}

/// Whether a process has a way of its own to take this signal.
fn takes(child: &Running, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.pid().as_raw_nonzero())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << (signal.as_raw() - 1)) != 0
}

/// The process, when it has just opened its configuration: long before there is anything to stop or to reload.
fn opening_its_configuration(home: &Home) -> Running {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, home.config(), inotify::WatchFlags::OPEN).unwrap();
    let child = spawned(home);
    let mut event = [0; 64];
    assert!(rustix::io::read(&watch, &mut event).unwrap() > 0);
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_have_their_meaning_before_the_configuration_is_read() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let child = opening_its_configuration(&home);
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2, Signal::TERM, Signal::INT] {
        assert!(takes(&child, signal), "{signal:?}");
    }
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2] {
        child.signal(signal);
    }
    let gateway = Gateway::grown(child);
    assert_eq!(gateway.admin("/healthz").await.0, 200);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().await.code(), Some(0));

    // A stop that comes so early is one in order.
    let child = opening_its_configuration(&home);
    child.signal(Signal::TERM);
    let gateway = Gateway::grown(child);
    gateway.logged("stopped");
    assert_eq!(gateway.ended().await.code(), Some(0));
}

/// As a reload sidecar does it, at the first moment at which the process can take it, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn hangups_from_the_first_moment_on_keep_no_gateway_from_serving() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    for _ in 0..10 {
        let mut child = spawned(&home);
        while !takes(&child, Signal::HUP) {
            assert_eq!(child.try_wait().unwrap(), None);
            std::thread::yield_now();
        }
        for _ in 0..20 {
            child.signal(Signal::HUP);
        }
        let gateway = Gateway::grown(child);
        assert_eq!(gateway.admin("/healthz").await.0, 200);
        gateway.signal(Signal::TERM);
        assert_eq!(gateway.ended().await.code(), Some(0));
    }
}
