//! Patterns of user ids: `*` for any run of characters.
//!
//! Input: the pattern, a line break, the text.

use rtm_gateway::kernel::names::Pattern;

/// Takes any bytes; panics when a promise is broken.
pub fn check(data: &[u8]) {
    let Ok(input) = std::str::from_utf8(data) else { return };
    let (pattern, text) = input.split_once('\n').unwrap_or((input, ""));
    let said = Pattern::new(pattern).matches(text);
    if pattern.len().saturating_mul(text.len()) <= 1 << 16 {
        assert_eq!(said, fits(pattern, text), "{pattern:?} on {text:?}");
    }
    assert!(Pattern::new("*").matches(text));
    // A pattern fits its own words with the stars filled in.
    assert!(Pattern::new(pattern).matches(&pattern.replace('*', "")));
    assert!(Pattern::new(pattern).matches(&pattern.replace('*', text)));
}

/// The textbook's table: which prefixes of the text the pattern so far fits.
fn fits(pattern: &str, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let mut row = vec![false; text.len() + 1];
    row[0] = true;
    for step in pattern.chars() {
        if step == '*' {
            let first = row.iter().position(|fits| *fits).unwrap_or(row.len());
            row[first..].fill(true);
        } else {
            for at in (1..row.len()).rev() {
                row[at] = row[at - 1] && text[at - 1] == step;
            }
            row[0] = false;
        }
    }
    row[text.len()]
}
