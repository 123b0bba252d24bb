//! [`AgeGuard`]: how old a stored thing is at least, whatever the wall clock did.
//!
//! What is stored is stamped by the wall clock, which may jump, and what is deleted is gone. So an age that decides
//! over deletion is judged by time that was lived through: an advance of the wall clock beside which no monotonic time
//! passed (a jump; or a time in which no gateway ran, which cannot be told from one) is not believed until as much time
//! as the age in question has passed since. Then all from before it is older than that in any case, and the stamps
//! after it are true.
//!
//! Invariants: nothing younger than an age, by real time, is older than [`AgeGuard::older_than`] that age. Things may
//! be kept longer than that: by the size of a jump, for as long as it is not believed, or of a step back. What the
//! witness has seen is kept in the store, so a restart neither forgets a jump nor hides one.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::sync::lock;
use crate::store::{Error, Store};

/// How often what was seen is to be kept in the store.
pub(in crate::events) const KEPT_EVERY: Duration = Duration::from_secs(300);

/// Corrections up to this size happen every day, and are believed.
const TOLERANCE: Duration = Duration::from_secs(60);

const WALL: &str = "witness: wall";
const JUMP: &str = "witness: jump";
const HELD: &str = "witness: held";

/// What one gateway has seen of the wall clock.
pub(in crate::events) struct AgeGuard {
    clock: Clock,
    state: Mutex<ClockHistory>,
}

/// How the wall clock went beside the monotonic one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ClockHistory {
    /// What both showed when they were looked at last.
    last: (Instant, UnixMillis),
    /// The advances that are not believed yet, together.
    jump: Duration,
    /// The time lived through since the last of them.
    held: Duration,
}

impl ClockHistory {
    /// Looks at the clocks. Says by how much the wall clock has jumped ahead, if it did.
    fn look(&mut self, now: Instant, wall: UnixMillis, tolerance: Duration) -> Option<Duration> {
        let (before, shown) = self.last;
        let lived = now.saturating_duration_since(before);
        let extra = wall.since(shown).saturating_sub(lived);
        self.last = (now, wall);
        self.held = self.held.saturating_add(lived);
        if extra <= tolerance {
            return None;
        }
        // Each jump begins the wait anew: how much of it was real cannot be told from the next.
        self.jump = self.jump.saturating_add(extra);
        self.held = Duration::ZERO;
        Some(extra)
    }

    fn unproved(&self, age: Duration) -> Duration {
        if self.held < age { self.jump } else { Duration::ZERO }
    }
}

impl AgeGuard {
    /// One that has seen nothing yet.
    pub(in crate::events) fn new(clock: Clock) -> Self {
        let last = (clock.now(), clock.wall_ms());
        Self { clock, state: Mutex::new(ClockHistory { last, jump: Duration::ZERO, held: Duration::MAX }) }
    }

    /// Takes over what an earlier run has seen.
    ///
    /// # Errors
    /// When the store fails.
    pub(in crate::events) async fn recall(&self, store: &dyn Store) -> Result<(), Error> {
        let (wall, jump, held) = (store.fact(WALL).await?, store.fact(JUMP).await?, store.fact(HELD).await?);
        let (Some(wall), Some(jump), Some(held)) = (wall, jump, held) else { return Ok(()) };
        let now = self.clock.now();
        let mut state = ClockHistory {
            last: (now, UnixMillis(wall)),
            jump: Duration::from_millis(jump),
            held: Duration::from_millis(held),
        };
        // The last run may have gone on for a while after it kept this.
        if let Some(by) = state.look(now, self.clock.wall_ms(), KEPT_EVERY + TOLERANCE) {
            let by = humantime::format_duration(Duration::from_secs(by.as_secs()));
            tracing::info!(%by, "the wall clock is ahead of the last run's; old events are kept longer for it");
        }
        *lock(&self.state) = state;
        Ok(())
    }

    /// Keeps what was seen for the next run.
    ///
    /// # Errors
    /// When the store fails.
    pub(in crate::events) async fn keep(&self, store: &dyn Store) -> Result<(), Error> {
        self.look();
        let ClockHistory { last, jump, held } = *lock(&self.state);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        store.keep_facts(&[(WALL, last.1.0), (JUMP, millis(jump)), (HELD, millis(held))]).await
    }

    /// What was stamped before this is older than `age`, by real time too.
    pub(in crate::events) fn older_than(&self, age: Duration) -> UnixMillis {
        self.look();
        let state = lock(&self.state);
        state.last.1.before(age).before(state.unproved(age))
    }

    /// How old at most, within `most`, a thing is that was stamped then.
    pub(in crate::events) fn age(&self, stamp: UnixMillis, most: Duration) -> Duration {
        self.look();
        let state = lock(&self.state);
        state.last.1.since(stamp).saturating_sub(state.unproved(most)).min(most)
    }

    fn look(&self) {
        let jumped = lock(&self.state).look(self.clock.now(), self.clock.wall_ms(), TOLERANCE);
        if let Some(by) = jumped {
            let by = humantime::format_duration(Duration::from_secs(by.as_secs()));
            tracing::warn!(%by, "the wall clock has jumped ahead; old events are kept longer for it");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;
    use crate::store::tests::memory::MemoryStore;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

    fn clock() -> Clock {
        Clock::anchored(SystemTime::UNIX_EPOCH + YEAR * 50)
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_is_believed_when_as_much_time_has_passed_as_the_age_in_question() {
        let clock = clock();
        let witness = AgeGuard::new(clock.clone());
        let stamp = clock.wall_ms();
        clock.jump(3_600_000);
        assert!(witness.older_than(Duration::from_secs(1800)) <= stamp);
        tokio::time::advance(Duration::from_secs(1799)).await;
        assert!(witness.older_than(Duration::from_secs(1800)) <= stamp);
        let later = clock.wall_ms();
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(witness.older_than(Duration::from_secs(1800)) > stamp);
        // Stamps from after the jump are as old as they say.
        assert!(witness.older_than(Duration::from_secs(1800)) <= later);
        tokio::time::advance(Duration::from_secs(1800)).await;
        assert!(witness.older_than(Duration::from_secs(1800)) > later);
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_neither_forgets_a_jump_nor_hides_one() {
        let (clock, store) = (clock(), MemoryStore::default());
        let witness = AgeGuard::new(clock.clone());
        let stamp = clock.wall_ms();
        witness.keep(&store).await.unwrap();
        clock.jump(YEAR.as_millis() as i64);
        let witness = AgeGuard::new(clock.clone());
        witness.recall(&store).await.unwrap();
        assert!(witness.older_than(WEEK) <= stamp);
        tokio::time::advance(WEEK / 2).await;
        witness.keep(&store).await.unwrap();
        let witness = AgeGuard::new(clock.clone());
        witness.recall(&store).await.unwrap();
        assert!(witness.older_than(WEEK) <= stamp);
        tokio::time::advance(WEEK / 2).await;
        assert!(witness.older_than(WEEK) > stamp);
    }

    properties! {
        /// Whatever the wall clock does: nothing young is called old, and what stays quiet for an age is.
        #[test]
        fn nothing_younger_than_an_age_is_older_than_it(
            steps in prop::collection::vec((0..5000u64, -9_000_000..9_000_000i64, prop::bool::weighted(0.3)), 1..40),
            age in 1..20_000u64,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let (clock, age) = (clock(), Duration::from_secs(age));
                let witness = AgeGuard::new(clock.clone());
                let (mut stamps, mut believed) = (Vec::new(), Duration::ZERO);
                for (pause, jump, jumps) in steps {
                    stamps.push((clock.now(), clock.wall_ms()));
                    // It looks as often as housekeeping does, not at each event.
                    tokio::time::advance(Duration::from_secs(pause)).await;
                    if jumps {
                        clock.jump(jump);
                        let ahead = Duration::from_millis(jump.max(0).unsigned_abs());
                        believed += if ahead <= TOLERANCE { ahead } else { Duration::ZERO };
                    }
                    let limit = witness.older_than(age);
                    for (at, stamp) in &stamps {
                        let real = clock.now() - *at;
                        prop_assert!(*stamp >= limit || real + believed >= age, "{real:?}");
                    }
                }
                Ok(())
            })?;
        }
    }
}
