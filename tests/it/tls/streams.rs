//! Streams that certificates opened, and what ends them.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Method;
use hyper::body::Incoming;

use super::stage::{BILLING, CRM, Stage, VERSIONS};
use crate::support::client::{Client, DEADLINE};
use test_support::certificates::{Authority, DAY, Says};

/// An open stream, and its connection.
pub(super) struct Stream {
    body: Incoming,
    _client: Client,
}

impl Stream {
    pub(super) async fn open(mut client: Client, name: &str) -> Self {
        let target = format!("/v1/apps/demo-app/events/user_events?from=latest&subscription={name}");
        let answer = client.head(Method::GET, &target, &[("accept", "text/event-stream")], "").await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut stream = Self { body: answer.into_body(), _client: client };
        assert!(stream.until("retry").await);
        stream
    }

    /// Reads until this comes; `false`: the stream came to its end, in order.
    pub(super) async fn until(&mut self, words: &str) -> bool {
        let mut got = Vec::new();
        let reading = async {
            while let Some(frame) = self.body.frame().await {
                got.extend_from_slice(frame.expect("an end in order").data_ref().unwrap());
                if String::from_utf8_lossy(&got).contains(words) {
                    return true;
                }
            }
            false
        };
        tokio::time::timeout(DEADLINE, reading).await.expect("words or an end in time")
    }
}

#[tokio::test]
async fn a_revoked_certificate_ends_its_streams_those_by_a_key_on_its_connection_too_and_no_other() {
    for version in VERSIONS {
        let stage = Stage::start("optional").await;
        let now = stage.now();
        let billing = stage.caller(Some(&stage.billing()), version);
        let crm = stage.caller(Some(&stage.callers.issue(&Says { serial: 8, ..Says::dns(now, CRM) })), version);
        let mut revoked = Stream::open(stage.http1(&billing).await, "a").await;
        let mut beside = Stream::open(stage.http1(&billing).await.with("x-api-key", "crm-key"), "b").await;
        let mut other = Stream::open(stage.http1(&crm).await, "c").await;
        let mut by_key =
            Stream::open(stage.http1(&stage.caller(None, version)).await.with("x-api-key", "crm-key"), "d").await;
        // What changes nothing about them ends none: the same files, another list, another certificate of ours.
        assert_eq!(stage.reload().await.applied, 1);
        stage.write("crl.pem", stage.callers.revokes(&[9], now + DAY));
        assert_eq!(stage.reload().await.applied, 2);
        stage.sim.emit_user_event("demo-app", "Login", "one");
        for stream in [&mut revoked, &mut beside, &mut other, &mut by_key] {
            assert!(stream.until("one").await);
        }
        stage.write("crl.pem", stage.callers.revokes(&[7], now + DAY));
        assert_eq!(stage.reload().await.applied, 3);
        stage.sim.emit_user_event("demo-app", "Login", "two");
        assert!(!revoked.until("two").await);
        assert!(!beside.until("two").await);
        assert!(other.until("two").await);
        assert!(by_key.until("two").await);
        // The authority goes: with it all that it signed.
        let others = Authority::new("others");
        stage.write("ca.pem", others.pem());
        stage.write("crl.pem", others.revokes(&[], stage.now() + DAY));
        assert_eq!(stage.reload().await.applied, 4);
        stage.sim.emit_user_event("demo-app", "Login", "three");
        assert!(!other.until("three").await);
        assert!(by_key.until("three").await);
        drop((revoked, beside, other, by_key));
        stage.stopped().await;
    }
}

#[tokio::test]
async fn a_certificate_that_runs_out_ends_its_streams() {
    let stage = Stage::start("optional").await;
    let now = stage.now();
    let says = Says { until: now + Duration::from_secs(5), ..Says::uri(now, BILLING) };
    let billing = stage.caller(Some(&stage.callers.issue(&says)), VERSIONS[1]);
    let mut short = Stream::open(stage.http1(&billing).await, "a").await;
    let mut long = Stream::open(stage.http1(&stage.caller(Some(&stage.billing()), VERSIONS[1])).await, "b").await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(7)).await;
    tokio::time::resume();
    stage.sim.emit_user_event("demo-app", "Login", "late");
    assert!(!short.until("late").await);
    assert!(long.until("late").await);
    drop((short, long));
    stage.stopped().await;
}
