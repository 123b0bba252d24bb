//! Whether a store could be opened at a path, tried without leaving a trace: for `check`.
//!
//! Invariants: nothing is made, written or kept locked. What a running gateway holds is no fault: its own file is not
//! looked into while it may be writing.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use redb::backends::FileBackend;
use rustix::fs::StatVfsMountFlags;

use super::disk::{DATA, FILES, LOCK};
use super::look::look;
use crate::kernel::files;
use crate::store::Error;

/// What was found where a store could be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
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
    files::can_make_in(folder).map_err(|why| Error::Io(format!("the folder {shown} cannot be written: {why}")))?;
    let file_system = rustix::fs::statvfs(folder)
        .map_err(|why| Error::Io(format!("the file system of {shown}: {}", std::io::Error::from(why))))?;
    if file_system.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(Error::Io(format!("the file system of {shown} is read-only")));
    }
    if folder == path {
        // What is made in it is synced by way of it.
        File::open(path).map_err(|why| Error::Io(format!("the folder {shown} cannot be read: {why}")))?;
        if content(path)? == Trial::InUse {
            return Ok(Trial::InUse);
        }
    }
    let free = file_system.f_bavail.saturating_mul(file_system.f_frsize);
    Ok(if free < reserve { Trial::NoRoom(free) } else { Trial::Fits })
}

/// Whether a path, whose folder is written without links, is that of a file of the store's, or stands in the way to its
/// folder.
#[must_use]
pub fn is_in_the_way(store: &Path, place: &Path) -> bool {
    let is_in_it = || Some(place.parent()?.canonicalize().ok()? == store.canonicalize().ok()?);
    let is_of_it = place.file_name().is_some_and(|name| FILES.iter().any(|file| *file == name));
    let above = store.ancestors().filter(|above| !above.as_os_str().is_empty());
    let mut above = above.filter_map(|above| {
        let folder = above.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(folder.canonicalize().ok()?.join(above.file_name()?))
    });
    (is_of_it && is_in_it() == Some(true)) || above.any(|above| above == place)
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
    let found = file.metadata().map_err(|why| Error::Io(format!("the data file {}: {why}", data.display())))?;
    if !found.is_file() {
        return Err(Error::Io(format!("the data file {} is no regular file", data.display())));
    }
    // Empty, it is a new store.
    if found.len() == 0 {
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
    use std::io::Read as _;

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
        std::fs::create_dir(at("none")).unwrap();
        std::os::unix::fs::symlink("/dev/null", at("none").join(DATA)).unwrap();
        for wrong in ["file", "file/below", "file/below/that", "other", "odd", "none"] {
            assert!(trial(&at(wrong), 0).is_err(), "{wrong}");
        }
        for right in ["new", "new/below", "."] {
            assert_eq!(trial(&at(right), 0), Ok(Trial::Fits), "{right}");
        }
        for nothing_is_made in ["/proc/store", "/sys/store"] {
            assert!(trial(Path::new(nothing_is_made), 0).is_err(), "{nothing_is_made}");
        }
        assert!(matches!(trial(&at("new"), u64::MAX), Ok(Trial::NoRoom(_))));
        let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["file", "none", "odd", "other"]);
        assert_eq!(std::fs::read(at("other").join(DATA)).unwrap(), [7; 9000]);
    }

    #[tokio::test]
    async fn a_damaged_store_is_a_fault_here_where_it_cannot_be_opened_and_stays_as_it_is() {
        let packed = include_bytes!("../../../tests/fixtures/store-v1/killed.redb.gz");
        let mut whole = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut whole).unwrap();
        let cut = (1..whole.len()).step_by(7000).map(|at| whole[..at].to_vec());
        let wiped = (0..whole.len()).step_by(4096).map(|at| {
            let mut damaged = whole.clone();
            damaged[at..].iter_mut().take(4096).for_each(|byte| *byte = 0);
            damaged
        });
        for (n, damaged) in cut.chain(wiped).enumerate() {
            let folder = tempfile::tempdir().unwrap();
            let data = folder.path().join(DATA);
            std::fs::write(&data, &damaged).unwrap();
            let tried = trial(folder.path(), 0);
            let tasks = crate::kernel::task::Tasks::new();
            let (clock, metrics) = (crate::kernel::clock::Clock::system(), crate::kernel::metrics::Metrics::new());
            let opened = super::super::EmbeddedStore::open(folder.path(), tasks, clock, metrics).await;
            assert_eq!(tried.is_ok(), opened.is_ok(), "{n}: {tried:?}");
            if let Err(why) = opened {
                assert!(matches!(why, Error::Damaged(_)) && tried == Err(why), "{n}: {tried:?}");
                assert!(std::fs::read(&data).unwrap() == damaged, "{n}");
            }
        }
    }

    #[test]
    fn a_socket_may_stand_beside_the_store_but_not_in_its_way() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().canonicalize().unwrap().join(name);
        std::fs::create_dir(at("data")).unwrap();
        std::os::unix::fs::symlink(at("data"), at("link")).unwrap();
        for (store, place, is) in [
            ("data", "data/lock", true),
            ("link", "data/events.redb", true),
            ("data", "data/socket", false),
            ("data", "lock", false),
            ("new", "new", true),
            ("new/below", "new", true),
            ("new", "newer", false),
        ] {
            assert_eq!(is_in_the_way(&at(store), &at(place)), is, "{store} {place}");
        }
    }
}
