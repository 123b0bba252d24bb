//! Events count as handed over when the system at the other end of the connection has acknowledged them: not when ours has
//! taken them.

use std::time::Duration;

use rtm_gateway::kernel::names::Stream;
use rtm_gateway::services::Parts;
use rtm_gateway::simulator::Sim;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::events::texts;
use super::handover::{large_events, read, small_caller};
use super::stage::{APP, DEADLINE, RTM, Stage, exchange, request};
use crate::support::waiting::{eventually, pause};

const SHORT: &str = "write_timeout = \"500ms\"";
const USERS: &str = "/v1/apps/demo-app/events/user_events";

/// Has the gateway read events of some 2 KB each.
pub(crate) async fn emit(sim: &Sim, app: &Parts, count: usize) -> Vec<String> {
    let payload = "x".repeat(2000);
    let event = |n| format!(r#"{{"ms":{n},"type":"Login","user_id":"{payload}"}}"#);
    let sent = (0..count).map(|n| sim.emit_raw(APP, Stream::UserEvents, &event(n)).to_string()).collect();
    let ingested = || {
        let text = app.metrics.text();
        let lines = text.lines().filter(|line| line.starts_with("rtm_gateway_events_ingested_total{"));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok()).sum::<usize>()
    };
    eventually(|| ingested() >= count).await;
    sent
}

/// Asks for a stream in which each event is a read of its own.
pub(crate) fn stream(client: &str) -> String {
    request("GET", &format!("{USERS}?limit=1"), client, "Accept: text/event-stream\r\n", "")
}

/// The events in what came of a stream, those that came whole.
pub(crate) fn whole_events(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
}

/// What a socket holds, until its connection ends.
pub(crate) async fn what_is_left(caller: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let (mut all, mut piece) = (Vec::new(), vec![0; 1 << 16]);
    while let Ok(Ok(some @ 1..)) = tokio::time::timeout(DEADLINE, caller.read(&mut piece)).await {
        all.extend_from_slice(&piece[..some]);
    }
    all
}

/// What reads without `Last-Event-ID` are given on this connection, to the end.
pub(crate) async fn given_again(caller: &mut (impl AsyncRead + AsyncWrite + Unpin), client: &str) -> Vec<String> {
    let ask = request("GET", &format!("{RTM}/vendor/user_events"), client, "", "");
    let mut again = Vec::new();
    loop {
        let some = texts(&exchange(caller, &ask).await);
        if some.is_empty() {
            return again;
        }
        again.extend(some);
    }
}

/// Nothing is missing: what the caller's system had goes up to what comes again, or beyond.
pub(crate) fn nothing_is_missing(sent: &[String], had: &[String], again: &[String]) {
    assert_eq!(had, &sent[..had.len()]);
    let skipped = sent.len() - again.len();
    assert_eq!(again, &sent[skipped..]);
    assert!(skipped <= had.len(), "{skipped} are not given again, and {} arrived", had.len());
}

/// Asks for something, and reads no more than that it begins to come.
pub(crate) async fn begin(caller: &mut (impl AsyncRead + AsyncWrite + Unpin), ask: &str) -> Vec<u8> {
    let mut first = vec![0; 64];
    caller.write_all(ask.as_bytes()).await.unwrap();
    caller.read_exact(&mut first).await.unwrap();
    first
}

/// Opens a stream, reads nothing of it until it is cut, and looks at what is given to the next.
async fn stall(stage: &Stage, sent: &[String]) {
    let mut caller = small_caller(stage).await;
    begin(&mut caller, &stream("all")).await;
    eventually(|| stage.parts.metrics.connections.get() == 0).await;
    let had = whole_events(&what_is_left(&mut caller).await);
    nothing_is_missing(sent, &had, &given_again(&mut stage.connect().await, "all").await);
}

#[tokio::test]
async fn a_stream_that_nobody_reads_is_cut_and_what_its_system_did_not_take_comes_again() {
    let stage = Stage::with(SHORT, "").await;
    let sent = emit(&stage.sim, &stage.parts, 500).await;
    stall(&stage, &sent).await;
    stage.stopped().await;
}

#[tokio::test]
async fn a_few_events_that_wait_in_our_own_system_alone_are_not_handed_over_either() {
    let stage = Stage::with(SHORT, "").await;
    // Less than our system takes: nothing ever waits to be written.
    let sent = emit(&stage.sim, &stage.parts, 30).await;
    let began = tokio::time::Instant::now();
    stall(&stage, &sent).await;
    assert!(began.elapsed() < DEADLINE);
    stage.stopped().await;
}

#[tokio::test]
async fn a_caller_that_is_reset_in_the_middle_is_given_all_that_did_not_arrive() {
    let stage = Stage::start().await;
    let sent = emit(&stage.sim, &stage.parts, 500).await;
    let mut caller = small_caller(&stage).await;
    caller.write_all(stream("all").as_bytes()).await.unwrap();
    let mut some = vec![0; 100_000];
    caller.read_exact(&mut some).await.unwrap();
    // What its system has beyond that goes with it.
    let mut held = vec![0; 1 << 16];
    let more = caller.peek(&mut held).await.unwrap_or(0);
    some.extend_from_slice(&held[..more]);
    drop(caller);
    eventually(|| stage.parts.metrics.connections.get() == 0).await;
    let again = given_again(&mut stage.connect().await, "all").await;
    let had = whole_events(&some);
    // A little may have come between the look and the end.
    let skipped = sent.len() - again.len();
    assert!(skipped <= had.len() + 8, "{skipped} are not given again, and {} arrived", had.len());
    assert_eq!(again, sent[skipped..]);
    stage.stopped().await;
}

#[tokio::test]
async fn a_slow_reader_is_not_cut_and_gets_all() {
    let stage = Stage::with("write_timeout = \"1s\"", "").await;
    let sent = emit(&stage.sim, &stage.parts, 200).await;
    let mut caller = small_caller(&stage).await;
    caller.write_all(stream("all").as_bytes()).await.unwrap();
    let mut got = Vec::new();
    // Ten KiB a second, for three times as long as one that reads nothing is waited for.
    for _ in 0..30 {
        let mut some = [0; 1024];
        caller.read_exact(&mut some).await.expect("it is not cut");
        got.extend_from_slice(&some);
        pause(Duration::from_millis(100)).await;
    }
    let mut piece = vec![0; 1 << 16];
    while whole_events(&got).len() < sent.len() {
        let some = tokio::time::timeout(DEADLINE, caller.read(&mut piece)).await.unwrap().unwrap();
        assert!(some > 0, "it is not cut");
        got.extend_from_slice(&piece[..some]);
    }
    assert_eq!(whole_events(&got), sent);
    drop(caller);
    eventually(|| stage.parts.metrics.connections.get() == 0).await;
    assert_eq!(given_again(&mut stage.connect().await, "all").await, [""; 0]);
    stage.stopped().await;
}

/// Bytes that our system holds for a caller.
#[cfg(target_os = "linux")]
fn held_for(caller: &TcpStream, stage: &Stage) -> usize {
    let (local, remote) = (stage.addr.port(), caller.local_addr().unwrap().port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let ports = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let port = |address: &str| u16::from_str_radix(address.split(':').nth(1)?, 16).ok();
        let queued = usize::from_str_radix(fields.get(4)?.split(':').next()?, 16).ok()?;
        (port(fields[1]) == Some(local) && port(fields[2]) == Some(remote)).then_some(queued)
    };
    table.lines().skip(1).find_map(ports).unwrap_or(0)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn our_system_holds_little_for_a_caller_that_does_not_read() {
    let stage = Stage::start().await;
    large_events(&stage).await;
    let streamed = request("GET", &format!("{USERS}?subscription=b"), "all", "Accept: text/event-stream\r\n", "");
    for ask in [read(), streamed] {
        // Its own system takes as much as it will.
        let mut caller = stage.connect().await;
        caller.write_all(ask.as_bytes()).await.unwrap();
        let mut held = (0, 1);
        while held.0 == 0 || held.0 != held.1 {
            pause(Duration::from_millis(300)).await;
            held = (held_for(&caller, &stage), held.0);
        }
        assert!(held.0 <= 256 << 10, "{} bytes", held.0);
    }
}

#[tokio::test]
async fn what_was_acknowledged_by_an_orderly_stop_does_not_come_again() {
    let mut stage = Stage::start().await;
    let sent = emit(&stage.sim, &stage.parts, 50).await;
    let mut caller = stage.connect().await;
    caller.write_all(stream("all").as_bytes()).await.unwrap();
    let (mut got, mut piece) = (Vec::new(), vec![0; 1 << 16]);
    while whole_events(&got).len() < 20 {
        let some = caller.read(&mut piece).await.unwrap();
        got.extend_from_slice(&piece[..some]);
    }
    stage.stop();
    got.extend(what_is_left(&mut caller).await);
    stage.end().await;
    let had = whole_events(&got).len();
    stage.run().await;
    assert_eq!(given_again(&mut stage.connect().await, "all").await, sent[had..]);
    stage.stopped().await;
}

#[tokio::test]
async fn polls_in_turn_on_connections_that_are_kept_or_closed_bring_each_event_once() {
    let stage = Stage::start().await;
    let sent = emit(&stage.sim, &stage.parts, 60).await;
    let (mut one, mut other) = (stage.connect().await, stage.connect().await);
    let ask = request("GET", &format!("{RTM}/vendor/user_events?limit=1"), "all", "", "");
    let last = request("GET", &format!("{RTM}/vendor/user_events?limit=1"), "all", "Connection: close\r\n", "");
    let mut got = Vec::new();
    for _ in 0..sent.len() / 3 {
        for answer in [exchange(&mut one, &ask).await, exchange(&mut other, &ask).await, stage.raw(&last).await] {
            got.extend(texts(&answer));
        }
    }
    assert_eq!(got, sent);
    // Soon after it is known that all arrived, though nobody asks any more.
    let of_all = || stage.parts.events.subscriptions().into_iter().find(|s| s.subscription == "$client.all");
    eventually(|| of_all().is_some_and(|s| s.lag == 0)).await;
    drop((one, other));
    stage.stopped().await;
}
