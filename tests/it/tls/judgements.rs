//! Certificates whose judgement takes long: whoever rests on one waits, and nobody else does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use rtm_gateway::config::Config;
use rtm_gateway::request::gateway::Live;
use rtm_gateway::tls::ClientTrust;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use sha2::{Digest as _, Sha256};

use super::stage::{CRM, EVENTS, Stage, VERSIONS};
use super::streams::Stream;
use crate::support::client::DEADLINE;
use test_support::certificates::{Made, Says};

/// Takes every certificate. What it says of one it says only when it is told to.
#[derive(Debug)]
struct Slow {
    of: CertificateDer<'static>,
    told: Mutex<Receiver<bool>>,
    asked: AtomicUsize,
    asked_others: AtomicUsize,
}

impl Slow {
    /// Puts authorities in force that are slow to judge this one.
    fn in_force(stage: &Stage, config: &Config, of: &Made, epoch: u64) -> (Arc<Self>, Sender<bool>) {
        let (tell, told) = channel();
        let of = of.chain[0].clone();
        let slow = Arc::new(Self {
            of,
            told: Mutex::new(told),
            asked: AtomicUsize::new(0),
            asked_others: AtomicUsize::new(0),
        });
        let trust = ClientTrust::by(epoch, slow.clone());
        stage.parts.gateway.apply(Live::new(config, trust, None, &stage.parts.metrics));
        (slow, tell)
    }

    /// Waits until it is asked of its one.
    async fn is_asked(&self) {
        let asked = async {
            while self.asked.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, asked).await.expect("to be asked");
    }
}

impl ClientCertVerifier for Slow {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if *end_entity != self.of {
            self.asked_others.fetch_add(1, Ordering::SeqCst);
            return Ok(ClientCertVerified::assertion());
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        // A test that fails ends all the same.
        match self.told.lock().unwrap().recv_timeout(DEADLINE) {
            Ok(true) => Ok(ClientCertVerified::assertion()),
            _ => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        unreachable!("no handshake asks it")
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        unreachable!("no handshake asks it")
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Vec::new()
    }
}

/// The stage's configuration, with more keys for the client `billing`.
fn with_keys(stage: &Stage, keys: &[&str]) -> Config {
    let mut config = Config::clone(&stage.parts.config.load());
    config.clients[0].api_key_sha256.extend(keys.iter().map(|key| <[u8; 32]>::from(Sha256::digest(key))));
    config
}

#[tokio::test]
async fn while_one_certificate_is_judged_its_streams_get_nothing_and_all_others_are_judged_and_get_theirs() {
    const KEYS: [&str; 6] = ["k0", "k1", "k2", "k3", "k4", "k5"];
    for is_good in [true, false] {
        let stage = Stage::start("optional").await;
        let config = with_keys(&stage, &KEYS);
        stage.parts.apply(&config).await.unwrap();
        let (made, now) = (stage.billing(), stage.now());
        let billing = stage.caller(Some(&made), VERSIONS[1]);
        let crm = stage.caller(Some(&stage.callers.issue(&Says { serial: 8, ..Says::dns(now, CRM) })), VERSIONS[1]);
        // More proofs rest on the slow one than are judged at a time.
        let mut slow = vec![Stream::open(stage.http1(&billing).await, "slow").await];
        for key in KEYS {
            slow.push(Stream::open(stage.http1(&billing).await.with("x-api-key", key), key).await);
        }
        let mut others = [
            Stream::open(stage.http1(&crm).await, "other").await,
            Stream::open(stage.http1(&stage.caller(None, VERSIONS[1])).await.with("x-api-key", "k0"), "key").await,
        ];
        let (judge, tell) = Slow::in_force(&stage, &config, &made, 1000);
        judge.is_asked().await;
        for words in ["one", "two", "three"] {
            stage.sim.emit_user_event("demo-app", "Login", words);
            for stream in &mut others {
                assert!(stream.until(words).await);
            }
            // What changes meanwhile is judged, too.
            stage.parts.gateway.proofs.changed();
        }
        for stream in &mut slow {
            assert_eq!(stream.until("one").now_or_never(), None, "nothing while it is not known");
        }
        assert_eq!(judge.asked.load(Ordering::SeqCst), 1);
        tell.send(is_good).unwrap();
        for stream in &mut slow {
            assert_eq!(stream.until("three").await, is_good);
        }
        assert_eq!(judge.asked.load(Ordering::SeqCst), 1, "once for all that rests on it");
        drop((slow, others));
        stage.stopped().await;
    }
}

#[tokio::test]
async fn a_request_on_an_open_connection_is_judged_off_its_worker_once_for_all_that_show_the_same_certificate() {
    // This test has one worker: were anything judged on it, nothing else would be answered meanwhile.
    for (is_good, status) in [(true, 200), (false, 401)] {
        let stage = Stage::start("optional").await;
        let config = with_keys(&stage, &[]);
        let (made, now) = (stage.billing(), stage.now());
        let billing = stage.caller(Some(&made), VERSIONS[1]);
        let crm = stage.caller(Some(&stage.callers.issue(&Says { serial: 8, ..Says::dns(now, CRM) })), VERSIONS[1]);
        let mut slow = Vec::new();
        for _ in 0..6 {
            slow.push(stage.http1(&billing).await);
            slow.push(stage.http2(&billing).await.with("x-api-key", "crm-key"));
        }
        let mut others = [
            stage.http1(&crm).await,
            stage.http2(&crm).await,
            stage.http1(&stage.caller(None, VERSIONS[1])).await.with("x-api-key", "crm-key"),
        ];
        for client in slow.iter_mut().chain(&mut others) {
            assert_eq!(client.get(EVENTS).await.unwrap().status, 200);
        }
        let (judge, tell) = Slow::in_force(&stage, &config, &made, 1000);
        let mut waiting = join_all(slow.iter_mut().map(|client| client.get(EVENTS)));
        let meanwhile = async {
            judge.is_asked().await;
            for _ in 0..3 {
                for client in &mut others {
                    assert_eq!(client.get(EVENTS).await.unwrap().status, 200);
                }
            }
        };
        tokio::select! {
            _ = &mut waiting => panic!("answered before it was known"),
            () = meanwhile => {}
        }
        tell.send(is_good).unwrap();
        let answers = tokio::time::timeout(DEADLINE, waiting).await.unwrap();
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap().status == status), "{answers:?}");
        assert_eq!(judge.asked.load(Ordering::SeqCst), 1);
        assert_eq!(judge.asked_others.load(Ordering::SeqCst), 1, "two connections, one certificate");
        drop((slow, others));
        stage.stopped().await;
    }
}
