//! [`Turns`]: acts on one thing come one after the other, so that what a line says to have been before is what the line
//! before it says to be after.
//!
//! Invariants: acts on different things do not wait for each other; a turn ends when its holder is dropped. It is taken
//! when the request's body is here: nobody waits for another operator's connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::OwnedMutexGuard;

use crate::kernel::names::{AppId, SubscriptionName};
use crate::kernel::sync::lock;

/// Of each thing that is acted on now.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

/// The right to change something, while nobody else does.
#[derive(Debug)]
pub(super) struct Turn(#[expect(dead_code, reason = "dropped when the act is done")] OwnedMutexGuard<()>);

impl Turns {
    /// Of a subscription, in all streams: a webhook's acts are on its places in several.
    pub(super) async fn of_subscription(&self, app: &AppId, name: &SubscriptionName) -> Turn {
        self.of(format!("{app}/{name}")).await
    }

    /// Of what has this name.
    pub(super) async fn of(&self, name: String) -> Turn {
        let turn = {
            let mut all = lock(&self.0);
            all.retain(|_, turn| turn.strong_count() > 0);
            let known = all.entry(name).or_default();
            known.upgrade().unwrap_or_else(|| {
                let new = Arc::default();
                *known = Arc::downgrade(&new);
                new
            })
        };
        Turn(turn.lock_owned().await)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn one_thing_has_one_turn_at_a_time_and_nothing_is_kept_of_it() {
        let turns = Turns::default();
        let first = turns.of("a".to_owned()).now_or_never().unwrap();
        assert!(turns.of("a".to_owned()).now_or_never().is_none());
        let _other = turns.of("b".to_owned()).now_or_never().unwrap();
        drop(first);
        assert!(turns.of("a".to_owned()).now_or_never().is_some());
        let _last = turns.of("c".to_owned()).now_or_never();
        assert_eq!(lock(&turns.0).len(), 2, "b, which is held, and c");
    }
}
