//! The retry budget of a client at an app: what of its orders may be sent again, of all that is sent.
//!
//! Invariants: clients share none, so that one whose orders all fail does not use up what another's one needs; those
//! that asked nothing of late are forgotten. All of an app's are under one short lock. One is sent again only if fewer
//! than `min_per_second` were in this second, or if with it the retries of the last ten seconds are no more than
//! `percent` of their first tries. So a vendor that fails all it is asked is asked a bounded share more often, not
//! several times as often. (As Finagle's `RetryBudget`; in whole numbers, and without its store of ten seconds' minimum
//! that could be spent at once.)

use std::sync::Mutex;

use tokio::time::Instant;

use crate::config::RetryBudget;
use crate::kernel::fast_map::FastMap;
use crate::kernel::names::ClientName;
use crate::kernel::sync::lock;

/// Seconds that are looked back on.
const WINDOW: usize = 10;

/// More clients than this are not kept without a look at who is idle.
const SWEPT_FROM: usize = 32;

/// The budgets of an app's clients.
pub(super) struct Budgets(Mutex<Clients>);

struct Clients {
    rule: RetryBudget,
    all: FastMap<ClientName, Budget>,
    /// At so many the idle ones are dropped.
    sweep_at: usize,
}

impl Budgets {
    pub(super) fn new(rule: RetryBudget) -> Self {
        Self(Mutex::new(Clients { rule, all: FastMap::default(), sweep_at: SWEPT_FROM }))
    }

    /// Another rule, from now on.
    pub(super) fn reconfigure(&self, rule: RetryBudget) {
        let mut clients = self.clients();
        clients.rule = rule;
        clients.all.values_mut().for_each(|budget| budget.rule = rule);
    }

    /// An order of a client is sent for the first time.
    pub(super) fn first(&self, client: &ClientName, now: Instant) {
        self.clients().of(client, now).first(now);
    }

    /// May one be sent again? If so it is spent.
    pub(super) fn again(&self, client: &ClientName, now: Instant) -> bool {
        self.clients().of(client, now).again(now)
    }

    fn clients(&self) -> std::sync::MutexGuard<'_, Clients> {
        lock(&self.0)
    }
}

impl Clients {
    fn of(&mut self, client: &ClientName, now: Instant) -> &mut Budget {
        if self.all.len() >= self.sweep_at && !self.all.contains_key(client) {
            self.all.retain(|_, budget| budget.is_in_use(now));
            self.sweep_at = (self.all.len() * 2).max(SWEPT_FROM);
        }
        let rule = self.rule;
        self.all.entry(client.clone()).or_insert_with(|| Budget::new(rule, now))
    }
}

/// One client's budget.
struct Budget {
    rule: RetryBudget,
    began: Instant,
    seconds: [Second; WINDOW],
}

/// What happened in one second.
#[derive(Clone, Copy, Default)]
struct Second {
    number: u64,
    first: u64,
    again: u64,
}

impl Budget {
    fn new(rule: RetryBudget, now: Instant) -> Self {
        Self { rule, began: now, seconds: [Second::default(); WINDOW] }
    }

    /// An order is sent for the first time.
    fn first(&mut self, now: Instant) {
        self.second(now).first += 1;
    }

    /// Whether anything was sent within the window.
    fn is_in_use(&mut self, now: Instant) -> bool {
        let this = self.second(now).number;
        self.seconds.iter().any(|s| s.number + WINDOW as u64 > this && s.first + s.again > 0)
    }

    /// May one be sent again? If so it is spent.
    fn again(&mut self, now: Instant) -> bool {
        let RetryBudget { percent, min_per_second } = self.rule;
        let this = *self.second(now);
        let recent = |second: &&Second| second.number + WINDOW as u64 > this.number;
        let (first, again) =
            self.seconds.iter().filter(recent).fold((0, 0), |(f, a), second| (f + second.first, a + second.again));
        let may = this.again < u64::from(min_per_second) || (again + 1) * 100 <= first * u64::from(percent);
        if may {
            self.second(now).again += 1;
        }
        may
    }

    fn second(&mut self, now: Instant) -> &mut Second {
        let number = now.saturating_duration_since(self.began).as_secs();
        let slot = &mut self.seconds[usize::try_from(number % WINDOW as u64).unwrap_or_default()];
        if slot.number != number {
            *slot = Second { number, ..Second::default() };
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    properties! {
        #[test]
        fn retries_stay_within_a_share_of_first_tries_or_the_minimum(
            percent in 0_u32..=100,
            min_per_second in 0_u32..4,
            steps in proptest::collection::vec((0_u64..1500, 0_u32..8, 0_u32..8), 1..60),
        ) {
            let mut now = Instant::now();
            let began = now;
            let mut budget = Budget::new(RetryBudget { percent, min_per_second }, now);
            let mut log: Vec<(u64, u64, u64)> = Vec::new();
            for (millis, first, again) in steps {
                now += Duration::from_millis(millis);
                let second = (now - began).as_secs();
                (0..first).for_each(|_| budget.first(now));
                let sent = (0..again).filter(|_| budget.again(now)).count() as u64;
                log.push((second, u64::from(first), sent));
                // Judged when one is sent: what the share was earned by may be gone a moment later.
                let recent: Vec<_> = log.iter().filter(|(s, ..)| s + 10 > second).collect();
                let (firsts, retries) = recent.iter().fold((0, 0), |(f, a), (_, first, sent)| (f + first, a + sent));
                if sent > 0 && min_per_second == 0 {
                    prop_assert!(retries * 100 <= firsts * u64::from(percent), "{retries} of {firsts}");
                }
                let (all, spent) = log.iter().fold((0, 0), |(f, a), (_, first, sent)| (f + first, a + sent));
                prop_assert!(spent <= all * u64::from(percent) / 100 + (second + 1) * u64::from(min_per_second));
            }
        }
    }

    #[test]
    fn clients_share_no_budget_and_idle_ones_are_forgotten() {
        let now = Instant::now();
        let name = |n: usize| ClientName::parse(&format!("client-{n}")).unwrap();
        let budgets = Budgets::new(RetryBudget { percent: 20, min_per_second: 1 });
        (0..100).for_each(|_| budgets.first(&name(0), now));
        assert_eq!((0..100).filter(|_| budgets.again(&name(0), now)).count(), 20);
        assert!(budgets.again(&name(1), now), "another's failures took it");
        for n in 0..1000 {
            budgets.first(&name(n), now + Duration::from_secs(n as u64));
        }
        assert!(budgets.clients().all.len() <= SWEPT_FROM, "{}", budgets.clients().all.len());
    }

    #[test]
    fn a_share_of_the_last_ten_seconds_and_a_minimum_may_be_sent_again() {
        let now = Instant::now();
        let mut budget = Budget::new(RetryBudget { percent: 20, min_per_second: 0 }, now);
        let spent = |budget: &mut Budget, at| (0..50).filter(|_| budget.again(at)).count();
        assert_eq!(spent(&mut budget, now), 0);
        (0..100).for_each(|_| budget.first(now));
        assert_eq!((spent(&mut budget, now), spent(&mut budget, now + Duration::from_secs(9))), (20, 0));
        assert_eq!(spent(&mut budget, now + Duration::from_secs(11)), 0);
        budget.rule = RetryBudget { percent: 0, min_per_second: 3 };
        assert_eq!(spent(&mut budget, now + Duration::from_secs(12)), 3);
        assert_eq!(spent(&mut budget, now + Duration::from_secs(13)), 3);
    }
}
