use super::*;
use std::sync::Arc;

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
    let (tasks, slow, quick) = (Tasks::new(), Lane::new("slow", 3), Lane::new("quick", 1));
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

/// Work that says when it has begun and ends when it is let go.
struct Held {
    begun: std::sync::mpsc::Receiver<()>,
    /// Dropped, it lets go.
    hold: std::sync::mpsc::Sender<()>,
    /// Held by the work and by what it makes.
    kept: std::sync::Weak<()>,
}

impl Held {
    fn new() -> (Self, impl FnOnce() -> Arc<()> + Send + 'static) {
        let (begin, begun) = std::sync::mpsc::channel();
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let kept = Arc::new(());
        let held_by = Self { begun, hold, kept: Arc::downgrade(&kept) };
        (held_by, move || {
            begin.send(()).unwrap();
            let _ = held.recv();
            kept
        })
    }

    /// Its group is not finished before it has ended, although nobody waits for it any more.
    async fn keeps_the_end_waiting(self, tasks: Tasks) {
        self.begun.recv().unwrap();
        let mut finishing = Box::pin(tasks.finish(Duration::ZERO));
        for _ in 0..100 {
            assert!((&mut finishing).now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        drop(self.hold);
        finishing.await;
        assert_eq!(self.kept.strong_count(), 0, "what it made is gone, too");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_not_finished_before_blocking_work_whose_task_was_dropped_has_ended() {
    let (held, work) = Held::new();
    let (tasks, lane) = (Tasks::new(), Lane::new("held", 1));
    let of_task = tasks.clone();
    tasks.spawn(Kind::Poller, async move { drop(of_task.blocking(&lane, work).await) });
    held.keeps_the_end_waiting(tasks).await;

    let (held, work) = Held::new();
    let tasks = Tasks::new();
    let of_task = tasks.clone();
    tasks.spawn(Kind::Reload, async move { drop(of_task.off_the_workers(work).await) });
    held.keeps_the_end_waiting(tasks).await;
}

#[tokio::test]
async fn blocking_work_that_hangs_is_left_behind_some_time_after_the_grace() {
    let (held, work) = Held::new();
    let (tasks, lane) = (Tasks::new(), Lane::new("hung", 1));
    let mut waiting = Box::pin(tasks.blocking(&lane, work));
    assert!((&mut waiting).now_or_never().is_none());
    held.begun.recv().unwrap();
    drop(waiting);
    let ready = std::future::ready(());
    assert_eq!(tasks.finish_or_leave_behind(ready, Duration::from_millis(20)).await, 1);
    assert_eq!(held.kept.strong_count(), 1, "it hangs still");
}

/// A runtime whose blocking threads all hang, until what comes with it is dropped.
fn hung_runtime() -> (Runtime, std::sync::mpsc::Sender<()>) {
    let runtime = Builder::new_multi_thread().worker_threads(1).max_blocking_threads(1).enable_all().build().unwrap();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let hang = move || {
        let _ = held.recv();
    };
    runtime.block_on(async { detached(hang) });
    (runtime, hold)
}

#[test]
fn a_lane_needs_none_of_the_runtimes_threads() {
    let (runtime, _hold) = hung_runtime();
    runtime.block_on(async {
        let tasks = Tasks::new();
        assert_eq!(tasks.blocking(&Lane::new("apart", 1), || 7).await, Ok(7));
        assert_eq!(tasks.finish(Duration::from_secs(60)).await, 0);
    });
    runtime.shutdown_background();
}

#[test]
fn work_that_no_thread_has_begun_keeps_nothing_once_nobody_waits_for_it() {
    let (runtime, _hold) = hung_runtime();
    runtime.block_on(async {
        let (tasks, kept) = (Tasks::new(), Arc::new(()));
        let (of_first, of_second) = (kept.clone(), kept.clone());
        let mut owned = Box::pin(tasks.off_the_workers(move || drop(of_first)));
        let mut free = Box::pin(off_the_workers(move || drop(of_second)));
        assert!((&mut owned).now_or_never().is_none() && (&mut free).now_or_never().is_none());
        assert_eq!(Arc::strong_count(&kept), 3);
        drop((owned, free));
        assert_eq!(Arc::strong_count(&kept), 1);
        assert_eq!(tasks.finish(Duration::from_secs(60)).await, 0);
    });
    runtime.shutdown_background();
}

#[tokio::test]
async fn a_lane_that_panics_goes_on_and_its_threads_end_with_it() {
    let (tasks, lane) = (Tasks::new(), Lane::new("panics", 2));
    for _ in 0..3 {
        assert_eq!(tasks.blocking(&lane, || panic!("as it is meant to")).await, Err::<(), _>(Panicked));
    }
    let (say, heard) = std::sync::mpsc::channel::<()>();
    thread_local!(static SAYS: std::cell::RefCell<Option<std::sync::mpsc::Sender<()>>> = const { std::cell::RefCell::new(None) });
    tasks.blocking(&lane, move || SAYS.set(Some(say))).await.unwrap();
    drop(lane);
    // The thread's end drops what it keeps.
    assert!(heard.recv().is_err());
}
