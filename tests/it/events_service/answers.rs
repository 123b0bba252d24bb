//! Answers that came otherwise than they should: encoded, behind a byte order mark, cut, too large. What is whole of them is
//! delivered in order, a marker stands behind it, and the quarantine has all that came.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rtm_gateway::simulator::Coding;
use rtm_gateway::store::{Commit, LogKey, QuarantineRecord, UnreadableResponse};

use super::*;
use crate::support::waiting::found;

/// Events of which each begins with `{`, as they will be read.
fn emit(sim: &Sim, count: usize) -> Vec<String> {
    sim.emit_many(APP, STREAM, count).iter().map(ToString::to_string).collect()
}

fn emit_large(sim: &Sim, count: usize, bytes: usize) -> Vec<String> {
    let event = |n| sim.emit_user_event(APP, "Login", &format!("{n}{}", "x".repeat(bytes))).to_string();
    (0..count).map(event).collect()
}

#[tokio::test]
async fn encoded_answers_and_byte_order_marks_lose_no_event() {
    let codings = [Coding::Gzip, Coding::Deflate, Coding::RawDeflate, Coding::Brotli];
    let ways = codings.map(Fault::Encoded).into_iter().flat_map(|coded| {
        let marked = Fault::all([Fault::Marked, coded.clone(), Fault::Chunked]);
        [coded, marked]
    });
    for way in ways.chain([Fault::Marked]) {
        let (sim, folder) = (simulator().await, tempfile::tempdir().unwrap());
        sim.always(Endpoint::UserEvents, way.clone());
        let sent = emit(&sim, 1000);
        let rig = Rig::start(&sim, folder.path()).await;
        assert_eq!(rig.until("reader", 1000).await, sent, "{way:?}");
        assert_eq!(rig.quarantine().await, []);
        rig.stop().await;
        assert_eq!(sim.violations(), []);
        sim.stop().await;
    }
}

#[tokio::test]
async fn an_answer_in_a_coding_that_is_not_known_is_kept_as_it_came() {
    let (sim, folder) = (simulator().await, tempfile::tempdir().unwrap());
    emit(&sim, 3);
    sim.on(Endpoint::UserEvents, Fault::Encoded(Coding::Unknown));
    let rig = Rig::start(&sim, folder.path()).await;
    assert_eq!(rig.until("reader", 1).await, ["unparsable"]);
    let (why, body, delivered) = rig.quarantine().await.remove(0);
    assert!(why.contains("not known"), "{why}");
    let plain: Vec<u8> = body.iter().map(|byte| !byte).collect();
    assert!(plain.starts_with(br#"{"result":"success""#) && plain.ends_with(b"]}"));
    assert_eq!(delivered, 0);
    rig.stop().await;
    sim.stop().await;
}

#[tokio::test]
async fn of_answers_that_were_cut_anywhere_exactly_the_whole_events_are_delivered_and_then_a_marker() {
    let limited = app().rules(|rules| (rules.read_limit, rules.queue_capacity) = (40, 100_000));
    let (sim, folder) = (Sim::start(limited).await.unwrap(), tempfile::tempdir().unwrap());
    let mut random = StdRng::seed_from_u64(16);
    let (cuts, codings) = (24, [None, Some(Coding::Gzip), Some(Coding::Deflate), Some(Coding::Brotli)]);
    let sent = emit(&sim, 40 * 2 * cuts);
    let size = sent[..40].iter().map(|event| event.len() + 1).sum::<usize>() + 70;
    for n in 0..cuts {
        // The last byte alone is missing once, of each coding.
        let coding = codings[n % 4];
        let most = if coding.is_some_and(|coding| coding != Coding::Brotli) { size / 4 } else { size };
        let keep = if n < 4 { usize::MAX } else { random.random_range(0..most) };
        let faults = [Fault::CutBody { keep }].into_iter().chain(coding.map(Fault::Encoded));
        sim.on(Endpoint::UserEvents, Fault::all(faults));
        // A good one after each: the pause grows with failures in a row.
        sim.on(Endpoint::UserEvents, Fault::DelayBefore(Duration::ZERO));
    }
    let rig = Rig::start(&sim, folder.path()).await;
    let mut found = Vec::new();
    while found.last() != sent.last() {
        found.extend(rig.entries("reader").await);
    }
    let quarantine = rig.quarantine().await;
    assert_eq!(quarantine.len(), cuts);
    let (mut expected, mut delivered_at_all) = (Vec::new(), 0);
    for (read, events) in sent.chunks(40).enumerate() {
        if read % 2 == 1 {
            expected.extend(events.to_vec());
            continue;
        }
        let (_, body, delivered) = &quarantine[read / 2];
        let mut rest = &body[..];
        let whole = events.iter().take_while(|event| {
            let at = rest.windows(event.len()).position(|part| part == event.as_bytes());
            at.inspect(|at| rest = &rest[at + event.len()..]).is_some()
        });
        let whole: Vec<_> = whole.cloned().collect();
        assert_eq!(*delivered, whole.len() as u64);
        delivered_at_all += whole.len();
        expected.extend(whole);
        expected.push("cut_body".to_owned());
    }
    assert_eq!(found, expected);
    assert!(delivered_at_all > 200, "{delivered_at_all}");
    assert_eq!(quarantine[0].2, 40, "of an answer that lacks its last byte all events are whole");
    rig.stop().await;
    assert_eq!(sim.violations(), []);
    sim.stop().await;
}

#[tokio::test]
async fn large_answers_are_delivered_whole_and_those_beyond_the_limit_up_to_it() {
    let (sim, folder) = (simulator().await, tempfile::tempdir().unwrap());
    let sent = emit_large(&sim, 1000, 20_000);
    let rig = Rig::start(&sim, folder.path()).await;
    assert!(rig.until("reader", 1000).await == sent, "over 16 MiB");
    rig.stop().await;

    for (n, way) in
        [Fault::Chunked, Fault::Encoded(Coding::Gzip), Fault::DelayBefore(Duration::ZERO)].iter().enumerate()
    {
        let sent = emit_large(&sim, 500, 20_000);
        sim.on(Endpoint::UserEvents, way.clone());
        let mut config = config(&[&sim], folder.path());
        config.apps[0].events.max_read_bytes = 3_000_000;
        let rig = Rig::start_with(config, folder.path()).await;
        let (why, body, delivered) = found(async || {
            let mut quarantine = rig.quarantine().await;
            (quarantine.len() > n).then(|| quarantine.remove(n))
        })
        .await;
        let delivered = usize::try_from(delivered).unwrap();
        let read = rig.until("reader", delivered + 1).await;
        assert!(read[..delivered] == sent[..delivered], "{way:?}");
        assert_eq!(read[delivered..], ["too_large"], "{way:?}");
        assert!(why.contains("max_read_bytes"), "{why}");
        // One more would not have fitted.
        assert_eq!(body.len(), 3_000_000);
        let bytes: usize = sent[..delivered].iter().map(String::len).sum();
        assert!(delivered > 100 && bytes + sent[delivered].len() + delivered + 100 > body.len(), "{delivered}");
        rig.stop().await;
    }
    assert_eq!(sim.violations(), []);
    sim.stop().await;
}

#[tokio::test]
async fn what_was_not_delivered_of_a_quarantined_answer_is_when_it_is_read_again_and_once() {
    let (sim, folder) = (simulator().await, tempfile::tempdir().unwrap());
    let rig = Rig::start(&sim, folder.path()).await;
    let app = AppId::parse(APP).unwrap();
    let log = LogKey { app: app.clone(), stream: STREAM };
    // As a version kept it that delivered nothing of such answers.
    let body = "\u{feff}{\"events\":[{\"a\":1},{\"b\":2},{\"c\":3},{\"d";
    let region = RegionName::parse(sim.name()).unwrap();
    let response =
        UnreadableResponse { received_at: Clock::system().wall_ms(), region, why: "cut".into(), body: body.into() };
    let kept = QuarantineRecord { response, delivered: 0 };
    rig.store.commit(&log, Commit { quarantined: Some(kept), ..Commit::default() }).await.unwrap();
    let id = rig.events.quarantined(&app, STREAM, u64::MAX, 1).await.unwrap()[0].id;
    let again =
        async || rig.events.read_again(&app, STREAM, id).await.unwrap().map(|read| (read.redelivered, read.delivered));
    assert_eq!((again().await, again().await), (Some((3, 3)), Some((0, 3))));
    assert_eq!(rig.until("reader", 3).await, [r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#]);
    assert_eq!(rig.quarantine().await[0].2, 3);
    assert_eq!(rig.events.read_again(&app, STREAM, id + 1).await.unwrap(), None);
    rig.stop().await;
    sim.stop().await;
}
