//! Messages of one millisecond, of which some were given: enough to tell those from the others when all are read again.
//!
//! While a list is read each text is known by its mark and how often it was given. A cursor has no room for that where
//! many crowd: it holds how many were given, the sum of their marks, and short prints of those given last, up to
//! [`PRINTS_MAX`] of them in their order.
//!
//! Invariants:
//! - Equal texts are told apart by counting alone: of a text given k times and found n times, n - k are new.
//! - While prints stand for all that was given, in which order the millisecond is read again does not matter, and what
//!   went meanwhile does no harm. Of more than that the order is relied on, and checked: what cannot be told is said
//!   so.
//! - Prints are salted with the sum, so that two texts that look alike to one cursor do not to the next.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// Stands for a text: the first half of its SHA-256. Short enough for cursors, too long for two texts to share by
/// chance.
pub(super) type Mark = [u8; 16];

/// Most prints of one cursor.
const PRINTS_MAX: usize = 1800;

/// Bytes of all prints of one cursor: it has to fit into a request's head.
const PRINTS_BYTES: usize = 4 * PRINTS_MAX;

/// What is known again by chance less often than once in so many times is.
const CHANCE: u64 = 4000;

/// What was given of one millisecond.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Crowd {
    number: u64,
    /// Of the marks of all of them; wraps.
    sum: u128,
    known: Known,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    /// How often each text was given; and the marks of those given last, in their order.
    Marks { counts: HashMap<Mark, u32>, last: VecDeque<Mark> },
    /// As a cursor holds them.
    Prints(Vec<u8>),
}

impl Default for Known {
    fn default() -> Self {
        Self::Marks { counts: HashMap::new(), last: VecDeque::new() }
    }
}

/// How a piece lies to what was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alignment {
    /// How many at its beginning were given.
    pub(super) number: usize,
    /// How many were given from its beginning on.
    pub(super) behind: usize,
}

/// How a cursor writes a crowd.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CrowdPrints {
    pub(super) number: u64,
    pub(super) sum: u128,
    /// Each as long as [`width`] says.
    pub(super) prints: Vec<u8>,
}

impl Crowd {
    /// One more was given.
    pub(super) fn add(&mut self, text: &[u8]) {
        self.add_mark(mark(text), 1);
    }

    fn add_mark(&mut self, mark: Mark, times: u32) {
        // What a cursor holds cannot be added to. It is read whole and made anew first: see `Run::pass_over`.
        let Known::Marks { counts, last } = &mut self.known else { return };
        let count = counts.entry(mark).or_default();
        *count = count.saturating_add(times);
        for _ in 0..times.min(PRINTS_MAX as u32) {
            if last.len() == PRINTS_MAX {
                last.pop_front();
            }
            last.push_back(mark);
        }
        self.number = self.number.saturating_add(times.into());
        self.sum = self.sum.wrapping_add(u128::from_be_bytes(mark).wrapping_mul(times.into()));
    }

    /// How often each of a few texts was given, as a cursor of version 1 holds it.
    pub(super) fn of_marks(marks: impl IntoIterator<Item = (Mark, u32)>) -> Self {
        let mut crowd = Self::default();
        marks.into_iter().for_each(|(mark, times)| crowd.add_mark(mark, times));
        crowd
    }

    /// How often each text was given, when that is known of no more than `most`.
    pub(super) fn marks(&self, most: usize) -> Option<impl Iterator<Item = (Mark, u32)>> {
        let Known::Marks { counts, .. } = &self.known else { return None };
        (counts.len() <= most).then(|| counts.iter().map(|(mark, count)| (*mark, *count)))
    }

    /// As a cursor holds it.
    pub(super) fn printed(&self) -> CrowdPrints {
        let prints = match &self.known {
            Known::Prints(prints) => prints.clone(),
            Known::Marks { last, .. } => {
                let width = width(last.len());
                last.iter().flat_map(|mark| print(self.sum, mark).into_iter().take(width)).collect()
            }
        };
        CrowdPrints { number: self.number, sum: self.sum, prints }
    }

    /// From a cursor; `None` when it cannot have come from [`Self::printed`].
    pub(super) fn of_prints(printed: CrowdPrints) -> Option<Self> {
        let CrowdPrints { number, sum, prints } = printed;
        let held = usize::try_from(number).unwrap_or(usize::MAX).min(PRINTS_MAX);
        (held > 0 && prints.len() == held * width(held)).then_some(Self { number, sum, known: Known::Prints(prints) })
    }

    /// How often a text was given, as far as it is known text by text.
    pub(super) fn known(&self) -> HashMap<Mark, u32> {
        match &self.known {
            Known::Marks { counts, .. } => counts.clone(),
            Known::Prints(_) => HashMap::new(),
        }
    }

    /// How many were given.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether each of these was given, as often.
    pub(super) fn holds(&self, marks: &[Mark]) -> bool {
        let Known::Marks { counts, .. } = &self.known else { return false };
        let mut left = counts.clone();
        marks.iter().all(|mark| take(&mut left, mark))
    }

    /// Where an unbroken piece lies that begins among what was given last: told by texts that were given once, occur
    /// once in it, and stand in the same order, so many that it cannot well be chance.
    pub(super) fn known_again(&self, piece: &[Mark]) -> Option<Alignment> {
        let Known::Marks { counts, last } = &self.known else { return None };
        let mut times: HashMap<&Mark, u32> = HashMap::new();
        piece.iter().for_each(|mark| *times.entry(mark).or_default() += 1);
        let is_one = |mark: &Mark| counts.get(mark) == Some(&1) && times.get(mark) == Some(&1);
        let at = piece.iter().position(is_one)?;
        let start = last.iter().rposition(|mark| *mark == piece[at])?.checked_sub(at)?;
        let number = piece.len().min(last.len() - start);
        let is_same = piece.iter().zip(last.range(start..)).all(|(a, b)| a == b);
        // The order among equals is not documented, and may be another in each query. Were it any order at all, these
        // found would stand in this one once in all * (all - 1) * … times: what is rarer than that is taken for the
        // same place.
        let all = self.number.saturating_add((piece.len() - number) as u64);
        let found = piece[..number].iter().filter(|mark| is_one(mark)).count() as u64;
        let chance = (0..found.min(all)).fold(1_u64, |chance, n| chance.saturating_mul(all - n));
        (is_same && chance >= CHANCE).then_some(Alignment { number, behind: last.len() - start })
    }

    /// Whether a text was given, as far as is known text by text.
    pub(super) fn has(&self, mark: &Mark) -> bool {
        matches!(&self.known, Known::Marks { counts, .. } if counts.contains_key(mark))
    }

    /// Which of all that there is of the millisecond was given, of each in turn; `None` when it cannot be told.
    pub(super) fn given_of(&self, all: &[Bytes]) -> Option<Vec<bool>> {
        let marks: Vec<Mark> = all.iter().map(|text| mark(text)).collect();
        let prints = match &self.known {
            Known::Marks { counts, .. } => {
                let mut left = counts.clone();
                return Some(marks.iter().map(|mark| take(&mut left, mark)).collect());
            }
            Known::Prints(prints) => prints,
        };
        let held = usize::try_from(self.number).unwrap_or(usize::MAX).min(PRINTS_MAX);
        let width = width(held);
        let prints: Vec<&[u8]> = prints.chunks_exact(width).collect();
        let found: Vec<Mark> = marks.iter().map(|mark| print(self.sum, mark)).collect();
        let found: Vec<&[u8]> = found.iter().map(|print| &print[..width]).collect();
        // Prints of all that was given: each is looked for by itself, and what expired is simply not found.
        if self.number <= PRINTS_MAX as u64 {
            let mut left: HashMap<&[u8], u32> = HashMap::new();
            prints.into_iter().for_each(|print| *left.entry(print).or_default() += 1);
            let given = found.iter().map(|print| take(&mut left, *print)).collect();
            return Some(self.mended(given, &marks, &found));
        }
        // Prints of the last ones alone: those before them must be told by where they stand.
        let end = self.end_among(&marks, &found, &prints)?;
        Some((0..all.len()).map(|at| at < end).collect())
    }

    /// The same with one exchanged for another that looks alike, where the sum says that it was the other.
    fn mended(&self, mut given: Vec<bool>, marks: &[Mark], prints: &[&[u8]]) -> Vec<bool> {
        // Of 1800 prints of four bytes among as many, two that look alike are met once in some thousand cursors. The
        // sum of the marks, 16 bytes each, says that one was taken for the other; one exchange puts it right.
        let of = |at: usize| u128::from_be_bytes(marks[at]);
        let taken: Vec<usize> = (0..given.len()).filter(|at| given[*at]).collect();
        let sum = taken.iter().fold(0_u128, |sum, at| sum.wrapping_add(of(*at)));
        if taken.len() as u64 != self.number || sum == self.sum {
            return given;
        }
        let mut alike: HashMap<&[u8], Vec<usize>> = HashMap::new();
        taken.into_iter().for_each(|at| alike.entry(prints[at]).or_default().push(at));
        let others = (0..given.len()).filter(|at| !given[*at]);
        let pair = others
            .flat_map(|other| alike.get(prints[other]).into_iter().flatten().map(move |at| (*at, other)))
            .find(|(at, other)| sum.wrapping_sub(of(*at)).wrapping_add(of(*other)) == self.sum);
        if let Some((at, other)) = pair {
            given.swap(at, other);
        }
        given
    }

    /// Where what was given ends, of more than there are prints of: where the sum says so when nothing went, else
    /// behind the longest piece that ends as what was given did.
    fn end_among(&self, marks: &[Mark], found: &[&[u8]], prints: &[&[u8]]) -> Option<usize> {
        let number = usize::try_from(self.number).ok()?;
        if let Some(first) = marks.get(..number)
            && first.iter().fold(0_u128, |sum, mark| sum.wrapping_add(u128::from_be_bytes(*mark))) == self.sum
        {
            return Some(number);
        }
        (1..=found.len().min(number)).rev().find(|end| {
            let length = prints.len().min(*end);
            found[end - length..*end] == prints[prints.len() - length..]
        })
    }
}

/// Takes one of a kind, if one is left.
pub(super) fn take<K: Eq + std::hash::Hash>(left: &mut HashMap<K, u32>, kind: impl std::borrow::Borrow<K>) -> bool {
    match left.get_mut(kind.borrow()) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        _ => false,
    }
}

/// How long each of so many prints is.
fn width(prints: usize) -> usize {
    (PRINTS_BYTES / prints.max(1)).min(size_of::<Mark>())
}

fn print(salt: u128, mark: &Mark) -> Mark {
    first_half(Sha256::new().chain_update(salt.to_be_bytes()).chain_update(mark))
}

/// The mark of a text.
pub(super) fn mark(text: &[u8]) -> Mark {
    first_half(Sha256::new().chain_update(text))
}

fn first_half(hash: Sha256) -> Mark {
    let digest = hash.finalize();
    std::array::from_fn(|at| digest[at])
}
