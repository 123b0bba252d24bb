//! `kill -9` at any instant under one reader of a stream that comes again with `Last-Event-ID`: it gets each event once.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rtm_gateway::kernel::names::Stream;

use super::gateway::{APP, Gateway, Home, vendor};
use super::kill::whole_log;
use crate::support::waiting::{found, pause};

const KILLS: usize = 10;

/// An event's id and text.
type Event = (String, String);

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_reader_of_a_stream_gets_each_event_once_and_in_order_whenever_the_gateway_is_killed() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let mut random = StdRng::seed_from_u64(12);
    let (mut sent, mut got) = (Vec::new(), Vec::<Event>::new());
    for round in 0..=KILLS {
        let gateway = Gateway::start(&home);
        sent.extend(vendor.emit_many(APP, Stream::UserEvents, 100).iter().map(ToString::to_string));
        // What is on its way from the vendor is not to be lost.
        vendor.wait_until(|_| vendor.ledger(APP, Stream::UserEvents).waiting.is_empty()).await.unwrap();
        found(async || (whole_log(&gateway).await.len() >= sent.len()).then_some(())).await;
        let many = if round == KILLS { sent.len() - got.len() } else { random.random_range(1..150) };
        let many = many.min(sent.len() - got.len());
        let last = got.last().map(|(id, _)| id.clone());
        let address = gateway.callers;
        let listening = tokio::task::spawn_blocking(move || listen(address, last.as_deref(), many));
        got.extend(listening.await.unwrap());
        let mine: Vec<&str> = got.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(mine, sent[..got.len()], "round {round}");
        if random.random_bool(0.5) {
            pause(Duration::from_millis(random.random_range(0..400))).await;
        }
        gateway.kill();
    }
}

/// Reads so many events after the last, and leaves.
fn listen(address: std::net::SocketAddr, last: Option<&str>, many: usize) -> Vec<Event> {
    let mut tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
    let path = format!("/v1/apps/{APP}/events/user_events?subscription=lone&limit=20");
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: one\r\nAccept: text/event-stream\r\n{last}\r\n");
    tcp.write_all(head.as_bytes()).unwrap();
    let (mut events, mut id, mut is_marker) = (Vec::new(), String::new(), false);
    // A chunk ends with a block, so its size stands in a line of its own.
    let mut lines = BufReader::new(tcp).lines().map(Result::unwrap);
    while events.len() < many {
        let line = lines.next().expect("the stream goes on");
        if let Some(new) = line.strip_prefix("id: ") {
            new.trim_end().clone_into(&mut id);
        } else if let Some(kind) = line.strip_prefix("event: ") {
            is_marker = kind == "possible_loss";
        } else if let Some(text) = line.strip_prefix("data: ").filter(|_| !is_marker) {
            events.push((id.clone(), text.to_owned()));
        }
    }
    events
}
