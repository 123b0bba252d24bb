//! A leak that is planted from outside, to see that the soak finds it: connections that are kept, ever more of them.
//!
//! What a kept connection costs does not depend on what else happens, so the rate is known.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::caller::{Caller, Manner};
use super::vendor::LOGS;

/// What a debug build holds on its heap for a kept connection of HTTP/1.1 that has got an answer.
/// (`docs/performance.md` says how it was measured.)
const HELD: f64 = 30_800.0;

/// A connection that says nothing for longer is closed by the gateway (`server.idle_timeout`, 120 s).
const SAYS_SOMETHING: Duration = Duration::from_secs(45);

/// So many bytes a second.
#[derive(Clone, Copy, Debug)]
pub struct Rate(f64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_suffix("KB/s").ok_or("a rate is like 1KB/s")?;
        let kib: f64 = number.trim().parse().map_err(|why| format!("{number}: {why}"))?;
        if kib > 0.0 { Ok(Self(kib * 1024.0)) } else { Err("a leak is more than nothing".into()) }
    }
}

pub struct Leak {
    rate: Rate,
    began: Instant,
    held: AtomicUsize,
}

impl Leak {
    pub fn new(rate: Rate) -> Arc<Self> {
        Arc::new(Self { rate, began: Instant::now(), held: AtomicUsize::new(0) })
    }

    /// Keeps as many connections as the rate asks for, and each of them alive.
    pub async fn plant(self: Arc<Self>, to: SocketAddr) {
        let (app, stream) = LOGS[0];
        let path = format!("/v1/apps/{app}/events/{stream}?after=latest&limit=1");
        let mut kept: Vec<(Caller, Instant)> = Vec::new();
        let mut ticks = tokio::time::interval(Duration::from_millis(500));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let due = Instant::now();
            let wanted = (self.began.elapsed().as_secs_f64() * self.rate.0 / HELD) as usize;
            while kept.len() < wanted {
                kept.push((Caller::new(to, "reader"), due));
            }
            for (caller, speaks_at) in kept.iter_mut().filter(|(_, speaks_at)| *speaks_at <= due) {
                // One that was closed is opened again by this.
                caller.get(&path, Manner::Plain).await;
                *speaks_at = Instant::now() + SAYS_SOMETHING;
            }
            self.held.store(kept.len(), Ordering::Relaxed);
        }
    }

    /// What was planted, in words.
    pub fn planted(&self) -> String {
        let held = self.held.load(Ordering::Relaxed);
        format!("{:.0} bytes a second: {held} connections, {:.0} KiB at last", self.rate.0, held as f64 * HELD / 1024.0)
    }
}
