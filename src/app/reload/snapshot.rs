//! [`Snapshot`]: what was in a configuration's files, so that a change of them is seen.
//!
//! Invariant: what a file holds is noted before it is put to use, so a change that comes after the note differs from
//! it, and is seen at the next look. So is what the file of a refused configuration holds, before fault is found with
//! it. A file whose [`Mark`] is the same, and older than the clock's grain, is not read again, but once a minute.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::config::finding::Faults;
use crate::config::load::{self, Loaded};
use crate::kernel::clock::Clock;
use crate::kernel::files::{self, Content, Mark, Unreadable};

/// What each of a configuration's files held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(Vec<FileState>);

#[derive(Clone, Debug)]
struct FileState {
    file: Arc<Path>,
    /// It holds one secret: a half of it is no secret, and a shorter one is as good.
    is_secret: bool,
    /// Before it was read; `None` when it could not be looked at.
    mark: Option<Mark>,
    held: Result<ContentHash, Unreadable>,
}

/// A digest, so that no copy of a secret stays in memory for the sake of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ContentHash {
    digest: [u8; 32],
    bytes: usize,
}

impl ContentHash {
    fn of(content: &Content) -> Self {
        Self { digest: Sha256::digest(content.as_slice()).into(), bytes: content.len() }
    }
}

/// By what the files held, whatever else is known of them.
impl PartialEq for FileState {
    fn eq(&self, other: &Self) -> bool {
        self.file == other.file && self.held == other.held
    }
}

impl Eq for FileState {}

/// Reads a configuration, and notes what it and every file it names hold before anybody uses them, or finds fault with
/// them. Not for the threads of the runtime.
pub fn read(path: &Path) -> (Result<Loaded, Faults>, Snapshot) {
    let mark = mark(path);
    // Once: what is noted is what is applied.
    let content = files::read(path, files::CONFIGURATION);
    let held = held(&content);
    let snapshot = |files: &[PathBuf], secrets: &BTreeSet<PathBuf>| {
        let own = FileState { file: path.into(), is_secret: false, mark, held };
        let others = files.iter().filter(|file| *file != path);
        let others =
            others.map(|file| FileState::unread(file.as_path().into(), secrets.contains(file), self::mark(file)));
        let mut states: Vec<_> = std::iter::once(own).chain(others).collect();
        let unread: Vec<_> = (1..states.len()).collect();
        read_each(&mut states, &unread);
        Snapshot(states)
    };
    match load::from_content(&content, path) {
        Ok(loaded) => {
            let snapshot = snapshot(&loaded.files, &loaded.secrets);
            (Ok(loaded), snapshot)
        }
        // A file that is corrected from now on must differ from what was noted: so it is read once more behind that.
        Err(faults) => {
            let snapshot = snapshot(&faults.files, &faults.secrets);
            (load::from_content(&content, path), snapshot)
        }
    }
}

impl Snapshot {
    /// The same files as they are now, looked at for the `round`th time. Not for the threads of the runtime.
    #[must_use]
    pub fn again(&self, round: u64, clock: &Clock) -> Self {
        let marks = files::marks(self.0.iter().map(|state| state.file.to_path_buf()).collect());
        let wall = clock.wall();
        let (mut states, mut unread) = (self.0.clone(), Vec::new());
        for ((n, (at, state)), mark) in (round..).zip(states.iter_mut().enumerate()).zip(marks) {
            let mark = mark.ok();
            let is_same = state.mark == mark && mark.is_some_and(|mark| mark.is_settled(wall));
            if !is_same || n % READ_ANYHOW == 0 {
                state.mark = mark;
                unread.push(at);
            }
        }
        read_each(&mut states, &unread);
        Self(states)
    }

    /// Whether a file holds less than it did `before`, or cannot be read any more: it may be in the middle of being
    /// written.
    pub(super) fn has_shrunk(&self, before: &Self) -> bool {
        let bytes = |state: &FileState| state.held.map_or(0, |held| held.bytes);
        self.beside(before).any(|(now, before)| !now.is_secret && bytes(now) < bytes(before))
    }

    /// Whether a file that both are of held something else.
    pub(super) fn contradicts(&self, other: &Self) -> bool {
        self.beside(other).any(|(mine, theirs)| mine.held != theirs.held)
    }

    /// The files that both are of. Looked up, not searched: there may be thousands.
    fn beside<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a FileState, &'a FileState)> {
        let theirs: HashMap<&OsStr, &FileState> = other.0.iter().map(|state| (state.file.as_os_str(), state)).collect();
        self.0.iter().filter_map(move |mine| Some((mine, *theirs.get(mine.file.as_os_str())?)))
    }
}

impl FileState {
    /// Says nothing of what the file holds before it is read.
    fn unread(file: Arc<Path>, is_secret: bool, mark: Option<Mark>) -> Self {
        Self { file, is_secret, mark, held: Err(Unreadable::Hangs) }
    }
}

/// Reads those of the files again that are at these places, of each as much as its kind may have.
fn read_each(states: &mut [FileState], places: &[usize]) {
    for (is_secret, most) in [(true, files::SECRET), (false, files::CONFIGURATION)] {
        let places: Vec<_> = places.iter().copied().filter(|at| states[*at].is_secret == is_secret).collect();
        let paths = places.iter().map(|at| states[*at].file.to_path_buf()).collect();
        for (at, now) in places.into_iter().zip(files::look_into(paths, most, ContentHash::of)) {
            states[at].held = now;
        }
    }
}

/// At every such look a file is read whose mark says that it is the same: on some file systems marks lie.
const READ_ANYHOW: u64 = 120;

fn mark(file: &Path) -> Option<Mark> {
    files::marks(vec![file.to_owned()]).into_iter().find_map(Result::ok)
}

fn held(content: &Result<Content, Unreadable>) -> Result<ContentHash, Unreadable> {
    content.as_ref().map(ContentHash::of).map_err(|why| *why)
}

#[cfg(test)]
mod tests;
