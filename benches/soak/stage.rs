//! What all parts of the soak share.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::time::Instant;

use super::gateway::LogTally;
use super::ledger::{Book, Entry, Run, Use};
use super::vendor::{LOGS, Vendor};

/// A running gateway, as callers know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Which life of the gateway.
    pub run: usize,
    pub callers: SocketAddr,
}

/// How far the soak is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Running,
    /// No more events occur and all are stored: who has read all is done.
    Finishing,
}

pub struct Stage {
    pub vendor: Arc<Vendor>,
    pub dir: PathBuf,
    pub live: watch::Sender<Option<Live>>,
    pub phase: watch::Sender<Phase>,
    pub runs: Mutex<Vec<Run>>,
    pub books: Mutex<Vec<Arc<Mutex<Book>>>>,
    /// What the readers by cursor got, for each log.
    pub scans: [Mutex<Vec<Entry>>; LOGS.len()],
    pub log: LogTally,
    pub delivered: AtomicU64,
    /// The counts (by the end of their windows) that took so long that the gateway may have asked anew for one.
    pub slow_counts: Mutex<HashSet<u64>>,
    statuses: Mutex<BTreeMap<String, u64>>,
    acts: Mutex<BTreeMap<&'static str, u64>>,
    broken: Mutex<Vec<String>>,
    began: Instant,
}

impl Stage {
    pub fn new(vendor: Arc<Vendor>, dir: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            vendor,
            dir,
            live: watch::Sender::new(None),
            phase: watch::Sender::new(Phase::Running),
            runs: Mutex::default(),
            books: Mutex::default(),
            scans: Default::default(),
            log: LogTally::default(),
            delivered: AtomicU64::new(0),
            slow_counts: Mutex::default(),
            statuses: Mutex::default(),
            acts: Mutex::default(),
            broken: Mutex::default(),
            began: Instant::now(),
        })
    }

    /// Waits for a running gateway.
    pub async fn live(&self) -> Live {
        let mut live = self.live.subscribe();
        let found = *live.wait_for(Option::is_some).await.unwrap();
        found.unwrap()
    }

    pub fn is_finishing(&self) -> bool {
        *self.phase.borrow() == Phase::Finishing
    }

    /// The book of a new subscription.
    pub fn book(&self, log: usize, subscription: &str, how: Use) -> Arc<Mutex<Book>> {
        let book = Book { log, subscription: subscription.to_owned(), how, deliveries: Vec::new() };
        let book = Arc::new(Mutex::new(book));
        self.books.lock().unwrap().push(book.clone());
        book
    }

    /// A promise was broken.
    pub fn breach(&self, what: String) {
        println!("  BROKEN after {:.1} s: {what}", self.began.elapsed().as_secs_f64());
        self.broken.lock().unwrap().push(what);
    }

    pub fn broken(&self) -> Vec<String> {
        self.broken.lock().unwrap().clone()
    }

    /// Something was answered.
    pub fn status(&self, what: &str, status: impl std::fmt::Display) {
        *self.statuses.lock().unwrap().entry(format!("{what} {status}")).or_default() += 1;
    }

    pub fn statuses(&self) -> BTreeMap<String, u64> {
        self.statuses.lock().unwrap().clone()
    }

    /// Something was done to the gateway.
    pub fn act(&self, what: &'static str) {
        *self.acts.lock().unwrap().entry(what).or_default() += 1;
    }

    pub fn acts(&self) -> BTreeMap<&'static str, u64> {
        self.acts.lock().unwrap().clone()
    }

    pub fn note_delivered(&self, events: usize) {
        self.delivered.fetch_add(events as u64, Ordering::Relaxed);
    }
}
