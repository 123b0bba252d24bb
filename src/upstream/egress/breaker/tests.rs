use proptest::prelude::*;

use super::*;

const RULE: Rule = Rule { failures: 3, open_for: Duration::from_secs(5) };

fn fail(breaker: &mut Breaker, times: u32, verdict: Verdict, now: Instant) {
    for _ in 0..times {
        let role = breaker.enter(now).unwrap();
        breaker.ended(role, verdict, now, 0.5);
    }
}

#[test]
fn it_opens_after_failures_in_a_row_only() {
    let now = Instant::now();
    let mut breaker = Breaker::new(RULE);
    for _ in 0..10 {
        fail(&mut breaker, 2, Verdict::Failed, now);
        fail(&mut breaker, 1, Verdict::Well, now);
        fail(&mut breaker, 5, Verdict::Unknown, now);
    }
    assert_eq!(breaker.status(now), BreakerStatus::Closed);
    fail(&mut breaker, 3, Verdict::Failed, now);
    assert_eq!(breaker.enter(now), Err(RULE.open_for));
}

#[test]
fn one_probe_at_a_time_decides() {
    let mut now = Instant::now();
    let mut breaker = Breaker::new(RULE);
    fail(&mut breaker, 3, Verdict::Failed, now);
    for seconds in [5, 10, 20, 30, 30] {
        assert_eq!(breaker.status(now), BreakerStatus::Open { retry_after: Duration::from_secs(seconds) });
        now += Duration::from_secs(seconds);
        let probe = breaker.enter(now).unwrap();
        assert!(matches!(probe, Role::Probe { .. }));
        assert_eq!(breaker.enter(now), Err(SOON));
        breaker.ended(probe, Verdict::Failed, now, 0.5);
    }
    now += Duration::from_secs(30);
    // One that ends without a word makes room for the next.
    let probe = breaker.enter(now).unwrap();
    breaker.ended(probe, Verdict::Unknown, now, 0.5);
    let probe = breaker.enter(now).unwrap();
    breaker.ended(probe, Verdict::Well, now, 0.5);
    assert_eq!(breaker.status(now), BreakerStatus::Closed);
    // Open again at once: longer. After a while in health: as at first.
    fail(&mut breaker, 3, Verdict::Failed, now);
    assert_eq!(breaker.status(now), BreakerStatus::Open { retry_after: MAX_OPEN });
    now += MAX_OPEN;
    let probe = breaker.enter(now).unwrap();
    breaker.ended(probe, Verdict::Well, now, 0.5);
    now += Duration::from_secs(31);
    fail(&mut breaker, 3, Verdict::Failed, now);
    assert_eq!(breaker.status(now), BreakerStatus::Open { retry_after: RULE.open_for });
}

#[test]
fn any_success_closes_it_and_a_failure_in_spite_of_it_says_nothing() {
    let now = Instant::now();
    let mut breaker = Breaker::new(RULE);
    let early = breaker.enter(now).unwrap();
    fail(&mut breaker, 3, Verdict::Failed, now);
    assert!(breaker.enter(now).is_err());
    breaker.ended(Role::InSpite, Verdict::Failed, now, 0.5);
    assert_eq!(breaker.status(now), BreakerStatus::Open { retry_after: RULE.open_for });
    breaker.ended(Role::InSpite, Verdict::Well, now, 0.5);
    assert_eq!(breaker.status(now), BreakerStatus::Closed);
    // One that was sent before it opened, and while a probe is under way.
    fail(&mut breaker, 3, Verdict::Failed, now);
    let later = now + RULE.open_for * 4;
    let probe = breaker.enter(later).unwrap();
    breaker.ended(early, Verdict::Well, later, 0.5);
    assert_eq!(breaker.status(later), BreakerStatus::Closed);
    breaker.ended(probe, Verdict::Failed, later, 0.5);
    assert_eq!(breaker.status(later), BreakerStatus::Closed);
}

#[test]
fn turned_off_it_never_opens() {
    let now = Instant::now();
    let mut breaker = Breaker::new(RULE);
    fail(&mut breaker, 3, Verdict::Failed, now);
    breaker.reconfigure(Rule { failures: 0, ..RULE });
    fail(&mut breaker, 100, Verdict::Failed, now);
    assert_eq!(breaker.status(now), BreakerStatus::Closed);
}

properties! {
    /// Whatever ends in whatever order: never two probes at a time, nothing else goes out while it is open, and it is
    /// never open for good.
    #[test]
    fn it_keeps_its_promises_in_any_order(
        failures in 1_u32..5,
        open_millis in 1_u64..60_000,
        steps in proptest::collection::vec((0_u8..4, 0_usize..8, 0_u64..40_000, 0.0_f64..1.0), 1..200),
    ) {
        let rule = Rule { failures, open_for: Duration::from_millis(open_millis) };
        let mut breaker = Breaker::new(rule);
        let mut now = Instant::now();
        let mut flying: Vec<Role> = Vec::new();
        let verdicts = [Verdict::Well, Verdict::Failed, Verdict::Failed, Verdict::Unknown];
        for (what, which, millis, chance) in steps {
            match what {
                0 => {
                    let seen = breaker.status(now);
                    let looked = breaker.look(now);
                    let entered = breaker.enter(now);
                    prop_assert_eq!(looked, entered.map(|_| ()));
                    match entered {
                        Ok(role @ Role::Probe { .. }) => {
                            prop_assert_eq!(seen, BreakerStatus::Open { retry_after: Duration::ZERO });
                            flying.push(role);
                        }
                        Ok(role) => {
                            prop_assert_eq!(seen, BreakerStatus::Closed);
                            flying.push(role);
                        }
                        Err(wait) => prop_assert!(wait <= MAX_OPEN.max(rule.open_for).mul_f64(1.2) && !wait.is_zero()),
                    }
                    let probes = flying.iter().filter(|role| matches!(role, Role::Probe { since } if *since == breaker.changes));
                    prop_assert!(probes.count() <= 1);
                }
                1 => flying.push(Role::InSpite),
                2 if !flying.is_empty() => {
                    let role = flying.swap_remove(which % flying.len());
                    let verdict = verdicts[which % verdicts.len()];
                    breaker.ended(role, verdict, now, chance);
                    if verdict == Verdict::Well {
                        prop_assert_eq!(breaker.status(now), BreakerStatus::Closed);
                    }
                }
                _ => now += Duration::from_millis(millis),
            }
        }
        flying.into_iter().for_each(|role| {
            breaker.ended(role, Verdict::Unknown, now, 0.0);
        });
        now += MAX_OPEN.max(rule.open_for) * 2;
        let role = breaker.enter(now).unwrap();
        breaker.ended(role, Verdict::Well, now, 0.0);
        prop_assert_eq!(breaker.status(now), BreakerStatus::Closed);
    }
}
