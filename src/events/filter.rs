//! [`Filter`]: which events a reader wants, by what they say.
//!
//! Invariants: a filter that names nothing admits everything and costs nothing. Several patterns for one member mean any
//! of them; several members mean all. In a pattern `*` stands for any run of characters, none included; nothing else
//! is special. A member that is missing counts as empty.

use crate::vendor::events::facts;

/// Which events a reader wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    kinds: Vec<Pattern>,
    user_ids: Vec<Pattern>,
    group_ids: Vec<Pattern>,
}

/// A text in which `*` stands for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern(String);

impl Filter {
    /// Admits everything.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Admits what fits one of the patterns of each kind; no patterns of a kind: whatever it is.
    #[must_use]
    pub fn new(kinds: &[String], user_ids: &[String], group_ids: &[String]) -> Self {
        let patterns = |texts: &[String]| texts.iter().cloned().map(Pattern).collect();
        Self { kinds: patterns(kinds), user_ids: patterns(user_ids), group_ids: patterns(group_ids) }
    }

    /// Whether it admits everything.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.kinds.is_empty() && self.user_ids.is_empty() && self.group_ids.is_empty()
    }

    /// Its patterns, each with the member it is for: `type`, `user_id` or `group_id`.
    pub fn patterns(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [("type", &self.kinds), ("user_id", &self.user_ids), ("group_id", &self.group_ids)];
        all.into_iter().flat_map(|(member, all)| all.iter().map(move |pattern| (member, pattern.0.as_str())))
    }

    /// Whether it admits this event, as the vendor wrote it.
    #[must_use]
    pub fn admits(&self, event: &[u8]) -> bool {
        if self.is_all() {
            return true;
        }
        let facts = facts(event);
        admit(&self.kinds, facts.kind.as_deref())
            && admit(&self.user_ids, facts.user_id.as_deref())
            && admit(&self.group_ids, facts.group_id.as_deref())
    }
}

/// A member that is missing counts as empty.
fn admit(patterns: &[Pattern], member: Option<&str>) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| pattern.fits(member.unwrap_or_default()))
}

impl Pattern {
    /// Takes each run between two `*` at its first place: if any way fits, this one does. Time is at most the product of
    /// both lengths.
    fn fits(&self, text: &str) -> bool {
        let Some((head, rest)) = self.0.split_once('*') else { return self.0 == text };
        let Some(mut text) = text.strip_prefix(head) else { return false };
        let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
        for run in middle.split('*').filter(|run| !run.is_empty()) {
            match text.find(run) {
                Some(at) => text = &text[at + run.len()..],
                None => return false,
            }
        }
        text.ends_with(tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, in so many words.
    fn fits(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|n| fits(rest, &text[n..])),
            Some((c, rest)) => text.first() == Some(c) && fits(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn a_star_stands_for_any_run(pattern in "[ab*]{0,7}", text in "[ab]{0,9}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(Pattern(pattern.clone()).fits(&text), fits(&chars(&pattern), &chars(&text)));
        }
    }

    #[test]
    fn any_pattern_of_a_member_and_all_members() {
        let texts = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        let filter = Filter::new(&texts(&["Login", "Log*t"]), &texts(&["vip-*"]), &[]);
        for (event, admitted) in [
            (r#"{"type":"Login","user_id":"vip-1"}"#, true),
            (r#"{"type":"Logout","user_id":"vip-"}"#, true),
            (r#"{"type":"Login","user_id":"v"}"#, false),
            (r#"{"type":"Join","user_id":"vip-1"}"#, false),
            (r#"{"type":"Login"}"#, false),
            ("7", false),
        ] {
            assert_eq!(filter.admits(event.as_bytes()), admitted, "{event}");
        }
        assert!(Filter::all().admits(b"7"));
        assert!(Filter::new(&[], &texts(&["*"]), &[]).admits(b"{}"));
    }
}
