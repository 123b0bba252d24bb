//! [`Stamps`]: what was in a configuration's files, so that a change of them is seen.
//!
//! Invariant: a file is stamped before what it holds is put to use, so a change that comes after the stamp differs from
//! it, and is seen at the next look.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::config::finding::Faults;
use crate::config::load::{self, Loaded};

/// What is in each file, by its digest; `None` for one that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamps(Vec<(PathBuf, Option<[u8; 32]>)>);

/// Reads a configuration, and stamps it and every file it names before anybody uses them.
///
/// # Errors
/// All faults of the file, or the one that it cannot be read.
pub fn read(path: &Path) -> Result<(Loaded, Stamps), Faults> {
    let configuration = stamp(path);
    let loaded = load::from_file(path)?;
    let of = |file: &PathBuf| (file.clone(), if file == path { configuration } else { stamp(file) });
    let stamps = Stamps(loaded.files.iter().map(of).collect());
    Ok((loaded, stamps))
}

impl Stamps {
    /// The same files as they are now.
    pub(super) async fn again(&self) -> Self {
        let mut stamps = Vec::with_capacity(self.0.len());
        for (file, _) in &self.0 {
            let content = tokio::fs::read(file).await.ok();
            stamps.push((file.clone(), content.map(digest)));
        }
        Self(stamps)
    }
}

fn stamp(file: &Path) -> Option<[u8; 32]> {
    std::fs::read(file).ok().map(digest)
}

/// Some of these files hold secrets: what was read of them is wiped.
fn digest(content: Vec<u8>) -> [u8; 32] {
    Sha256::digest(zeroize::Zeroizing::new(content).as_slice()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_of_any_file_after_the_reading_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let (config, key) = (folder.path().join("gateway.toml"), folder.path().join("key"));
        let text = format!(
            "[[apps]]\nid = \"app\"\n[apps.credential]\nkind = \"basic\"\napi_key = {{ file = {key:?} }}\n\
             api_secret = {{ file = {key:?} }}\n"
        );
        std::fs::write(&config, &text).unwrap();
        std::fs::write(&key, "one").unwrap();
        let (_, seen) = read(&config).unwrap();
        assert_eq!(seen.0.len(), 2);
        assert_eq!(seen.again().await, seen);
        std::fs::write(&key, "two").unwrap();
        assert_ne!(seen.again().await, seen, "a secret");
        std::fs::remove_file(&key).unwrap();
        assert_ne!(seen.again().await, seen, "a secret that is gone");
        std::fs::write(&key, "one").unwrap();
        std::fs::write(&config, format!("{text}\n")).unwrap();
        assert_ne!(seen.again().await, seen, "the configuration");
    }
}
