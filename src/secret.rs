//! Values that must never be printed, and where they come from.
//!
//! Invariants: a [`Secret`] has no `Display`, no `Serialize` and a `Debug` that says nothing; it is wiped when dropped.
//! An empty or unreadable secret is an error, never an empty value.

pub mod redact;

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// An environment variable. Fixed for the life of the process.
    Env(String),
    /// A file. Its last line break is not part of the secret. Re-read when it changes.
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
    /// The file cannot be read.
    #[error("cannot read {path}: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: std::io::ErrorKind,
    },
}

impl SecretSource {
    /// Reads the secret now.
    ///
    /// # Errors
    /// When it is not there, cannot be read, is empty, or is not one line of text.
    #[expect(
        clippy::disallowed_methods,
        reason = "secrets are the one thing besides the log level that the environment gives"
    )]
    pub fn read(&self) -> Result<Secret, SecretError> {
        let text = match self {
            Self::Env(name) => Zeroizing::new(std::env::var(name).map_err(|_| SecretError::NoVariable(name.clone()))?),
            Self::File(path) => Zeroizing::new(
                std::fs::read_to_string(path)
                    .map_err(|e| SecretError::Unreadable { path: path.clone(), why: e.kind() })?,
            ),
        };
        let value = text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t));
        if value.is_empty() || value.chars().any(char::is_control) {
            return Err(SecretError::Unusable(self.to_string()));
        }
        Ok(Secret::new(value.to_owned()))
    }
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
}
