//! What one client, app or endpoint is answered does not decide over another's requests.

use std::time::Duration;

use rtm_gateway::config::{App, Breaker, Config, Region, RetryBudget};
use rtm_gateway::kernel::names::{AppId, ClientName, RegionName};
use rtm_gateway::simulator::{self, Endpoint, Fault, Limits, Sim};
use rtm_gateway::upstream::egress::Failure;
use rtm_gateway::vendor::order::{Operation, Order};

use super::rig::{KEY, Rig, SECRET, count, message, order, read, vendor, vendor_app};

const OTHER: &str = "other-app";

fn of_other(order: Order) -> Order {
    Order { app: AppId::parse(OTHER).unwrap(), ..order }
}

fn of_client(name: &str, mut order: Order) -> Order {
    order.payer.client = ClientName::parse(name).unwrap();
    order
}

fn fetch() -> Order {
    order(Operation::FetchHistory("abc".into()), Duration::from_secs(5))
}

/// Two apps in one region, and a breaker that is quick.
async fn two_apps(change: impl FnOnce(&mut Config)) -> (Sim, Rig) {
    let sim = vendor().await;
    let limits = Limits::all(simulator::Limit::per_second(100));
    sim.world().add(simulator::App::new(OTHER).basic(KEY, SECRET).limits(limits));
    let rig = Rig::with(&sim.base_url(), |config| {
        let other = App { id: AppId::parse(OTHER).unwrap(), ..config.apps[0].clone() };
        config.apps.push(other);
        config.upstream.breaker = Breaker { failures: 3, open_for: Duration::from_secs(3600) };
        change(config);
    });
    (sim, rig)
}

#[tokio::test]
async fn what_one_clients_messages_are_answered_closes_the_only_region_to_nobody() {
    let (sim, rig) = two_apps(|_| {}).await;
    sim.always(Endpoint::PeerMessages, Fault::status(500));
    for _ in 0..12 {
        // Not even to itself.
        assert_eq!(rig.egress.send(of_client("failing", message())).await.unwrap().status.as_u16(), 500);
    }
    sim.clear_faults();
    assert_eq!(rig.egress.send(of_client("another", message())).await.unwrap().status.as_u16(), 200);
    for order in [count(), read(), of_other(message()), of_other(count()), of_other(read())] {
        assert_eq!(rig.egress.send(order).await.unwrap().status.as_u16(), 200);
    }
    assert_eq!(rig.egress.regions()[0].breaker, "closed");
    sim.stop().await;
}

#[tokio::test]
async fn connections_that_are_lost_and_answers_that_do_not_come_close_the_only_region_to_nobody() {
    let (sim, rig) = two_apps(|config| {
        config.upstream.request_timeout = Duration::from_millis(100);
    })
    .await;
    for fault in [Fault::ResetAfter, Fault::Hang] {
        sim.always(Endpoint::PeerMessages, fault);
        for _ in 0..6 {
            assert!(rig.egress.send(message()).await.unwrap_err().why.in_doubt());
        }
    }
    for order in [read(), of_other(read())] {
        assert_eq!(rig.egress.send(order).await.unwrap().status.as_u16(), 200);
    }
    assert_eq!(rig.egress.regions()[0].breaker, "closed");
    sim.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_fails_goes_to_the_next_region_and_the_others_stay() {
    let (first, second) = (vendor().await, vendor().await);
    let region = |name: &str, sim: &Sim| Region {
        name: RegionName::parse(name).unwrap(),
        base_url: sim.base_url().parse().unwrap(),
    };
    let rig = Rig::with(&first.base_url(), |config| {
        config.apps[0].regions = vec![region("cn", &first), region("eu", &second)];
        config.upstream.breaker = Breaker { failures: 3, open_for: Duration::from_secs(3600) };
    });
    first.always(Endpoint::PeerMessages, Fault::status(502));
    let served_by = async |order| rig.egress.send(order).await.unwrap().region.to_string();
    for _ in 0..3 {
        assert_eq!(served_by(message()).await, "cn");
    }
    for (order, region) in [(message(), "eu"), (count(), "cn"), (read(), "cn"), (fetch(), "cn"), (message(), "eu")] {
        assert_eq!(served_by(order).await, region);
    }
    // With no other left it is asked all the same.
    second.down().await;
    let mut all = Vec::new();
    for _ in 0..8 {
        all.push(rig.egress.send(message()).await.map(|reply| reply.status.as_u16()).map_err(|failed| failed.why));
    }
    assert_eq!(all.last(), Some(&Ok(502)), "{all:?}");
    // An order that names its region is sent there; its success brings the others back.
    first.clear_faults();
    let mut pinned = message();
    pinned.region = RegionName::parse("cn").ok();
    assert_eq!(served_by(pinned).await, "cn");
    second.up().await.unwrap();
    assert_eq!(served_by(message()).await, "cn");
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_client_whose_requests_all_fail_takes_no_retry_from_another() {
    let sim = Sim::start(vendor_app(1000)).await.unwrap();
    let rig = Rig::with(&sim.base_url(), |config| {
        config.apps[0].quota = super::rig::quota(500);
        config.upstream.retry_budget = RetryBudget { percent: 0, min_per_second: 1 };
    });
    sim.always(Endpoint::HistoryCount, Fault::status(503));
    for _ in 0..5 {
        rig.egress.send(of_client("failing", count())).await.unwrap();
    }
    sim.clear_faults();
    sim.on(Endpoint::HistoryCount, Fault::status(503));
    let reply = rig.egress.send(of_client("another", count())).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.costs.exchanges), (200, 2));
    sim.stop().await;
}

/// A host is left alone only for connections that cannot be made, and one answer brings it back.
#[tokio::test]
async fn a_host_that_cannot_be_connected_to_is_left_alone_by_all_apps_and_one_success_counts_for_all() {
    let (sim, rig) = two_apps(|config| {
        config.upstream.breaker.open_for = Duration::from_millis(50);
    })
    .await;
    let state = || rig.egress.regions()[0].breaker;
    sim.down().await;
    while state() == "closed" {
        rig.egress.send(message()).await.unwrap_err();
    }
    let failed = rig.egress.send(of_other(count())).await.unwrap_err();
    assert!(matches!(failed.why, Failure::RegionDown { .. } | Failure::Unreachable(_)), "{failed:?}");
    sim.up().await.unwrap();
    // Another app's read is the probe.
    while rig.egress.send(of_other(read())).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(state(), "closed");
    assert_eq!(rig.egress.send(message()).await.unwrap().status.as_u16(), 200);
    assert_eq!(sim.violations().iter().filter(|v| v.kind.is_over_limit()).count(), 0);
    sim.stop().await;
}

/// One view says why a caller gets 503.
#[tokio::test]
async fn what_fails_and_what_the_vendor_asked_to_leave_alone_is_shown() {
    let (sim, rig) = two_apps(|_| {}).await;
    let shown = || rig.egress.regions()[0].endpoints.clone();
    rig.egress.send(message()).await.unwrap();
    assert_eq!(shown(), []);

    sim.always(Endpoint::PeerMessages, Fault::status(502));
    for _ in 0..3 {
        rig.egress.send(of_other(message())).await.unwrap();
    }
    let busy = Fault::Answer(simulator::Canned {
        status: 503,
        content_type: "text/plain".into(),
        retry_after: Some("120".into()),
        body: String::new(),
        acted: false,
    });
    sim.on(Endpoint::HistoryCount, busy);
    rig.egress.send(count()).await.unwrap();
    let all = shown();
    assert_eq!(all.len(), 2, "{all:?}");
    let [held, failing] = &all[..] else { panic!("{all:?}") };
    assert_eq!((held.app.as_str(), held.endpoint, held.failing), ("demo-app", "history_count", false));
    assert_eq!(held.why.as_deref(), Some("it answered 503"));
    assert!(held.held_seconds.is_some_and(|left| left > 100.0 && left <= 120.0), "{held:?}");
    assert!(held.next_try_seconds.is_some_and(|left| left <= 5.0), "{held:?}");
    assert_eq!((failing.app.as_str(), failing.endpoint, failing.failing), (OTHER, "peer_messages", true));
    assert_eq!((failing.why.as_deref(), failing.held_seconds), (Some("it answered 502"), None));
    assert!(failing.since.is_some());

    rig.egress.refresh_metrics();
    let text = rig.metrics.text();
    let series =
        |name: &str, app: &str, endpoint: &str| format!(r#"{name}{{app="{app}",region="cn",endpoint="{endpoint}"}} "#);
    assert!(text.contains(&(series("upstream_endpoint_failing", OTHER, "peer_messages") + "1")), "{text}");
    assert!(text.contains(&(series("upstream_endpoint_held_seconds", "demo-app", "history_count") + "11")), "{text}");

    sim.clear_faults();
    rig.egress.send(of_other(message())).await.unwrap();
    assert_eq!(shown().len(), 1, "what succeeds is well again");
    rig.egress.refresh_metrics();
    let text = rig.metrics.text();
    assert!(text.contains(&(series("upstream_endpoint_failing", OTHER, "peer_messages") + "0")), "{text}");

    // A host that cannot be connected to says why, too.
    sim.down().await;
    while rig.egress.regions()[0].breaker == "closed" {
        rig.egress.send(of_other(message())).await.unwrap_err();
    }
    let region = rig.egress.regions().remove(0);
    assert!(region.why.as_ref().is_some_and(|why| why.contains("refused")), "{region:?}");
    assert!(region.since.is_some());
    sim.stop().await;
}
