//! When a change of files is applied: not while it is being written.
//!
//! Invariants: what is applied by itself was found by two looks in a row, [`LOOK_AGAIN`] apart. Where a file holds less
//! than what is in force, or is gone, it must have been found the same for [`SHRUNK_FOR`]: writers that begin anew cut
//! a file to nothing first, and the half that is there when they pause can be a valid configuration of half the
//! clients. A file of one secret is spared that wait: half a secret opens nothing, and the vendor's 401 has it read
//! again.

use std::time::Duration;

use tokio::time::Instant;

use super::snapshot::Snapshot;

/// How often files are looked at.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// The same once a change was seen.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How long a file that shrank must rest.
const SHRUNK_FOR: Duration = Duration::from_secs(3);

/// What was applied, what was tried, and what is waited for.
pub(super) struct Debouncer {
    applied: Snapshot,
    /// Applied or refused: not tried again before it changes.
    tried: Snapshot,
    /// What was found by the last look that found something else, and since when it is so.
    changing: Option<(Snapshot, Instant)>,
}

/// What to do after a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Look again after so long.
    Look(Duration),
    /// Apply what was found.
    Apply,
}

impl Debouncer {
    pub(super) fn new(applied: Snapshot) -> Self {
        Self { tried: applied.clone(), applied, changing: None }
    }

    /// What was found last: what the next look starts from.
    pub(super) fn last(&self) -> &Snapshot {
        self.changing.as_ref().map_or(&self.tried, |(found, _)| found)
    }

    /// After a look that found this.
    pub(super) fn found(&mut self, found: Snapshot, now: Instant) -> Next {
        if found == self.tried {
            // Also where a writer came back to it. Its marks may be newer.
            (self.tried, self.changing) = (found, None);
            return Next::Look(LOOK);
        }
        let since = match self.changing.take() {
            Some((before, since)) if before == found => since,
            _ => {
                self.changing = Some((found, now));
                return Next::Look(LOOK_AGAIN);
            }
        };
        let is_rested = !found.has_shrunk(&self.applied) || now.saturating_duration_since(since) >= SHRUNK_FOR;
        self.changing = Some((found, since));
        if is_rested { Next::Apply } else { Next::Look(LOOK_AGAIN) }
    }

    /// What was found is, or something that was read at once is, in force.
    pub(super) fn applied(&mut self, snapshot: Snapshot) {
        (self.tried, self.applied, self.changing) = (snapshot.clone(), snapshot, None);
    }

    /// What held this was refused: it is not tried again before one of its files changes, which may be others than
    /// those of what is in force.
    pub(super) fn refused(&mut self, snapshot: Snapshot) {
        (self.tried, self.changing) = (snapshot, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::pass;

    /// Files that are written at some time, looked at as the reloader does; when each content was applied.
    async fn watch(first: (&str, &str), writes: &[(u64, &str, &str)], until: u64) -> Vec<(u64, String)> {
        let began = Instant::now();
        let mut watch = Debouncer::new(Snapshot::made_of(first.0, first.1));
        let mut applied = Vec::new();
        while began.elapsed() < Duration::from_millis(until) {
            let at = u64::try_from(began.elapsed().as_millis()).unwrap();
            let (_, text, secret) = *writes.iter().rfind(|(when, ..)| *when <= at).unwrap_or(&(0, first.0, first.1));
            let found = Snapshot::made_of(text, secret);
            let pause = match watch.found(found.clone(), Instant::now()) {
                Next::Look(pause) => pause,
                Next::Apply if text.contains("refuse") => {
                    applied.push((at, format!("refused {text}")));
                    watch.refused(found);
                    LOOK
                }
                Next::Apply => {
                    applied.push((at, format!("{text} {secret}")));
                    watch.applied(found);
                    LOOK
                }
            };
            pass(pause).await;
        }
        applied
    }

    fn at(when: u64, what: &str) -> (u64, String) {
        (when, what.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_applied_when_two_looks_agree() {
        assert_eq!(watch(("one", "s"), &[(600, "other", "s")], 9000).await, [at(1250, "other s")]);
        // Written piece by piece: only the whole.
        let pieces = [(900, "onetw", "s"), (1200, "onetwoth", "s"), (1450, "onetwothree", "s")];
        assert_eq!(watch(("one", "s"), &pieces, 9000).await, [at(1750, "onetwothree s")]);
        assert_eq!(watch(("one", "s"), &[(900, "two", "s"), (1100, "one", "s")], 9000).await, []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_that_truncates_and_pauses_has_three_seconds_to_go_on() {
        let writes = [(900, "", "s"), (2000, "half of", "s"), (4500, "half of the new one", "s")];
        assert_eq!(watch(("all of the old one", "s"), &writes, 20_000).await, [at(4750, "half of the new one s")]);
        // What stays shorter is meant.
        assert_eq!(watch(("the old one", "s"), &[(900, "shorter", "s")], 20_000).await, [at(4000, "shorter s")]);
        // Also when what was truncated was refused meanwhile: less is less than what is in force.
        let writes = [(900, "refuse", "s"), (5000, "half of it", "s"), (7000, "the new whole one", "s")];
        let expected = [at(4000, "refused refuse"), at(7250, "the new whole one s")];
        assert_eq!(watch(("the old one", "s"), &writes, 20_000).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_that_is_shorter_than_the_last_is_in_force_within_the_second() {
        assert_eq!(watch(("one", "long"), &[(600, "one", "s")], 9000).await, [at(1250, "one s")]);
        let both = watch(("the one", "long"), &[(600, "one", "s")], 9000).await;
        assert_eq!(both, [at(4000, "one s")], "with a configuration that shrank it waits");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_refused_is_not_tried_again_before_it_changes() {
        let writes = [(600, "refuse this", "s"), (5000, "refuse that", "s"), (8000, "one", "s")];
        let expected = [at(1250, "refused refuse this"), at(5500, "refused refuse that"), at(8500, "one s")];
        let seen: Vec<_> = watch(("one", "s"), &writes, 20_000).await;
        assert_eq!(
            seen.iter().map(|(_, what)| what).collect::<Vec<_>>(),
            expected.iter().map(|(_, what)| what).collect::<Vec<_>>()
        );
    }
}
