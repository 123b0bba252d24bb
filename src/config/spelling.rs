//! The word that somebody may have meant.

/// The known word nearest to a mistyped one, if one is near.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // A longer text is no mistyped key, and the distance costs the product of the lengths.
    if word.len() > 64 {
        return None;
    }
    let near = |candidate: &str| distance(word, candidate);
    let best = known.iter().copied().min_by_key(|candidate| near(candidate))?;
    // A short word is near to every other: of three letters one may differ, of many letters three.
    (near(best) <= (best.len() / 3).clamp(1, 3)).then_some(best)
}

/// How many characters must be added, removed or replaced to make one word the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
