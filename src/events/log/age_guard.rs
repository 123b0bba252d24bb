//! [`AgeGuard`]: how old a stored thing is at least, whatever the wall clock did.
//!
//! What is stored is stamped by the wall clock, which may jump, and what is deleted is gone. So an age that decides
//! over deletion is judged by time that is known to have passed:
//!
//! - what this process lived through, and what the machine did: it counts its time since it was booted, also while no
//!   gateway runs, and no correction of the wall clock moves that;
//! - across a boot, or on another machine, an advance of the wall clock of which the vendor is witness: the `Date` of
//!   its answers agreed with our clock before and agrees with it after.
//!
//! Any other advance (a jump) is not believed until as much time as the age in question has passed since. Then all from
//! before it is older than that in any case, and the stamps after it are true.
//!
//! Invariants: nothing younger than an age, by real time, is older than [`AgeGuard::older_than`] that age. Things may
//! be kept longer than that: by the size of a jump, for as long as it is not believed, or of a step back. What the
//! witness has seen is kept in the store, so a restart neither forgets a jump nor hides one.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::kernel::clock::{BootTime, Clock, UnixMillis};
use crate::kernel::sync::lock;
use crate::store::{Error, Store};

/// How often what was seen is to be kept in the store.
pub(in crate::events) const KEPT_EVERY: Duration = Duration::from_secs(300);

/// Corrections up to this size happen every day, and are believed. So far may the vendor's clock be from ours.
const TOLERANCE: Duration = Duration::from_secs(60);

const WALL: &str = "witness: wall";
const JUMP: &str = "witness: jump";
const HELD: &str = "witness: held";
const BOOT: &str = "witness: boot";
const SINCE_BOOT: &str = "witness: since boot";
const SURE: &str = "witness: sure";
const DOUBT: &str = "witness: doubt";
const HELD_BEFORE: &str = "witness: held before";

/// What one gateway has seen of the wall clock.
pub(in crate::events) struct AgeGuard {
    clock: Clock,
    state: Mutex<ClockHistory>,
    /// What of it was kept last.
    kept: Mutex<Option<Belief>>,
}

/// What only a jump, a step back or the vendor changes.
type Belief = (Duration, bool, Option<Doubt>);

/// What the clocks show at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    now: Instant,
    boot: Option<BootTime>,
    wall: UnixMillis,
}

/// How the wall clock went beside the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ClockHistory {
    /// What they showed when they were looked at last.
    last: Look,
    /// The advances that are not believed yet, together.
    jump: Duration,
    /// The time that is known to have passed since the last of them.
    held: Duration,
    /// The vendor's clock agreed with ours, which has not jumped since.
    is_sure: bool,
    doubt: Option<Doubt>,
}

/// Advances since the clock was sure, which are believed when it is sure again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Doubt {
    /// The part of `jump` that they are.
    by: Duration,
    /// The time that was held before them, and between them.
    held_before: Duration,
}

impl Look {
    fn at(clock: &Clock) -> Self {
        Self { now: clock.now(), boot: clock.boot(), wall: clock.wall_ms() }
    }

    /// The time that is known to have passed since `earlier`.
    fn since(&self, earlier: &Self) -> Duration {
        // While the machine sleeps the one stands still and the other does not.
        let awake = self.now.saturating_duration_since(earlier.now);
        self.on_this_machine_since(earlier).map_or(awake, |passed| passed.max(awake))
    }

    /// `None` when the machine was booted in between, or is another.
    fn on_this_machine_since(&self, earlier: &Self) -> Option<Duration> {
        self.boot.zip(earlier.boot).and_then(|(now, before)| now.since(before))
    }
}

impl ClockHistory {
    fn new(last: Look) -> Self {
        Self { last, jump: Duration::ZERO, held: Duration::MAX, is_sure: false, doubt: None }
    }

    /// Takes a look at the clocks. Says by how much the wall clock has jumped ahead, if it did.
    fn look(&mut self, look: Look, tolerance: Duration) -> Option<Duration> {
        let (before, lived) = (self.last, look.since(&self.last));
        let advance = look.wall.since(before.wall);
        let behind = lived.saturating_sub(advance).saturating_add(before.wall.since(look.wall));
        self.last = look;
        self.held = self.held.saturating_add(lived);
        if behind > tolerance {
            // What is stamped from here on may look older than it is.
            (self.is_sure, self.doubt) = (false, None);
        }
        let extra = advance.saturating_sub(lived);
        if extra <= tolerance {
            return None;
        }
        self.doubt = match self.doubt {
            _ if self.is_sure => Some(Doubt { by: extra, held_before: self.held }),
            Some(Doubt { by, held_before }) => {
                Some(Doubt { by: by.saturating_add(extra), held_before: held_before.saturating_add(self.held) })
            }
            None => None,
        };
        self.is_sure = false;
        // Each jump begins the wait anew: how much of it was real cannot be told from the next.
        self.jump = self.jump.saturating_add(extra);
        self.held = Duration::ZERO;
        Some(extra)
    }

    /// The vendor's clock agrees with ours now, or does not. Says how much is believed by that.
    fn compared(&mut self, agrees: bool) -> Option<Duration> {
        self.is_sure = agrees;
        let Doubt { by, held_before } = self.doubt.take_if(|_| agrees)?;
        // It was right before and is right now, so all that lies between did pass.
        self.jump = self.jump.saturating_sub(by);
        self.held = self.held.saturating_add(held_before).saturating_add(by);
        Some(by)
    }

    fn unproved(&self, age: Duration) -> Duration {
        if self.held < age { self.jump } else { Duration::ZERO }
    }
}

impl AgeGuard {
    /// One that has seen nothing yet.
    pub(in crate::events) fn new(clock: Clock) -> Self {
        let state = ClockHistory::new(Look::at(&clock));
        Self { clock, state: Mutex::new(state), kept: Mutex::default() }
    }

    /// Takes over what an earlier run has seen.
    ///
    /// # Errors
    /// When the store fails.
    pub(in crate::events) async fn recall(&self, store: &dyn Store) -> Result<(), Error> {
        let (wall, jump, held) = (store.fact(WALL).await?, store.fact(JUMP).await?, store.fact(HELD).await?);
        let (Some(wall), Some(jump), Some(held)) = (wall, jump, held) else { return Ok(()) };
        let boot = store.fact(BOOT).await?.zip(store.fact(SINCE_BOOT).await?);
        let (is_sure, doubt) = (store.fact(SURE).await? == Some(1), store.fact(DOUBT).await?.filter(|by| *by > 0));
        let held_before = store.fact(HELD_BEFORE).await?.unwrap_or(0);
        let look = Look::at(&self.clock);
        let before =
            Look { boot: boot.map(|(boot, millis)| BootTime { boot, millis }), wall: UnixMillis(wall), ..look };
        let mut state = ClockHistory {
            last: before,
            jump: Duration::from_millis(jump),
            held: Duration::from_millis(held),
            is_sure,
            doubt: doubt
                .map(|by| Doubt { by: Duration::from_millis(by), held_before: Duration::from_millis(held_before) }),
        };
        let is_same_boot = look.on_this_machine_since(&before).is_some();
        // The last run may have gone on for a while after it kept this.
        let tolerance = if is_same_boot { TOLERANCE } else { KEPT_EVERY + TOLERANCE };
        match state.look(look, tolerance) {
            Some(by) => {
                let by = humantime::format_duration(Duration::from_secs(by.as_secs()));
                tracing::info!(
                    %by, until_the_vendor_agrees = state.doubt.is_some(),
                    "the wall clock is ahead of the last run's; old events are kept longer for it"
                );
            }
            // Right to some minutes is not right.
            None if !is_same_boot => state.is_sure = false,
            None => {}
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
        let ClockHistory { last, jump, held, is_sure, doubt } = *lock(&self.state);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (by, before) = doubt.map_or((0, 0), |doubt| (millis(doubt.by), millis(doubt.held_before)));
        let mut facts = vec![
            (WALL, last.wall.0),
            (JUMP, millis(jump)),
            (HELD, millis(held)),
            (SURE, u64::from(is_sure)),
            (DOUBT, by),
            (HELD_BEFORE, before),
        ];
        if let Some(BootTime { boot, millis }) = last.boot {
            facts.extend([(BOOT, boot), (SINCE_BOOT, millis)]);
        }
        store.keep_facts(&facts).await?;
        *lock(&self.kept) = Some((jump, is_sure, doubt));
        Ok(())
    }

    /// Whether something was seen that the next run must know: to be kept soon.
    pub(in crate::events) fn has_news(&self) -> bool {
        self.look();
        let ClockHistory { jump, is_sure, doubt, .. } = *lock(&self.state);
        lock(&self.kept).is_none_or(|kept| kept != (jump, is_sure, doubt))
    }

    /// What was stamped before this is older than `age`, by real time too.
    pub(in crate::events) fn older_than(&self, age: Duration) -> UnixMillis {
        self.look();
        let state = lock(&self.state);
        state.last.wall.before(age).before(state.unproved(age))
    }

    /// How old at most, within `most`, a thing is that was stamped then.
    pub(in crate::events) fn age(&self, stamp: UnixMillis, most: Duration) -> Duration {
        self.look();
        let state = lock(&self.state);
        state.last.wall.since(stamp).saturating_sub(state.unproved(most)).min(most)
    }

    /// An answer of the vendor's that comes now was dated then.
    pub(in crate::events) fn vendor_says(&self, date: UnixMillis) {
        self.look();
        let mut state = lock(&self.state);
        let wall = state.last.wall;
        let apart = wall.since(date).max(date.since(wall));
        let believed = state.compared(apart <= TOLERANCE);
        drop(state);
        if let Some(by) = believed {
            let by = humantime::format_duration(Duration::from_secs(by.as_secs()));
            tracing::info!(%by, "the vendor's clock agrees with ours: that the wall clock is ahead is believed");
        }
    }

    fn look(&self) {
        let jumped = lock(&self.state).look(Look::at(&self.clock), TOLERANCE);
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

    const HOUR: Duration = Duration::from_secs(3600);

    /// The gateway stops and is started so much later, on a machine that runs on; or on one that is booted meanwhile
    /// and shows what it should.
    async fn restarted(store: &MemoryStore, clock: &mut Clock, down: Duration, booted: bool) -> AgeGuard {
        tokio::time::advance(down).await;
        if booted {
            *clock = Clock::anchored(clock.wall());
        }
        let witness = AgeGuard::new(clock.clone());
        witness.recall(store).await.unwrap();
        witness
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_in_which_no_gateway_ran_on_this_machine_has_passed() {
        for down in [Duration::from_secs(7 * 60), HOUR * 5, HOUR * 24 * 3, WEEK * 2] {
            let (mut clock, store) = (clock(), MemoryStore::default());
            let witness = AgeGuard::new(clock.clone());
            tokio::time::advance(HOUR).await;
            let stamp = clock.wall_ms();
            // It is killed a while after it kept what it saw.
            witness.keep(&store).await.unwrap();
            tokio::time::advance(Duration::from_secs(200)).await;
            let left = WEEK.saturating_sub(down + Duration::from_secs(200));
            let witness = restarted(&store, &mut clock, down, false).await;
            tokio::time::advance(left.saturating_sub(Duration::from_secs(1))).await;
            assert_eq!(witness.older_than(WEEK) > stamp, left.is_zero(), "{down:?}");
            tokio::time::advance(Duration::from_secs(2)).await;
            assert!(witness.older_than(WEEK) > stamp, "{down:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_passed_while_the_machine_was_off_is_believed_when_the_vendors_clock_bears_it_out() {
        for (before, after, down) in
            [(true, true, WEEK * 2), (true, true, HOUR), (true, false, WEEK * 2), (false, true, WEEK * 2)]
        {
            let (mut clock, store) = (clock(), MemoryStore::default());
            let witness = AgeGuard::new(clock.clone());
            tokio::time::advance(HOUR).await;
            let stamp = clock.wall_ms();
            witness.vendor_says(if before { stamp } else { UnixMillis(0) });
            witness.keep(&store).await.unwrap();
            let mut witness = restarted(&store, &mut clock, down, true).await;
            assert!(witness.older_than(WEEK) <= stamp, "nobody has borne it out yet");
            // Nor does another restart before anybody has.
            witness.keep(&store).await.unwrap();
            witness = restarted(&store, &mut clock, Duration::from_secs(90), false).await;
            assert!(witness.older_than(WEEK) <= stamp);
            witness.vendor_says(if after { clock.wall_ms().before(Duration::from_secs(20)) } else { UnixMillis(0) });
            let gone = before && after && down > WEEK;
            assert_eq!(witness.older_than(WEEK) > stamp, gone, "{before} {after} {down:?}");
            tokio::time::advance(WEEK.saturating_sub(down)).await;
            assert_eq!(witness.older_than(WEEK) > stamp, before && after, "{before} {after} {down:?}");
            tokio::time::advance(WEEK).await;
            assert!(witness.older_than(WEEK) > stamp, "as much time has passed as the age in question");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_wrong_at_boot_and_then_set_takes_nothing_that_is_young() {
        for wrong in [SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + YEAR * 130] {
            let (right, store) = (clock(), MemoryStore::default());
            let witness = AgeGuard::new(right.clone());
            tokio::time::advance(HOUR).await;
            witness.vendor_says(right.wall_ms());
            let mut stamps = vec![right.wall_ms()];
            witness.keep(&store).await.unwrap();
            tokio::time::advance(HOUR).await;
            let clock = Clock::anchored(wrong);
            let witness = AgeGuard::new(clock.clone());
            witness.recall(&store).await.unwrap();
            witness.vendor_says(right.wall_ms());
            stamps.push(clock.wall_ms());
            assert!(stamps.iter().all(|stamp| witness.older_than(WEEK) <= *stamp), "{wrong:?}");
            tokio::time::advance(Duration::from_secs(600)).await;
            let error = i64::try_from(right.wall_ms().0).unwrap() - i64::try_from(clock.wall_ms().0).unwrap();
            clock.jump(error);
            witness.vendor_says(right.wall_ms());
            stamps.push(clock.wall_ms());
            assert!(stamps.iter().all(|stamp| witness.older_than(WEEK) <= *stamp), "set: {wrong:?}");
            // Neither does the next start.
            witness.keep(&store).await.unwrap();
            let witness = restarted(&store, &mut clock.clone(), HOUR, false).await;
            witness.vendor_says(right.wall_ms());
            assert!(stamps.iter().all(|stamp| witness.older_than(WEEK) <= *stamp), "restarted: {wrong:?}");
            tokio::time::advance(WEEK).await;
            assert!(witness.older_than(WEEK) > stamps[0], "{wrong:?}");
        }
    }

    properties! {
        /// The same with restarts, boots, and a vendor whose clock is right, heard or not.
        #[test]
        fn nothing_young_is_called_old_whatever_is_restarted_and_whoever_is_heard(
            steps in prop::collection::vec((0..5000u64, -9_000_000..9_000_000i64, 0..8u8), 1..60),
            age in 1..20_000u64,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let (right, store, age) = (clock(), MemoryStore::default(), Duration::from_secs(age));
                let mut clock = right.clone();
                clock = Clock::anchored(clock.wall());
                let mut witness = AgeGuard::new(clock.clone());
                witness.keep(&store).await.unwrap();
                let (mut stamps, mut slack) = (Vec::new(), Duration::ZERO);
                for (pause, jump, deed) in steps {
                    stamps.push((right.now(), clock.wall_ms()));
                    tokio::time::advance(Duration::from_secs(pause)).await;
                    // What is believed of each look, either way, and of each comparison.
                    slack += TOLERANCE * 2;
                    match deed {
                        0 => clock.jump(jump),
                        1 => witness.keep(&store).await.unwrap(),
                        2 => {
                            // Housekeeping keeps what is new within seconds.
                            if witness.has_news() {
                                witness.keep(&store).await.unwrap();
                            }
                            witness = restarted(&store, &mut clock, Duration::from_secs(pause), false).await;
                        }
                        3 => {
                            slack += KEPT_EVERY;
                            witness.keep(&store).await.unwrap();
                            witness = restarted(&store, &mut clock, Duration::from_secs(pause), true).await;
                        }
                        4 => {
                            // To the right time, as by NTP.
                            let error = i64::try_from(right.wall_ms().0).unwrap() - i64::try_from(clock.wall_ms().0).unwrap();
                            clock.jump(error);
                        }
                        5 | 6 => witness.vendor_says(right.wall_ms()),
                        _ => {}
                    }
                    let limit = witness.older_than(age);
                    for (at, stamp) in &stamps {
                        let real = right.now() - *at;
                        prop_assert!(*stamp >= limit || real + slack >= age, "{real:?}");
                    }
                }
                Ok(())
            })?;
        }

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
