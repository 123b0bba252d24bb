//! That each change of a file is seen, however it is made.

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
