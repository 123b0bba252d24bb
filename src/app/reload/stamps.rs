//! [`Stamps`]: what was in a configuration's files, so that a change of them is seen.
//!
//! Invariant: a file is stamped before what it holds is put to use, so a change that comes after the stamp differs from
//! it, and is seen at the next look. So is the file of a configuration that is refused, before fault is found with
//! it. A file whose [`Mark`] is the same and settled is not read again, but once a minute.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::config::finding::Faults;
use crate::config::load::{self, Loaded};
use crate::kernel::clock::Clock;
use crate::kernel::files::{self, Content, Mark, Unreadable};

/// Of each file what it held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamps(Vec<Stamp>);

#[derive(Clone, Debug)]
struct Stamp {
    file: Arc<Path>,
    /// It holds one secret: a half of it is no secret, and a shorter one is as good.
    is_secret: bool,
    /// Before it was read; `None` when it could not be looked at.
    mark: Option<Mark>,
    held: Result<Held, Unreadable>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    digest: [u8; 32],
    bytes: usize,
}

impl Held {
    fn of(content: &Content) -> Self {
        Self { digest: Sha256::digest(content.as_slice()).into(), bytes: content.len() }
    }
}

/// By what the files held, whatever else is known of them.
impl PartialEq for Stamp {
    fn eq(&self, other: &Self) -> bool {
        self.file == other.file && self.held == other.held
    }
}

impl Eq for Stamp {}

/// Reads a configuration, and stamps it and every file it names before anybody uses them, or finds fault with them. Not
/// for the threads of the runtime.
pub fn read(path: &Path) -> (Result<Loaded, Faults>, Stamps) {
    let mark = mark(path);
    // Once: what is stamped is what is applied.
    let content = files::read(path, files::CONFIGURATION);
    let held = held(&content);
    let stamp = |files: &[PathBuf], secrets: &BTreeSet<PathBuf>| {
        let own = Stamp { file: path.into(), is_secret: false, mark, held };
        let others = files.iter().filter(|file| *file != path);
        let others = others.map(|file| Stamp::unread(file.as_path().into(), secrets.contains(file), self::mark(file)));
        let mut stamps: Vec<_> = std::iter::once(own).chain(others).collect();
        let unread: Vec<_> = (1..stamps.len()).collect();
        read_each(&mut stamps, &unread);
        Stamps(stamps)
    };
    match load::from_content(&content, path) {
        Ok(loaded) => {
            let stamps = stamp(&loaded.files, &loaded.secrets);
            (Ok(loaded), stamps)
        }
        // A file that is mended from now on must differ from its stamp: so it is judged once more behind that.
        Err(faults) => {
            let stamps = stamp(&faults.files, &faults.secrets);
            (load::from_content(&content, path), stamps)
        }
    }
}

impl Stamps {
    /// The same files as they are now, looked at for the `round`th time. Not for the threads of the runtime.
    #[must_use]
    pub fn again(&self, round: u64, clock: &Clock) -> Self {
        let marks = files::marks(self.0.iter().map(|stamp| stamp.file.to_path_buf()).collect());
        let wall = clock.wall();
        let (mut stamps, mut unread) = (self.0.clone(), Vec::new());
        for ((n, (at, stamp)), mark) in (round..).zip(stamps.iter_mut().enumerate()).zip(marks) {
            let mark = mark.ok();
            let is_same = stamp.mark == mark && mark.is_some_and(|mark| mark.is_settled(wall));
            if !is_same || n % READ_ANYHOW == 0 {
                stamp.mark = mark;
                unread.push(at);
            }
        }
        read_each(&mut stamps, &unread);
        Self(stamps)
    }

    /// Whether a file holds less than it did `before`, or cannot be read any more: it may be in the middle of being
    /// written.
    pub(super) fn has_shrunk(&self, before: &Self) -> bool {
        let bytes = |stamp: &Stamp| stamp.held.map_or(0, |held| held.bytes);
        self.beside(before).any(|(now, before)| !now.is_secret && bytes(now) < bytes(before))
    }

    /// Whether a file that both are of held something else.
    pub(super) fn contradicts(&self, other: &Self) -> bool {
        self.beside(other).any(|(mine, theirs)| mine.held != theirs.held)
    }

    /// The stamps of files that both are of. Looked up, not searched: there may be thousands.
    fn beside<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a Stamp, &'a Stamp)> {
        let theirs: HashMap<&OsStr, &Stamp> = other.0.iter().map(|stamp| (stamp.file.as_os_str(), stamp)).collect();
        self.0.iter().filter_map(move |mine| Some((mine, *theirs.get(mine.file.as_os_str())?)))
    }
}

impl Stamp {
    /// Says nothing of what the file holds before it is read.
    fn unread(file: Arc<Path>, is_secret: bool, mark: Option<Mark>) -> Self {
        Self { file, is_secret, mark, held: Err(Unreadable::Hangs) }
    }
}

/// Reads those of the files again that are at these places, of each as much as its kind may have.
fn read_each(stamps: &mut [Stamp], places: &[usize]) {
    for (is_secret, most) in [(true, files::SECRET), (false, files::CONFIGURATION)] {
        let places: Vec<_> = places.iter().copied().filter(|at| stamps[*at].is_secret == is_secret).collect();
        let paths = places.iter().map(|at| stamps[*at].file.to_path_buf()).collect();
        for (at, now) in places.into_iter().zip(files::look_into(paths, most, Held::of)) {
            stamps[at].held = now;
        }
    }
}

/// At every such look a file is read whose mark says that it is the same: on some file systems marks lie.
const READ_ANYHOW: u64 = 120;

fn mark(file: &Path) -> Option<Mark> {
    files::marks(vec![file.to_owned()]).into_iter().find_map(Result::ok)
}

fn held(content: &Result<Content, Unreadable>) -> Result<Held, Unreadable> {
    content.as_ref().map(Held::of).map_err(|why| *why)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    impl Stamps {
        /// As if a configuration had been read that holds this and names a secret's file that holds that.
        pub(in crate::app::reload) fn made_of(configuration: &str, secret: &str) -> Self {
            let stamp = |file: &str, is_secret, text: &str| Stamp {
                file: Path::new(file).into(),
                is_secret,
                mark: None,
                held: held(&Ok(Content::new(text.as_bytes().to_vec()))),
            };
            Self(vec![stamp("gateway.toml", false, configuration), stamp("secret", true, secret)])
        }
    }

    #[test]
    fn a_change_of_any_file_after_the_reading_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let (config, key) = (folder.path().join("gateway.toml"), folder.path().join("key"));
        let text = format!(
            "[[apps]]\nid = \"app\"\n[apps.credential]\nkind = \"basic\"\napi_key = {{ file = {key:?} }}\n\
             api_secret = {{ file = {key:?} }}\n"
        );
        std::fs::write(&config, &text).unwrap();
        std::fs::write(&key, "one").unwrap();
        let clock = Clock::system();
        let (_, seen) = read(&config);
        assert_eq!(seen.0.len(), 2);
        let again = || seen.again(1, &clock);
        assert_eq!(again(), seen);
        std::fs::write(&key, "two").unwrap();
        assert_ne!(again(), seen, "a secret");
        assert!(!Stamps::has_shrunk(&again(), &seen));
        std::fs::remove_file(&key).unwrap();
        assert_ne!(again(), seen, "a secret that is gone");
        std::fs::write(&key, "one").unwrap();
        assert_eq!(again(), seen, "as before");
        std::fs::write(&config, format!("{text}\n")).unwrap();
        assert_ne!(again(), seen, "the configuration");
        assert!(!again().has_shrunk(&seen));
        std::fs::write(&config, &text[1..]).unwrap();
        assert!(again().has_shrunk(&seen) && again().contradicts(&seen));
    }

    #[test]
    fn a_folder_that_is_swapped_by_a_link_is_seen_though_names_sizes_and_times_are_the_same() {
        // As Kubernetes mounts a secret: key -> ..data/key, ..data -> ..first.
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, text) in [("..first", "one"), ("..second", "two")] {
            std::fs::create_dir(at(version)).unwrap();
            std::fs::write(at(version).join("key"), text).unwrap();
            let file = std::fs::File::options().write(true).open(at(version).join("key")).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        }
        std::os::unix::fs::symlink("..first", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/key", at("key")).unwrap();
        let mut seen = vec![Stamp::unread(at("key").as_path().into(), true, mark(&at("key")))];
        read_each(&mut seen, &[0]);
        let seen = Stamps(seen);
        // Long after it was written, so that it is judged by its mark.
        let later =
            Clock::anchored(std::fs::metadata(folder.path()).unwrap().modified().unwrap() + files::PATIENCE * 50);
        assert_eq!(seen.again(1, &later), seen);
        std::os::unix::fs::symlink("..second", at("..tmp")).unwrap();
        std::fs::rename(at("..tmp"), at("..data")).unwrap();
        assert_ne!(seen.again(1, &later), seen);
    }
}
