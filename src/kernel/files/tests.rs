use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;

/// Folders whose files can be looked at, and hang when they are read.
static HUNG: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static LET_GO: Condvar = Condvar::new();

/// While it is there, reading a file below this folder hangs.
pub(crate) struct Hung(PathBuf);

impl Hung {
    pub(crate) fn below(folder: &Path) -> Self {
        HUNG.lock().unwrap().push(folder.to_owned());
        Self(folder.to_owned())
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        HUNG.lock().unwrap().retain(|folder| *folder != self.0);
        LET_GO.notify_all();
    }
}

pub(super) fn hang(path: &Path) {
    let hangs = |folders: &mut Vec<PathBuf>| folders.iter().any(|folder| path.starts_with(folder));
    drop(LET_GO.wait_while(HUNG.lock().unwrap(), hangs).unwrap());
}

/// Makes a FIFO.
fn fifo(path: &Path) {
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
}

#[test]
fn only_regular_files_are_read_and_none_beyond_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fifo(&at("fifo"));
    std::fs::write(at("file"), "hello").unwrap();
    std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", at("endless")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    for name in ["fifo", "endless", "socket", ""] {
        assert_eq!(read(&at(name), 100), Err(Unreadable::NotRegular), "{name}");
        assert_eq!(marks(vec![at(name)]), [Err(Unreadable::NotRegular)], "{name}");
    }
    assert_eq!(**read(&at("link"), 5).as_ref().unwrap(), *b"hello");
    assert_eq!(read(&at("file"), 4), Err(Unreadable::TooLarge(4)));
    assert_eq!(read(&at("none"), 4), Err(Unreadable::System(ErrorKind::NotFound)));
    // Says of itself that it is empty, and is not.
    assert_eq!(read(Path::new("/proc/self/status"), 100), Err(Unreadable::TooLarge(100)));
    assert!(read(Path::new("/proc/self/status"), SECRET).unwrap().starts_with(b"Name:"));
}

#[test]
fn only_what_is_known_to_be_no_folder_is_in_a_folder_s_way() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fifo(&at("fifo"));
    std::fs::write(at("file"), "hello").unwrap();
    std::os::unix::fs::symlink(folder.path(), at("link")).unwrap();
    for (name, is_no_folder_there) in
        [("fifo", true), ("file", true), ("link", false), ("", false), ("none", false), ("file/below", false)]
    {
        assert_eq!(is_no_folder(&at(name)), is_no_folder_there, "{name}");
    }
}

/// A disk on which some files hang until they are let go.
struct Disk {
    reads: Arc<ActiveReads>,
    begun: Arc<AtomicUsize>,
    let_go: Arc<Mutex<Vec<mpsc::Sender<()>>>>,
}

impl Disk {
    fn new() -> Self {
        Self { reads: Arc::default(), begun: Arc::default(), let_go: Arc::default() }
    }

    fn read(&self, names: &[&str]) -> Vec<Result<String, Unreadable>> {
        let (begun, let_go) = (self.begun.clone(), self.let_go.clone());
        self.reads.each(names.iter().map(PathBuf::from).collect(), move |path| {
            if path.to_string_lossy().contains("hung") {
                begun.fetch_add(1, Ordering::SeqCst);
                let (sender, gone) = mpsc::channel();
                let_go.lock().unwrap().push(sender);
                let _ = gone.recv();
            }
            Ok(path.display().to_string())
        })
    }
}

#[test]
fn a_file_that_hangs_keeps_one_thread_and_no_other_file() {
    let disk = Disk::new();
    let good = |name: &str| Ok(name.to_owned());
    let hangs = || Err(Unreadable::Hangs);
    assert_eq!(disk.read(&["/a/1", "/a/hung", "/a/2", "/b/1"]), [good("/a/1"), hangs(), good("/a/2"), good("/b/1")]);
    for _ in 0..50 {
        assert_eq!(disk.read(&["/a/hung", "/a/2"]), [hangs(), good("/a/2")]);
    }
    assert_eq!(disk.begun.load(Ordering::SeqCst), 1, "one read of it is under way");
    disk.let_go.lock().unwrap().clear();
    // The thread that hung ends by itself; then the file is read again, and hangs again.
    while disk.reads.under_way().contains_key(Path::new("/a/hung")) {
        std::thread::yield_now();
    }
    assert_eq!(disk.read(&["/a/hung"]), [hangs()]);
    assert_eq!(disk.begun.load(Ordering::SeqCst), 2);
    disk.let_go.lock().unwrap().clear();
}

#[test]
fn a_folder_that_hangs_costs_a_few_threads_and_no_other_folder() {
    let disk = Disk::new();
    let names: Vec<String> = (0..300).map(|n| format!("/mount/hung-{n}")).chain(["/b/1".to_owned()]).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let read = disk.read(&names);
    assert_eq!(read.iter().filter(|one| **one == Err(Unreadable::Hangs)).count(), 300);
    assert_eq!(read.last(), Some(&Ok("/b/1".to_owned())));
    assert_eq!(disk.begun.load(Ordering::SeqCst), HANGING_FOLDER);
    disk.let_go.lock().unwrap().clear();
}

#[test]
fn folders_that_hang_together_take_hardly_longer_than_one() {
    let disk = Disk::new();
    let names: Vec<String> = (0..40).flat_map(|n| [format!("/app-{n}/hung"), format!("/app-{n}/good")]).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let began = tokio::time::Instant::now();
    let read = disk.read(&names);
    // One after another they would take forty times as long.
    assert!(began.elapsed() < PATIENCE * 10, "{:?}", began.elapsed());
    for (name, read) in names.iter().zip(read) {
        assert_eq!(read.is_ok(), name.ends_with("good"), "{name}: {read:?}");
    }
    assert_eq!(disk.begun.load(Ordering::SeqCst), 40, "each costs one thread");
    disk.let_go.lock().unwrap().clear();
}

#[test]
fn a_mark_tells_edits_apart_that_keep_size_and_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let mark = || marks(vec![path.clone()]).remove(0).unwrap();
    std::fs::write(&path, "one").unwrap();
    let first = mark();
    let written = std::fs::metadata(&path).unwrap().modified().unwrap();
    assert!(!first.is_settled(written), "another edit may bear the same times");
    assert!(first.is_settled(written + GRAIN * 2));
    assert!(!first.is_settled(written - GRAIN * 2), "a clock that was set back proves nothing");
    // The same size, the same time of change; even the same name.
    let other = folder.path().join("other");
    std::fs::write(&other, "two").unwrap();
    std::fs::File::options().write(true).open(&other).unwrap().set_modified(written).unwrap();
    std::fs::rename(&other, &path).unwrap();
    assert_ne!(mark(), first);
}
