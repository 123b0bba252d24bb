//! The vendor's `Retry-After`: whom it binds, for how long, and who is told.

use std::time::Duration;

use rtm_gateway::kernel::names::BucketName;
use rtm_gateway::simulator::{Canned, Endpoint, Fault, Sim};
use rtm_gateway::upstream::egress::Failure;
use tokio::time::Instant;

use super::rig::{Rig, count, message, read, vendor};
use crate::support::waiting::found;

fn busy(retry_after: &str) -> Fault {
    match Fault::status(503) {
        Fault::Answer(canned) => Fault::Answer(Canned { retry_after: Some(retry_after.to_owned()), ..canned }),
        other => other,
    }
}

fn in_seconds(seconds: u64) -> String {
    httpdate::fmt_http_date(rtm_gateway::kernel::clock::Clock::system().wall() + Duration::from_secs(seconds))
}

fn asked(sim: &Sim) -> u64 {
    sim.stats().of(Endpoint::HistoryCount).received
}

#[tokio::test]
async fn a_503_that_asks_for_more_time_than_there_is_fails_at_once_and_spares_the_vendor() {
    for wish in ["120".to_owned(), in_seconds(120)] {
        let sim = vendor().await;
        let rig = Rig::new(&sim.base_url());
        sim.always(Endpoint::HistoryCount, busy(&wish));
        let reply = rig.egress.send(count()).await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.costs.exchanges), (503, 1), "an order that was asked to wait did not");
        let told: u64 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((115..=121).contains(&told), "{told}");
        // Nobody asks again, and all are told what is left.
        for _ in 0..20 {
            let failed = rig.egress.send(count()).await.unwrap_err();
            let Failure::AskedToWait { retry_after, .. } = failed.why else { panic!("{failed:?}") };
            assert!(retry_after > Duration::from_secs(100) && retry_after <= Duration::from_secs(121));
        }
        assert_eq!(asked(&sim), 1);
        assert_eq!(rig.bucket(BucketName::HistoryCount).free, 20 - 1);
        // Other endpoints are not meant.
        rig.egress.send(message()).await.unwrap();
        rig.egress.send(read()).await.unwrap();
        sim.stop().await;
    }
}

#[tokio::test]
async fn a_wish_that_cannot_be_read_or_is_over_is_none() {
    for odd in ["-5", "1.5", "soon", "0", "Sun, 06 Nov 1994 08:49:37 GMT"] {
        let sim = vendor().await;
        let rig = Rig::new(&sim.base_url());
        for _ in 0..3 {
            sim.on(Endpoint::HistoryCount, busy(odd));
        }
        let reply = rig.egress.send(count()).await.unwrap();
        assert_eq!(
            (reply.status.as_u16(), reply.costs.exchanges),
            (503, 3),
            "{odd:?}: sent again after the usual pauses"
        );
        let told = reply.headers.get("retry-after").map(|told| told.to_str().unwrap());
        assert!(matches!(told, None | Some("0")), "{odd:?}: {told:?}");
        assert_eq!(rig.egress.send(count()).await.unwrap().status.as_u16(), 200, "{odd:?}");
        sim.stop().await;
    }
    let sim = vendor().await;
    let rig = Rig::new(&sim.base_url());
    sim.on(Endpoint::HistoryCount, busy("99999999999999999999999"));
    let reply = rig.egress.send(count()).await.unwrap();
    assert_eq!((reply.costs.exchanges, &reply.headers["retry-after"]), (1, &"3600".parse().unwrap()));
    sim.stop().await;
}

#[tokio::test]
async fn a_wish_that_ends_in_time_is_waited_for() {
    let sim = vendor().await;
    let rig = Rig::new(&sim.base_url());
    sim.on(Endpoint::HistoryCount, busy("1"));
    let began = Instant::now();
    let reply = rig.egress.send(count()).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.costs.exchanges), (200, 2));
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    sim.stop().await;
}

#[tokio::test]
async fn a_wish_is_believed_for_as_long_as_is_configured() {
    let sim = vendor().await;
    let rig = Rig::with(&sim.base_url(), |config| config.upstream.max_retry_after = Duration::from_millis(300));
    sim.on(Endpoint::PeerMessages, busy("86400"));
    let reply = rig.egress.send(message()).await.unwrap();
    assert_eq!((reply.status.as_u16(), &reply.headers["retry-after"]), (503, &"1".parse().unwrap()));
    found(async || rig.egress.send(message()).await.ok()).await;
    sim.stop().await;
}

#[tokio::test]
async fn a_429_binds_its_bucket_for_an_hour_but_reads_of_events_for_a_minute() {
    let sim = vendor().await;
    let mut rig = Rig::new(&sim.base_url());
    sim.on(Endpoint::PeerMessages, Fault::too_many(Some("36000")));
    let failed = rig.egress.send(message()).await.unwrap_err();
    let Failure::QuotaSpent { retry_after, .. } = failed.why else { panic!("{failed:?}") };
    let hour = Duration::from_secs(3600);
    assert!(retry_after > hour - Duration::from_secs(30) && retry_after < hour + Duration::from_secs(30));
    for (limit, most) in [(Some(Duration::from_secs(7)), 10), (None, 70)] {
        sim.on(Endpoint::UserEvents, Fault::too_many(Some("36000")));
        let mut order = read();
        order.retry_after_limit = limit;
        let failed = rig.egress.send(order).await.unwrap_err();
        let Failure::QuotaSpent { retry_after, .. } = failed.why else { panic!("{failed:?}") };
        assert!(retry_after < Duration::from_secs(most), "{retry_after:?}");
        rig = Rig::new(&sim.base_url());
    }
    sim.stop().await;
}

/// Less is believed from the reload on that says so.
#[tokio::test]
async fn a_bound_that_is_lowered_opens_a_bucket_that_was_closed_before() {
    let sim = vendor().await;
    let mut rig = Rig::new(&sim.base_url());
    sim.on(Endpoint::PeerMessages, Fault::too_many(Some("3000")));
    rig.egress.send(message()).await.unwrap_err();
    rig.config.upstream.max_retry_after = Duration::from_millis(1);
    rig.egress.apply(&rig.config).unwrap();
    rig.egress.send(message()).await.unwrap();
    sim.stop().await;
}

#[tokio::test]
async fn a_status_that_refuses_stands_although_its_body_is_cut() {
    let sim = vendor().await;
    let rig = Rig::new(&sim.base_url());
    let cut = |fault| Fault::All(vec![fault, Fault::CutBody { keep: 5 }]);
    for status in [301, 400, 403, 404, 501] {
        for (endpoint, order) in
            [(Endpoint::HistoryCount, count()), (Endpoint::PeerMessages, message()), (Endpoint::UserEvents, read())]
        {
            for _ in 0..3 {
                sim.on(endpoint, cut(Fault::status(status)));
            }
            let is_asked_again = status == 501 && matches!(endpoint, Endpoint::HistoryCount);
            let reply = rig.egress.send(order).await.unwrap();
            assert_eq!((reply.status.as_u16(), reply.body.len()), (status, 0), "{endpoint:?}");
            assert_eq!(reply.costs.exchanges, if is_asked_again { 3 } else { 1 }, "{status} {endpoint:?}");
            sim.clear_faults();
        }
    }
    // What it wants stands, too.
    sim.on(Endpoint::PeerMessages, cut(busy("60")));
    assert_eq!(rig.egress.send(message()).await.unwrap().retry_after(), Some(Duration::from_secs(60)));
    assert!(matches!(rig.egress.send(message()).await.unwrap_err().why, Failure::AskedToWait { .. }));
    // A read that failed may have removed events: what came of them is kept, and so is what the vendor wants.
    for (fault, asked) in [(Fault::status(500), None), (busy("60"), Some(Duration::from_secs(60)))] {
        sim.on(Endpoint::UserEvents, cut(fault));
        let Failure::Lost { partial: Some(partial), retry_after, .. } = rig.egress.send(read()).await.unwrap_err().why
        else {
            panic!("it was not lost")
        };
        assert_eq!((partial.len(), retry_after), (5, asked));
    }
    sim.stop().await;
}
