use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};

use super::*;
use crate::kernel::names::RegionName;

fn answered(status: u16, retry_after: u64) -> AttemptOutcome {
    AttemptOutcome::Answered(Answer {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        region: RegionName::parse("r").unwrap(),
        retry_after: Duration::from_secs(retry_after),
    })
}

fn lost() -> AttemptOutcome {
    AttemptOutcome::Failed(Failure::Lost { why: "".into(), partial: None, retry_after: None })
}

fn terms(safety: Safety, rest: u64, seconds: u64) -> RetryTerms {
    let (now, rest) = (Instant::now(), Duration::from_secs(rest));
    RetryTerms { safety, rest, now, deadline: now + Duration::from_secs(seconds), next: NextRegion::TheSame }
}

/// How often an order is sent in all when every attempt ends like this.
fn sends(safety: Safety, outcome: impl Fn() -> AttemptOutcome) -> u32 {
    let mut tries = Tries::default();
    let mut sent = 1;
    while let Next::Again(_) = tries.after(outcome(), terms(safety, 0, 3600), |_| true) {
        sent += 1;
        if sent == 100 {
            break;
        }
    }
    sent
}

#[tokio::test(start_paused = true)]
async fn only_idempotent_orders_are_sent_again_after_they_may_have_been_acted_on() {
    type Make = fn() -> AttemptOutcome;
    let cases: [(Make, [u32; 3]); 11] = [
        (lost, [1, 3, 1]),
        (|| answered(503, 0), [1, 3, 1]),
        (|| answered(408, 0), [1, 3, 1]),
        (|| answered(200, 0), [1, 1, 1]),
        (|| answered(404, 0), [1, 1, 1]),
        (|| AttemptOutcome::Failed(Failure::TimedOut { sent: true }), [1, 3, 1]),
        (|| AttemptOutcome::Failed(Failure::TooLarge), [1, 1, 1]),
        (|| AttemptOutcome::Failed(Failure::NoRoom), [1, 1, 1]),
        (|| AttemptOutcome::Failed(Failure::Unreachable("".into())), [3, 3, 3]),
        (|| AttemptOutcome::Failed(Failure::TimedOut { sent: false }), [3, 3, 3]),
        (|| AttemptOutcome::Unauthorized, [2, 2, 2]),
    ];
    for (at, (outcome, expected)) in cases.into_iter().enumerate() {
        let safeties = [Safety::Destructive, Safety::Idempotent, Safety::Once];
        assert_eq!(safeties.map(|safety| sends(safety, outcome)), expected, "case {at}");
    }
    // The bucket and the deadline bound this one.
    assert_eq!(sends(Safety::Destructive, || AttemptOutcome::OverLimit), 100);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_again_after_the_deadline_or_before_the_vendor_wishes_it() {
    let after = |outcome, seconds| Tries::default().after(outcome, terms(Safety::Idempotent, 0, seconds), |_| true);
    assert!(matches!(after(lost(), 0), Next::Done(Err(Failure::Lost { .. }))));
    assert!(matches!(after(answered(503, 5), 4), Next::Done(Ok(_))));
    assert!(matches!(after(answered(503, 5), 6), Next::Again(pause) if pause == Duration::from_secs(5)));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_again_without_a_budget_or_a_region_and_another_region_is_asked_at_once() {
    let terms = terms(Safety::Idempotent, 0, 60);
    let nowhere = RetryTerms { next: NextRegion::Nowhere, ..terms };
    let another = RetryTerms { next: NextRegion::Another, ..terms };
    let unreachable = || AttemptOutcome::Failed(Failure::Unreachable("".into()));
    for outcome in [lost, unreachable, || answered(503, 0), || AttemptOutcome::Failed(Failure::TimedOut { sent: true })]
    {
        let mut asked = None;
        let spent = |reason| {
            asked = Some(reason);
            false
        };
        assert!(matches!(Tries::default().after(outcome(), terms, spent), Next::Done(_)));
        assert!(asked.is_some_and(Reason::is_budgeted));
        let no_region = Tries::default().after(outcome(), nowhere, |_| panic!("nothing may be spent"));
        assert!(matches!(no_region, Next::Done(_)));
    }
    let next = Tries::default().after(unreachable(), another, |_| true);
    assert!(matches!(next, Next::Again(pause) if pause.is_zero()));
}

#[tokio::test(start_paused = true)]
async fn after_a_time_out_the_region_rests_as_long_as_its_answer_may_ask_and_another_does_not() {
    let after = |next, seconds| {
        let late = AttemptOutcome::Failed(Failure::TimedOut { sent: true });
        Tries::default().after(late, RetryTerms { next, ..terms(Safety::Idempotent, 2, seconds) }, |_| true)
    };
    assert!(matches!(after(NextRegion::TheSame, 60), Next::Again(pause) if pause > Duration::from_secs(2)));
    assert!(matches!(after(NextRegion::Another, 60), Next::Again(pause) if pause < Duration::from_secs(1)));
    assert!(matches!(after(NextRegion::TheSame, 2), Next::Done(Err(Failure::TimedOut { sent: true }))));
    let lost = Tries::default().after(lost(), terms(Safety::Idempotent, 2, 60), |_| true);
    assert!(matches!(lost, Next::Again(pause) if pause < Duration::from_secs(1)));
}
