//! Tasks with an owner, a cancel rule and a place in shutdown.
//!
//! Invariants: this is the only file that calls `tokio::spawn` (a clippy rule keeps it so). A task that panics is
//! logged under its kind's name; if its kind is vital, the whole gateway is asked to stop, because going on without it
//! would break a promise. [`Tasks::finish`] returns only when every task is gone. A group's tasks run on the threads that
//! it was made for, whoever starts them.

use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a task is. Says what its end by panic and its cancellation mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Takes connections of one listener. Panic: stop the gateway. Stop: accept no more.
    Accept,
    /// Serves one connection. Panic: log. Stop: finish the requests in hand, then cut.
    Connection,
    /// Reads one stream of one region. Panic: stop the gateway. Stop: store the read in hand.
    Poller,
    /// Writes to the store. Panic: stop the gateway. Stop: last of all.
    StoreWriter,
    /// Ends leases that are over. Panic: stop the gateway. Stop: at once.
    Leases,
    /// Moves events whose turn has come into a log. Panic: stop the gateway. Stop: at once; what waits is stored.
    Sequencer,
    /// Removes what is older than retention. Panic: log. Stop: at once.
    Retention,
    /// Waits for the answers of exchanges whose callers have left. Panic: log. Stop: when all have come; its group stops
    /// after those who could leave more behind.
    Linger,
    /// Resolves one history query or count, or streams one. Panic: log. Stop: at once.
    Resolver,
    /// Watches files and signals. Panic: stop the gateway. Stop: at once.
    Reload,
    /// Judges anew what proved those who have something under way. Panic: stop the gateway. Stop: at once.
    Judge,
    /// Fetches the keys of the token issuer. Panic: log; what was fetched is believed for a bounded time. Stop: at once.
    KeyKeeper,
    /// Looks at the files of credentials. Panic: stop the gateway. Stop: at once.
    SecretKeeper,
    /// Delivers to one webhook. Panic: stop the gateway. Stop: finish the tries under way.
    Webhook,
    /// A part of the simulated vendor. Panic: log. Stop: at once.
    Simulator,
}

impl Kind {
    fn is_vital(self) -> bool {
        let vital = [
            Self::Accept,
            Self::Poller,
            Self::StoreWriter,
            Self::Sequencer,
            Self::Leases,
            Self::Reload,
            Self::Judge,
            Self::SecretKeeper,
            Self::Webhook,
        ];
        vital.contains(&self)
    }
}

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

    /// Runs blocking work (disk) off the async threads when its lane has room, and waits for it. It cannot be cancelled
    /// once it has begun.
    ///
    /// # Errors
    /// When the work panicked.
    pub async fn blocking<T: Send + 'static>(
        &self,
        lane: &Lane,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        self.tracker.track_future(lane.run(work)).await
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
        self.stop.cancel();
        self.tracker.close();
        tokio::select! {
            biased;
            () = self.tracker.wait() => return 0,
            () = over => {}
        }
        let left = self.tracker.len();
        self.force.cancel();
        self.tracker.wait().await;
        left
    }
}

/// How much blocking work of one kind runs at a time. All lanes together have far fewer places than the runtime has
/// blocking threads (512), so that one whose work hangs takes no thread of another's. For disks: what may hang on a
/// network goes elsewhere ([`dns`](crate::dns)).
#[derive(Clone, Debug)]
pub struct Lane(Arc<Semaphore>);

impl Lane {
    /// So much at a time.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self(Arc::new(Semaphore::new(places)))
    }

    /// Runs blocking work off the async threads when there is room, and waits for it. It cannot be cancelled once it has
    /// begun, and ends by itself.
    ///
    /// # Errors
    /// When the work panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Panicked> {
        let permit = self.0.clone().acquire_owned().await.map_err(|_| Panicked)?;
        let work = move || {
            let done = work();
            drop(permit);
            done
        };
        #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
        tokio::task::spawn_blocking(work).await.map_err(|_| Panicked)
    }
}

/// Runs work that ends soon (a bounded read of a file) off the async threads. Nobody waits for it; its owner is what it
/// changes.
pub fn detached(work: impl FnOnce() + Send + 'static) {
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    drop(tokio::task::spawn_blocking(work));
}

/// Runs work that takes a processor for a while, or reads files, off the async threads, and waits for it. A panic in it
/// goes on in who waits. It cannot be cancelled, and ends by itself.
#[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
pub async fn off_the_workers<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that ends does not begin it: so does who waits.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Runs work that may hang in the kernel or in a library on a thread of its own, which nobody waits for, not even the end
/// of the process.
///
/// # Errors
/// When the system has no room for another thread.
pub fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    // Of address space, not memory; `getaddrinfo` loads libraries that want some.
    const STACK: usize = 1 << 20;
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
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn finish_waits_for_the_willing_and_drops_the_rest() {
        let tasks = Tasks::new();
        let stop = tasks.stopping();
        tasks.spawn(Kind::Poller, async move { stop.cancelled().await });
        tasks.spawn(Kind::Connection, std::future::pending());
        assert_eq!(tasks.finish(Duration::from_secs(5)).await, 1);
        assert!(!tasks.failed().is_cancelled());
    }

    #[tokio::test]
    async fn a_lane_whose_work_hangs_takes_no_thread_of_another() {
        let (tasks, slow, quick) = (Tasks::new(), Lane::new(3), Lane::new(1));
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        let hung = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        // As many as would take all of the runtime's threads.
        let mut waiting = Vec::new();
        for _ in 0..700 {
            let (held, hung) = (held.clone(), hung.clone());
            let work = move || {
                hung.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let _ = held.lock().unwrap().recv();
            };
            let mut work = Box::pin(tasks.blocking(&slow, work));
            assert!((&mut work).now_or_never().is_none());
            waiting.push(work);
        }
        assert_eq!(tasks.blocking(&quick, || 7).await, Ok(7));
        assert!(hung.load(std::sync::atomic::Ordering::SeqCst) <= 3);
        drop(hold);
        for work in waiting {
            work.await.unwrap();
        }
        assert_eq!(hung.load(std::sync::atomic::Ordering::SeqCst), 700);
    }

    #[tokio::test]
    async fn what_runs_on_threads_of_its_own_goes_on_while_all_others_are_busy() {
        let threads = Threads::start("apart", 1).unwrap();
        let (ours, theirs) = (Tasks::new(), threads.group());
        let (say, heard) = std::sync::mpsc::channel();
        let here = std::thread::current().id();
        // Also when it is started from elsewhere.
        let (again, before) = (theirs.clone(), say.clone());
        theirs.spawn(Kind::Accept, async move { before.send(std::thread::current().id()).unwrap() });
        // This test's only thread waits here, and polls nothing.
        assert_ne!(heard.recv().unwrap(), here);
        ours.spawn(Kind::Accept, async move {
            again.spawn(Kind::Accept, async move { say.send(std::thread::current().id()).unwrap() });
        });
        assert_eq!(ours.finish(Duration::from_secs(60)).await, 0);
        assert_ne!(heard.recv().unwrap(), here);
        assert_eq!(theirs.finish(Duration::from_secs(60)).await, 0);
    }

    #[tokio::test]
    async fn a_vital_task_that_panics_is_told() {
        let tasks = Tasks::new();
        tasks.spawn(Kind::Linger, async { panic!("not vital") });
        tasks.spawn(Kind::Poller, async { panic!("vital") });
        tasks.failed().cancelled().await;
        assert_eq!(tasks.finish(Duration::from_secs(5)).await, 0);
    }
}
