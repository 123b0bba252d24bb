//! Where a stream of messages can be gone on with, as a text that callers keep and send back.
//!
//! Form, in URL-safe base64 without padding: a version byte; 8 bytes that stand for what was asked (app, filter,
//! order); then nothing when no message was given yet, else the last message's millisecond (8 bytes) and what was given
//! of it. Numbers are big-endian.
//!
//! - Version 1, up to [`MAX_MARKS`] texts: for each, in rising order, its mark (16 bytes) and how often it was given (4
//!   bytes).
//! - Version 2, more: how many messages (8 bytes), the sum of their marks (16 bytes), and the prints of those given
//!   last, in their order ([`crowd`](super::crowd)). No longer than 10,000 characters.
//!
//! Invariants: there is a cursor after any message. It holds no message and no name. It opens nothing: who sends it may
//! ask for the same anyway. What is not exactly of this form, or belongs to another question, is refused.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::crowd::{Crowd, CrowdPrints, Mark};
use super::error::Error;
use super::pager::Run;
use super::query::Query;
use crate::kernel::names::AppId;
use crate::vendor::history::Direction;

/// The version that holds few texts of one millisecond, each by itself; and that of none.
const FEW: u8 = 1;

/// The version that holds many.
const MANY: u8 = 2;

/// Most texts of one millisecond in a cursor of the first version.
const MAX_MARKS: usize = 64;

/// Stands for what was asked, so that a cursor of another question is refused.
pub(super) type QueryHash = [u8; 8];

/// Of a query, and of the app that it is asked of.
pub(super) fn query_hash(app: &AppId, query: &Query) -> QueryHash {
    let mut hash = Sha256::new();
    let filter = &query.filter;
    for name in [Some(app.as_str()), filter.source.as_deref(), filter.destination.as_deref()] {
        // Each with its length, so that no two questions hash the same bytes. No name is as long as that one.
        hash.update(name.map_or(u64::MAX, |name| name.len() as u64).to_be_bytes());
        hash.update(name.unwrap_or_default());
    }
    hash.update(filter.start.to_be_bytes());
    hash.update(filter.end.to_be_bytes());
    hash.update(query.direction.as_str());
    if !query.within.is_all() {
        for ms in [query.within.from, query.within.to] {
            hash.update(ms.unwrap_or(u64::MAX).to_be_bytes());
        }
    }
    let digest = hash.finalize();
    std::array::from_fn(|at| digest[at])
}

/// The cursor after what was given.
pub(super) fn write(hash: QueryHash, place: Option<&Run>) -> String {
    let mut bytes = vec![FEW];
    bytes.extend(hash);
    if let Some(Run { last_ms, crowd, .. }) = place {
        bytes.extend(last_ms.to_be_bytes());
        if let Some(marks) = crowd.marks(MAX_MARKS) {
            for (mark, count) in marks.collect::<BTreeMap<_, _>>() {
                bytes.extend(mark);
                bytes.extend(count.to_be_bytes());
            }
        } else {
            let CrowdPrints { number, sum, prints } = crowd.printed();
            bytes[0] = MANY;
            bytes.extend(number.to_be_bytes());
            bytes.extend(sum.to_be_bytes());
            bytes.extend(prints);
        }
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The place of a cursor; `None`: before the first message.
/// Fails when it is no cursor, or one of another question.
pub(super) fn read(text: &str, hash: QueryHash, direction: Direction) -> Result<Option<Run>, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
    let (head, place) = bytes.split_first_chunk::<9>().ok_or_else(unreadable)?;
    let given = match head[0] {
        FEW => few,
        MANY => many,
        _ => return Err(unreadable()),
    };
    if head[1..] != hash {
        return Err(Error::BadRequest(
            "cursor: belongs to another app, source, destination, start_time, end_time or order".into(),
        ));
    }
    if place.is_empty() && head[0] == FEW {
        return Ok(None);
    }
    let (last_ms, rest) = place.split_first_chunk().ok_or_else(unreadable)?;
    let crowd = given(rest).ok_or_else(unreadable)?;
    Ok(Some(Run { direction, last_ms: u64::from_be_bytes(*last_ms), crowd }))
}

/// What was given of the last millisecond, in the first version's form.
fn few(bytes: &[u8]) -> Option<Crowd> {
    let (chunks, rest) = bytes.as_chunks::<20>();
    let mut marks = BTreeMap::new();
    for chunk in chunks {
        let (mark, count): (Mark, [u8; 4]) =
            (std::array::from_fn(|at| chunk[at]), std::array::from_fn(|at| chunk[16 + at]));
        let count = u32::from_be_bytes(count);
        // In rising order, none twice: one place has one spelling, and what is read is written again as it was.
        let rises = marks.last_key_value().is_none_or(|(last, _)| *last < mark);
        if !rises || count == 0 {
            return None;
        }
        marks.insert(mark, count);
    }
    (rest.is_empty() && (1..=MAX_MARKS).contains(&marks.len())).then(|| Crowd::of_marks(marks))
}

/// The same in the second version's.
fn many(bytes: &[u8]) -> Option<Crowd> {
    let (number, rest) = bytes.split_first_chunk()?;
    let (sum, prints) = rest.split_first_chunk()?;
    let (number, sum) = (u64::from_be_bytes(*number), u128::from_be_bytes(*sum));
    Crowd::of_prints(CrowdPrints { number, sum, prints: prints.to_vec() }).filter(|_| number > MAX_MARKS as u64)
}

fn unreadable() -> Error {
    Error::BadRequest("cursor: is not one of this gateway".into())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::history::query::Within;
    use crate::vendor::history::Filter;

    fn app(id: &str) -> AppId {
        AppId::parse(id).unwrap()
    }

    fn query() -> Query {
        let filter = Filter { source: Some("a".into()), destination: None, start: 1, end: 2 };
        Query { filter, within: Within::default(), offset: 0, limit: usize::MAX, direction: Direction::Asc }
    }

    #[test]
    fn a_cursor_belongs_to_one_question() {
        let asked = query_hash(&app("x"), &query());
        let with = |change: fn(&mut Query)| {
            let mut query = query();
            change(&mut query);
            query_hash(&app("x"), &query)
        };
        let others = [
            query_hash(&app("y"), &query()),
            with(|q| q.filter.source = Some("b".into())),
            with(|q| (q.filter.source, q.filter.destination) = (None, Some("a".into()))),
            with(|q| q.filter.destination = Some("a".into())),
            with(|q| q.filter.start = 0),
            with(|q| q.filter.end = 3),
            with(|q| q.direction = Direction::Desc),
            with(|q| q.within.from = Some(1001)),
            with(|q| q.within.to = Some(1001)),
        ];
        let text = write(asked, None);
        assert_eq!(read(&text, asked, Direction::Asc).unwrap(), None);
        for other in others {
            let Err(Error::BadRequest(why)) = read(&text, other, Direction::Asc) else { panic!("taken") };
            assert!(why.starts_with("cursor: belongs"), "{why}");
        }
        assert_eq!(with(|q| q.limit = 5), asked, "how many are wanted does not matter");
    }

    properties! {
        #[test]
        fn what_is_written_is_read_and_nothing_else_is(
            last_ms: u64,
            seen in prop_oneof![
                prop::collection::btree_map(any::<Mark>(), 1..=u32::MAX, 1..=70),
                prop::collection::btree_map(any::<Mark>(), 1..=3_u32, 60..=2000),
            ],
            spoilt: u8,
            at: usize,
        ) {
            let asked = [7; 8];
            let number = seen.len();
            let run = Run { direction: Direction::Desc, last_ms, crowd: Crowd::of_marks(seen) };
            let text = write(asked, Some(&run));
            prop_assert!(text.len() <= 10_000, "{}", text.len());
            let again = read(&text, asked, Direction::Desc).unwrap();
            prop_assert_eq!(&write(asked, again.as_ref()), &text);
            let mut bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
            prop_assert_eq!(bytes[0], if number > MAX_MARKS { MANY } else { FEW });
            prop_assert!(read(&URL_SAFE_NO_PAD.encode(&bytes[..bytes.len() - 1]), asked, Direction::Desc).is_err());
            let at = at % bytes.len();
            bytes[at] ^= spoilt;
            if let Ok(Some(other)) = read(&URL_SAFE_NO_PAD.encode(&bytes), asked, Direction::Desc) {
                prop_assert_eq!(URL_SAFE_NO_PAD.decode(write(asked, Some(&other))).unwrap(), bytes);
            }
        }

        #[test]
        fn of_a_crowd_read_again_exactly_what_was_given_is_passed_over(
            // How many there are of each of so many texts, and how many were given.
            texts in prop_oneof![1..4_usize, 50..3000_usize],
            times in 1..3_usize,
            given in 0..=100_usize,
            went in prop_oneof![Just(0_usize), 0..40_usize],
            turned: bool,
        ) {
            let all: Vec<Bytes> = (0..texts * times).map(|n| format!("{{\"n\":{}}}", n % texts).into()).collect();
            let given = (all.len() * given / 100).max(1);
            let mut crowd = Crowd::default();
            all[..given].iter().for_each(|text| crowd.add(text));
            let run = Run { direction: Direction::Asc, last_ms: 5, crowd };
            let place = read(&write([7; 8], Some(&run)), [7; 8], Direction::Asc).unwrap().unwrap();
            // Of those given the first went. More than there are prints of are told by their order alone.
            let went = went.min(given);
            let mut found = all[went..].to_vec();
            let is_turned = turned && given <= 1800;
            if is_turned {
                found.reverse();
            }
            let marked = place.crowd.given_of(&found);
            // A copy that follows stands for one that went: equal texts are told apart by counting.
            if given > 1800 && (went == given || times > 1 && went > 0) {
                return Ok(());
            }
            let mut left: Vec<Bytes> =
                found.iter().zip(marked.unwrap()).filter(|(_, given)| !given).map(|(text, _)| text.clone()).collect();
            if given > 1800 {
                // Equal ones that come next are taken for those that went: that nothing went is as true.
                let sorted = |texts: &[Bytes]| texts.iter().cloned().collect::<std::collections::BTreeSet<_>>();
                let stand_in = all.get(given..given + went).is_some_and(|next| sorted(next) == sorted(&all[..went]));
                let end = if stand_in { given + went } else { given };
                prop_assert!(left == all[end..], "{} of {}", left.len(), all.len() - end);
                return Ok(());
            }
            // Equal texts are told apart by counting: what went is taken to be still there while others are.
            let mut expected = all.clone();
            let mut known: Vec<Bytes> = all[..given].to_vec();
            expected.drain(..went);
            known.sort();
            expected.sort();
            left.sort();
            for text in known {
                if let Ok(at) = expected.binary_search(&text) {
                    expected.remove(at);
                }
            }
            prop_assert!(left == expected, "{} for {}", left.len(), expected.len());
        }

        #[test]
        fn no_text_panics(text in ".*") {
            prop_assert!(read(&text, [7; 8], Direction::Asc).is_err());
        }
    }
}
