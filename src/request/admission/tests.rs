//! What holds of admission, whatever comes in whatever order.

use std::num::NonZeroU32;

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::config::ClientMode;
use crate::request::policy::Terms;
use client_usage::Reservation;

fn name(n: usize) -> ClientName {
    ClientName::parse(&format!("c{n}")).unwrap()
}

fn most(n: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(n)
}

fn usage(requests: usize, body_bytes: usize) -> ClientUsage {
    ClientUsage::new(Metrics::new(), Room { requests, streams: 5, body_bytes })
}

fn limit(reservation: Result<Reservation, Refusal>) -> &'static str {
    match reservation {
        Ok(_) => "admitted",
        Err(Refusal::ClientLimit { ceiling, .. }) => ceiling.name(),
        Err(Refusal::Shed { what, .. }) => what.as_str(),
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_concurrency_takes_no_token_of_the_rate() {
    let (mut usage, now, one) = (usage(100, 0), Instant::now(), name(1));
    let terms = Terms { max_concurrent: most(1), requests_per_second: most(2), ..Terms::default() };
    let first = usage.admit(&one, &terms, now).unwrap();
    for _ in 0..10 {
        assert_eq!(limit(usage.admit(&one, &terms, now)), "max_concurrent");
    }
    usage.leave(&one, &first);
    let second = usage.admit(&one, &terms, now).unwrap();
    usage.leave(&one, &second);
    assert_eq!(limit(usage.admit(&one, &terms, now)), "requests_per_second");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cost_nothing_gives_its_token_back() {
    let (mut usage, now, one) = (usage(100, 0), Instant::now(), name(1));
    let terms = Terms { requests_per_second: most(1), ..Terms::default() };
    for _ in 0..10 {
        let mut reservation = usage.admit(&one, &terms, now).unwrap();
        usage.unspend(&one, &mut reservation);
        usage.unspend(&one, &mut reservation);
        usage.leave(&one, &reservation);
    }
    usage.admit(&one, &terms, now).unwrap();
    assert_eq!(limit(usage.admit(&one, &terms, now)), "requests_per_second");
}

#[tokio::test(start_paused = true)]
async fn lowered_ceilings_bind_those_in_hand_and_forgetting_forgets_nothing_that_counts() {
    let (mut usage, now, one) = (usage(100, 0), Instant::now(), name(1));
    let terms = |n, rate| Terms { max_concurrent: most(n), requests_per_second: most(rate), ..Terms::default() };
    let reservations: Vec<_> = (0..5).map(|_| usage.admit(&one, &terms(5, 5), now).unwrap()).collect();
    usage.forget(|_| false, now);
    assert_eq!(limit(usage.admit(&one, &terms(3, 0), now)), "max_concurrent");
    for reservation in &reservations {
        usage.leave(&one, reservation);
    }
    usage.forget(|_| false, now);
    assert_eq!(limit(usage.admit(&one, &terms(3, 5), now)), "requests_per_second", "its bucket is still empty");
    let later = now + Duration::from_secs(1);
    usage.forget(|_| false, later);
    assert!(!usage.knows(&one));
}

#[tokio::test(start_paused = true)]
async fn memory_for_bodies_is_shared_and_comes_back() {
    let mut usage = usage(100, 1000);
    let now = Instant::now();
    let mut a = usage.admit(&name(1), &Terms::default(), now).unwrap();
    let mut b = usage.admit(&name(2), &Terms::default(), now).unwrap();
    usage.reserve(&name(1), &mut a, 900).unwrap();
    assert!(usage.reserve(&name(1), &mut a, 1).is_err(), "the last tenth is for others");
    usage.reserve(&name(2), &mut b, 90).unwrap();
    assert!(usage.reserve(&name(2), &mut b, 11).is_err(), "there is no more");
    usage.leave(&name(1), &a);
    usage.reserve(&name(2), &mut b, 800).unwrap();
}

#[test]
fn a_panic_in_a_request_gives_its_place_back() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _in = runtime.enter();
    let admission = Admission::new(Room::of(&Config::default()), Clock::system(), Metrics::new());
    let reservation =
        admission.with_usage(|usage| usage.admit(&name(1), &Terms::default(), admission.clock.now())).unwrap();
    let in_hand = AdmissionPermit::new(&admission, name(1), reservation);
    assert_eq!(admission.in_hand(), 1);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _in_hand = in_hand;
        std::panic::resume_unwind(Box::new("on purpose"));
    }));
    assert!(panicked.is_err());
    assert_eq!(admission.in_hand(), 0);
}

#[derive(Clone, Debug)]
enum Op {
    Wait(u64),
    Ask {
        client: usize,
        forbidden: bool,
    },
    /// Of those in hand; `refused`: it had cost nothing.
    End {
        which: prop::sample::Index,
        refused: bool,
    },
    Reserve {
        which: prop::sample::Index,
        bytes: usize,
    },
    Stream {
        which: prop::sample::Index,
    },
    Reload {
        max: u32,
        rate: u32,
        requests: usize,
    },
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0u64..400).prop_map(Op::Wait),
        8 => (0usize..4, any::<bool>()).prop_map(|(client, forbidden)| Op::Ask { client, forbidden }),
        4 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(which, refused)| Op::End { which, refused }),
        2 => (any::<prop::sample::Index>(), 0usize..400).prop_map(|(which, bytes)| Op::Reserve { which, bytes }),
        2 => any::<prop::sample::Index>().prop_map(|which| Op::Stream { which }),
        1 => (0u32..6, 0u32..6, 1usize..14).prop_map(|(max, rate, requests)| Op::Reload { max, rate, requests }),
    ]
}

properties! {
    #[test]
    fn no_ceiling_is_passed_and_no_refusal_changes_anything(
        ops in prop::collection::vec(any_op(), 1..150), report in any::<bool>(),
    ) {
        let began = Instant::now();
        let mut now = began;
        let (mut usage, mut requests) = (usage(10, 1000), 10);
        // The last client is in report mode, or enforces as the others do.
        let modes = [ClientMode::Enforce, ClientMode::Enforce, ClientMode::Enforce,
            if report { ClientMode::Report } else { ClientMode::Enforce }];
        let (mut max, mut rate) = (3, 4);
        let mut in_hand: Vec<(usize, Reservation)> = Vec::new();
        for op in ops {
            match op {
                Op::Wait(ms) => now += Duration::from_millis(ms),
                Op::Reload { max: m, rate: r, requests: n } => {
                    (max, rate, requests) = (m, r, n);
                    usage.room.requests = n;
                    usage.forget(|_| false, now);
                }
                Op::Ask { client, forbidden } => {
                    let would_forbid = forbidden && modes[client] == ClientMode::Report;
                    let terms = Terms {
                        max_concurrent: most(max), requests_per_second: most(rate), mode: modes[client], would_forbid,
                    };
                    let before = usage.look(now);
                    let held = in_hand.iter().filter(|(c, p)| *c == client && !p.streams).count();
                    let of_its_ceiling = in_hand.iter().filter(|(c, _)| *c == client).count();
                    let all = in_hand.iter().filter(|(_, p)| !p.streams).count();
                    match usage.admit(&name(client), &terms, now) {
                        Ok(reservation) => {
                            prop_assert!(all < requests);
                            prop_assert!(held == 0 || all + 1 < requests, "the last is for newcomers");
                            if modes[client] == ClientMode::Enforce {
                                prop_assert!(max == 0 || of_its_ceiling < max as usize);
                                prop_assert_eq!(reservation.would_refuse, None);
                                prop_assert_eq!(reservation.taken.is_some(), rate > 0);
                            }
                            if reservation.would_refuse.is_some() {
                                prop_assert!(reservation.taken.is_none() && !reservation.counted, "what would be refused takes nothing");
                            }
                            prop_assert!(!would_forbid || reservation.would_refuse == Some(Reason::Forbidden));
                            in_hand.push((client, reservation));
                        }
                        Err(refusal) => {
                            prop_assert_eq!(before, usage.look(now), "a refusal takes nothing");
                            let of_its_own = matches!(refusal, Refusal::ClientLimit { .. });
                            prop_assert!(!of_its_own || modes[client] == ClientMode::Enforce);
                            prop_assert!(held > 0 || of_its_own || all >= requests, "a newcomer finds room");
                        }
                    }
                }
                Op::End { which, refused } if !in_hand.is_empty() => {
                    let (client, mut reservation) = in_hand.remove(which.index(in_hand.len()));
                    if refused {
                        usage.unspend(&name(client), &mut reservation);
                    }
                    usage.leave(&name(client), &reservation);
                }
                Op::Reserve { which, bytes } if !in_hand.is_empty() => {
                    let at = which.index(in_hand.len());
                    let before = usage.look(now);
                    let (client, reservation) = &mut in_hand[at];
                    let kept = reservation.body_bytes;
                    if usage.reserve(&name(*client), reservation, bytes).is_err() {
                        prop_assert_eq!(kept, reservation.body_bytes);
                        prop_assert_eq!(before, usage.look(now));
                    }
                    prop_assert!(in_hand.iter().map(|(_, p)| p.body_bytes).sum::<usize>() <= 1000);
                }
                Op::Stream { which } if !in_hand.is_empty() => {
                    let at = which.index(in_hand.len());
                    let streams = |p: &(usize, Reservation)| p.1.streams;
                    let (others, was) = (in_hand.iter().filter(|p| streams(p)).count(), in_hand[at].1.streams);
                    let before = usage.look(now);
                    let (client, reservation) = &mut in_hand[at];
                    let moved = usage.stream(&name(*client), reservation).is_ok();
                    prop_assert!(was || !moved || others < 5);
                    prop_assert_eq!(was || !moved, before == usage.look(now), "what is refused, or done, changes nothing");
                }
                Op::End { .. } | Op::Reserve { .. } | Op::Stream { .. } => {}
            }
            prop_assert_eq!(usage.in_hand(), in_hand.iter().filter(|(_, p)| !p.streams).count());
        }
        for (client, reservation) in in_hand {
            usage.leave(&name(client), &reservation);
        }
        let later = now + Duration::from_secs(5);
        usage.forget(|_| false, later);
        prop_assert_eq!(usage.look(later), (0, 0, Vec::new()), "nothing is left when all have left");
    }

    #[test]
    fn report_mode_counts_what_enforcing_would_refuse(ops in prop::collection::vec(any_op(), 1..150)) {
        let began = Instant::now();
        let mut now = began;
        let (mut enforced, mut reported) = (usage(1000, 0), usage(1000, 0));
        let terms = |mode, would_forbid| Terms {
            max_concurrent: most(3), requests_per_second: most(4), mode, would_forbid,
        };
        let mut in_hand: Vec<(Option<Reservation>, Reservation)> = Vec::new();
        for op in ops {
            match op {
                Op::Wait(ms) => now += Duration::from_millis(ms),
                Op::Ask { forbidden, .. } => {
                    let real = if forbidden { None } else {
                        enforced.admit(&name(0), &terms(ClientMode::Enforce, false), now).ok()
                    };
                    let reservation = reported.admit(&name(0), &terms(ClientMode::Report, forbidden), now).unwrap();
                    prop_assert_eq!(real.is_none(), reservation.would_refuse.is_some());
                    in_hand.push((real, reservation));
                }
                Op::End { which, .. } if !in_hand.is_empty() => {
                    let (real, reservation) = in_hand.remove(which.index(in_hand.len()));
                    if let Some(real) = real {
                        enforced.leave(&name(0), &real);
                    }
                    reported.leave(&name(0), &reservation);
                }
                _ => {}
            }
        }
    }
}
