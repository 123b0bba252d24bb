//! [`Cause`]: why something failed, with the error of whatever library said so.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// What happened, in words, and the error it was told by, if it was one. Two causes are equal that say the same. Cheap
/// to clone, for one failure may be told to all who wait for the same; and small, for it lies in the errors of hot
/// paths.
#[derive(Clone)]
pub struct Cause(Arc<CauseDetail>);

struct CauseDetail {
    words: Box<str>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Cause {
    /// Says what the error says.
    pub fn new(source: impl Error + Send + Sync + 'static) -> Self {
        Self::of(source.to_string(), source)
    }

    /// Says `words` of an error. Those of HTTP libraries say little at the top, so the words come from deeper down.
    pub fn of(words: String, source: impl Error + Send + Sync + 'static) -> Self {
        Self::boxed(words, Box::new(source))
    }

    /// Likewise, of one that was boxed already.
    pub(crate) fn boxed(words: String, source: Box<dyn Error + Send + Sync>) -> Self {
        Self(Arc::new(CauseDetail { words: words.into(), source: Some(source) }))
    }
}

/// Nobody's error: a rule of ours.
impl From<&str> for Cause {
    fn from(words: &str) -> Self {
        Self(Arc::new(CauseDetail { words: words.into(), source: None }))
    }
}

impl From<String> for Cause {
    fn from(words: String) -> Self {
        Self(Arc::new(CauseDetail { words: words.into(), source: None }))
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.words)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0.words, f)
    }
}

impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        self.0.words == other.0.words
    }
}

impl Eq for Cause {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_keeps_its_error_and_is_what_it_says() {
        let cause = Cause::new(std::io::Error::from_raw_os_error(111));
        assert_eq!(cause, Cause::from(cause.to_string()));
        let kept = cause.source().and_then(|source| source.downcast_ref::<std::io::Error>());
        assert_eq!(kept.and_then(std::io::Error::raw_os_error), Some(111));
        assert!(Cause::from("a rule of ours").source().is_none());
    }
}
