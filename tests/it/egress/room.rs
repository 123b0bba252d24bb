//! Memory for answers: large ones of messages hold a lease until their last copy goes, others while they are read, and reads
//! of events none.

use std::future::Future;
use std::time::Duration;

use hyper::StatusCode;
use rtm_gateway::kernel::names::{ClientName, Stream};
use rtm_gateway::simulator::{Canned, Endpoint, Fault, Sim};
use rtm_gateway::upstream::egress::{Failed, Failure, Reply};
use rtm_gateway::upstream::pool::Bounds;
use rtm_gateway::vendor::order::{Message, Operation, Order, Payer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::rig::{APP, Rig, count, message, quota, read, vendor_app};
use super::tls::{rig_with, vendor_of};
use crate::support::waiting::found_within;

const KIB: usize = 1 << 10;
const SMALL: Bounds = Bounds { all: 512 * KIB, answer: 64 * KIB, small: 4 * KIB, waiting: 256 };
const LONG: Duration = Duration::from_secs(120);

/// A rig with little room, in front of a vendor that pads what it says about messages.
async fn stage(pad: usize) -> (Sim, Rig) {
    let sim = Sim::start(vendor_app(1000)).await.unwrap();
    let rig = Rig::with(&sim.base_url(), |config| {
        config.apps[0].quota = quota(1000);
        config.upstream.request_timeout = LONG;
    });
    rig.egress.bound_answers(SMALL);
    sim.always(Endpoint::PeerMessages, Fault::Pad(pad));
    (sim, rig)
}

fn of(client: &str, order: Order) -> Order {
    let payer = Payer { client: ClientName::parse(client).unwrap(), weight: 1 };
    Order { payer, deadline: Instant::now() + LONG, ..order }
}

/// Another kind of message, whose answers are small.
fn to_a_channel() -> Order {
    let body = bytes::Bytes::from_static(br#"{"channel_name":"room","payload":"hi"}"#);
    let to_all = Message { user: "alice".into(), query: Vec::new(), body };
    Order { operation: Operation::ChannelMessage(to_all), ..message() }
}

fn held(rig: &Rig) -> usize {
    usize::try_from(rig.metrics.response_body_bytes.get()).unwrap()
}

/// Sends so many messages of a client at a time.
fn send(rig: &Rig, client: &str, count: usize) -> JoinSet<Result<Reply, Failed>> {
    let mut sent = JoinSet::new();
    for _ in 0..count {
        let (egress, order) = (rig.egress.clone(), of(client, message()));
        sent.spawn(async move { egress.send(order).await });
    }
    sent
}

/// Waits for this, which is only watched for.
async fn until(mut is_so: impl FnMut() -> bool) {
    found_within(LONG, async || is_so().then_some(())).await.expect("it becomes so");
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, what).await.expect("nothing holds it up")
}

/// Fills the room by a client that takes all it can get and keeps it, and one more that takes the rest.
async fn fill(sim: &Sim, rig: &Rig) -> Vec<Reply> {
    let mut all = Vec::new();
    for client in ["hog", "hog", "hog", "hog", "hog", "hog", "hog", "other"] {
        sim.on(Endpoint::PeerMessages, Fault::Pad(60 * KIB));
        all.push(soon(rig.egress.send(of(client, message()))).await.unwrap());
    }
    assert!(held(rig) > SMALL.all - 32 * KIB, "{}", held(rig));
    all
}

#[tokio::test]
async fn two_hundred_large_answers_of_slow_callers_stay_within_the_room_and_all_come() {
    let (sim, rig) = stage(32 * KIB).await;
    let mut callers = send(&rig, "slow", 200);
    let mut taken = Vec::new();
    // Nobody lets go of anything: as many come as there is room for.
    until(|| sim.stats().of(Endpoint::PeerMessages).received >= 200).await;
    while held(&rig) < SMALL.all * 8 / 10 {
        taken.push(soon(callers.join_next()).await.unwrap().unwrap().unwrap());
    }
    // Another client's, large and small, and events go on.
    sim.clear_faults();
    let small = soon(rig.egress.send(of("other", message()))).await.unwrap();
    sim.on(Endpoint::PeerMessages, Fault::Pad(32 * KIB));
    let large = soon(rig.egress.send(of("other", message()))).await.unwrap();
    assert!(small.body.len() < SMALL.small && large.body.len() > 32 * KIB);
    assert!(soon(rig.egress.send(read())).await.unwrap().status.is_success());
    drop((small, large));
    // Each that is let go of makes room for another.
    let mut come = taken.len();
    while let Some(reply) = soon(callers.join_next()).await {
        assert!(held(&rig) <= SMALL.all);
        let reply = reply.unwrap().unwrap();
        assert!(reply.status.is_success() && reply.body.len() > 32 * KIB);
        taken.push(reply);
        taken.remove(0);
        come += 1;
        while held(&rig) >= SMALL.all * 8 / 10 && !taken.is_empty() {
            taken.remove(0);
        }
    }
    assert_eq!(come, 200);
    drop(taken);
    assert_eq!(held(&rig), 0);
}

#[tokio::test]
async fn reads_of_events_wait_for_no_room() {
    let (sim, rig) = stage(32 * KIB).await;
    let _kept = fill(&sim, &rig).await;
    let mut line = send(&rig, "hog", 8);
    until(|| sim.stats().of(Endpoint::PeerMessages).received >= 16).await;
    for round in 0..5 {
        sim.emit_raw(APP, Stream::UserEvents, &format!(r#"{{"ms":{round},"type":"Login","user_id":"u"}}"#));
        sim.on(Endpoint::UserEvents, Fault::Pad(60 * KIB));
        let reply = soon(rig.egress.send(read())).await.unwrap();
        assert!(reply.status.is_success() && reply.body.len() > 60 * KIB);
    }
    assert!(futures_util::FutureExt::now_or_never(line.join_next()).is_none());
}

#[tokio::test]
async fn whoever_leaves_gives_back_what_it_had_and_its_place_in_the_line() {
    let (sim, rig) = stage(60 * KIB).await;
    let mut kept = fill(&sim, &rig).await;
    let mut leaving = send(&rig, "third", 20);
    until(|| sim.stats().of(Endpoint::PeerMessages).received >= 28).await;
    leaving.abort_all();
    while soon(leaving.join_next()).await.is_some() {}
    // They are in nobody's way.
    kept.truncate(6);
    let reply = soon(rig.egress.send(of("fourth", message()))).await.unwrap();
    let copy = reply.body.slice(10..20);
    kept.clear();
    drop(reply);
    assert!(held(&rig) > 60 * KIB, "a copy is left");
    drop(copy);
    assert_eq!(held(&rig), 0);
}

#[tokio::test]
async fn an_answer_that_does_not_say_its_length_takes_the_most_it_may_have_until_it_is_there() {
    let (sim, rig) = stage(0).await;
    let chunked = |pad| Fault::all([Fault::Pad(pad), Fault::Chunked]);
    sim.on(Endpoint::PeerMessages, chunked(20 * KIB));
    let reply = soon(rig.egress.send(of("a", message()))).await.unwrap();
    assert!(reply.body.len() > 20 * KIB);
    assert!((reply.body.len()..=2 * reply.body.len()).contains(&held(&rig)), "{}", held(&rig));
    drop(reply);
    sim.on(Endpoint::PeerMessages, chunked(KIB));
    let reply = soon(rig.egress.send(of("a", message()))).await.unwrap();
    assert_eq!((reply.body.len() > KIB, held(&rig)), (true, 0), "a small one takes nothing");
    for too_large in [chunked(SMALL.answer), Fault::Pad(SMALL.answer)] {
        sim.on(Endpoint::PeerMessages, too_large);
        let failed = soon(rig.egress.send(of("a", message()))).await.unwrap_err();
        assert_eq!((failed.why, held(&rig)), (Failure::TooLarge, 0));
    }
    // While it comes it could become as large as any.
    let stalled = Fault::all([Fault::Pad(40 * KIB), Fault::Chunked, Fault::StallBody { keep: 20 * KIB }]);
    sim.on(Endpoint::PeerMessages, stalled);
    let mut callers = send(&rig, "a", 1);
    until(|| held(&rig) == SMALL.answer).await;
    callers.abort_all();
    while callers.join_next().await.is_some() {}
    until(|| held(&rig) == 0).await;
}

#[tokio::test]
async fn what_comes_beyond_the_announced_length_is_no_part_of_the_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let rig = Rig::new(&format!("http://{address}"));
    rig.egress.bound_answers(SMALL);
    let vendor = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut request = [0; 64 * KIB];
        let _ = tcp.read(&mut request).await.unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 16 * KIB);
        let _ = tcp.write_all(&[head.as_bytes(), &vec![b'x'; 16 * KIB], &vec![b'y'; 300 * KIB]].concat()).await;
        let _ = tcp.read(&mut request).await;
    };
    let caller = async {
        let reply = soon(rig.egress.send(of("a", message()))).await.unwrap();
        assert_eq!((reply.body.len(), held(&rig)), (16 * KIB, 16 * KIB));
        assert!(reply.body.iter().all(|byte| *byte == b'x'));
    };
    tokio::join!(vendor, caller);
    assert_eq!(held(&rig), 0);
}

#[tokio::test]
async fn an_order_that_gets_no_room_in_time_says_that_it_may_have_been_acted_on() {
    let (sim, rig) = stage(32 * KIB).await;
    let _kept = fill(&sim, &rig).await;
    for order in [message(), count()] {
        sim.always(Endpoint::HistoryCount, Fault::Pad(32 * KIB));
        let deadline = Instant::now() + Duration::from_secs(3);
        let failed = soon(rig.egress.send(Order { deadline, ..of("hog", order) })).await.unwrap_err();
        assert_eq!((&failed.why, failed.why.in_doubt(), failed.costs.exchanges), (&Failure::NoRoom, true, 1));
    }
    // With nobody let into the line it is said at once.
    rig.egress.bound_answers(Bounds { waiting: 0, ..SMALL });
    let failed = soon(rig.egress.send(of("hog", message()))).await.unwrap_err();
    assert_eq!((failed.why, failed.costs.exchanges), (Failure::NoRoom, 1));
}

#[tokio::test]
async fn what_is_only_looked_at_needs_no_room_and_what_is_made_into_something_else_only_while_it_is_read() {
    let (sim, rig) = stage(32 * KIB).await;
    sim.on(Endpoint::HistoryCount, Fault::Pad(40 * KIB));
    let counted = soon(rig.egress.send(of("a", count()))).await.unwrap();
    assert_eq!((counted.body.len() > 40 * KIB, held(&rig)), (true, 0));
    let kept = fill(&sim, &rig).await;
    let body = format!(r#"{{"request_id":"1","why":"{}"}}"#, "z".repeat(300 * KIB));
    let answer = |status: u16| {
        let (retry_after, content_type) = (Some("0".to_owned()), "application/json".to_owned());
        Fault::Answer(Canned { status, content_type, retry_after, body: body.clone(), acted: false })
    };
    sim.clear_faults();
    for status in [429, 401] {
        sim.on(Endpoint::PeerMessages, answer(status));
        let reply = soon(rig.egress.send(of("hog", message()))).await.unwrap();
        assert_eq!((reply.status, reply.costs.exchanges), (StatusCode::OK, 2));
    }
    // A job keeps why it failed: the status, and a body of a sensible size.
    for (text, length) in [(body.clone(), 0), ("why".to_owned(), 3)] {
        let refused =
            Canned { status: 400, content_type: "text/plain".to_owned(), retry_after: None, body: text, acted: false };
        sim.on(Endpoint::HistoryCount, Fault::Answer(refused));
        let reply = soon(rig.egress.send(of("hog", count()))).await.unwrap();
        assert_eq!((reply.status, reply.body.len()), (StatusCode::BAD_REQUEST, length));
    }
    drop(kept);
}

#[tokio::test]
async fn answers_that_wait_unread_on_http_2_hold_up_no_other_on_their_connection() {
    let (sim, ca) = vendor_of(vendor_app(1000), &["h2"]).await;
    let rig = rig_with(&sim.base_url(), Some(&ca), |config| {
        config.apps[0].quota = quota(1000);
        config.upstream.request_timeout = LONG;
    });
    // No room at all for what is large; 200 of them leave 50 MiB unread, if they may.
    rig.egress.bound_answers(Bounds { all: 512 * KIB, answer: 512 * KIB, small: 4 * KIB, waiting: 256 });
    sim.on(Endpoint::PeerMessages, Fault::Pad(480 * KIB));
    let kept = soon(rig.egress.send(of("first", message()))).await.unwrap();
    sim.always(Endpoint::PeerMessages, Fault::Pad(480 * KIB));
    let mut line = send(&rig, "slow", 200);
    until(|| sim.stats().of(Endpoint::PeerMessages).received >= 201).await;
    for round in 0..8 {
        sim.emit_raw(APP, Stream::UserEvents, &format!(r#"{{"ms":{round},"type":"Login","user_id":"u"}}"#));
        sim.on(Endpoint::UserEvents, Fault::Pad(300 * KIB));
        let reply = soon(rig.egress.send(of("reader", read()))).await.unwrap();
        assert!(reply.status.is_success());
        let reply = soon(rig.egress.send(of("brief", to_a_channel()))).await.unwrap();
        assert!(reply.status.is_success());
    }
    assert_eq!(sim.stats().connections, 2, "all messages on one connection, reads of events on their own");
    line.abort_all();
    drop(kept);
    while line.join_next().await.is_some() {}
    until(|| held(&rig) == 0).await;
}
