//! Outages: what is asked again and how often, what is left alone, and what goes to another region.

use std::time::Duration;

use rtm_gateway::config::{Breaker, Config, Region, RetryBudget};
use rtm_gateway::kernel::names::{BucketName, RegionName, Stream};
use rtm_gateway::simulator::{self, Endpoint, Fault, Profile, Sim};
use rtm_gateway::upstream::egress::Failure;
use rtm_gateway::vendor::order::{Operation, Order};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::rig::{APP, Rig, count, message, order, quota, read, vendor, vendor_app};
use crate::support::waiting::{eventually, pause};

fn region(name: &str, sim: &Sim) -> Region {
    Region { name: RegionName::parse(name).unwrap(), base_url: sim.base_url().parse().unwrap() }
}

/// Two regions; the first is down.
async fn two_regions(change: impl FnOnce(&mut Config)) -> (Sim, Sim, Rig) {
    let (first, second) = (vendor().await, vendor().await);
    let rig = Rig::with(&first.base_url(), |config| {
        config.apps[0].regions = vec![region("cn", &first), region("eu", &second)];
        change(config);
    });
    first.down().await;
    (first, second, rig)
}

fn fetch(region: &str) -> Order {
    let mut fetch = order(Operation::FetchHistory("abc".into()), Duration::from_secs(5));
    fetch.region = RegionName::parse(region).ok();
    fetch
}

#[tokio::test]
async fn what_keeps_no_state_goes_to_the_next_region_and_reads_of_events_never_do() {
    let (first, second, rig) = two_regions(|_| {}).await;
    second.emit_user_event(APP, "Login", "of-the-second");
    for order in [count(), message(), count()] {
        let reply = rig.egress.send(order).await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.region.as_str()), (200, "eu"));
    }
    let mut pinned = read();
    pinned.region = RegionName::parse("cn").ok();
    for order in [read(), pinned, fetch("cn")] {
        let failed = rig.egress.send(order).await.unwrap_err();
        assert!(matches!(failed.why, Failure::Unreachable(_) | Failure::RegionDown { .. }), "{failed:?}");
        assert!(!failed.why.in_doubt());
    }
    let stats = second.stats();
    assert_eq!(stats.of(Endpoint::UserEvents).received + stats.of(Endpoint::HistoryGet).received, 0);
    assert_eq!((stats.of(Endpoint::HistoryCount).received, stats.of(Endpoint::PeerMessages).received), (2, 1));
    assert_eq!(second.ledger(APP, Stream::UserEvents).lost, Vec::<std::sync::Arc<str>>::new());
    assert_eq!(second.violations(), []);
    drop(first);
}

/// Regions that come and go, callers that are sent elsewhere and retries: the vendor counts them all in one window.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_window_is_breached_by_retries_in_two_regions() {
    let first = Sim::start(vendor_app(20)).await.unwrap();
    let second = Sim::listen(first.world(), "eu", simulator::Listen::default()).await.unwrap();
    let late = Fault::JitterBefore(Duration::from_millis(50));
    for (seed, sim) in [(1, &first), (2, &second)] {
        sim.random(
            Profile::seeded(seed)
                .with(0.5, late.clone())
                .with(0.5, Fault::status(503))
                .with(0.1, Fault::DropAfter)
                .with(0.1, Fault::ResetBefore),
        );
    }
    let rig = Rig::with(&first.base_url(), |config| {
        config.apps[0].regions = vec![region("cn", &first), region("eu", &second)];
        config.upstream.breaker = Breaker { failures: 3, open_for: Duration::from_millis(100) };
    });
    let mut callers = JoinSet::new();
    let enough = CancellationToken::new();
    for caller in 0..20 {
        let (egress, enough) = (rig.egress.clone(), enough.clone());
        callers.spawn(async move {
            while !enough.is_cancelled() {
                let operation = if caller % 2 == 0 { count().operation } else { message().operation };
                if egress.send(order(operation, Duration::from_millis(500))).await.is_err() {
                    pause(Duration::from_millis(5)).await;
                }
            }
        });
    }
    // Three windows at least; and until both regions have answered, and an order was sent again after a loss.
    pause(Duration::from_secs(3)).await;
    let counted = |sim: &Sim| sim.stats().of(Endpoint::HistoryCount).counted > 0;
    let sent_again = || rig.metrics.text().contains(r#"upstream_retries_total{app="demo-app",reason="lost"}"#);
    eventually(|| counted(&first) && counted(&second) && sent_again()).await;
    enough.cancel();
    while callers.join_next().await.is_some() {}
    let breaches: Vec<_> = first.violations().into_iter().filter(|v| v.kind.is_over_limit()).collect();
    assert_eq!(breaches, []);
    for sim in [&first, &second] {
        assert!(counted(sim), "{}", sim.name());
    }
    assert!(sent_again());
}

#[tokio::test]
async fn a_message_that_may_have_been_sent_is_sent_to_no_other_region() {
    let (first, second, rig) = two_regions(|_| {}).await;
    first.up().await.unwrap();
    first.on(Endpoint::PeerMessages, Fault::DropAfter);
    assert!(matches!(rig.egress.send(message()).await.unwrap_err().why, Failure::Lost { .. }));
    first.on(Endpoint::HistoryCount, Fault::DropAfter);
    assert_eq!(rig.egress.send(count()).await.unwrap().region.as_str(), "eu");
    assert_eq!(second.stats().of(Endpoint::PeerMessages).received, 0);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_region_that_fails_is_left_alone_asked_once_and_used_again() {
    let open_for = Duration::from_millis(400);
    let sim = vendor().await;
    let rig = Rig::with(&sim.base_url(), |config| {
        config.upstream.breaker = Breaker { failures: 3, open_for };
    });
    let state = || rig.egress.regions()[0].breaker;
    sim.down().await;
    while state() == "closed" {
        rig.egress.send(message()).await.unwrap_err();
    }
    let free = rig.bucket(BucketName::Messages).free;
    let failed = rig.egress.send(message()).await.unwrap_err();
    let Failure::RegionDown { region, retry_after } = failed.why else { panic!("{failed:?}") };
    assert_eq!((region.as_str(), failed.costs.exchanges), ("cn", 0));
    assert!(retry_after <= open_for * 2, "{retry_after:?}");
    assert_eq!(rig.bucket(BucketName::Messages).free, free);
    assert!(rig.metrics.text().contains(r#"upstream_breaker_open{region="cn",host="127.0.0.1:"#));
    sim.up().await.unwrap();
    // The first that comes after its time is the probe.
    let until = Instant::now() + Duration::from_secs(20);
    while rig.egress.send(read()).await.is_err() {
        assert!(Instant::now() < until);
        tokio::task::yield_now().await;
    }
    assert_eq!(state(), "closed");
    rig.egress.send(message()).await.unwrap();
    assert_eq!(sim.violations(), []);
    sim.stop().await;
}

#[tokio::test]
async fn a_vendor_that_fails_all_it_is_asked_is_asked_little_more_often() {
    const FIRST: u64 = 200;
    let sim = Sim::start(vendor_app(2000)).await.unwrap();
    let rig = Rig::with(&sim.base_url(), |config| {
        config.apps[0].quota = quota(1000);
        config.upstream.retry_budget = RetryBudget { percent: 20, min_per_second: 0 };
        config.upstream.breaker.failures = 0;
    });
    for _ in 0..FIRST * 3 {
        sim.on(Endpoint::HistoryCount, Fault::status(503));
    }
    let mut callers = JoinSet::new();
    for _ in 0..FIRST {
        let egress = rig.egress.clone();
        callers.spawn(async move { egress.send(count()).await.map(|reply| reply.status.as_u16()) });
    }
    while let Some(ended) = callers.join_next().await {
        assert_eq!(ended.unwrap().unwrap(), 503);
    }
    let asked = sim.stats().of(Endpoint::HistoryCount).received;
    assert!(asked > FIRST && asked <= FIRST * 120 / 100, "{asked}");
    let text = rig.metrics.text();
    let retries = format!(r#"upstream_retries_total{{app="demo-app",reason="vendor_failed"}} {}"#, asked - FIRST);
    assert!(text.contains(&retries), "{text}");
    assert!(!text.contains(r#"upstream_retry_budget_exhausted_total{app="demo-app"} 0"#), "{text}");
    sim.stop().await;
}

#[tokio::test]
async fn an_answer_that_does_not_begin_or_pauses_is_given_up_but_not_a_read_of_events() {
    let sim = vendor().await;
    let rig = Rig::with(&sim.base_url(), |config| {
        config.upstream.first_byte_timeout = Some(Duration::from_millis(100));
        config.upstream.idle_timeout = Duration::from_millis(100);
        config.upstream.request_timeout = Duration::from_secs(60);
        config.upstream.breaker.failures = 0;
    });
    let patient = |operation| order(operation, Duration::from_secs(60));
    let began = Instant::now();
    sim.on(Endpoint::PeerMessages, Fault::DelayAfter(Duration::from_secs(50)));
    let late = rig.egress.send(patient(message().operation)).await.unwrap_err();
    assert_eq!(late.why, Failure::TimedOut { sent: true });
    sim.on(Endpoint::PeerMessages, Fault::StallBody { keep: 3 });
    let stalled = rig.egress.send(patient(message().operation)).await.unwrap_err();
    assert_eq!(stalled.why, Failure::TimedOut { sent: true });
    // What is idempotent is asked again.
    sim.on(Endpoint::HistoryCount, Fault::DelayAfter(Duration::from_secs(50)));
    assert_eq!(rig.egress.send(patient(count().operation)).await.unwrap().costs.exchanges, 2);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());

    sim.emit_user_event(APP, "Login", "alice");
    sim.on(Endpoint::UserEvents, Fault::DelayAfter(Duration::from_millis(500)));
    let reply = rig.egress.send(read()).await.unwrap();
    assert!(String::from_utf8_lossy(&reply.body).contains("alice"));
    sim.stop().await;
}

#[tokio::test]
async fn a_vendor_whose_clock_is_another_is_shown_and_redirects_are_not_followed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let rig = Rig::new(&format!("http://{address}"));
    let vendor = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let _ = tcp.read(&mut [0; 4096]).await.unwrap();
        let answer = format!(
            "HTTP/1.1 302 Found\r\nlocation: http://{address}/elsewhere\r\ncontent-length: 0\r\n\
             date: Sun, 06 Nov 1994 08:49:37 GMT\r\nconnection: close\r\n\r\n"
        );
        tcp.write_all(answer.as_bytes()).await.unwrap();
    };
    let ((), reply) = tokio::join!(vendor, rig.egress.send(message()));
    assert_eq!(reply.unwrap().status.as_u16(), 302);
    let skew = rig.egress.regions()[0].clock_skew_seconds.unwrap();
    assert!(skew < -900_000_000.0, "{skew}");
    assert!(rig.metrics.text().contains(r#"upstream_clock_skew_seconds{region="cn",host="127.0.0.1:"#));
    let followed = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
    assert!(followed.is_err());
}
