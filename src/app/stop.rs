//! [`Stop`]: how the gateway is told to end.
//!
//! Invariant: being hurried changes how long what runs is waited for, never what is stored.

use tokio_util::sync::CancellationToken;

/// When to stop.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// In order: what runs gets its grace.
    pub asked: CancellationToken,
    /// The grace is over. What must be stored still is, and what is in doubt is marked.
    pub hurried: CancellationToken,
}

impl From<CancellationToken> for Stop {
    fn from(asked: CancellationToken) -> Self {
        Self { asked, hurried: CancellationToken::new() }
    }
}
