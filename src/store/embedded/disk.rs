//! The folder and the file below the engine: the lock, free space, and the place where tests make the disk fail.
//!
//! Invariants: while a [`Folder`] lives no other process (nor this one again) can open the same folder. The engine
//! reaches the file only through [`Backend`], so a test that sets a fault reaches every write and sync.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use redb::StorageBackend;
use redb::backends::FileBackend;
use rustix::io::Errno;

use crate::store::Error;

/// The data file's name in the folder.
pub(super) const DATA: &str = "events.redb";
/// A data file that is being made; given its name when it is whole.
const MAKING: &str = "events.redb.new";
/// A backup that is being made. It has this name for a moment only.
const COPY: &str = "backup.redb.new";
/// The file whose lock stands for the folder's.
pub(super) const LOCK: &str = "lock";
/// All names of the store's files in the folder.
pub(super) const FILES: [&str; 4] = [DATA, MAKING, COPY, LOCK];

/// What is counted of the data file.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    /// Bytes written, in whole blocks.
    pub(super) written: Counter,
    pub(super) syncs: Counter,
}

/// The store's folder, locked.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    faults: Faults,
    counted: Counted,
    /// Locked as long as it is open.
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is not there, and locks it.
    pub(super) fn lock(path: &Path, faults: Faults, counted: Counted) -> Result<Self, Error> {
        let shown = path.display();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|e| at(&format!("the folder {shown}"), &e))?;
        let name = path.join(LOCK);
        let lock = options().create(true).open(&name).map_err(|e| at(&name.display().to_string(), &e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), faults, counted, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::Io(format!("the folder {shown} is in use by another gateway"))),
            Err(TryLockError::Error(e)) => Err(at(&format!("locking {shown}"), &e)),
        }
    }

    /// Opens the data file, if there is one. An empty one is none: that is what a crash leaves of a file whose making
    /// never reached the disk, or `touch`.
    pub(super) fn existing(&self) -> Result<Option<Backend>, Error> {
        match options().open(self.path.join(DATA)) {
            Ok(file) if file.metadata().is_ok_and(|found| found.is_file() && found.len() == 0) => {
                tracing::warn!(file = %self.path.join(DATA).display(), "the data file is empty: a new store is made in its place");
                Ok(None)
            }
            Ok(file) => self.backend(file).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(at("opening the data file", &e)),
        }
    }

    /// A new, empty file beside the place of the data file. A half-made one of an earlier run is overwritten.
    pub(super) fn begin(&self) -> Result<Backend, Error> {
        let file = options().create(true).truncate(true).open(self.path.join(MAKING));
        self.backend(file.map_err(|e| at("making the data file", &e))?)
    }

    /// A new, empty file of this folder's disk without a name.
    pub(super) fn nameless(&self) -> Result<File, Error> {
        let path = self.path.join(COPY);
        let file = options().create(true).truncate(true).open(&path);
        let file = file.map_err(|e| at("making the backup's file", &e))?;
        std::fs::remove_file(&path).map_err(|e| at("making the backup's file", &e))?;
        Ok(file)
    }

    /// Puts the new file, written and synced, in its place: a crash leaves a whole data file or none.
    pub(super) fn finish(&self) -> Result<(), Error> {
        std::fs::rename(self.path.join(MAKING), self.path.join(DATA))
            .and_then(|()| File::open(&self.path)?.sync_all())
            .map_err(|e| at("naming the data file", &e))
    }

    fn backend(&self, file: File) -> Result<Backend, Error> {
        // Room that earlier runs took is there.
        let taken = file.metadata().map_or(0, |m| m.blocks().saturating_mul(512));
        self.faults.0.top.fetch_max(taken, Ordering::SeqCst);
        let file = FileBackend::new(file).map_err(|e| Error::Io(e.to_string()))?;
        Ok(Backend { file, faults: self.faults.clone(), counted: self.counted.clone() })
    }

    /// Bytes that ordinary users may still write to this file system.
    pub(super) fn free(&self) -> Result<u64, Error> {
        self.faults.0.looks.fetch_add(1, Ordering::Relaxed);
        if let Some(free) = self.faults.free() {
            return Ok(free);
        }
        let found = rustix::fs::statvfs(&self.path).map_err(|e| at("free space", &e.into()))?;
        if found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
            return Err(Error::Io("the file system is read-only".into()));
        }
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Bytes of the disk that the data file has.
    pub(super) fn taken(&self) -> u64 {
        std::fs::metadata(self.path.join(DATA)).map_or(0, |m| m.blocks().saturating_mul(512))
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    // Events name users: for the gateway's user only.
    options.read(true).write(true).mode(0o600);
    options
}

fn at(what: &str, error: &io::Error) -> Error {
    let said = format!("{what}: {error}");
    if is_full(error) { Error::Full(said) } else { Error::Io(said) }
}

/// Whether an error means that there is no room: disk, quota, or the largest file allowed.
pub(super) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// The engine's file. Passes everything on, unless a fault was set, and counts it.
#[derive(Debug)]
pub(super) struct Backend {
    file: FileBackend,
    faults: Faults,
    counted: Counted,
}

/// What the system writes as one, whatever part of it has changed.
pub(super) const BLOCK: u64 = 4096;

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.change(0)?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.change(0)?;
        self.faults.0.syncs.fetch_add(1, Ordering::Relaxed);
        self.counted.syncs.inc();
        if self.faults.0.lies.load(Ordering::Relaxed) { Ok(()) } else { self.file.sync_data() }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Err(e) = self.faults.change(offset + data.len() as u64) {
            if !is_full(&e) {
                // A disk that breaks has often taken a part.
                self.file.write(offset, &data[..data.len() / 2])?;
            }
            return Err(e);
        }
        let blocks = (offset + data.len() as u64).div_ceil(BLOCK) - offset / BLOCK;
        self.counted.written.inc_by(blocks * BLOCK);
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// A disk that fails when told to: for tests of what the gateway does then. The default never fails. Cheap to clone;
/// clones are one disk.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Fault>);

#[derive(Debug)]
struct Fault {
    /// Changes (writes, syncs, new lengths) that still succeed.
    left: AtomicI64,
    /// The error number of those that fail.
    errno: AtomicI32,
    /// Where the part of the file ends that has room on the disk.
    top: AtomicU64,
    /// Free space to be shown instead of the real one.
    free: AtomicU64,
    /// Looks at free space.
    looks: AtomicU64,
    syncs: AtomicU64,
    /// Whether they are left undone.
    lies: AtomicBool,
}

const NO_FAULT: i64 = i64::MAX;
const REAL_SPACE: u64 = u64::MAX;

impl Default for Fault {
    fn default() -> Self {
        Self {
            left: AtomicI64::new(NO_FAULT),
            errno: AtomicI32::new(0),
            top: AtomicU64::new(0),
            free: AtomicU64::new(REAL_SPACE),
            looks: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            lies: AtomicBool::new(false),
        }
    }
}

impl Faults {
    /// The disk is full, after `left` more changes: writing over what is there succeeds, taking new room does not.
    pub fn fill_after(&self, left: u32) {
        self.fail_after(left, Errno::NOSPC);
    }

    /// The disk is broken, after `left` more changes: each write and sync fails with an I/O error.
    pub fn break_after(&self, left: u32) {
        self.fail_after(left, Errno::IO);
    }

    /// The disk is well again.
    pub fn heal(&self) {
        self.0.left.store(NO_FAULT, Ordering::SeqCst);
    }

    /// Shows `bytes` as the free space; `None` shows the real one.
    pub fn show_free(&self, bytes: Option<u64>) {
        self.0.free.store(bytes.unwrap_or(REAL_SPACE), Ordering::SeqCst);
    }

    /// The disk says it has synced and has not: makes tests that do not cut the power fast.
    pub fn lie_about_syncs(&self) {
        self.0.lies.store(true, Ordering::Relaxed);
    }

    /// Times that the file system was asked for its free space so far.
    #[must_use]
    pub fn looks(&self) -> u64 {
        self.0.looks.load(Ordering::Relaxed)
    }

    /// Syncs asked for so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.0.syncs.load(Ordering::Relaxed)
    }

    fn fail_after(&self, left: u32, errno: Errno) {
        self.0.errno.store(errno.raw_os_error(), Ordering::SeqCst);
        self.0.left.store(left.into(), Ordering::SeqCst);
    }

    fn free(&self) -> Option<u64> {
        Some(self.0.free.load(Ordering::SeqCst)).filter(|free| *free != REAL_SPACE)
    }

    /// A write that ends at `end`, or another change (0): may it be done?
    fn change(&self, end: u64) -> io::Result<()> {
        let count = |left: i64| if left == NO_FAULT { None } else { Some((left - 1).max(-1)) };
        let failing = matches!(self.0.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count), Ok(..=0));
        let error = io::Error::from_raw_os_error(self.0.errno.load(Ordering::SeqCst));
        if failing && (!is_full(&error) || end > self.0.top.load(Ordering::SeqCst)) {
            return Err(error);
        }
        self.0.top.fetch_max(end, Ordering::SeqCst);
        Ok(())
    }
}
