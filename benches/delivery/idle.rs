//! What streams cost in which nothing comes, and subscriptions that nobody reads: resident memory, and CPU with the
//! heartbeats.

use std::time::Duration;

use futures_util::future::join_all;

use crate::gateway::{How, Server};

/// How many.
pub const STREAMS: usize = 10_000;
/// Opened at a time.
const AT_ONCE: usize = 100;
/// How long they are watched: two heartbeats of each.
const WATCHED: Duration = Duration::from_secs(30);

/// Opens so many streams by a place; then half as many by a subscription each, of which a log has at most 10,000 and no
/// client all; then makes as many subscriptions without a stream.
pub async fn measure(streams: usize) {
    println!("\nidle streams of events (SSE, HTTP/1.1)\n");
    println!("| | resident before | with them | each | CPU a second without | with them |\n|---|---|---|---|---|---|");
    for (name, kind, streams) in [
        ("read by a place (`after`)", Kind::Place, streams),
        ("a subscription each", Kind::Subscription, streams / 2),
        ("subscriptions that nobody reads", Kind::Unread, streams / 2),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path(), How::Stream, streams).await;
        let place = match kind {
            Kind::Place => format!("after={}", server.begin()),
            Kind::Subscription | Kind::Unread => "subscription=s{n}".to_owned(),
        };
        let (before, cpu_before) = (settled(&server).await, used_in(&server, WATCHED / 6).await);
        let mut held = Vec::with_capacity(streams);
        match kind {
            Kind::Unread => server.subscribe(streams).await,
            Kind::Place | Kind::Subscription => {
                while held.len() < streams {
                    let first = held.len();
                    held.extend(join_all((first..streams.min(first + AT_ONCE)).map(|n| server.idle(n, &place))).await);
                }
            }
        }
        let (after, cpu_after) = (settled(&server).await, used_in(&server, WATCHED).await);
        println!(
            "| {streams}, {name} | {:.1} MiB | {:.1} MiB | {:.1} KiB | {cpu_before:.1?} | {cpu_after:.1?} |",
            before as f64 / 1024.0,
            after as f64 / 1024.0,
            (after as f64 - before as f64) / streams as f64,
        );
        drop(held);
    }
}

#[derive(Clone, Copy)]
enum Kind {
    /// Streams that are read by a place.
    Place,
    /// Streams of a subscription each.
    Subscription,
    /// Subscriptions alone.
    Unread,
}

async fn used_in(server: &Server, time: Duration) -> Duration {
    let cpu = server.process().cpu();
    tokio::time::sleep(time).await;
    (server.process().cpu() - cpu).div_f64(time.as_secs_f64())
}

/// Resident memory once it stays the same.
async fn settled(server: &Server) -> u64 {
    let mut last = server.process().resident_kib();
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = server.process().resident_kib();
        if now.abs_diff(last) < 64 {
            return now;
        }
        last = now;
    }
}
