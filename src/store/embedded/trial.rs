//! Whether a store could be opened at a path, tried without leaving a trace: for `check`.
//!
//! Invariants: nothing is made, written or kept locked. What a running gateway holds is no fault: its own file is not
//! looked into while it may be writing.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use redb::backends::FileBackend;
use rustix::fs::{Access, StatVfsMountFlags};

use super::disk::{DATA, LOCK};
use super::look::look;
use crate::store::Error;

/// What was found where a store could be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// All it needs.
    Fits,
    /// A gateway that runs has it open.
    InUse,
    /// It can be opened, and no event can be kept: so many bytes are free.
    NoRoom(u64),
}

/// Looks whether a store could be opened in a folder, or made there.
///
/// # Errors
/// It could not: why.
pub fn trial(path: &Path, reserve: u64) -> Result<Trial, Error> {
    let Some(folder) = nearest(path)? else {
        return Err(Error::Io(format!("the folder {} cannot be made: nothing of its path is there", path.display())));
    };
    let shown = folder.display();
    if !std::fs::metadata(folder).is_ok_and(|found| found.is_dir()) {
        return Err(Error::Io(format!("{shown} is no folder")));
    }
    rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|why| Error::Io(format!("the folder {shown} cannot be written: {}", std::io::Error::from(why))))?;
    let file_system = rustix::fs::statvfs(folder)
        .map_err(|why| Error::Io(format!("the file system of {shown}: {}", std::io::Error::from(why))))?;
    if file_system.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(Error::Io(format!("the file system of {shown} is read-only")));
    }
    if folder == path && content(path)? == Trial::InUse {
        return Ok(Trial::InUse);
    }
    let free = file_system.f_bavail.saturating_mul(file_system.f_frsize);
    Ok(if free < reserve { Trial::NoRoom(free) } else { Trial::Fits })
}

/// The path itself, or the nearest folder above it that is there.
fn nearest(path: &Path) -> Result<Option<&Path>, Error> {
    for above in path.ancestors() {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match std::fs::symlink_metadata(above) {
            Ok(_) => return Ok(Some(if above == Path::new(".") && path == above { path } else { above })),
            Err(why) if why.kind() == ErrorKind::NotFound => {}
            Err(why) => return Err(Error::Io(format!("{}: {why}", above.display()))),
        }
    }
    Ok(None)
}

/// What is in a folder that is there.
fn content(path: &Path) -> Result<Trial, Error> {
    if is_held(path)? {
        return Ok(Trial::InUse);
    }
    let data = path.join(DATA);
    let file = match File::options().read(true).write(true).open(&data) {
        Ok(file) => file,
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(Trial::Fits),
        Err(why) => return Err(Error::Io(format!("the data file {}: {why}", data.display()))),
    };
    // Empty, it is a new store.
    if file.metadata().is_ok_and(|found| found.len() == 0) {
        return Ok(Trial::Fits);
    }
    let looked = FileBackend::new(file).map_err(|why| Error::Io(why.to_string())).and_then(look);
    match looked {
        Ok(()) => Ok(Trial::Fits),
        // A gateway that was started meanwhile writes there.
        Err(_) if is_held(path)? => Ok(Trial::InUse),
        Err(why) => Err(why),
    }
}

/// Whether a process has the store open. The lock is not made if it is not there, and given back at once.
fn is_held(path: &Path) -> Result<bool, Error> {
    let name = path.join(LOCK);
    let lock = match File::options().read(true).write(true).open(&name) {
        Ok(lock) => lock,
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(false),
        Err(why) => return Err(Error::Io(format!("{}: {why}", name.display()))),
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(why)) => Err(Error::Io(format!("locking {}: {why}", name.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_where_no_store_can_be_is_a_fault_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "x").unwrap();
        std::fs::create_dir(at("other")).unwrap();
        std::fs::write(at("other").join(DATA), [7; 9000]).unwrap();
        std::fs::create_dir(at("odd")).unwrap();
        std::fs::create_dir(at("odd").join(DATA)).unwrap();
        for wrong in ["file", "file/below", "file/below/that", "other", "odd"] {
            assert!(trial(&at(wrong), 0).is_err(), "{wrong}");
        }
        for right in ["new", "new/below", "."] {
            assert_eq!(trial(&at(right), 0), Ok(Trial::Fits), "{right}");
        }
        assert!(matches!(trial(&at("new"), u64::MAX), Ok(Trial::NoRoom(_))));
        let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["file", "odd", "other"]);
        assert_eq!(std::fs::read(at("other").join(DATA)).unwrap(), [7; 9000]);
    }
}
