//! How long to stay away before the next try.
//!
//! Invariants: the wait doubles with each try in a row, to a bound; a random part of it keeps readers whom one event
//! cut from coming back as one.

use std::time::Duration;

use crate::kernel::backoff;

const MAX_WAIT: Duration = Duration::from_secs(15);
/// What a server asks for is honoured up to here.
const MAX_ASKED: Duration = Duration::from_secs(60);

/// Tries in a row that came to nothing.
#[derive(Debug)]
pub(in crate::cli) struct Backoff(backoff::Backoff);

impl Backoff {
    /// Begins with this wait.
    pub(in crate::cli) fn new(first: Duration) -> Self {
        Self(backoff::Backoff::new(first, MAX_WAIT))
    }

    /// It came to something.
    pub(in crate::cli) fn progress(&mut self) {
        self.0.reset();
    }

    /// How many tries in a row came to nothing.
    pub(in crate::cli) fn tries(&self) -> u32 {
        self.0.failures()
    }

    /// The wait before the next try: from half of it to all of it, no less than the server asked for.
    pub(in crate::cli) fn next(&mut self, asked: Option<Duration>) -> Duration {
        self.0.next_jittered().max(asked.unwrap_or_default().min(MAX_ASKED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_begin_anew_with_progress() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        for most in [1, 2, 4, 8, 15, 15] {
            let (wait, most) = (backoff.next(None), Duration::from_secs(most));
            assert!(wait >= most / 2 && wait <= most, "{wait:?}");
        }
        assert_eq!(backoff.tries(), 6);
        backoff.progress();
        assert!(backoff.next(None) <= Duration::from_secs(1));
        assert_eq!(backoff.next(Some(Duration::from_secs(30))), Duration::from_secs(30));
        assert_eq!(backoff.next(Some(Duration::from_secs(86_400))), MAX_ASKED);
    }
}
