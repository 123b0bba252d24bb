//! The times of a request: seconds, or ISO-8601, with fractions where software writes them.
//!
//! Invariants: the vendor's windows are of whole seconds and messages have milliseconds. So what lies between is kept
//! beside the window, and a window is never smaller than what was asked for: its start is rounded down and its end up.

use jiff::civil::{DateTime, date};

use crate::history::error::Error;
use crate::vendor::history::Direction;

/// The last second of the year 9999, which both vendors' formats can hold: the usual "for ever".
pub(super) const LATEST: u64 = 253_402_300_799;

/// A time of a request, in milliseconds since 1970, rounded down and up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) down: u64,
    pub(super) up: u64,
}

/// The milliseconds, both in it, that were asked for in a window of whole seconds, where they are not all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::history) struct Within {
    pub(in crate::history) from: Option<u64>,
    pub(in crate::history) to: Option<u64>,
}

impl Within {
    pub(in crate::history) fn is_all(self) -> bool {
        self == Self::default()
    }

    /// Whether it leaves out some of what comes first.
    pub(in crate::history) fn begins_late(self, direction: Direction) -> bool {
        match direction {
            Direction::Asc => self.from.is_some(),
            Direction::Desc => self.to.is_some(),
        }
    }

    /// Where a message lies to it.
    pub(in crate::history) fn side(self, direction: Direction, ms: u64) -> Side {
        let (old, new) = (self.from.is_some_and(|from| ms < from), self.to.is_some_and(|to| ms > to));
        match direction {
            Direction::Asc if old => Side::Before,
            Direction::Desc if new => Side::Before,
            _ if old || new => Side::Behind,
            _ => Side::In,
        }
    }

    pub(in crate::history) fn holds(self, ms: u64) -> bool {
        self.from.is_none_or(|from| from <= ms) && self.to.is_none_or(|to| ms <= to)
    }
}

/// Where a message lies to what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::history) enum Side {
    Before,
    In,
    Behind,
}

/// The window of whole seconds that holds all from one time to another, and what of it was asked for.
pub(super) fn window(start: Moment, end: Moment) -> ((u64, u64), Within) {
    let (first, last) = (start.down / 1000, end.up.div_ceil(1000).min(LATEST));
    let from = (!start.down.is_multiple_of(1000)).then_some(start.down);
    let to = (!end.up.is_multiple_of(1000)).then_some(end.up);
    ((first, last), Within { from, to })
}

/// Reads a time.
pub(super) fn read(parameter: &str, text: &str) -> Result<Moment, Error> {
    decimal(text).or_else(|| iso(text)).filter(|time| time.down / 1000 <= LATEST).ok_or_else(|| bad(parameter))
}

/// The same from a number that no digits could be read of: 1.5e9 is one.
pub(super) fn whole(parameter: &str, seconds: Option<u64>) -> Result<Moment, Error> {
    let seconds = seconds.filter(|seconds| *seconds <= LATEST).ok_or_else(|| bad(parameter))?;
    Ok(Moment { down: seconds * 1000, up: seconds * 1000 })
}

pub(super) fn bad(parameter: &str) -> Error {
    super::bad(parameter, "must be seconds since 1970, or a time like 2019-08-01T01:22:10.123Z")
}

/// Seconds, and a fraction of them.
pub(super) fn decimal(text: &str) -> Option<Moment> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(seconds) || !is_number(fraction) {
        return None;
    }
    let (thousandths, rest) = fraction.split_at(fraction.len().min(3));
    let thousandths: u64 = format!("{thousandths:0<3}").parse().ok()?;
    let down = seconds.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(thousandths)?;
    let is_more = rest.bytes().any(|digit| digit != b'0');
    Some(Moment { down, up: down.checked_add(is_more.into())? })
}

/// ISO-8601 with an offset (RFC 3339).
fn iso(text: &str) -> Option<Moment> {
    let nanoseconds = match text.parse::<jiff::Timestamp>() {
        Ok(time) => time.as_nanosecond(),
        Err(_) => at_the_end(text)?,
    };
    let nanoseconds = u128::try_from(nanoseconds).ok()?;
    let in_ms = |ms: u128| u64::try_from(ms).ok();
    Some(Moment { down: in_ms(nanoseconds / 1_000_000)?, up: in_ms(nanoseconds.div_ceil(1_000_000))? })
}

/// The last days of the year 9999, which are beyond a timestamp's range: its limits hold at any offset.
fn at_the_end(text: &str) -> Option<i128> {
    let (time, offset) = match text.strip_suffix(['Z', 'z']) {
        Some(time) => (time, 0),
        None => {
            let (time, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
            let (sign, offset) = offset.split_at_checked(1)?;
            let (hours, minutes) = offset.split_once(':')?;
            let number = |text: &str, end: i64| text.parse::<i64>().ok().filter(|number| (0..end).contains(number));
            let minutes = number(hours, 24)? * 60 + number(minutes, 60)?;
            match sign {
                "+" => (time, minutes),
                "-" => (time, -minutes),
                _ => return None,
            }
        }
    };
    let time: DateTime = time.parse().ok()?;
    let since = time.duration_since(date(1970, 1, 1).at(0, 0, 0, 0)).as_nanos();
    (time > date(9999, 12, 30).at(0, 0, 0, 0)).then(|| since - i128::from(offset) * 60_000_000_000)
}
