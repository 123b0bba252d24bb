//! [`Verdict`]: what a judgement may find of a proof; [`Standing`]: what was found last, as an atomic holds it.

use super::Life;

/// How a proof ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// Its time is over.
    #[error("what proved who asks has expired")]
    Expired,
    /// It proves nothing any more.
    #[error("what proved who asks was withdrawn")]
    Withdrawn,
    /// It proves who asks, who may not do this any more.
    #[error("the right to do this was withdrawn")]
    Forbidden,
}

impl Ended {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Expired, Self::Withdrawn, Self::Forbidden];

    /// Its name, as a metric has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
            Self::Forbidden => "forbidden",
        }
    }
}

/// What a judgement found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds, for so long.
    Good(Life),
    /// It cannot be known now: nothing is handed over, and nothing ends yet.
    Undecided,
    /// It holds no more.
    Ended(Ended),
}

/// What was found last.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Good,
    Undecided,
    Ended(Ended),
}

impl Standing {
    const ALL: [Self; 5] = [
        Self::Good,
        Self::Undecided,
        Self::Ended(Ended::Expired),
        Self::Ended(Ended::Withdrawn),
        Self::Ended(Ended::Forbidden),
    ];

    /// The one of that [`number`](Self::number).
    pub(super) fn of(number: u8) -> Self {
        Self::ALL[usize::from(number) % Self::ALL.len()]
    }

    pub(super) fn number(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::Undecided => 1,
            Self::Ended(Ended::Expired) => 2,
            Self::Ended(Ended::Withdrawn) => 3,
            Self::Ended(Ended::Forbidden) => 4,
        }
    }
}
