//! Values that must never be printed, and where they come from.
//!
//! Invariants: a [`Secret`] has no `Display`, no `Serialize` and a `Debug` that says nothing; it is wiped when dropped.
//! An empty or unreadable secret is an error, never an empty value.

mod private_url;
pub mod redact;

use std::fmt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::kernel::files::{self, Unreadable};
use crate::kernel::task;
pub use private_url::PrivateUrl;

/// A secret text. Only [`Secret::expose`] shows it: grep for that word in review.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes ownership of a secret text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// For what owns it and wipes it, such as a header's value.
impl AsRef<[u8]> for Secret {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Where a secret is kept: `{ env = "NAME" }` or `{ file = "PATH" }`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// An environment variable. Fixed for the life of the process.
    Env(String),
    /// A file. Its last line break is not part of the secret, nor is a byte order mark. Re-read when it changes.
    File(PathBuf),
}

/// Why a secret could not be had. Names the place, never the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The environment variable is not set.
    #[error("environment variable {0} is not set")]
    NoVariable(String),
    /// The value is empty or not UTF-8 or holds a control character.
    #[error("{0} is empty or is not one line of text")]
    Unusable(String),
    /// The value has blanks, quotes or what cannot be seen around it, which an editor or a shell left there.
    #[error("{0} has {1} around the secret")]
    Stray(String, &'static str),
    /// The file cannot be read.
    #[error("cannot read {path}: {why}")]
    Unreadable { path: PathBuf, why: Unreadable },
}

impl SecretSource {
    /// Reads the secret now. Takes [`files::PATIENCE`] at most; not for the threads of the runtime.
    ///
    /// # Errors
    /// When it is not there, cannot be read, is empty, is not one line of text, or has blanks or quotes around it.
    pub fn read(&self) -> Result<Secret, SecretError> {
        let read = Self::read_all(std::slice::from_ref(self)).pop();
        read.unwrap_or_else(|| Err(SecretError::Unusable(self.to_string())))
    }

    /// Reads many, in their order. Files that hang take hardly longer together than one.
    ///
    /// # Errors
    /// As [`SecretSource::read`].
    #[must_use]
    pub fn read_all(sources: &[Self]) -> Vec<Result<Secret, SecretError>> {
        let paths = sources.iter().filter_map(Self::file).map(Path::to_owned).collect();
        let mut files = files::read_all(paths, files::SECRET).into_iter();
        let read = |source: &Self| {
            let bytes = match source {
                Self::Env(name) => variable(name)?,
                Self::File(path) => {
                    let unreadable = |why| SecretError::Unreadable { path: path.clone(), why };
                    files.next().unwrap_or(Err(Unreadable::Hangs)).map_err(unreadable)?
                }
            };
            source.judge(&bytes)
        };
        sources.iter().map(read).collect()
    }

    /// What was read, if it can be a secret.
    fn judge(&self, bytes: &[u8]) -> Result<Secret, SecretError> {
        let unusable = || SecretError::Unusable(self.to_string());
        let text = std::str::from_utf8(bytes).map_err(|_| unusable())?;
        // Editors of another system put it there, and nobody sees it.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // One line break, which every editor ends a file with. More of them, or blanks, are told: they may be part of a
        // secret.
        let value = text.strip_suffix('\n').map_or(text, |t| t.strip_suffix('\r').unwrap_or(t));
        if value.is_empty() || value.chars().any(char::is_control) {
            return Err(unusable());
        }
        match stray(value) {
            Some(what) => Err(SecretError::Stray(self.to_string(), what)),
            None => Ok(Secret::new(value.to_owned())),
        }
    }

    /// The same for the threads of the runtime: they do not wait for the disk.
    ///
    /// # Errors
    /// As [`SecretSource::read`].
    pub async fn read_elsewhere(&self) -> Result<Secret, SecretError> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let source = self.clone();
        task::detached(move || {
            // Who asked may have left.
            let _ = tell.send(source.read());
        });
        told.await.unwrap_or_else(|_| Err(SecretError::Unusable(self.to_string())))
    }

    /// The file, if it is in one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Env(_) => None,
            Self::File(path) => Some(path),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "secrets are the one thing besides the log level that the environment gives"
)]
fn variable(name: &str) -> Result<files::Content, SecretError> {
    let value = std::env::var(name).map_err(|_| SecretError::NoVariable(name.to_owned()))?;
    Ok(Zeroizing::new(value.into_bytes()))
}

/// What is around a text that belongs to no secret.
fn stray(value: &str) -> Option<&'static str> {
    if value.trim() != value {
        return Some("blanks");
    }
    // A second byte order mark (of files that were joined), and what comes along where a text is copied from a page.
    let is_unseen = |c: char| matches!(c, '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{ad}');
    if value.starts_with(is_unseen) || value.ends_with(is_unseen) {
        return Some("characters that cannot be seen");
    }
    let quoted = |(begin, end): (char, char)| value.len() > 1 && value.starts_with(begin) && value.ends_with(end);
    let pairs = [('"', '"'), ('\'', '\''), ('`', '`'), ('\u{201c}', '\u{201d}'), ('\u{2018}', '\u{2019}')];
    pairs.into_iter().any(quoted).then_some("quotes")
}

/// The place, as a message may name it.
impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print_itself() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "Secret(..)");
    }

    #[test]
    fn the_last_line_break_of_a_file_is_not_part_of_the_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        std::fs::write(&path, "abc\r\n").unwrap();
        assert_eq!(SecretSource::File(path.clone()).read().unwrap().expose(), "abc");
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(SecretSource::File(path.clone()).read(), Err(SecretError::Unusable(_))));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(SecretSource::File(path).read(), Err(SecretError::Unreadable { .. })));
    }
    #[test]
    fn what_an_editor_or_a_shell_left_around_a_secret_is_not_taken_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let source = SecretSource::File(dir.path().join("s"));
        let read = |text: &str| {
            std::fs::write(dir.path().join("s"), text).unwrap();
            source.read().map(|secret| secret.expose().to_owned())
        };
        assert_eq!(read("\u{feff}abc\n").unwrap(), "abc");
        for kept in ["a b", "a\"b\"", "\"", "it's", "\"a'"] {
            assert_eq!(read(kept).unwrap(), kept);
        }
        for (text, what) in [(" abc", "blanks"), ("abc \n", "blanks"), ("abc\u{a0}", "blanks"), ("\"abc\"\n", "quotes")]
        {
            assert!(matches!(read(text), Err(SecretError::Stray(_, why)) if why == what), "{text:?}");
        }
        for quoted in ["'abc'", "`abc`", "\u{201c}abc\u{201d}"] {
            assert!(matches!(read(quoted), Err(SecretError::Stray(_, "quotes"))), "{quoted}");
        }
        for unseen in ["\u{feff}\u{feff}abc", "abc\u{feff}\n", "\u{200b}abc", "abc\u{2060}"] {
            assert!(matches!(read(unseen), Err(SecretError::Stray(_, "characters that cannot be seen"))), "{unseen:?}");
        }
        assert!(matches!(read("\u{feff}\n"), Err(SecretError::Unusable(_))));
        std::fs::write(dir.path().join("s"), b"\xff\xfea\0b\0").unwrap();
        assert!(matches!(source.read(), Err(SecretError::Unusable(_))), "UTF-16");
    }
}
