//! Whether files can be made in a folder, tried without leaving one there.

use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

/// Tries whether this process can make files in a folder: rights, attributes, and what the file system is. That it has
/// no room is no reason.
///
/// # Errors
/// It cannot: why.
pub fn can_make_in(folder: &Path) -> io::Result<()> {
    // A file without a name: it goes with its descriptor, and the folder does not change.
    match open(folder, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR) {
        Ok(_) | Err(Errno::NOSPC | Errno::DQUOT) => Ok(()),
        // Not every file system has them. (A kernel that does not know them sees a folder opened for writing.)
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {
            let made = folder.join(format!(".{:06x}", rand::random::<u32>() >> 8));
            match std::fs::create_dir(&made) {
                Ok(()) => std::fs::remove_dir(&made),
                Err(why) if matches!(why.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => Ok(()),
                Err(why) => Err(why),
            }
        }
        Err(why) => Err(why.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_tried_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let changed = || std::fs::metadata(folder.path()).unwrap().modified().unwrap();
        let before = changed();
        assert!(can_make_in(folder.path()).is_ok());
        assert_eq!(changed(), before);
        std::fs::write(folder.path().join("file"), "x").unwrap();
        for not in [folder.path().join("file"), folder.path().join("none"), "/proc".into(), "/sys".into()] {
            assert!(can_make_in(&not).is_err(), "{}", not.display());
        }
    }
}
