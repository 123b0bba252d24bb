//! How late this machine is: what the gateway promises in milliseconds it cannot keep where nobody gets a core or the disk
//! in time. So the driver measures that for itself, and allows as much more.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use delivery_model::Millis;

/// How often a task wants to wake.
const BEAT: Millis = 10;
/// How often something is written and synchronized.
const WRITE: Duration = Duration::from_millis(150);
/// Less is no stall.
const LEAST: Millis = 15;
/// What the gateway does passes through so many hands: its connection, its runtime, its thread for the disk.
const HOPS: Millis = 3;

/// What was measured.
pub struct Stalls {
    began: Instant,
    /// From when to when something was late, in order of the ends.
    seen: Mutex<Vec<(Millis, Millis)>>,
    last: Mutex<Millis>,
    is_over: AtomicBool,
}

impl Stalls {
    pub fn new(began: Instant) -> Self {
        Self { began, seen: Mutex::default(), last: Mutex::new(0), is_over: AtomicBool::new(false) }
    }

    fn now(&self) -> Millis {
        u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    /// Something that takes no time took this.
    fn note(&self, from: Millis, to: Millis) {
        if to > from + LEAST {
            self.seen.lock().unwrap().push((from, to));
        }
    }

    /// How much later than usual something may have been that happened between these times.
    pub fn worst(&self, from: Millis, to: Millis) -> Millis {
        let waits_since = *self.last.lock().unwrap() + BEAT;
        let now = self.now();
        let going_on = (waits_since < to.min(now)).then_some((waits_since, now));
        let seen = self.seen.lock().unwrap();
        let since = seen.iter().rev().take_while(|&&(_, end)| end >= from).copied();
        let all = since.chain(going_on).filter(|&(start, _)| start <= to);
        HOPS * all.map(|(start, end)| end.saturating_sub(start)).max().unwrap_or(0)
    }

    pub fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Measures: a task of this runtime, and a thread that writes to a file in this folder.
    pub fn measure(self: &Arc<Self>, folder: PathBuf) {
        let stalls = self.clone();
        tokio::spawn(async move {
            while !stalls.is_over.load(Ordering::SeqCst) {
                let due = stalls.now() + BEAT;
                tokio::time::sleep(Duration::from_millis(BEAT)).await;
                let now = stalls.now();
                *stalls.last.lock().unwrap() = now;
                stalls.note(due.min(now), now);
            }
        });
        let stalls = self.clone();
        std::thread::spawn(move || {
            let mut file = File::create(folder.join("stalls")).unwrap();
            while !stalls.is_over.load(Ordering::SeqCst) {
                let from = stalls.now();
                file.rewind().unwrap();
                file.write_all(b"now").unwrap();
                file.sync_data().unwrap();
                stalls.note(from, stalls.now());
                std::thread::sleep(WRITE);
            }
        });
    }
}
