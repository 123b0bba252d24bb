//! That each change of a file is seen, however it is made.

use proptest::prelude::*;

use super::*;

impl Snapshot {
    /// As if a configuration had been read that holds this and names a secret's file that holds that.
    pub(in crate::app::reload) fn made_of(configuration: &str, secret: &str) -> Self {
        let state = |file: &str, is_secret, text: &str| FileState {
            file: Path::new(file).into(),
            is_secret,
            mark: None,
            held: held(&Ok(Content::new(text.as_bytes().to_vec()))),
        };
        Self(vec![state("gateway.toml", false, configuration), state("secret", true, secret)])
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
    assert!(!Snapshot::has_shrunk(&again(), &seen));
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
    let mut seen = vec![FileState::unread(at("key").as_path().into(), true, mark(&at("key")))];
    read_each(&mut seen, &[0]);
    let seen = Snapshot(seen);
    // Long after it was written, so that it is judged by its mark.
    let later = Clock::anchored(std::fs::metadata(folder.path()).unwrap().modified().unwrap() + files::PATIENCE * 50);
    assert_eq!(seen.again(1, &later), seen);
    std::os::unix::fs::symlink("..second", at("..tmp")).unwrap();
    std::fs::rename(at("..tmp"), at("..data")).unwrap();
    assert_ne!(seen.again(1, &later), seen);
}

/// What others do to the file of a secret.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Writes over what is there.
    Write(u8),
    /// The same, and sets the time of its last change back to what it was.
    WriteUnseen(u8),
    /// Puts another file in its place.
    Replace(u8),
    /// Swaps the folder that it is in, as Kubernetes does.
    Swap(u8),
    Remove,
    Nothing,
}

fn act() -> impl Strategy<Value = Act> {
    let text = || 0..3_u8;
    prop_oneof![
        text().prop_map(Act::Write),
        text().prop_map(Act::WriteUnseen),
        text().prop_map(Act::Replace),
        text().prop_map(Act::Swap),
        Just(Act::Remove),
        Just(Act::Nothing),
    ]
}

/// A secret that is mounted as Kubernetes does it: key -> ..data/key, ..data -> a folder of its own for each version.
struct Mount {
    folder: tempfile::TempDir,
    version: u32,
}

impl Mount {
    fn new() -> Self {
        let mut mount = Self { folder: tempfile::tempdir().unwrap(), version: 0 };
        mount.swap(0);
        std::os::unix::fs::symlink("..data/key", mount.at("key")).unwrap();
        mount
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// All are as long as each other.
    fn text(text: u8) -> String {
        format!("secret {text}")
    }

    fn swap(&mut self, text: u8) {
        self.version += 1;
        let version = format!("..{}", self.version);
        std::fs::create_dir(self.at(&version)).unwrap();
        std::fs::write(self.at(&version).join("key"), Self::text(text)).unwrap();
        std::os::unix::fs::symlink(&version, self.at("..tmp")).unwrap();
        std::fs::rename(self.at("..tmp"), self.at("..data")).unwrap();
    }

    /// Waits until what is written has a later time than what was looked at: the system's times move in ticks.
    fn next_tick(&self) {
        let written = || {
            std::fs::write(self.at("tick"), "x").unwrap();
            std::fs::metadata(self.at("tick")).unwrap().modified().unwrap()
        };
        let began = written();
        while written() == began {}
    }

    /// Says what is there then.
    fn act(&mut self, act: Act, there: Option<u8>) -> Option<u8> {
        let key = self.at("..data/key");
        match act {
            Act::Write(text) => std::fs::write(key, Self::text(text)).map(|()| Some(text)).unwrap(),
            Act::WriteUnseen(text) => {
                let before = std::fs::metadata(&key).and_then(|file| file.modified());
                std::fs::write(&key, Self::text(text)).unwrap();
                if let Ok(before) = before {
                    std::fs::File::options().write(true).open(key).unwrap().set_modified(before).unwrap();
                }
                Some(text)
            }
            Act::Replace(text) => {
                std::fs::write(self.at("new"), Self::text(text)).unwrap();
                std::fs::rename(self.at("new"), key).unwrap();
                Some(text)
            }
            Act::Swap(text) => {
                self.swap(text);
                Some(text)
            }
            // It may be gone already.
            Act::Remove => std::fs::remove_file(key).map_or(None, |()| None),
            Act::Nothing => there,
        }
    }
}

/// Also where what was done is judged by marks alone, long after the grain of their times.
#[test]
fn each_look_finds_what_a_file_holds_whatever_was_done_to_it() {
    let acts = prop::collection::vec((act(), act(), any::<bool>()), 1..30);
    properties!(ProptestConfig::with_cases(40), |(acts in acts)| {
        let mut mount = Mount::new();
        let mut there = Some(0);
        let mut seen = Snapshot(vec![FileState::unread(mount.at("key").as_path().into(), true, None)]);
        for (one, other, is_later) in acts {
            mount.next_tick();
            there = mount.act(one, there);
            there = mount.act(other, there);
            // An hour later what was written now is judged by its mark alone.
            let ahead = if is_later { std::time::Duration::from_secs(3600) } else { std::time::Duration::ZERO };
            let clock = Clock::anchored(Clock::system().wall() + ahead);
            seen = seen.again(1, &clock);
            let held = there.map(|text| ContentHash::of(&Content::new(Mount::text(text).into_bytes())));
            prop_assert_eq!(seen.0[0].held.ok(), held);
        }
    });
}
