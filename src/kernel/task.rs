//! Tasks with an owner, a cancel rule and a place in shutdown.
//!
//! Invariants: this is the only file that calls `tokio::spawn` (a clippy rule keeps it so). A task that panics is
//! logged under its kind's name; if its kind is vital, the whole gateway is asked to stop, because going on without it
//! would break a promise. [`Tasks::finish`] returns only when every task is gone, and all blocking work that was begun
//! for the group, with what it made; work that hangs alone is left behind, a while after the grace. A group's tasks run
//! on the threads that it was made for, whoever starts them.
//!
//! Blocking work has three places: a [`Lane`] for disks and pipes, whose threads nothing else can take; the runtime's
//! blocking threads for what takes a processor for a while or waits for files within their patience
//! ([`off_the_workers`]); a [`thread`] for what may hang for good.

mod kind;
mod lane;
#[cfg(test)]
mod paused;
mod ticket;

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

pub use kind::Kind;
pub use lane::Lane;
use ticket::Ticket;

/// How long blocking work that was begun may go on after the grace of its group. What takes longer hangs.
const LEFT_BEHIND_AFTER: Duration = Duration::from_secs(3);

/// Blocking work that waits for a thread.
type BoxedWork = Box<dyn FnOnce() + Send>;

/// A group of tasks that stop together. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    /// Where they run. `None`: made outside of any runtime; where they are started.
    on: Option<Handle>,
    stop: CancellationToken,
    force: CancellationToken,
    failed: CancellationToken,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// A group of its own, on the threads of whoever makes it.
    #[must_use]
    pub fn new() -> Self {
        Self::on(Handle::try_current().ok())
    }

    fn on(on: Option<Handle>) -> Self {
        let (stop, force, failed) = Default::default();
        Self { tracker: TaskTracker::new(), on, stop, force, failed }
    }

    /// Starts a task. It should watch [`Tasks::stopping`], and end soon after; it is dropped when the group is forced.
    pub fn spawn(&self, kind: Kind, work: impl Future<Output = ()> + Send + 'static) {
        let failed = self.failed.clone();
        let force = self.force.clone();
        // In a box: each future around it would hold room for it twice, where it is kept and where it is awaited. With
        // the connections' it is most of what an idle one costs.
        let work = Box::pin(work);
        let task = async move {
            let ended = force.run_until_cancelled(AssertUnwindSafe(work).catch_unwind()).await;
            if let Some(Err(_)) = ended {
                tracing::error!(task = ?kind, "task panicked");
                if kind.is_vital() {
                    failed.cancel();
                }
            }
        };
        let task = self.tracker.track_future(task);
        #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
        match &self.on {
            Some(threads) => threads.spawn(task),
            None => tokio::spawn(task),
        };
    }

    /// Runs blocking work (disk) on the threads of its lane when it has room, and waits for it. It cannot be cancelled
    /// once it has begun: the group is not finished before it has ended.
    ///
    /// # Errors
    /// When the work panicked.
    pub async fn blocking<T: Send + 'static>(
        &self,
        lane: &Lane,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        lane.counted(Some(self.tracker.token()), work).await
    }

    /// [`off_the_workers`] for work that changes something of the group's: once it has begun the group is not finished
    /// before it has ended.
    pub async fn off_the_workers<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.caught_off_the_workers(work).await.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// [`Tasks::off_the_workers`] for work whose panic is its own.
    ///
    /// # Errors
    /// When the work panicked.
    pub async fn survived_off_the_workers<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        self.caught_off_the_workers(work).await.map_err(|_| Panicked)
    }

    async fn caught_off_the_workers<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::Result<T> {
        on_the_blocking_threads(told(Some(self.tracker.token()), work)).await
    }

    /// Resolves when the group was asked to stop.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Cancelled when a vital task has panicked.
    #[must_use]
    pub fn failed(&self) -> CancellationToken {
        self.failed.clone()
    }

    /// Asks all tasks to end, waits `grace` for them, then drops those that are left, and waits until they are gone.
    /// Says how many had to be dropped.
    pub async fn finish(&self, grace: Duration) -> usize {
        self.finish_until(tokio::time::sleep(grace)).await
    }

    /// [`Tasks::finish`], with a grace that is over when `over` is.
    pub async fn finish_until(&self, over: impl Future<Output = ()>) -> usize {
        self.finish_or_leave_behind(over, LEFT_BEHIND_AFTER).await
    }

    async fn finish_or_leave_behind(&self, over: impl Future<Output = ()>, patience: Duration) -> usize {
        self.stop.cancel();
        // `wait` ends for a closed tracker alone. Closed, it still counts what its tasks start on their way out.
        self.tracker.close();
        tokio::select! {
            biased;
            () = self.tracker.wait() => return 0,
            () = over => {}
        }
        let left = self.tracker.len();
        self.force.cancel();
        // Tasks go at once; blocking work that was begun goes on to its end.
        if tokio::time::timeout(patience, self.tracker.wait()).await.is_err() {
            tracing::error!(left = self.tracker.len(), "blocking work hangs; it is left behind");
        }
        left
    }
}

/// Blocking work that tells how it ended, and does not panic. Its group counts it until what it made is with who waits
/// for it, or dropped: a lock or a file in it is held by nobody whom the group's owner does not know of.
fn told<T: Send + 'static>(
    counted: Option<TaskTrackerToken>,
    work: impl FnOnce() -> T + Send + 'static,
) -> (impl FnOnce() + Send + 'static, oneshot::Receiver<std::thread::Result<T>>) {
    let (tell, told) = oneshot::channel();
    let work = move || {
        let unheard = tell.send(catch_unwind(AssertUnwindSafe(work)));
        drop(unheard);
        drop(counted);
    };
    (work, told)
}

/// Runs work that takes a processor for a while, or reads files within their patience, off the async threads, and waits
/// for it. A panic in it goes on in who waits. It ends by itself and changes nothing: no stop waits for it.
pub async fn off_the_workers<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    on_the_blocking_threads(told(None, work)).await.unwrap_or_else(|panic| resume_unwind(panic))
}

async fn on_the_blocking_threads<T>(
    (work, told): (impl FnOnce() + Send + 'static, oneshot::Receiver<std::thread::Result<T>>),
) -> std::thread::Result<T> {
    let (_ticket, begin) = Ticket::of(work);
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    drop(tokio::task::spawn_blocking(begin));
    match told.await {
        Ok(done) => done,
        // Only a runtime that ends does not begin it: so does who waits.
        Err(_) => std::future::pending().await,
    }
}

/// Runs work that ends soon (a bounded read of a file) off the async threads. Nobody waits for it; its owner is what it
/// changes.
pub fn detached(work: impl FnOnce() + Send + 'static) {
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    drop(tokio::task::spawn_blocking(work));
}

/// Runs work that may hang in the kernel or in a library on a thread of its own, which nobody waits for, not even the
/// end of the process.
///
/// # Errors
/// When the system has no room for another thread.
pub fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    // Of address space, not memory; `getaddrinfo` loads libraries that want some, and the store's engine is deep.
    const STACK: usize = 2 << 20;
    std::thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(work).map(drop)
}

/// Threads of their own, for what must be answered while all others are busy.
#[derive(Debug)]
pub struct Threads(Option<Runtime>);

impl Threads {
    /// So many, of that name.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start(name: &'static str, count: usize) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(count).thread_name(name).enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// A group that runs on them.
    #[must_use]
    pub fn group(&self) -> Tasks {
        Tasks::on(self.0.as_ref().map(|runtime| runtime.handle().clone()))
    }

    /// Does this on them, and waits for it.
    ///
    /// # Errors
    /// When the work panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T, Panicked> {
        let Some(runtime) = &self.0 else { return Err(Panicked) };
        runtime.spawn(work).await.map_err(|_| Panicked)
    }
}

impl Drop for Threads {
    /// Nothing is waited for: the groups on them have been.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Blocking work that panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("blocking work panicked")]
pub struct Panicked;

#[cfg(test)]
mod tests;
