//! What the configuration says of where the keys are, with what its files held, so that a change of either is seen.

use std::path::{Path, PathBuf};

use super::set::BadSet;
use crate::config::{JwksUrl, JwtKeys};
use crate::kernel::files::{self, Content, Unreadable};
use crate::tls::{Anchors, AnchorsError};

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    File { path: PathBuf, document: Content },
    Url { settings: JwksUrl, anchors: Option<Content> },
}

/// Why keys cannot be had from where the configuration says they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A file cannot be read.
    #[error("identity.jwt.{key}: cannot read {path}: {why}")]
    Unreadable {
        /// Which key of the configuration names it.
        key: &'static str,
        path: PathBuf,
        why: Unreadable,
    },
    /// `jwks_file` is no key set.
    #[error("identity.jwt.jwks_file: {0}")]
    BadSet(#[from] BadSet),
    /// `jwks_ca_file` holds no certificate, or one that cannot be used.
    #[error("identity.jwt.jwks_ca_file: {0}")]
    BadAnchors(AnchorsError),
    /// `jwks_url` may not be fetched.
    #[error("identity.jwt.jwks_url: {0}")]
    Target(#[from] crate::kernel::targets::TargetRefused),
}

impl Source {
    /// When the first authority of its `ca_file` runs out, in seconds since 1970.
    pub(super) fn ca_ends(&self) -> Option<i64> {
        match self {
            Self::Url { anchors, .. } => Anchors::or_public(anchors.as_ref().map(|pem| pem.as_slice())).first_end(),
            Self::File { .. } => None,
        }
    }

    pub(super) fn read(keys: &JwtKeys) -> Result<Self, BuildError> {
        match keys {
            JwtKeys::File(path) => Ok(Self::File { path: path.clone(), document: read("jwks_file", path)? }),
            JwtKeys::Url(settings) => {
                let anchors = settings.ca_file.as_deref().map(|path| read("jwks_ca_file", path)).transpose()?;
                Ok(Self::Url { settings: settings.clone(), anchors })
            }
        }
    }

    /// Whether both are fetched from the same address, whatever else differs.
    pub(super) fn is_same_address(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Url { settings: a, .. }, Self::Url { settings: b, .. }) if a.url == b.url)
    }
}

fn read(key: &'static str, path: &Path) -> Result<Content, BuildError> {
    files::read(path, files::DOCUMENT).map_err(|why| BuildError::Unreadable { key, path: path.to_owned(), why })
}
