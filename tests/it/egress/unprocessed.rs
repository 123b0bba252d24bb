//! What the vendor turned away before it began to process it: HTTP/2's REFUSED_STREAM, and GOAWAY with a last stream below.

use std::time::Duration;

use rtm_gateway::kernel::names::BucketName;
use rtm_gateway::kernel::task::{Kind, Tasks};
use rtm_gateway::simulator::{Endpoint, Fault};
use rtm_gateway::upstream::egress::Failure;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::rig::{Rig, count, message, read};
use super::tls::{rig_with, vendor};
use crate::support::server_tls::certified;

async fn on_http_2() -> (rtm_gateway::simulator::Sim, Rig) {
    let (sim, ca) = vendor(&["h2"]).await;
    let rig = rig_with(&sim.base_url(), Some(&ca), |_| {});
    (sim, rig)
}

#[tokio::test]
async fn every_kind_of_order_is_sent_again_when_the_vendor_did_not_process_it() {
    for fault in [Fault::RefuseStream, Fault::GoAway] {
        let (sim, rig) = on_http_2().await;
        for (endpoint, order, bucket) in [
            (Endpoint::UserEvents, read(), BucketName::UserEvents),
            (Endpoint::HistoryCount, count(), BucketName::HistoryCount),
            (Endpoint::PeerMessages, message(), BucketName::Messages),
        ] {
            sim.on(endpoint, fault.clone());
            let reply = rig.egress.send(order).await.unwrap();
            assert_eq!((reply.status.as_u16(), reply.costs.exchanges), (200, 2), "{fault:?}");
            let stats = sim.stats();
            assert_eq!((stats.of(endpoint).received, stats.of(endpoint).counted), (2, 1), "{fault:?}");
            // The vendor may have counted what it did not process.
            let seats = rig.bucket(bucket);
            assert_eq!((seats.free, seats.cooling, seats.in_flight), (18, 2, 0), "{fault:?}");
        }
        let text = rig.metrics.text();
        assert!(text.contains(r#"upstream_retries_total{app="demo-app",reason="unprocessed"} 3"#), "{text}");
        assert_eq!(rig.egress.regions()[0].breaker, "closed");
        sim.stop().await;
    }
}

#[tokio::test]
async fn what_is_turned_away_again_and_again_ends_as_unprocessed_and_not_in_doubt() {
    for fault in [Fault::RefuseStream, Fault::GoAway] {
        let (sim, rig) = on_http_2().await;
        for (endpoint, order) in [(Endpoint::UserEvents, read()), (Endpoint::PeerMessages, message())] {
            sim.always(endpoint, fault.clone());
            let failed = rig.egress.send(order).await.unwrap_err();
            assert!(matches!(failed.why, Failure::Unprocessed(_)), "{failed:?}");
            assert!(!failed.why.in_doubt());
            assert_eq!(failed.costs.exchanges, 3);
        }
        sim.stop().await;
    }
}

/// Of many on one connection some are told that they were not processed; the others are answered on it.
#[tokio::test]
async fn a_goaway_under_load_costs_no_message_and_doubles_none() {
    let (sim, rig) = on_http_2().await;
    rig.egress.send(message()).await.unwrap();
    for _ in 0..4 {
        sim.on(Endpoint::PeerMessages, Fault::DelayAfter(Duration::from_millis(100)));
    }
    sim.on(Endpoint::PeerMessages, Fault::GoAway);
    let mut sent = JoinSet::new();
    for _ in 0..12 {
        let egress = rig.egress.clone();
        sent.spawn(async move { egress.send(message()).await.map(|reply| reply.status.as_u16()) });
    }
    while let Some(reply) = sent.join_next().await {
        assert_eq!(reply.unwrap().unwrap(), 200);
    }
    let stats = sim.stats();
    assert_eq!(stats.of(Endpoint::PeerMessages).counted, 13, "each was processed once");
    assert!(stats.of(Endpoint::PeerMessages).received > 13);
    assert_eq!(sim.violations(), []);
    sim.stop().await;
}

/// A connection that ends without a word, or resets a stream with another reason, says nothing of the kind.
#[tokio::test]
async fn a_connection_that_just_ends_leaves_a_message_in_doubt() {
    for fault in [Fault::DropBefore, Fault::DropAfter, Fault::ResetBefore] {
        let (sim, rig) = on_http_2().await;
        sim.on(Endpoint::PeerMessages, fault.clone());
        let began = Instant::now();
        let failed = rig.egress.send(message()).await.unwrap_err();
        assert!(matches!(failed.why, Failure::Lost { .. }), "{fault:?}: {failed:?}");
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(failed.costs.exchanges, 1);
        sim.stop().await;
    }
}

/// How a server ends a request that has come to it.
#[derive(Clone, Copy, Debug)]
enum End {
    /// GOAWAY that names it as the last it may have processed, then the end of the connection.
    GoAway(h2::Reason),
    /// RST_STREAM.
    Reset(h2::Reason),
}

/// A server that ends every request so. Its address, and the PEM of the authority that vouches for it.
async fn ending(tasks: &Tasks, end: End) -> (String, String) {
    let (tls, ca) = certified(&["h2"]);
    let tls = TlsAcceptor::from(tls);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("https://{}", listener.local_addr().unwrap());
    let served = tasks.clone();
    tasks.spawn(Kind::Simulator, async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let tls = tls.clone();
            served.spawn(Kind::Simulator, async move {
                let Ok(stream) = tls.accept(tcp).await else { return };
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, mut answer))) = connection.accept().await {
                    match end {
                        End::GoAway(reason) => connection.abrupt_shutdown(reason),
                        End::Reset(reason) => answer.send_reset(reason),
                    }
                    drop(request);
                }
            });
        }
    });
    (base_url, ca)
}

#[tokio::test]
async fn only_the_vendors_exact_word_says_that_a_request_was_not_processed() {
    use h2::Reason;
    for (end, is_unprocessed) in [
        (End::GoAway(Reason::NO_ERROR), false),
        (End::GoAway(Reason::ENHANCE_YOUR_CALM), false),
        (End::GoAway(Reason::INTERNAL_ERROR), false),
        (End::Reset(Reason::CANCEL), false),
        (End::Reset(Reason::INTERNAL_ERROR), false),
        (End::Reset(Reason::NO_ERROR), false),
        (End::Reset(Reason::REFUSED_STREAM), true),
    ] {
        let tasks = Tasks::new();
        let (base_url, ca) = ending(&tasks, end).await;
        let rig = rig_with(&base_url, Some(&ca), |_| {});
        let failed = rig.egress.send(message()).await.unwrap_err();
        assert_eq!(matches!(failed.why, Failure::Unprocessed(_)), is_unprocessed, "{end:?}: {failed:?}");
        assert_eq!(matches!(failed.why, Failure::Lost { .. }), !is_unprocessed, "{end:?}: {failed:?}");
        assert_eq!(failed.costs.exchanges, if is_unprocessed { 3 } else { 1 }, "{end:?}");
        tasks.finish(Duration::ZERO).await;
    }
}
