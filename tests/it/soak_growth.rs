//! The soak tells a leak from what only looks like one.

#[path = "../../benches/soak/growth.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "a part of the soak; what it prints is of no concern here")]
mod growth;

use std::time::Duration;

use growth::{Judgement, LEAK, Sample, judge};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const MIB: f64 = (1 << 20) as f64;

/// What an hour's soak leaves for its last run.
const LAST_RUN: u64 = 48 * 60;

/// A sample a second. `live`: how many bytes at a second.
fn run(seconds: u64, live: impl FnMut(f64) -> f64) -> Vec<Sample> {
    let times = (0..seconds).map(|second| second as f64);
    let sample = |(second, bytes): (u64, f64)| Sample { at: Duration::from_secs(second), bytes: bytes as u64 };
    (0..seconds).zip(times.map(live)).map(sample).collect()
}

/// Of a run without a rest.
fn by_work(samples: &[Sample]) -> Judgement {
    judge(samples, &[])
}

/// What is live at the end of each rest, where so much stays and `noise` is at chance.
fn rests(stays: impl Fn(f64) -> f64, mut noise: impl FnMut() -> f64) -> Vec<Sample> {
    let ends = (1..).map(|n| n * 450).take_while(|second| *second < LAST_RUN);
    let sample = |at: u64| Sample { at: Duration::from_secs(at), bytes: (stays(at as f64) + noise()) as u64 };
    ends.map(sample).collect()
}

/// Bursts as events make them: each adds up to 600 KB, of which a minute later a third is left.
fn bursts(seed: u64) -> impl FnMut() -> f64 {
    let (mut random, mut held) = (StdRng::seed_from_u64(seed), 0.0);
    move || {
        held *= (-1.0_f64 / 60.0).exp();
        if random.random_bool(0.1) {
            held += random.random_range(0.0..600e3);
        }
        held + random.random_range(0.0..300e3)
    }
}

#[test]
fn a_heap_that_only_fluctuates_is_flat() {
    for seed in 0..200 {
        let mut noise = bursts(seed);
        let judged = by_work(&run(LAST_RUN, |_| 20.0 * MIB + noise()));
        assert!(!matches!(judged, Judgement::Grew(_)), "seed {seed}: {judged:?}");
    }
    let mut noise = bursts(7);
    let judged = by_work(&run(LAST_RUN, |_| 20.0 * MIB + noise() / 4.0));
    assert!(matches!(judged, Judgement::Flat(_)), "{judged:?}");
}

#[test]
fn what_is_filled_in_the_warm_up_is_no_growth() {
    let mut noise = bursts(1);
    let step = run(LAST_RUN, |at| if at < 200.0 { 3.0 } else { 40.0 } * MIB + noise() / 4.0);
    assert!(matches!(by_work(&step), Judgement::Flat(_)), "{:?}", by_work(&step));
    let ramp = run(LAST_RUN, |at| (at / 280.0).min(1.0) * 40.0 * MIB + noise() / 4.0);
    assert!(matches!(by_work(&ramp), Judgement::Flat(_)), "{:?}", by_work(&ramp));
}

#[test]
fn a_sawtooth_is_no_growth() {
    // Caches that are filled and cleaned again, from the period of a window to that of a third.
    for period in [45.0, 60.0, 97.0, 300.0, 613.0] {
        let mut noise = bursts(2);
        let teeth = run(LAST_RUN, |at| 20.0 * MIB + at % period / period * 900e3 + noise() / 4.0);
        assert!(!matches!(by_work(&teeth), Judgement::Grew(_)), "{period}: {:?}", by_work(&teeth));
    }
}

#[test]
fn a_leak_of_1_kb_a_second_is_found_within_an_hour() {
    for live in [2.0, 20.0, 60.0] {
        for seed in 0..100 {
            let mut noise = bursts(seed);
            let judged = by_work(&run(LAST_RUN, |at| live * MIB + at * LEAK + noise()));
            assert!(matches!(judged, Judgement::Grew(_)), "{live} MiB, seed {seed}: {judged:?}");
        }
    }
    // Also one that gives its memory out in pieces of 1 MiB.
    let pieces = by_work(&run(LAST_RUN, |at| 20.0 * MIB + (at * LEAK / MIB).floor() * MIB));
    assert!(matches!(pieces, Judgement::Grew(_)), "{pieces:?}");
}

#[test]
fn a_jump_in_the_last_third_is_growth() {
    let mut noise = bursts(3);
    let judged = by_work(&run(LAST_RUN, |at| if at < 2200.0 { 20.0 } else { 21.5 } * MIB + noise() / 4.0));
    assert!(matches!(judged, Judgement::Grew(_)), "{judged:?}");
}

#[test]
fn a_run_that_is_too_short_is_not_judged() {
    for seconds in [0, 1, 54, 400, 1199] {
        let judged = by_work(&run(seconds, |at| 20.0 * MIB + at * 100.0 * LEAK));
        assert!(matches!(judged, Judgement::TooShort(_)), "{seconds}: {judged:?}");
    }
    // Long enough, but hardly a sample was taken.
    let mut gaps = run(LAST_RUN, |_| 20.0 * MIB);
    gaps.retain(|sample| sample.at.as_secs() < 400 || sample.at.as_secs() > LAST_RUN - 100);
    assert!(matches!(by_work(&gaps), Judgement::TooShort(_)));
}

#[test]
fn noise_that_could_hide_a_leak_is_said() {
    let mut random = StdRng::seed_from_u64(4);
    let judged = by_work(&run(1300, |at| {
        let minute = (at / 60.0) as u64;
        20.0 * MIB + if minute.is_multiple_of(2) { 0.0 } else { 0.04 * 20.0 * MIB } + random.random_range(0.0..50e3)
    }));
    assert!(matches!(judged, Judgement::Unclear(_)), "{judged:?}");
}

/// Work of which now much and now little is live, by a quarter of all.
fn weather(seed: u64) -> Vec<Sample> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut level = 0.0;
    run(LAST_RUN, |at| {
        if at % 60.0 == 0.0 {
            level = random.random_range(0.0..10.0 * MIB);
        }
        40.0 * MIB + level
    })
}

#[test]
fn rests_show_a_leak_that_the_work_hides_and_none_where_there_is_none() {
    for seed in 0..100 {
        let work = weather(seed);
        let flat = by_work(&work);
        if matches!(flat, Judgement::Grew(_)) {
            // The thirds differ by chance.
            continue;
        }
        let mut random = StdRng::seed_from_u64(seed);
        let mut noise = || random.random_range(0.0..200e3);
        let (none, some) = (rests(|_| 22.0 * MIB, &mut noise), rests(|at| 22.0 * MIB + at * LEAK, &mut noise));
        assert!(matches!(judge(&work, &none), Judgement::Flat(_)), "seed {seed}: {:?}", judge(&work, &none));
        assert!(matches!(judge(&work, &some), Judgement::Grew(_)), "seed {seed}: {:?}", judge(&work, &some));
        // One alone says nothing.
        let few = &some[..growth::RESTS - 1];
        assert_eq!(format!("{:?}", judge(&work, few)), format!("{flat:?}"), "seed {seed}");
    }
}
