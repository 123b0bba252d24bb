//! A SPIFFE ID: `spiffe://TRUST-DOMAIN/PATH`, the name of a workload.
//!
//! Invariant: a [`SpiffeId`] names a workload, not a trust domain or an authority: it has a path (X509-SVID, 3.1). The
//! characters are those of the SPIFFE ID standard, 2; nothing is mended (case, escapes, dots), so two texts that differ
//! are two names.

use std::fmt;

/// The longest that a SPIFFE ID may be (SPIFFE ID, 2.3).
const LONGEST: usize = 2048;
/// The longest that its trust domain may be.
const MAX_DOMAIN: usize = 255;

/// The name of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpiffeId(Box<str>);

/// Why a text is no name of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSpiffeId {
    /// It does not begin with `spiffe://`.
    #[error("must begin with spiffe://")]
    Scheme,
    /// It is too long.
    #[error("may have 2048 bytes")]
    TooLong,
    /// The trust domain is empty, too long, or holds another character (a port, a user, a capital).
    #[error("needs a trust domain of 1 to 255 characters of a-z 0-9 . - _")]
    Domain,
    /// There is no path: that names a trust domain or its authority.
    #[error("needs a path: without one it names a trust domain, not a workload")]
    NoPath,
    /// A segment is empty, a dot segment, or holds another character (a query, a fragment, an escape).
    #[error("may have path segments of A-Z a-z 0-9 . - _ only, none of them empty, . or ..")]
    Path,
}

impl SpiffeId {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, BadSpiffeId> {
        let rest = text.strip_prefix("spiffe://").ok_or(BadSpiffeId::Scheme)?;
        if text.len() > LONGEST {
            return Err(BadSpiffeId::TooLong);
        }
        let (domain, path) = rest.split_once('/').map_or((rest, None), |(domain, path)| (domain, Some(path)));
        let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b".-_".contains(&c);
        if domain.is_empty() || domain.len() > MAX_DOMAIN || !domain.bytes().all(fits) {
            return Err(BadSpiffeId::Domain);
        }
        let path = path.ok_or(BadSpiffeId::NoPath)?;
        let fits = |c: u8| c.is_ascii_alphanumeric() || b".-_".contains(&c);
        let is_bad = |segment: &str| matches!(segment, "" | "." | "..") || !segment.bytes().all(fits);
        if path.split('/').any(is_bad) {
            return Err(if path.is_empty() { BadSpiffeId::NoPath } else { BadSpiffeId::Path });
        }
        Ok(Self(text.into()))
    }

    /// The ID as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standards_rules_hold() {
        let long = |bytes: usize| format!("spiffe://d/{}", "p".repeat(bytes - 11));
        for good in [
            "spiffe://corp/ns/prod/sa/billing",
            "spiffe://k8s-west.example.com/A_b-c.d/9eebccd2",
            "spiffe://d_1/...",
            &long(2048),
        ] {
            assert_eq!(SpiffeId::parse(good).unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("", BadSpiffeId::Scheme),
            ("https://corp/a", BadSpiffeId::Scheme),
            ("SPIFFE://corp/a", BadSpiffeId::Scheme),
            ("spiffe:/corp/a", BadSpiffeId::Scheme),
            (&long(2049), BadSpiffeId::TooLong),
            ("spiffe:///a", BadSpiffeId::Domain),
            ("spiffe://Corp/a", BadSpiffeId::Domain),
            ("spiffe://corp:443/a", BadSpiffeId::Domain),
            ("spiffe://me@corp/a", BadSpiffeId::Domain),
            (&format!("spiffe://{}/a", "d".repeat(256)), BadSpiffeId::Domain),
            ("spiffe://corp", BadSpiffeId::NoPath),
            ("spiffe://corp/", BadSpiffeId::NoPath),
            ("spiffe://corp/a/", BadSpiffeId::Path),
            ("spiffe://corp//a", BadSpiffeId::Path),
            ("spiffe://corp/a/../b", BadSpiffeId::Path),
            ("spiffe://corp/./b", BadSpiffeId::Path),
            ("spiffe://corp/a%2fb", BadSpiffeId::Path),
            ("spiffe://corp/a?b", BadSpiffeId::Path),
            ("spiffe://corp/a#b", BadSpiffeId::Path),
            ("spiffe://corp/ä", BadSpiffeId::Path),
        ] {
            assert_eq!(SpiffeId::parse(bad), Err(why), "{bad}");
        }
    }
}
