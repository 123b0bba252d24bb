//! Cursors as clients hold them.
//!
//! Input: a cursor's text; also, its first 16 bytes as a place.

use rtm_gateway::events::Cursor;
use rtm_gateway::store::Sequence;

/// Takes any bytes; panics when a promise is broken.
pub fn check(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(cursor) = text.parse::<Cursor>()
    {
        assert_eq!(cursor.to_string(), text, "two texts for one cursor");
    }
    let Some((place, rest)) = data.split_first_chunk::<16>() else { return };
    let number = |at: usize| place[at..at + 8].iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
    let cursor = Cursor { epoch: number(0), at: Sequence(number(8)) };
    let text = cursor.to_string();
    assert_eq!(text.parse(), Ok(cursor));
    // One wrong character, one too few, one too many.
    if let [at, with, ..] = rest
        && with.is_ascii()
    {
        let mut wrong = text.clone().into_bytes();
        wrong[usize::from(*at) % text.len()] = *with;
        let wrong = String::from_utf8(wrong).expect("ASCII");
        assert!(wrong == text || wrong.parse::<Cursor>().is_err(), "{text} and {wrong}");
        assert!(text[..text.len() - 1].parse::<Cursor>().is_err());
        assert!(format!("{text}{}", char::from(*with)).parse::<Cursor>().is_err());
    }
}
