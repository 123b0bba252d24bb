//! Whether the live heap of a long run grows, by what is live at the end of its *rests*.
//!
//! While work goes on, how much is live depends on how much work there is, and outweighs a small leak for hours. In a rest
//! hardly anything happens for longer than anything is remembered that work leaves behind, and what is kept to be fast is
//! let go (`main.rs`), so what is live at its end is what stays: rests are alike.
//!
//! Rests of the warm-up do not count, in which what is bounded is filled. Two things say that it grew:
//! - The median of the last third of the rests is more than 5 % above the middle third's.
//! - It rises by more than [`MAX_A_SECOND`]: the median of the slopes between any two rests (Theil and Sen), when chance
//!   alone would not make it rise ([`SIGMAS`], by Kendall's test). Where much is live, 5 % alone is what a small leak adds
//!   between two thirds.

use std::time::Duration;

/// How much was live, and when in the run.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub at: Duration,
    pub bytes: u64,
}

/// What is bounded is still being filled before.
pub const WARM_UP: Duration = Duration::from_secs(300);

/// So much must lie between the first rest and the last: what a third adds in less time is less than chance may.
pub const LEAST: Duration = Duration::from_secs(30 * 60);

/// Fewer rests are too few.
pub const RESTS: usize = 7;

/// By how much the last third may be above the middle one.
const MAX_BETWEEN_THIRDS: f64 = 1.05;

/// The leak that must be found, in bytes a second.
pub const LEAK: f64 = 1024.0;

/// The most that may be added, in bytes a second: half of it, since what is found scatters around what is there.
const MAX_A_SECOND: f64 = LEAK / 2.0;

/// How far from chance a slope must be.
const SIGMAS: f64 = 2.0;

/// What a run long enough shows.
#[derive(Clone, Debug)]
pub struct Trend {
    /// The medians of the three thirds, in bytes.
    pub thirds: [f64; 3],
    /// Bytes a second: the least and the most that it may be, and what it is most likely.
    pub least: f64,
    pub slope: f64,
    pub most: f64,
    pub rests: usize,
    pub over: Duration,
}

#[derive(Clone, Debug)]
pub enum Judgement {
    /// So many rests after the warm-up, over so much time: less than [`RESTS`] or [`LEAST`].
    TooShort {
        rests: usize,
        over: Duration,
    },
    /// A leak of [`LEAK`] is ruled out.
    Flat(Trend),
    /// It did not grow as far as can be told, but such a leak could hide in the noise.
    Unclear(Trend),
    Grew(Trend),
}

/// `rests`: what was live at the end of each.
pub fn judge(rests: &[Sample]) -> Judgement {
    let rests = &rests[rests.partition_point(|rest| rest.at < WARM_UP)..];
    let over = match rests {
        [first, .., last] => last.at - first.at,
        _ => Duration::ZERO,
    };
    if rests.len() < RESTS || over < LEAST {
        return Judgement::TooShort { rests: rests.len(), over };
    }
    let (least, slope, most) = slope(rests);
    let third = |n: usize| {
        let third = &rests[rests.len() * n / 3..rests.len() * (n + 1) / 3];
        median(third.iter().map(|rest| rest.bytes as f64).collect())
    };
    let trend = Trend { thirds: [0, 1, 2].map(third), least, slope, most, rests: rests.len(), over };
    let [_, middle, last] = trend.thirds;
    if last > middle * MAX_BETWEEN_THIRDS || (least >= 0.0 && slope > MAX_A_SECOND) {
        Judgement::Grew(trend)
    } else if most < LEAK {
        Judgement::Flat(trend)
    } else {
        Judgement::Unclear(trend)
    }
}

/// The slope between any two rests: the median, and between what chance would leave it.
fn slope(rests: &[Sample]) -> (f64, f64, f64) {
    let mut slopes = Vec::with_capacity(rests.len() * rests.len() / 2);
    for (n, rest) in rests.iter().enumerate() {
        let from = |later: &Sample| (later.bytes as f64 - rest.bytes as f64) / (later.at - rest.at).as_secs_f64();
        slopes.extend(rests[n + 1..].iter().map(from));
    }
    slopes.sort_unstable_by(f64::total_cmp);
    let n = rests.len() as f64;
    let scatter = SIGMAS * (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    let below = ((slopes.len() as f64 - scatter) / 2.0).max(0.0) as usize;
    (slopes[below], median(slopes.clone()), slopes[slopes.len() - 1 - below])
}

/// Of an even number the mean of the middle two.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    if numbers.len().is_multiple_of(2) { f64::midpoint(numbers[middle - 1], numbers[middle]) } else { numbers[middle] }
}
