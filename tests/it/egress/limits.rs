//! The vendor's limits hold, whatever callers and the network do.

use std::time::Duration;

use rtm_gateway::kernel::names::BucketName;
use rtm_gateway::simulator::{Endpoint, Fault, Profile};
use rtm_gateway::upstream::egress::Failure;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::rig::{Rig, count, message, order, quota, read, vendor, vendor_app};
use crate::support::waiting::pause;

#[tokio::test]
async fn a_429_is_waited_out_and_the_order_sent_again() {
    let sim = vendor().await;
    let rig = Rig::new(&sim.base_url());
    sim.on(Endpoint::PeerMessages, Fault::too_many(Some("2")));
    let began = Instant::now();
    let reply = rig.egress.send(message()).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.costs.exchanges), (200, 2));
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    // It asks for its next seat a little after the answer.
    assert!(reply.costs.queue_wait >= Duration::from_secs(1));
    assert!(rig.bucket(BucketName::Messages).in_force <= 11);
    let text = rig.metrics.text();
    assert!(text.contains(r#"quota_refused_by_vendor_total{app="demo-app",bucket="messages"} 1"#), "{text}");
    assert!(text.contains(r#"endpoint="peer_messages",status="429"} 1"#), "{text}");
    sim.stop().await;
}

#[tokio::test]
async fn a_429_that_asks_for_more_time_than_there_is_ends_the_order_at_once() {
    let sim = vendor().await;
    let rig = Rig::new(&sim.base_url());
    sim.on(Endpoint::UserEvents, Fault::too_many(Some("30")));
    let began = Instant::now();
    let failed = rig.egress.send(read()).await.unwrap_err();
    let Failure::QuotaSpent { bucket, limit, retry_after, vendor } = failed.why else { panic!("{failed:?}") };
    assert_eq!((bucket, limit.requests.get()), (BucketName::UserEvents, 20));
    assert!(retry_after > Duration::from_secs(28), "{retry_after:?}");
    let vendor = vendor.expect("it was the vendor's own refusal");
    assert_eq!((vendor.in_force, vendor.refused, vendor.retry_after), (10, 1, Some(Duration::from_secs(30))));
    assert!(began.elapsed() < Duration::from_secs(2));
    sim.stop().await;
}

#[tokio::test]
async fn shared_buckets_are_counted_as_one() {
    let sim = vendor().await;
    let rig = Rig::with(&sim.base_url(), |config| {
        config.apps[0].quota = quota(2);
        config.apps[0].quota.history_count = rtm_gateway::config::QuotaRule::Share(BucketName::HistoryCreate);
    });
    assert_eq!(rig.egress.buckets().len(), 5);
    rig.egress.send(count()).await.unwrap();
    rig.egress.send(count()).await.unwrap();
    let mut third = count();
    third.deadline = Instant::now() + Duration::from_millis(100);
    let failed = rig.egress.send(third).await.unwrap_err();
    assert!(matches!(failed.why, Failure::QuotaSpent { bucket: BucketName::HistoryCreate, .. }), "{failed:?}");
    assert!(rig.metrics.text().contains(r#"quota_rejections_total{app="demo-app",bucket="history_create"} 1"#));
    sim.stop().await;
}

/// A seat that comes shortly before the deadline is of no use: what is sent then is in doubt, and was counted by the vendor.
#[tokio::test]
async fn messages_beyond_the_limit_are_refused_and_none_is_sent_too_late_for_its_answer() {
    let sim = vendor().await;
    let rig = Rig::with(&sim.base_url(), |_| {});
    sim.always(Endpoint::PeerMessages, Fault::DelayBefore(Duration::from_millis(60)));
    for _ in 0..3 {
        rig.egress.send(message()).await.unwrap();
    }
    let mut orders = JoinSet::new();
    for number in 0..150 {
        let egress = rig.egress.clone();
        orders.spawn(async move {
            pause(Duration::from_millis(number * 20)).await;
            let mut order = message();
            order.deadline = Instant::now() + Duration::from_millis(1000);
            egress.send(order).await.map_err(|failed| failed.why)
        });
    }
    let (mut taken, mut refused, mut in_doubt) = (0, 0, 0);
    for ended in orders.join_all().await {
        match ended {
            Ok(reply) => taken += usize::from(reply.status == 200),
            Err(Failure::QuotaSpent { .. }) => refused += 1,
            Err(Failure::TimedOut { sent: true }) => in_doubt += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(taken >= 40 && refused > 0 && taken + refused + in_doubt == 150, "{taken} {refused} {in_doubt}");
    // A machine that stands still for a moment makes an answer late that would not have been.
    assert!(in_doubt <= 4, "{in_doubt} in doubt");
    sim.stop().await;
}

/// Callers give up and leave at random while the vendor counts up to 100 ms late: the seats of what they leave behind
/// stay taken until it is counted for certain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_window_is_breached_by_callers_who_leave_and_networks_that_are_late() {
    let late = Duration::from_millis(100);
    let sim = rtm_gateway::simulator::Sim::start(vendor_app(20)).await.unwrap();
    sim.random(
        Profile::seeded(1)
            .with(0.9, Fault::JitterBefore(late))
            .with(0.9, Fault::JitterAfter(late))
            .with(0.02, Fault::ResetBefore)
            .with(0.02, Fault::DropAfter)
            .with(0.02, Fault::CutBody { keep: 5 }),
    );
    let rig = Rig::with(&sim.base_url(), |config| {
        config.upstream.request_timeout = Duration::from_millis(120);
        // Most of what fails here fails for the callers' impatience.
        config.upstream.breaker.failures = 0;
    });
    let mut callers = JoinSet::new();
    let began = Instant::now();
    for caller in 0_u64..40 {
        let egress = rig.egress.clone();
        callers.spawn(async move {
            let mut turn = caller;
            while began.elapsed() < Duration::from_millis(3200) {
                turn += 7;
                let patience = Duration::from_millis(50 + turn * 37 % 400);
                let one = match turn % 3 {
                    0 => read().operation,
                    1 => count().operation,
                    _ => message().operation,
                };
                let sent = egress.send(order(one, patience));
                // Every other caller leaves without waiting for its time-out.
                let leave = if turn % 2 == 0 { Duration::from_millis(turn * 13 % 90) } else { Duration::from_secs(9) };
                if let Ok(Err(failed)) = tokio::time::timeout(leave, sent).await
                    && let Failure::QuotaSpent { retry_after, .. } = failed.why
                {
                    pause(retry_after.min(Duration::from_millis(20))).await;
                }
            }
        });
    }
    while callers.join_next().await.is_some() {}
    let breaches: Vec<_> = sim.violations().into_iter().filter(|v| v.kind.is_over_limit()).collect();
    assert_eq!(breaches, []);
    let stats = sim.stats();
    let counted = [Endpoint::UserEvents, Endpoint::HistoryCount, Endpoint::PeerMessages].map(|e| stats.of(e).counted);
    assert!(counted.iter().all(|n| *n >= 25), "{counted:?}");
    assert_eq!(rig.tasks.finish(Duration::from_secs(5)).await, 0);
    sim.stop().await;
}
