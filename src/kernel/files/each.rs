//! [`ActiveReads::each`]: many files at a time, of which any may hang.
//!
//! Invariants: one thread does all the work while nothing hangs. Where no file was begun or ended for [`A_MOMENT`] as
//! many more threads go on with the rest as are held up, so that a hundred files that hang take hardly longer than one.
//! The files of a folder are looked at one after another: a folder that hangs holds up one thread at a time. A file's
//! time begins when a thread begins with it; a thread that took longer than that begins with nothing more.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{ActiveReads, Unreadable};
use crate::kernel::sync::lock;
use crate::kernel::task;

/// How long threads may be held up before others go on with the rest.
const A_MOMENT: Duration = Duration::from_millis(50);

/// Files that somebody asks for.
struct ReadBatch<T> {
    paths: Vec<PathBuf>,
    state: Mutex<BatchState<T>>,
    /// The last result is there.
    ended: Condvar,
}

struct BatchState<T> {
    results: Vec<Option<Result<T, Unreadable>>>,
    missing: usize,
    /// Of each folder the files that nobody has begun with.
    folders: Vec<VecDeque<usize>>,
    /// Folders that have such files and that no thread is at.
    ready: VecDeque<usize>,
    /// The files that threads are at: the folder, and in which moment it was begun.
    running: HashMap<usize, (usize, u32)>,
    /// How many moments have passed.
    moment: u32,
    /// Threads that will begin with another file.
    threads: usize,
    /// How often a file was begun.
    begun: usize,
}

impl ActiveReads {
    /// Does `work` with each file, on threads that are not ours. The results are in the files' order.
    pub(super) fn each<T: Send + 'static>(
        self: &Arc<Self>,
        paths: Vec<PathBuf>,
        work: impl Fn(&Path) -> Result<T, Unreadable> + Send + Sync + 'static,
    ) -> Vec<Result<T, Unreadable>> {
        let (batch, work) = (Arc::new(ReadBatch::new(paths)), Arc::new(work));
        let mut state = batch.state();
        let mut more = 1;
        while state.missing > 0 {
            for _ in 0..more.min(state.ready.len()) {
                let (reads, batch, work) = (self.clone(), batch.clone(), work.clone());
                if let Err(why) = task::thread("files", move || batch.run(&reads, &*work)) {
                    // While one thread runs it will come to the others. Without any nobody would ever end this.
                    if state.threads == 0 && state.running.is_empty() {
                        state.fail(Unreadable::from(why));
                    }
                    break;
                }
                state.threads += 1;
            }
            let before = (state.begun, state.missing);
            let waited = batch.ended.wait_timeout_while(state, A_MOMENT, |state| state.missing > 0);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            let is_held_up = (state.begun, state.missing) == before;
            more = if is_held_up { state.running.len().max(1) } else { usize::from(state.threads == 0) };
            state.moment += 1;
            let times: Vec<_> =
                state.running.iter().map(|(index, (_, began))| (*index, A_MOMENT * (state.moment - began))).collect();
            for (index, time) in times {
                let path = &batch.paths[index];
                if time >= self.patience(path) {
                    self.hangs(path);
                    state.end(index, Err(Unreadable::Hangs));
                    state.threads -= 1;
                }
            }
        }
        state.results.drain(..).map(|result| result.unwrap_or(Err(Unreadable::Hangs))).collect()
    }
}

impl<T> ReadBatch<T> {
    fn new(paths: Vec<PathBuf>) -> Self {
        let mut of: HashMap<Option<&Path>, usize> = HashMap::new();
        let mut folders: Vec<VecDeque<usize>> = Vec::new();
        for (index, path) in paths.iter().enumerate() {
            let folder = *of.entry(path.parent()).or_insert(folders.len());
            match folders.get_mut(folder) {
                Some(files) => files.push_back(index),
                None => folders.push([index].into()),
            }
        }
        let state = BatchState {
            results: paths.iter().map(|_| None).collect(),
            missing: paths.len(),
            ready: (0..folders.len()).collect(),
            folders,
            running: HashMap::new(),
            moment: 0,
            threads: 0,
            begun: 0,
        };
        Self { paths, state: Mutex::new(state), ended: Condvar::new() }
    }

    /// What a thread does: one file after another, until none is left or one has taken too long.
    fn run(&self, reads: &ActiveReads, work: &impl Fn(&Path) -> Result<T, Unreadable>) {
        loop {
            let Some(index) = self.state().begin() else { return };
            let path = &self.paths[index];
            let result = reads.turn(path).and_then(|_turn| work(path));
            let mut state = self.state();
            if !state.end(index, result) {
                return;
            }
            if state.missing == 0 {
                self.ended.notify_all();
            }
        }
    }

    /// No section panics.
    fn state(&self) -> MutexGuard<'_, BatchState<T>> {
        lock(&self.state)
    }
}

impl<T> BatchState<T> {
    /// The next file for a thread. `None`: it is not needed any more.
    fn begin(&mut self) -> Option<usize> {
        let next = self.ready.pop_front().and_then(|folder| Some((folder, self.folders[folder].pop_front()?)));
        match next {
            Some((folder, index)) => {
                self.running.insert(index, (folder, self.moment));
                self.begun += 1;
                Some(index)
            }
            None => {
                self.threads -= 1;
                None
            }
        }
    }

    /// A file has its result, unless it has one already.
    fn end(&mut self, index: usize, result: Result<T, Unreadable>) -> bool {
        let Some((folder, _)) = self.running.remove(&index) else { return false };
        self.results[index] = Some(result);
        self.missing -= 1;
        if !self.folders[folder].is_empty() {
            self.ready.push_front(folder);
        }
        true
    }

    /// There is no thread for what is left.
    fn fail(&mut self, why: Unreadable) {
        self.ready.clear();
        for index in self.folders.iter_mut().flat_map(|files| files.drain(..)) {
            self.results[index] = Some(Err(why));
            self.missing -= 1;
        }
    }
}
