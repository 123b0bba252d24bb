//! Where a stream of messages can be gone on with, as a text that callers keep and send back.
//!
//! Form, in URL-safe base64 without padding: a version byte; 8 bytes that stand for what was asked (app, filter, order); then
//! nothing when no message was given yet, else the last message's millisecond (8 bytes) and, for each text seen in it, in
//! rising order, its mark (16 bytes) and how often it was given (4 bytes). Numbers are big-endian.
//!
//! Invariants: a cursor holds no message and no name. It opens nothing: who sends it may ask for the same anyway. What is
//! not exactly of this form, or belongs to another question, is refused.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::Error;
use super::pager::{Mark, Run};
use super::query::Query;
use crate::names::AppId;
use crate::vendor::history::Direction;

const VERSION: u8 = 1;

/// Most texts of one millisecond in a cursor: it has to fit into a request's head. Where more crowd no cursor is given.
const MARKS_MAX: usize = 64;

/// Stands for what was asked.
pub(super) type Question = [u8; 8];

/// The question that a query of an app asks.
pub(super) fn question(app: &AppId, query: &Query) -> Question {
    let mut hash = Sha256::new();
    let filter = &query.filter;
    for name in [Some(app.as_str()), filter.source.as_deref(), filter.destination.as_deref()] {
        // No name is as long as that.
        hash.update(name.map_or(u64::MAX, |name| name.len() as u64).to_be_bytes());
        hash.update(name.unwrap_or_default());
    }
    hash.update(filter.start.to_be_bytes());
    hash.update(filter.end.to_be_bytes());
    hash.update(query.direction.as_str());
    let digest = hash.finalize();
    std::array::from_fn(|at| digest[at])
}

/// The cursor after what was given; `None` where it would be too long.
pub(super) fn write(question: Question, place: Option<&Run>) -> Option<String> {
    let mut bytes = vec![VERSION];
    bytes.extend(question);
    if let Some(Run { last_ms, seen, .. }) = place {
        if seen.len() > MARKS_MAX {
            return None;
        }
        bytes.extend(last_ms.to_be_bytes());
        for (mark, count) in seen {
            bytes.extend(mark);
            bytes.extend(count.to_be_bytes());
        }
    }
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

/// The place of a cursor; `None`: before the first message.
///
/// # Errors
/// When it is no cursor, or one of another question.
pub(super) fn read(text: &str, question: Question, direction: Direction) -> Result<Option<Run>, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
    let (head, place) = bytes.split_first_chunk::<9>().ok_or_else(unreadable)?;
    if head[0] != VERSION {
        return Err(unreadable());
    }
    if head[1..] != question {
        return Err(Error::BadRequest(
            "cursor: belongs to another app, source, destination, start_time, end_time or order".into(),
        ));
    }
    if place.is_empty() {
        return Ok(None);
    }
    let (last_ms, marks) = place.split_first_chunk().ok_or_else(unreadable)?;
    let (marks, rest) = marks.as_chunks::<20>();
    let mut seen = BTreeMap::new();
    for chunk in marks {
        let (mark, count): (Mark, [u8; 4]) =
            (std::array::from_fn(|at| chunk[at]), std::array::from_fn(|at| chunk[16 + at]));
        let count = u32::from_be_bytes(count);
        let rises = seen.last_key_value().is_none_or(|(last, _)| *last < mark);
        if !rises || count == 0 {
            return Err(unreadable());
        }
        seen.insert(mark, count);
    }
    if !rest.is_empty() || !(1..=MARKS_MAX).contains(&seen.len()) {
        return Err(unreadable());
    }
    Ok(Some(Run { direction, last_ms: u64::from_be_bytes(*last_ms), seen }))
}

fn unreadable() -> Error {
    Error::BadRequest("cursor: is not one of this gateway".into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vendor::history::Filter;

    fn app(id: &str) -> AppId {
        AppId::parse(id).unwrap()
    }

    fn query() -> Query {
        let filter = Filter { source: Some("a".into()), destination: None, start: 1, end: 2 };
        Query { filter, offset: 0, limit: usize::MAX, direction: Direction::Asc }
    }

    #[test]
    fn a_cursor_belongs_to_one_question() {
        let asked = question(&app("x"), &query());
        let with = |change: fn(&mut Query)| {
            let mut query = query();
            change(&mut query);
            question(&app("x"), &query)
        };
        let others = [
            question(&app("y"), &query()),
            with(|q| q.filter.source = Some("b".into())),
            with(|q| (q.filter.source, q.filter.destination) = (None, Some("a".into()))),
            with(|q| q.filter.destination = Some("a".into())),
            with(|q| q.filter.start = 0),
            with(|q| q.filter.end = 3),
            with(|q| q.direction = Direction::Desc),
        ];
        let text = write(asked, None).unwrap();
        assert_eq!(read(&text, asked, Direction::Asc).unwrap(), None);
        for other in others {
            let Err(Error::BadRequest(why)) = read(&text, other, Direction::Asc) else { panic!("taken") };
            assert!(why.starts_with("cursor: belongs"), "{why}");
        }
        assert_eq!(with(|q| q.limit = 5), asked, "how many are wanted does not matter");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_else_is(
            last_ms: u64, seen in prop::collection::btree_map(any::<Mark>(), 1..=u32::MAX, 1..=70), spoilt: u8, at: usize,
        ) {
            let asked = [7; 8];
            let run = Run { direction: Direction::Desc, last_ms, seen };
            let text = write(asked, Some(&run));
            prop_assert_eq!(text.is_some(), run.seen.len() <= MARKS_MAX);
            if let Some(text) = text {
                prop_assert_eq!(read(&text, asked, Direction::Desc).unwrap(), Some(run.clone()));
                let mut bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
                prop_assert!(read(&URL_SAFE_NO_PAD.encode(&bytes[..bytes.len() - 1]), asked, Direction::Desc).is_err());
                let at = at % bytes.len();
                bytes[at] ^= spoilt;
                if let Ok(Some(other)) = read(&URL_SAFE_NO_PAD.encode(&bytes), asked, Direction::Desc) {
                    let again = write(asked, Some(&other)).unwrap();
                    prop_assert_eq!(URL_SAFE_NO_PAD.decode(again).unwrap(), bytes);
                }
            }
        }

        #[test]
        fn no_text_panics(text in ".*") {
            prop_assert!(read(&text, [7; 8], Direction::Asc).is_err());
        }
    }
}
