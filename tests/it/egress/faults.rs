//! Vendors and networks that misbehave.

use std::time::Duration;

use rtm_gateway::config::Config;
use rtm_gateway::kernel::names::BucketName;
use rtm_gateway::kernel::names::Stream;
use rtm_gateway::simulator::{AcceptFault, Canned, Endpoint, Fault};
use rtm_gateway::upstream::egress::Failure;
use rtm_gateway::vendor::order::{Operation, Order};
use tokio::time::Instant;

use super::rig::{APP, Rig, count, message, order, read, vendor};

fn impatient(config: &mut Config) {
    config.upstream.connect_timeout = Duration::from_millis(150);
    config.upstream.request_timeout = Duration::from_millis(150);
}

#[tokio::test]
async fn a_vendor_that_is_down_costs_no_seat_and_is_asked_again_for_every_kind_of_order() {
    let sim = vendor().await;
    let rig = Rig::with(&sim.base_url(), |config| config.upstream.breaker.failures = 0);
    sim.down().await;
    for order in [read(), count(), message()] {
        let failed = rig.egress.send(order).await.unwrap_err();
        assert!(matches!(&failed.why, Failure::Unreachable(why) if why.to_string().contains("refused")), "{failed:?}");
        assert_eq!(failed.costs.exchanges, 0);
    }
    for (_, name, bucket) in rig.egress.buckets() {
        assert_eq!((bucket.free, bucket.in_flight), (20, 0), "{name}");
    }
    sim.up().await.unwrap();
    rig.egress.send(read()).await.unwrap();
    assert_eq!(rig.free(), 19);
    sim.stop().await;
}

#[tokio::test]
async fn a_vendor_that_comes_back_meanwhile_is_reached_by_the_same_order() {
    let sim = vendor().await;
    let rig = Rig::new(&sim.base_url());
    sim.down().await;
    let sent = rig.egress.send(read());
    tokio::pin!(sent);
    // Polled until the first attempt has failed: then it pauses before the next, and no socket is at work.
    while rig.metrics.text().matches(r#"status="error"} 1"#).count() == 0 {
        tokio::select! {
            biased;
            early = &mut sent => panic!("{early:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    sim.up().await.unwrap();
    sent.await.unwrap();
    sim.stop().await;
}

#[tokio::test]
async fn a_peer_that_accepts_and_says_nothing_is_given_up_in_time() {
    let sim = vendor().await;
    let rig = Rig::with(&sim.base_url().replace("http://", "https://"), impatient);
    // A TLS handshake that never ends. Nothing of the request has left.
    for _ in 0..3 {
        sim.on_accept(AcceptFault::Stall);
    }
    let began = Instant::now();
    let failed = rig.egress.send(read()).await.unwrap_err();
    assert_eq!(failed.why, Failure::TimedOut { sent: false });
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(rig.free(), 20);
    sim.stop().await;
}

#[tokio::test]
async fn a_read_of_events_in_doubt_is_not_sent_again_and_what_came_of_it_is_kept() {
    let sim = vendor().await;
    let rig = Rig::new(&sim.base_url());
    sim.emit_user_event(APP, "Login", "alice");
    sim.on(Endpoint::UserEvents, Fault::CutBody { keep: 60 });
    let failed = rig.egress.send(read()).await.unwrap_err();
    assert!(matches!(&failed.why, Failure::Lost { partial: Some(p), .. } if p.len() == 60), "{failed:?}");
    for fault in [Fault::DropAfter, Fault::ResetAfter, Fault::ResetBefore] {
        sim.on(Endpoint::UserEvents, fault);
        let failed = rig.egress.send(read()).await.unwrap_err();
        assert!(matches!(failed.why, Failure::Lost { partial: None, .. }), "{failed:?}");
        assert!(failed.why.in_doubt());
    }
    for status in [408, 500, 503] {
        sim.on(Endpoint::UserEvents, Fault::status(status));
        assert_eq!(rig.egress.send(read()).await.unwrap().status.as_u16(), status);
    }
    assert_eq!(sim.stats().of(Endpoint::UserEvents).received, 7);
    assert_eq!(sim.violations(), []);
    sim.stop().await;
}

#[tokio::test]
async fn what_is_idempotent_is_asked_again_and_a_message_is_not() {
    let sim = vendor().await;
    let rig = Rig::new(&sim.base_url());
    for fault in [Fault::DropAfter, Fault::status(503)] {
        sim.on(Endpoint::HistoryCount, fault);
    }
    let reply = rig.egress.send(count()).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.costs.exchanges), (200, 3));

    sim.on(Endpoint::PeerMessages, Fault::DropAfter);
    assert!(matches!(rig.egress.send(message()).await.unwrap_err().why, Failure::Lost { .. }));
    sim.on(Endpoint::PeerMessages, Fault::status(503));
    assert_eq!(rig.egress.send(message()).await.unwrap().status.as_u16(), 503);
    assert_eq!(sim.stats().of(Endpoint::PeerMessages).received, 2);
    assert_eq!(sim.violations(), []);
    sim.stop().await;
}

#[tokio::test]
async fn an_answer_larger_than_any_may_be_is_refused() {
    let sim = vendor().await;
    let rig = Rig::new(&sim.base_url());
    for fault in [Fault::Pad(17 << 20), Fault::all([Fault::Pad(17 << 20), Fault::Chunked])] {
        sim.on(Endpoint::PeerMessages, fault);
        assert_eq!(rig.egress.send(message()).await.unwrap_err().why, Failure::TooLarge);
    }
    sim.stop().await;
}

#[tokio::test]
async fn a_slow_vendor_is_waited_for_by_reads_of_events_but_not_by_others() {
    let sim = vendor().await;
    let rig = Rig::with(&sim.base_url(), impatient);
    sim.emit_user_event(APP, "Login", "alice");
    let slow = Fault::DelayAfter(Duration::from_millis(600));
    sim.on(Endpoint::UserEvents, slow.clone());
    let hasty = order(Operation::ReadEvents(Stream::UserEvents), Duration::from_millis(100));
    let reply = rig.egress.send(hasty).await.unwrap();
    assert!(String::from_utf8_lossy(&reply.body).contains("alice"));

    sim.on(Endpoint::PeerMessages, slow);
    assert_eq!(rig.egress.send(message()).await.unwrap_err().why, Failure::TimedOut { sent: true });
    // It lingers, in its seat, until the vendor answers.
    let bucket = rig.bucket(BucketName::Messages);
    assert_eq!((bucket.in_flight, bucket.cooling), (1, 0));
    sim.wait_until(|stats| stats.of(Endpoint::PeerMessages).ok == 1).await.unwrap();
    until(|| rig.bucket(BucketName::Messages).cooling == 1).await;

    // One that is never answered ends at six times the time-out.
    sim.on(Endpoint::UserEvents, Fault::Hang);
    let began = Instant::now();
    assert_eq!(rig.egress.send(read()).await.unwrap_err().why, Failure::TimedOut { sent: true });
    assert!(began.elapsed() >= Duration::from_millis(900));
    until(|| rig.bucket(BucketName::UserEvents).in_flight == 0).await;
    sim.stop().await;
}

#[tokio::test]
async fn a_body_that_stalls_ends_in_time_and_keeps_what_came() {
    let sim = vendor().await;
    let rig = Rig::with(&sim.base_url(), impatient);
    sim.emit_user_event(APP, "Login", "alice");
    sim.on(Endpoint::UserEvents, Fault::StallBody { keep: 30 });
    sim.on(Endpoint::PeerMessages, Fault::StallBody { keep: 3 });
    let (read, message) = tokio::join!(rig.egress.send(read()), rig.egress.send(message()));
    assert!(matches!(read.unwrap_err().why, Failure::Lost { partial: Some(p), .. } if p.len() == 30));
    assert_eq!(message.unwrap_err().why, Failure::TimedOut { sent: true });
    sim.stop().await;
}

#[tokio::test]
async fn other_answers_pass_as_they_are() {
    let sim = vendor().await;
    let rig = Rig::new(&sim.base_url());
    let body = "<html>gone</html>".to_owned();
    let canned = Canned { status: 410, content_type: "text/html".into(), retry_after: None, body, acted: false };
    sim.on(Endpoint::HistoryGet, Fault::Answer(canned));
    let fetch: Order = order(Operation::FetchHistory("abc".into()), Duration::from_secs(1));
    let reply = rig.egress.send(fetch).await.unwrap();
    assert_eq!((reply.status.as_u16(), &reply.body[..]), (410, &b"<html>gone</html>"[..]));
    assert_eq!(reply.headers["content-type"], "text/html");
    sim.stop().await;
}

/// Waits for what another task is about to do.
async fn until(mut holds: impl FnMut() -> bool) {
    let within = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < within, "waited in vain");
        tokio::task::yield_now().await;
    }
}
