//! A configuration that changes under traffic.

use std::time::Duration;

use rtm_gateway::kernel::clock::Clock;
use rtm_gateway::kernel::metrics::Metrics;
use rtm_gateway::kernel::names::{AppId, BucketName};
use rtm_gateway::kernel::task::Tasks;
use rtm_gateway::upstream::egress::{BuildError, Egress, Failure, LastShutdown};
use tokio::time::Instant;

use super::rig::{Rig, count, quota, read, vendor};

#[tokio::test]
async fn a_reload_keeps_what_was_spent_and_its_connections() {
    let sim = vendor().await;
    let rig = Rig::new(&sim.base_url());
    rig.egress.send(read()).await.unwrap();
    rig.egress.send(read()).await.unwrap();
    let mut changed = rig.config.clone();
    changed.apps[0].quota = quota(10);
    rig.egress.apply(&changed).unwrap();
    let bucket = rig.bucket(BucketName::UserEvents);
    assert_eq!((bucket.limit.requests.get(), bucket.free, bucket.cooling), (10, 8, 2));
    rig.egress.send(read()).await.unwrap();
    assert_eq!(sim.stats().connections, 1);
    sim.stop().await;
}

#[tokio::test]
async fn a_removed_app_is_no_more_and_is_not_forgotten() {
    let sim = vendor().await;
    let rig = Rig::new(&sim.base_url());
    rig.egress.send(read()).await.unwrap();
    rig.egress.refresh_metrics();
    assert!(rig.metrics.text().contains(r#"quota_limit{app="demo-app",bucket="user_events"} 20"#));
    let mut without = rig.config.clone();
    without.apps.clear();
    rig.egress.apply(&without).unwrap();
    assert_eq!(rig.egress.send(read()).await.unwrap_err().why, Failure::NoSuchApp);
    assert!(rig.egress.buckets().is_empty());
    assert!(rig.metrics.text().contains(r#"quota_limit{app="demo-app",bucket="user_events"} 0"#));
    rig.egress.apply(&rig.config).unwrap();
    assert_eq!(rig.bucket(BucketName::UserEvents).cooling, 1);
    let mut elsewhere = read();
    elsewhere.region = Some(rtm_gateway::kernel::names::RegionName::parse("nowhere").unwrap());
    assert_eq!(rig.egress.send(elsewhere).await.unwrap_err().why, Failure::NoSuchApp);
    sim.stop().await;
}

#[tokio::test]
async fn a_reload_that_does_not_hold_changes_nothing() {
    let sim = vendor().await;
    let rig = Rig::new(&sim.base_url());
    let mut bad = rig.config.clone();
    bad.apps[0].quota = quota(1);
    bad.upstream.ca_file = Some(rig.folder.path().join("not-there.pem"));
    assert!(matches!(rig.egress.apply(&bad), Err(BuildError::Upstream(_))));
    assert_eq!(rig.free(), 20);
    rig.egress.send(read()).await.unwrap();
    sim.stop().await;
}

#[tokio::test]
async fn an_app_that_is_new_in_a_reload_begins_with_empty_buckets() {
    let sim = vendor().await;
    let rig = Rig::new(&sim.base_url());
    let mut more = rig.config.clone();
    let mut second = more.apps[0].clone();
    second.id = AppId::parse("second").unwrap();
    more.apps.push(second);
    rig.egress.apply(&more).unwrap();
    let free: Vec<_> =
        rig.egress.buckets().into_iter().map(|(app, _, bucket)| (app.to_string(), bucket.free)).collect();
    assert!(free.iter().all(|(app, free)| *free == if app == "second" { 0 } else { 20 }), "{free:?}");
    sim.stop().await;
}

#[tokio::test]
async fn after_an_unclean_stop_nothing_is_sent_for_a_window() {
    let sim = vendor().await;
    let rig = Rig::new(&sim.base_url());
    let tasks = Tasks::new();
    let egress = Egress::new(&rig.config, LastShutdown::Unknown, Clock::system(), Metrics::new(), &tasks).unwrap();
    let mut hasty = count();
    hasty.deadline = Instant::now() + Duration::from_millis(900);
    let began = Instant::now();
    assert!(matches!(egress.send(hasty).await.unwrap_err().why, Failure::QuotaSpent { .. }));
    assert!(began.elapsed() < Duration::from_millis(700), "refused at once, not at its deadline");
    egress.send(count()).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
    sim.stop().await;
}

#[tokio::test]
async fn nothing_leaves_after_a_stop() {
    let sim = vendor().await;
    let rig = Rig::new(&sim.base_url());
    rig.tasks.finish(Duration::from_secs(1)).await;
    assert_eq!(rig.egress.send(read()).await.unwrap_err().why, Failure::Stopping);
    assert_eq!(sim.stats().received(), 0);
    sim.stop().await;
}
