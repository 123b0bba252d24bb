//! Whether the live heap of a long run grows.
//!
//! What is judged comes after a warm-up, in which what is bounded is filled. Two things say that it grew:
//! - The median of the last third is more than 5 % above the middle third's.
//! - It rises by more than [`MOST_A_SECOND`]: the median of the slopes between any two *rests* (Theil and Sen). In a rest
//!   hardly anything happens for as long as the longest thing that one event leaves behind in the soak, so what is live
//!   then is what stays. Where much is live, 5 % alone is what a small leak adds between two thirds.
//!
//! A run with too few rests is judged by its windows of work instead: the slopes between any two of them, with the range
//! that Kendall's test leaves the median. How much is live while work goes on depends on how much work there is, so that
//! range is wide ([`SIGMAS`]), and on a machine that is busy with other things a small leak can hide in it.

use std::time::Duration;

/// How much was live, and when in the run.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub at: Duration,
    pub bytes: u64,
}

/// What is bounded is still being filled before.
pub const WARM_UP: Duration = Duration::from_secs(300);

/// How long a run must be judged for: with less, chance alone makes slopes that a leak would make.
pub const LEAST: Duration = Duration::from_secs(900);

const WINDOW: Duration = Duration::from_secs(60);

/// Samples of a window that are too few for its median.
const FEW: usize = 5;

/// By how much the last third may be above the middle one.
const MOST_BETWEEN_THIRDS: f64 = 1.05;

/// The leak that must be found, in bytes a second.
pub const LEAK: f64 = 1024.0;

/// The most that may be added, in bytes a second: half of it, since what is found scatters around what is there.
const MOST_A_SECOND: f64 = LEAK / 2.0;

/// How far from chance a slope must be.
const SIGMAS: f64 = 3.0;

/// So many rests are enough to judge by.
pub const RESTS: usize = 4;

/// What a run long enough shows.
#[derive(Clone, Debug)]
pub struct Trend {
    /// The medians of the three thirds, in bytes.
    pub thirds: [f64; 3],
    /// Bytes a second: the least and the most that it may be, and what it is most likely.
    pub least: f64,
    pub slope: f64,
    pub most: f64,
    pub over: Duration,
}

#[derive(Clone, Debug)]
pub enum Judgement {
    /// So long were the samples after the warm-up, which is less than [`LEAST`].
    TooShort(Duration),
    /// A leak of [`LEAK`] is ruled out.
    Flat(Trend),
    /// It did not grow as far as can be told, but such a leak could hide in the noise.
    Unclear(Trend),
    Grew(Trend),
}

/// `rests`: what was live at the end of each.
pub fn judge(samples: &[Sample], rests: &[Sample]) -> Judgement {
    let warm = &samples[samples.partition_point(|sample| sample.at < WARM_UP)..];
    let rests = &rests[rests.partition_point(|sample| sample.at < WARM_UP)..];
    let over = match (warm.first(), warm.last()) {
        (Some(first), Some(last)) => last.at - first.at,
        _ => Duration::ZERO,
    };
    let windows = windows(warm);
    // Also when nobody could take samples for most of the time.
    let sampled = WINDOW * u32::try_from(windows.len()).unwrap_or(u32::MAX);
    if over.min(sampled) < LEAST {
        return Judgement::TooShort(over.min(sampled));
    }
    let by_rests = rests.len() >= RESTS;
    let (least, slope, most) = if by_rests {
        let rests: Vec<_> = rests.iter().map(|rest| (rest.at.as_secs_f64(), rest.bytes as f64)).collect();
        let (_, slope, _) = slope(&rests);
        (slope, slope, slope)
    } else {
        slope(&windows)
    };
    let third = |n: usize| {
        median(warm[warm.len() * n / 3..warm.len() * (n + 1) / 3].iter().map(|sample| sample.bytes as f64).collect())
    };
    let trend = Trend { thirds: [0, 1, 2].map(third), least, slope, most, over };
    let [_, middle, last] = trend.thirds;
    if last > middle * MOST_BETWEEN_THIRDS || (least > 0.0 && slope > MOST_A_SECOND) {
        Judgement::Grew(trend)
    } else if by_rests || most < LEAK {
        Judgement::Flat(trend)
    } else {
        Judgement::Unclear(trend)
    }
}

/// The middle of each window, in seconds, and its median.
fn windows(samples: &[Sample]) -> Vec<(f64, f64)> {
    let number = |sample: &Sample| (sample.at - WARM_UP).as_secs() / WINDOW.as_secs();
    let windows = samples.chunk_by(|a, b| number(a) == number(b)).filter(|window| window.len() >= FEW);
    let point = |window: &[Sample]| {
        let middle = (number(&window[0]) as f64 + 0.5) * WINDOW.as_secs_f64();
        (middle, median(window.iter().map(|sample| sample.bytes as f64).collect()))
    };
    windows.map(point).collect()
}

/// The slope between any two windows: the median, and between what chance would leave it.
fn slope(windows: &[(f64, f64)]) -> (f64, f64, f64) {
    let mut slopes = Vec::with_capacity(windows.len() * windows.len() / 2);
    for (n, (at, bytes)) in windows.iter().enumerate() {
        slopes.extend(windows[n + 1..].iter().map(|(later, more)| (more - bytes) / (later - at)));
    }
    slopes.sort_unstable_by(f64::total_cmp);
    let n = windows.len() as f64;
    let scatter = SIGMAS * (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    let below = ((slopes.len() as f64 - scatter) / 2.0).max(0.0) as usize;
    (slopes[below], median(slopes.clone()), slopes[slopes.len() - 1 - below])
}

fn median(mut numbers: Vec<f64>) -> f64 {
    let middle = numbers.len() / 2;
    *numbers.select_nth_unstable_by(middle, f64::total_cmp).1
}
