//! The soak tells a leak from what only looks like one.

#[path = "../../benches/soak/growth.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "a part of the soak; what it prints is of no concern here")]
mod growth;

use std::time::Duration;

use growth::{Judgement, LEAK, LEAST, RESTS, Sample, judge};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const MIB: f64 = (1 << 20) as f64;

/// What an hour's soak leaves for its last run, in seconds.
const LAST_RUN: u64 = 48 * 60;

/// From the end of a rest to the end of the next, in seconds; a busy machine makes it longer.
const CYCLE: u64 = 300;

/// What is live at the end of each rest of a run. `live`: how many bytes at a second.
fn rests(seconds: u64, mut live: impl FnMut(f64) -> f64) -> Vec<Sample> {
    let ends = (1..).map(|n| n * CYCLE).take_while(|second| *second < seconds);
    ends.map(|second| Sample { at: Duration::from_secs(second), bytes: live(second as f64) as u64 }).collect()
}

/// What differs between two rests by chance: half a percent of what stays, and connections that come and go.
fn noise(seed: u64) -> impl FnMut() -> f64 {
    let mut random = StdRng::seed_from_u64(seed);
    move || random.random_range(0.0..400e3)
}

#[test]
fn a_heap_that_only_fluctuates_is_flat() {
    for live in [12.0, 20.0, 60.0] {
        for seed in 0..200 {
            let mut noise = noise(seed);
            let judged = judge(&rests(LAST_RUN, |_| live * MIB + noise()));
            assert!(matches!(judged, Judgement::Flat(_)), "{live} MiB, seed {seed}: {judged:?}");
        }
    }
}

#[test]
fn a_burst_that_one_rest_still_holds_is_no_growth() {
    // At whatever rest, the last one too.
    for at in 1..10 {
        let mut noise = noise(at);
        let burst = |second| if second == (at * CYCLE) as f64 { 8.0 * MIB } else { 0.0 };
        let judged = judge(&rests(LAST_RUN, |second| 20.0 * MIB + burst(second) + noise()));
        assert!(matches!(judged, Judgement::Flat(_)), "rest {at}: {judged:?}");
    }
}

#[test]
fn what_is_filled_in_the_warm_up_is_no_growth() {
    let mut step_noise = noise(1);
    let step = judge(&rests(LAST_RUN, |at| if at < 200.0 { 3.0 } else { 40.0 } * MIB + step_noise()));
    assert!(matches!(step, Judgement::Flat(_)), "{step:?}");
    let mut ramp_noise = noise(2);
    let ramp = judge(&rests(LAST_RUN, |at| (at / 280.0).min(1.0) * 40.0 * MIB + ramp_noise()));
    assert!(matches!(ramp, Judgement::Flat(_)), "{ramp:?}");
}

#[test]
fn a_sawtooth_is_no_growth() {
    // Caches that are filled and cleaned again; also in nearly the time from rest to rest, which makes slow ramps of them.
    for period in [45.0, 97.0, 280.0, 299.0, 301.0, 310.0, 613.0, 900.0] {
        let mut noise = noise(3);
        let teeth = judge(&rests(LAST_RUN, |at| 20.0 * MIB + at % period / period * 600e3 + noise() / 4.0));
        assert!(!matches!(teeth, Judgement::Grew(_)), "{period}: {teeth:?}");
    }
}

#[test]
fn a_leak_of_1_kb_a_second_is_found_within_an_hour() {
    for live in [2.0, 20.0, 60.0] {
        for seed in 0..200 {
            let mut noise = noise(seed);
            let judged = judge(&rests(LAST_RUN, |at| live * MIB + at * LEAK + noise()));
            assert!(matches!(judged, Judgement::Grew(_)), "{live} MiB, seed {seed}: {judged:?}");
        }
    }
    // Also one that gives its memory out in pieces of 1 MiB.
    let pieces = judge(&rests(LAST_RUN, |at| 20.0 * MIB + (at * LEAK / MIB).floor() * MIB));
    assert!(matches!(pieces, Judgement::Grew(_)), "{pieces:?}");
}

#[test]
fn a_jump_in_the_last_third_is_growth() {
    let mut noise = noise(4);
    let judged = judge(&rests(LAST_RUN, |at| if at < 2100.0 { 20.0 } else { 21.5 } * MIB + noise() / 4.0));
    assert!(matches!(judged, Judgement::Grew(_)), "{judged:?}");
}

#[test]
fn a_run_that_is_too_short_is_not_judged() {
    // The longest is one of 42 minutes, whose restarts take twelve.
    for seconds in [0, 1, 301, 601, 1200, 30 * 60] {
        let judged = judge(&rests(seconds, |at| 20.0 * MIB + at * 100.0 * LEAK));
        assert!(matches!(judged, Judgement::TooShort { .. }), "{seconds}: {judged:?}");
    }
    // Long enough, but hardly a rest.
    let all = rests(LAST_RUN, |at| 20.0 * MIB + at * LEAK);
    let (first, last) = (&all[..RESTS / 2], &all[all.len() - RESTS / 2..]);
    assert!(matches!(judge(&[first, last].concat()), Judgement::TooShort { .. }));
    // Enough rests, but in too little time.
    let hurried: Vec<_> = (0..20).map(|n| Sample { at: LEAST / 2 + Duration::from_secs(n), bytes: 1 << 20 }).collect();
    assert!(matches!(judge(&hurried), Judgement::TooShort { .. }));
}

#[test]
fn noise_that_could_hide_a_leak_is_said() {
    let mut random = StdRng::seed_from_u64(5);
    let judged: Vec<_> =
        (0..200).map(|_| judge(&rests(LAST_RUN, |_| 60.0 * MIB + random.random_range(0.0..8.0 * MIB)))).collect();
    let unclear = judged.iter().filter(|judged| matches!(judged, Judgement::Unclear(_))).count();
    assert!(unclear > 100, "{unclear} of 200");
}
