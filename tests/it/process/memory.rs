//! Memory goes back to the system after a peak.

use std::fs;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::gateway::{APP, Gateway, Home, vendor};
use crate::support::client::Client;

/// Streams of events at the peak.
const STREAMS: usize = 300;

fn resident_kib(gateway: &Gateway) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn live_kib(gateway: &Gateway) -> u64 {
    let reply = Client::http1(gateway.operators).await.get("/metrics").await.unwrap();
    let metrics = reply.text();
    let line = metrics.lines().find(|line| line.starts_with("rtm_gateway_heap_live_bytes ")).unwrap();
    line.split_once(' ').unwrap().1.parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn what_streams_took_goes_back_to_the_system_when_they_left() {
    let vendor = vendor().await;
    let gateway = Gateway::start(&Home::new(&vendor));
    let mut streams = Vec::new();
    for n in 0..STREAMS {
        let mut stream = TcpStream::connect(gateway.callers).await.unwrap();
        let request = format!(
            "GET /v1/apps/{APP}/events/all?subscription=s{} HTTP/1.1\r\nHost: a\r\nX-API-Key: one\r\n\
             Accept: text/event-stream\r\n\r\n",
            n % 20
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(first, *b"HTTP/1.1 200");
        streams.push(stream);
    }
    let live = live_kib(&gateway).await;
    assert!(live > 20 * STREAMS as u64, "each stream takes memory that is counted: {live} KiB");
    let mut peak = resident_kib(&gateway);
    drop(streams);
    let given_back = async {
        while resident_kib(&gateway) + live / 4 > peak {
            peak = peak.max(resident_kib(&gateway));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), given_back).await.expect("memory is given back");
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().await.code(), Some(0));
}
