//! Files that others write and the gateway reads, again and again: the configuration, secrets, certificates and their
//! keys, revocation lists, key sets.
//!
//! Invariants:
//! - Only regular files are read. That is judged before the file is opened (opening a device may do something) and
//!   again on the open descriptor, and the opening waits for nobody: a FIFO without a writer does not hold us.
//! - No more is read of a file than its kind may have, whatever its metadata say. What was read is wiped when dropped.
//! - Who asks for a file waits for [`PATIENCE`] at most, and who asks for many not much longer, however many of them
//!   hang ([`each`]). A file that hangs (a mount that is away) keeps the thread that is at it, and no other: nobody
//!   begins with it again before that thread is done with it. Where several files of a folder hang the folder does: it
//!   is asked no more until one comes back.
//!
//! Nothing else reads such files (`tests/it/layers.rs` holds it so). What is being read is the process's, as
//! the threads and the mounts are: two gateways in one process share it, and neither sees anything of the other by it.

mod folder;

use crate::kernel::sync::lock;
use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

mod each;

pub use self::folder::can_make_in;

/// How long a file may take before it counts as hanging.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// The same in a folder where another file hangs.
const LESS_PATIENCE: Duration = Duration::from_millis(500);

/// Where so many files of a folder hang, no other of it is asked.
const HANGING_FOLDER: usize = 4;

/// Bytes of a secret's file.
pub const SECRET: usize = 64 << 10;
/// Bytes of a file of certificates, revocation lists or keys.
pub const DOCUMENT: usize = 32 << 20;
/// Bytes of a configuration.
pub const CONFIGURATION: usize = 64 << 20;

/// A change within this time of another may bear its times: file systems count in grains of up to two seconds.
const GRAIN: Duration = Duration::from_secs(3);

/// What is in a file.
pub type Content = Zeroizing<Vec<u8>>;

/// Why a file cannot be read. Reads on after "cannot be read: ".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The system says so.
    #[error("{0}")]
    System(ErrorKind),
    /// A folder, a device, a FIFO, a socket.
    #[error("it is not a regular file")]
    NotRegular,
    /// It has no end, or one that is too far away.
    #[error("it has more than {0} bytes")]
    TooLarge(usize),
    /// It takes longer than [`PATIENCE`].
    #[error("reading it hangs")]
    Hangs,
}

impl From<std::io::Error> for Unreadable {
    fn from(why: std::io::Error) -> Self {
        Self::System(why.kind())
    }
}

/// Tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    /// Nobody can set this one: an edit that sets back the other is seen by it.
    changed: (i64, i64),
    mode: u32,
}

impl Mark {
    fn of(file: &Metadata) -> Self {
        Self {
            file: (file.dev(), file.ino()),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
            mode: file.mode(),
        }
    }

    /// Whether everybody on this machine may read the file.
    #[must_use]
    pub fn is_open_to_all(&self) -> bool {
        self.mode & 0o004 != 0
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether any later change must show in it: the file is older than the grain of its file system's times.
    #[must_use]
    pub fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let times = [self.changed.0, self.modified.0].map(|at| Duration::from_secs(u64::try_from(at).unwrap_or(0)));
        times.into_iter().all(|at| at + GRAIN < now)
    }
}

/// Reads a file whole.
///
/// # Errors
/// See [`Unreadable`].
pub fn read(path: &Path, most: usize) -> Result<Content, Unreadable> {
    read_all(vec![path.to_owned()], most).pop().unwrap_or(Err(Unreadable::Hangs))
}

/// Reads many files whole, in their order.
pub fn read_all(paths: Vec<PathBuf>, most: usize) -> Vec<Result<Content, Unreadable>> {
    ACTIVE.each(paths, move |path| contents(path, most))
}

/// Reads many files, and keeps of each what `of` makes of it, in their order.
pub fn look_into<T: Send + 'static>(
    paths: Vec<PathBuf>,
    most: usize,
    of: impl Fn(&Content) -> T + Send + Sync + 'static,
) -> Vec<Result<T, Unreadable>> {
    ACTIVE.each(paths, move |path| contents(path, most).map(|content| of(&content)))
}

/// Looks at many files without reading them, in their order.
#[must_use]
pub fn marks(paths: Vec<PathBuf>) -> Vec<Result<Mark, Unreadable>> {
    ACTIVE.each(paths, |path| regular(std::fs::metadata(path)?).map(|file| Mark::of(&file)))
}

/// Whether something stands at a path that is known to be no folder.
#[must_use]
pub fn is_no_folder(path: &Path) -> bool {
    let looked = ACTIVE.each(vec![path.to_owned()], |path| Ok(!std::fs::metadata(path)?.is_dir()));
    looked == [Ok(true)]
}

fn regular(file: Metadata) -> Result<Metadata, Unreadable> {
    if file.is_file() { Ok(file) } else { Err(Unreadable::NotRegular) }
}

fn contents(path: &Path, most: usize) -> Result<Content, Unreadable> {
    regular(std::fs::metadata(path)?)?;
    #[cfg(test)]
    tests::hang(path);
    let waiting_for_nobody = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(waiting_for_nobody.bits()).unwrap_or_default();
    let file: File = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let size = regular(file.metadata()?)?.size();
    let size = usize::try_from(size).ok().filter(|size| *size <= most).ok_or(Unreadable::TooLarge(most))?;
    // Room for one more, so that what is read is not copied about.
    let mut content = Zeroizing::new(Vec::with_capacity(size + 1));
    file.take(most as u64 + 1).read_to_end(&mut content)?;
    if content.len() > most { Err(Unreadable::TooLarge(most)) } else { Ok(content) }
}

static ACTIVE: LazyLock<Arc<ActiveReads>> = LazyLock::new(Arc::default);

/// Which files are being read, and whether they hang.
#[derive(Default)]
struct ActiveReads {
    under_way: Mutex<HashMap<PathBuf, bool>>,
    ended: Condvar,
}

/// The right to be at a file.
struct Turn<'a> {
    reads: &'a ActiveReads,
    path: &'a Path,
}

impl ActiveReads {
    /// Waits for another who is at the same file, but not for one that hangs.
    fn turn<'a>(&'a self, path: &'a Path) -> Result<Turn<'a>, Unreadable> {
        let under_way = self.under_way();
        let is_taken = |files: &mut HashMap<PathBuf, bool>| files.get(path) == Some(&false);
        // Shorter than any file has: a thread that only waits its turn must not count as one that hangs.
        let (mut under_way, _) = self
            .ended
            .wait_timeout_while(under_way, LESS_PATIENCE / 2, is_taken)
            .unwrap_or_else(PoisonError::into_inner);
        if under_way.contains_key(path) || hanging_beside(&under_way, path) >= HANGING_FOLDER {
            return Err(Unreadable::Hangs);
        }
        under_way.insert(path.to_owned(), false);
        Ok(Turn { reads: self, path })
    }

    /// Who is at the file has taken too long.
    fn hangs(&self, path: &Path) {
        if let Some(hangs) = self.under_way().get_mut(path) {
            *hangs = true;
        }
    }

    fn patience(&self, path: &Path) -> Duration {
        if hanging_beside(&self.under_way(), path) == 0 { PATIENCE } else { LESS_PATIENCE }
    }

    /// No section panics.
    fn under_way(&self) -> MutexGuard<'_, HashMap<PathBuf, bool>> {
        lock(&self.under_way)
    }
}

/// How many files of the same folder hang.
fn hanging_beside(under_way: &HashMap<PathBuf, bool>, path: &Path) -> usize {
    under_way.iter().filter(|(other, hangs)| **hangs && other.parent() == path.parent()).count()
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.reads.under_way().remove(self.path);
        self.reads.ended.notify_all();
    }
}

#[cfg(test)]
pub(crate) mod tests;
