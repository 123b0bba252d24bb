//! [`Lane`]: threads that do blocking work of one kind, and that nothing else can take.
//!
//! Invariants: no more threads than places, and no more work begun or waiting for a thread than that. The first thread
//! stays for as long as the lane does, so that a lane that has worked once has a thread whatever the system has left;
//! the others go when there is nothing to do for a while.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{BoxedWork, Panicked, detached, thread};
use crate::kernel::sync::lock;

/// How long a thread stays that has nothing to do.
const IDLE: Duration = Duration::from_secs(10);

/// Blocking work of one kind: so much at a time, on threads of its own. What hangs there holds up nothing else, and
/// nothing that hangs elsewhere holds it up. Cheap to clone; the threads end when the last clone is gone.
#[derive(Clone, Debug)]
pub struct Lane {
    room: Arc<Semaphore>,
    owner: Arc<Owner>,
}

#[derive(Debug)]
struct Owner(Arc<Workers>);

#[derive(Debug)]
struct Workers {
    name: &'static str,
    most: usize,
    state: Mutex<LaneState>,
    changed: Condvar,
}

#[derive(Default)]
struct LaneState {
    waiting: VecDeque<BoxedWork>,
    threads: usize,
    idle: usize,
    is_over: bool,
}

impl Lane {
    /// So much at a time, on threads of that name. They are started when there is work for them.
    #[must_use]
    pub fn new(name: &'static str, places: usize) -> Self {
        let threads = Workers { name, most: places, state: Mutex::default(), changed: Condvar::new() };
        Self { room: Arc::new(Semaphore::new(places)), owner: Arc::new(Owner(Arc::new(threads))) }
    }

    /// Has the work done when there is room, and waits for it. It cannot be cancelled once it has begun, and ends by
    /// itself; no stop waits for it ([`Tasks::blocking`](super::Tasks::blocking) is for what one must wait for).
    ///
    /// # Errors
    /// When the work panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Panicked> {
        self.counted(None, work).await
    }

    /// The same for a group, which counts it to its end.
    pub(super) async fn counted<T: Send + 'static>(
        &self,
        counted: Option<TaskTrackerToken>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        // Never closed.
        let place = self.room.clone().acquire_owned().await.ok();
        let (work, told) = super::told(counted, work);
        #[cfg(test)]
        let work = super::paused::standing_still(work);
        self.begin(Box::new(move || {
            work();
            // Only now: who waits for a place must find a thread that is free, or about to be.
            drop(place);
        }));
        match told.await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) | Err(_) => Err(Panicked),
        }
    }

    /// Has work done that has a place and does not panic.
    fn begin(&self, work: BoxedWork) {
        let threads = &self.owner.0;
        let mut state = threads.state();
        state.waiting.push_back(work);
        // As many idle threads as there is work: one of them is waiting or will look before it waits again.
        if state.idle >= state.waiting.len() || state.threads >= threads.most {
            drop(state);
            threads.changed.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let of_thread = threads.clone();
        if thread(threads.name, move || of_thread.run()).is_ok() {
            return;
        }
        let mut state = threads.state();
        state.threads -= 1;
        if state.threads > 0 {
            // Another thread does it when it is done with its own.
            return;
        }
        // Before the first of its own there is none to be had: rather one of the runtime's than nobody.
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(detached);
    }
}

impl Workers {
    fn run(&self) {
        let mut state = self.state();
        loop {
            if let Some(work) = state.waiting.pop_front() {
                drop(state);
                work();
                state = self.state();
                continue;
            }
            if state.is_over {
                break;
            }
            state.idle += 1;
            let is_last = state.threads == 1;
            let woken = if is_last {
                (self.changed.wait(state).unwrap_or_else(PoisonError::into_inner), false)
            } else {
                let (state, end) = self.changed.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
                (state, end.timed_out())
            };
            state = woken.0;
            state.idle -= 1;
            // Time may be over at the moment in which work is put in: what is waiting counts, not how the wait ended.
            if woken.1 && state.waiting.is_empty() && state.threads > 1 {
                break;
            }
        }
        state.threads -= 1;
    }

    /// No section panics.
    fn state(&self) -> MutexGuard<'_, LaneState> {
        lock(&self.state)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.state().is_over = true;
        self.0.changed.notify_all();
    }
}

impl std::fmt::Debug for LaneState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { waiting, threads, idle, is_over } = self;
        write!(f, "{threads} threads, {idle} idle, {} waiting, over: {is_over}", waiting.len())
    }
}
