//! One region of the vendor: its own event queues, script and connections, and the numbers of what it saw.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Notify;

use super::conn::Conn;
use super::lock;
use super::queue::{EventCounts, Queue};
use super::script::Script;
use super::seen::SeenRequest;
use super::stats::Stats;
use super::violation::{Violation, ViolationKind};
use super::world::World;
use crate::kernel::names::Stream;
use crate::kernel::task::Tasks;

/// What happens to connections between requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    #[default]
    Keep,
    /// They end after each answer, without a word about it in the answer.
    CloseAfterEach,
    /// They end when no request was under way for so long.
    CloseAfter(Duration),
}

/// What happens to the next connection instead of being served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptFault {
    Reset,
    /// It stays open, and nothing is read or written.
    Stall,
}

/// A region's state.
pub(super) struct Region {
    pub(super) name: String,
    pub(super) world: World,
    pub(super) tasks: Tasks,
    pub(super) script: Mutex<Script>,
    pub(super) accept_faults: Mutex<VecDeque<AcceptFault>>,
    pub(super) idle: Mutex<Idle>,
    /// Of an HTTP/2 connection, at a time.
    pub(super) max_streams: AtomicU32,
    pub(super) conns: Mutex<HashMap<u64, Arc<Conn>>>,
    queues: Mutex<HashMap<String, [Arc<Mutex<Queue>>; 2]>>,
    seen: Mutex<VecDeque<SeenRequest>>,
    stats: Mutex<Stats>,
    changed: Notify,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Region {
    pub(super) fn new(name: &str, world: &World) -> Arc<Self> {
        let region = Arc::new(Self {
            name: name.to_owned(),
            world: world.clone(),
            tasks: Tasks::new(),
            script: Mutex::default(),
            accept_faults: Mutex::default(),
            idle: Mutex::default(),
            max_streams: AtomicU32::new(1000),
            conns: Mutex::default(),
            queues: Mutex::default(),
            seen: Mutex::default(),
            stats: Mutex::default(),
            changed: Notify::new(),
            panic: Mutex::default(),
        });
        world.join_region(&region);
        region
    }

    /// The queue of an app and a stream; made if it is not there yet.
    pub(super) fn queue(&self, app: &str, stream: Stream) -> Arc<Mutex<Queue>> {
        let mut queues = lock(&self.queues);
        if let Some(pair) = queues.get(app) {
            return pair[stream as usize].clone();
        }
        let new = || Arc::new(Mutex::new(Queue::new(self.world.options().ledger)));
        let pair = queues.entry(app.to_owned()).or_insert([new(), new()]);
        pair[stream as usize].clone()
    }

    /// Changes the numbers and wakes who waits for them.
    pub(super) fn update(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut lock(&self.stats));
        self.changed.notify_waiters();
    }

    /// The numbers now.
    pub(super) fn stats(&self) -> Stats {
        let mut stats = lock(&self.stats).clone();
        stats.violations = self.world.violations_total();
        for queue in lock(&self.queues).values().flatten() {
            let EventCounts { emitted, handed, lost, overwritten } = lock(queue).counts();
            stats.events.emitted += emitted;
            stats.events.handed += handed;
            stats.events.lost += lost;
            stats.events.overwritten += overwritten;
        }
        stats
    }

    /// Waits until the numbers are as wanted.
    pub(super) async fn wait(&self, wanted: &mut (dyn FnMut(&Stats) -> bool + Send)) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Enrolled before the look, so that a change between the look and the wait is not missed.
            changed.as_mut().enable();
            if wanted(&self.stats()) {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn violate(&self, app: &str, kind: ViolationKind) {
        self.world.violate(Violation { region: self.name.clone(), app: app.to_owned(), kind });
    }

    pub(super) fn note(&self, seen: impl FnOnce() -> SeenRequest) {
        let keep = self.world.options().seen;
        if keep > 0 {
            let mut list = lock(&self.seen);
            if list.len() >= keep {
                list.pop_front();
            }
            list.push_back(seen());
        }
    }

    pub(super) fn seen(&self) -> Vec<SeenRequest> {
        lock(&self.seen).iter().cloned().collect()
    }

    /// Runs work; its panic is kept for whoever stops the simulator.
    pub(super) async fn guarded(&self, work: impl Future<Output = ()>) {
        if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
            lock(&self.panic).get_or_insert(panic);
        }
    }

    pub(super) fn take_panic(&self) -> Option<Box<dyn Any + Send>> {
        lock(&self.panic).take()
    }
}
