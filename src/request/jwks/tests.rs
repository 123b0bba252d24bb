//! What asking for keys comes to, in paused time, without an issuer: fetches are played by hand.

use std::time::SystemTime;

use super::*;
use crate::kernel::testing::pass;

fn keys() -> Keys {
    let clock = Clock::anchored(SystemTime::UNIX_EPOCH);
    Keys::new(KeyState::default(), Proofs::new(clock.clone()), clock)
}

fn begin(keys: &Keys) {
    let now = keys.clock.now();
    keys.rounds.send_modify(|rounds| {
        rounds.begun += 1;
        rounds.last_began = Some(now);
    });
}

fn end(keys: &Keys, fault: Option<&str>) {
    let before = keys.state.load_full();
    let state = match fault {
        Some(why) => KeyState { fault: Some(why.to_owned()), ..KeyState::clone(&before) },
        None => {
            let confirmed = Some((keys.clock.now(), keys.clock.wall_ms()));
            KeyState { set: Some(Arc::default()), confirmed, ..KeyState::default() }
        }
    };
    keys.state.store(Arc::new(state));
    keys.rounds.send_modify(|rounds| rounds.ended += 1);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_asks_once_and_not_again_until_the_gap_is_over() {
    let keys = keys();
    begin(&keys);
    end(&keys, None);
    // Just fetched: what is not there is not there.
    let began = Instant::now();
    assert_eq!(keys.refresh().await, RefreshOutcome::Fresh);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(futures_util::FutureExt::now_or_never(keys.refresh_wanted.notified()).is_none(), "nobody was asked");
    // Later, many ask at once: one fetch answers all of them.
    tokio::time::advance(ASK_GAP).await;
    let asking = futures_util::future::join_all((0..10).map(|_| keys.refresh()));
    let fetching = async {
        keys.refresh_wanted.notified().await;
        begin(&keys);
        pass(Duration::from_millis(500)).await;
        end(&keys, None);
    };
    let (verdicts, ()) = tokio::join!(asking, fetching);
    assert!(verdicts.iter().all(|verdict| *verdict == RefreshOutcome::Fresh), "{verdicts:?}");
    assert_eq!(keys.rounds.borrow().begun, 2);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_long_for_a_slow_issuer_and_few_wait_at_all() {
    let keys = keys();
    let began = Instant::now();
    let verdicts = futures_util::future::join_all((0..ASKERS + 5).map(|_| keys.refresh())).await;
    assert_eq!(began.elapsed(), ASK_WAIT);
    assert!(verdicts.iter().all(|verdict| *verdict == RefreshOutcome::InVain));
    // A place is free again for the next.
    begin(&keys);
    let (verdict, ()) = tokio::join!(keys.refresh(), async { end(&keys, None) });
    assert_eq!(verdict, RefreshOutcome::Fresh);
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_fails_decides_nothing_and_its_last_word_holds_for_a_day() {
    let keys = keys();
    begin(&keys);
    end(&keys, None);
    tokio::time::advance(ASK_GAP).await;
    begin(&keys);
    end(&keys, Some("away"));
    assert_eq!(keys.refresh().await, RefreshOutcome::InVain);
    assert!(keys.current().is_some());
    let status = keys.status();
    assert_eq!((status.believed, status.age_seconds, status.fault.as_deref()), (true, Some(10), Some("away")));
    tokio::time::advance(BELIEVED_FOR).await;
    assert!(keys.current().is_none());
    assert!(!keys.status().believed);
}
