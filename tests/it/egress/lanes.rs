//! Connections are an app's and a kind of request's own, and as many as are needed.

use std::time::Duration;

use rtm_gateway::config::{App, Config};
use rtm_gateway::kernel::names::{AppId, BucketName};
use rtm_gateway::kernel::task::{Kind, Tasks};
use rtm_gateway::simulator::{self, AcceptFault, Endpoint, Fault, Limits, Sim};
use rtm_gateway::upstream::egress::Failure;
use rtm_gateway::vendor::order::Order;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::rig::{KEY, Rig, SECRET, count, message, quota, read};
use super::tls::{rig_with, vendor_of};

const OTHER: &str = "other-app";
/// HTTP/2 connections of a lane.
const MOST: u64 = 16;

fn of_other(order: Order) -> Order {
    Order { app: AppId::parse(OTHER).unwrap(), ..order }
}

/// Two apps at a vendor that takes so many requests on an HTTP/2 connection.
async fn two_apps(alpn: &str, streams: u32, change: impl FnOnce(&mut Config)) -> (Sim, Rig) {
    let limits = Limits::all(simulator::Limit::per_second(100));
    let (sim, ca) = vendor_of(super::rig::vendor_app(100), &[alpn]).await;
    sim.world().add(simulator::App::new(OTHER).basic(KEY, SECRET).limits(limits));
    sim.max_streams(streams);
    let rig = rig_with(&sim.base_url(), Some(&ca), |config| {
        config.apps[0].quota = quota(100);
        let other = App { id: AppId::parse(OTHER).unwrap(), ..config.apps[0].clone() };
        config.apps.push(other);
        change(config);
    });
    (sim, rig)
}

/// Sends so many messages of the first app, which hang.
async fn hang(sim: &Sim, rig: &Rig, messages: u64, fault: Fault) -> JoinSet<()> {
    for _ in 0..messages {
        sim.on(Endpoint::PeerMessages, fault.clone());
    }
    let mut hanging = JoinSet::new();
    for _ in 0..messages {
        let egress = rig.egress.clone();
        hanging.spawn(async move {
            let _ = egress.send(message()).await;
        });
    }
    sim.wait_until(|stats| stats.of(Endpoint::PeerMessages).counted == messages).await.unwrap();
    hanging
}

#[tokio::test]
async fn what_hangs_of_one_app_and_kind_holds_up_no_other_and_not_even_its_own() {
    for (alpn, fault) in [("h2", Fault::Hang), ("h2", Fault::StallBody { keep: 5 }), ("http/1.1", Fault::Hang)] {
        let (sim, rig) = two_apps(alpn, 4, |_| {}).await;
        let hanging = hang(&sim, &rig, 12, fault.clone()).await;
        for order in [read(), count(), of_other(message()), of_other(read()), of_other(count()), message(), message()] {
            let reply = tokio::time::timeout(Duration::from_secs(4), rig.egress.send(order)).await;
            assert_eq!(reply.expect("in time").unwrap().status.as_u16(), 200, "{alpn} {fault:?}");
        }
        // Three that are full, and one for each of the others; with one for all that come one after another.
        let expected = if alpn == "h2" { 4 + 5 } else { 13 + 5 };
        assert_eq!(sim.stats().connections, expected, "{alpn} {fault:?}");
        let text = rig.metrics.text();
        let open = |app: &str, kind: &str| {
            let series = format!(r#"upstream_connections{{app="{app}",region="cn",kind="{kind}"}} "#);
            let line = text.lines().find_map(|line| line.split_once(&series));
            line.unwrap_or_else(|| panic!("{series}: {text}")).1.parse::<u64>().unwrap()
        };
        assert_eq!(open("demo-app", "messages"), expected - 5);
        assert_eq!((open("demo-app", "events"), open("demo-app", "history"), open(OTHER, "messages")), (1, 1, 1));
        drop(hanging);
        assert_eq!(sim.violations(), []);
        sim.stop().await;
    }
}

#[tokio::test]
async fn many_at_once_share_the_one_connection_that_they_need() {
    let (sim, rig) = two_apps("h2", 100, |_| {}).await;
    for _ in 0..2 {
        let mut sent = JoinSet::new();
        for _ in 0..40 {
            let egress = rig.egress.clone();
            sent.spawn(async move { egress.send(message()).await.unwrap().status.as_u16() });
        }
        assert!(sent.join_all().await.iter().all(|status| *status == 200));
        assert_eq!(sim.stats().connections, 1);
    }
    sim.stop().await;
}

/// Not one of them is refused, which a request on a connection that takes no more would be.
#[tokio::test]
async fn many_at_once_find_a_vendor_that_takes_few_at_a_time() {
    let (sim, rig) = two_apps("h2", 3, |_| {}).await;
    for _ in 0..40 {
        sim.on(Endpoint::PeerMessages, Fault::DelayAfter(Duration::from_millis(50)));
    }
    let mut sent = JoinSet::new();
    for _ in 0..40 {
        let egress = rig.egress.clone();
        sent.spawn(async move { egress.send(message()).await.unwrap().costs.exchanges });
    }
    assert_eq!(sent.join_all().await.iter().sum::<u32>(), 40);
    assert!((2..=MOST).contains(&sim.stats().connections), "{:?}", sim.stats());
    sim.stop().await;
}

#[tokio::test]
async fn connections_are_bounded_and_who_finds_none_waits_unsent() {
    let (sim, rig) = two_apps("h2", 1, |_| {}).await;
    let hanging = hang(&sim, &rig, MOST, Fault::Hang).await;
    assert_eq!(sim.stats().connections, MOST);
    let failed = rig.egress.send(Order { deadline: Instant::now() + Duration::from_millis(200), ..message() }).await;
    let failed = failed.unwrap_err();
    assert_eq!((failed.why, failed.costs.exchanges), (Failure::TimedOut { sent: false }, 0));
    let seats = rig.bucket(BucketName::Messages);
    assert_eq!((seats.in_flight, seats.waiting), (u32::try_from(MOST).unwrap(), 0), "{seats:?}");
    assert_eq!(rig.egress.send(read()).await.unwrap().status.as_u16(), 200);

    // One of those before it ends, and it is sent.
    let mut waiting = std::pin::pin!(rig.egress.send(message()));
    while rig.bucket(BucketName::Messages).in_flight <= u32::try_from(MOST).unwrap() {
        tokio::select! {
            biased;
            early = &mut waiting => panic!("{early:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    sim.cut_all(true);
    assert_eq!(waiting.await.unwrap().costs.exchanges, 1);
    assert_eq!(rig.egress.regions()[0].breaker, "closed");
    drop(hanging);
    sim.stop().await;
}

#[tokio::test]
async fn a_further_connection_that_cannot_be_made_is_no_failure_while_another_lives() {
    let (sim, rig) = two_apps("h2", 1, |config| config.upstream.breaker.failures = 1).await;
    rig.egress.send(message()).await.unwrap();
    sim.on(Endpoint::PeerMessages, Fault::DelayAfter(Duration::from_millis(300)));
    for _ in 0..2 {
        sim.on_accept(AcceptFault::Reset);
    }
    let mut sent = JoinSet::new();
    for _ in 0..6 {
        let egress = rig.egress.clone();
        sent.spawn(async move { egress.send(message()).await.unwrap().costs.exchanges });
    }
    assert_eq!(sent.join_all().await.iter().sum::<u32>(), 6);
    assert_eq!(rig.egress.regions()[0].breaker, "closed");
    sim.stop().await;
}

/// A host that takes connections and says nothing: one is tried for all who wait, and they fail with it.
#[tokio::test]
async fn who_waits_for_a_connection_fails_with_it_in_its_time() {
    let (tasks, listener) = (Tasks::new(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let base_url = format!("https://{}", listener.local_addr().unwrap());
    let taken = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = taken.clone();
    tasks.spawn(Kind::Simulator, async move {
        while let Ok((tcp, _)) = listener.accept().await {
            kept.lock().unwrap().push(tcp);
        }
    });
    let rig = rig_with(&base_url, None, |config| {
        config.upstream.connect_timeout = Duration::from_millis(300);
        config.upstream.breaker.failures = 0;
        config.upstream.retry_budget.percent = 0;
        config.upstream.retry_budget.min_per_second = 0;
    });
    let mut sent = JoinSet::new();
    for _ in 0..15 {
        let egress = rig.egress.clone();
        sent.spawn(async move { egress.send(message()).await.unwrap_err().why });
    }
    let ended = sent.join_all().await;
    assert!(ended.iter().all(|why| *why == Failure::TimedOut { sent: false }), "{ended:?}");
    assert_eq!(taken.lock().unwrap().len(), 1);
    assert_eq!(rig.bucket(BucketName::Messages).free, 20);
    tasks.finish(Duration::ZERO).await;
}
