//! [`Filter`]: which events a reader wants, by what they say.
//!
//! Invariants: a filter that names nothing admits everything and costs nothing. Several patterns for one member mean
//! any of them; several members mean all. In a pattern `*` stands for any run of characters, none included; nothing
//! else is special. A member that is missing counts as empty. Patterns are taken apart once, when the filter is made;
//! those without a star cost one look-up, however many they are.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};

use crate::vendor::events::{Facts, facts};

/// Which events a reader wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filter {
    kinds: Patterns,
    user_ids: Patterns,
    group_ids: Patterns,
}

/// The patterns for one member.
#[derive(Clone, Debug, Default)]
struct Patterns {
    /// As they were written, in that order.
    texts: Vec<String>,
    exact: HashSet<String>,
    wild: Vec<Wild>,
}

/// A pattern with a star: what is before the first, between, and after the last.
#[derive(Clone, Debug)]
struct Wild {
    head: Box<str>,
    between: Vec<Box<str>>,
    tail: Box<str>,
}

impl Filter {
    /// Admits everything.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Admits what fits one of the patterns of each kind; no patterns of a kind: whatever it is.
    #[must_use]
    pub fn new(kinds: &[String], user_ids: &[String], group_ids: &[String]) -> Self {
        Self { kinds: Patterns::new(kinds), user_ids: Patterns::new(user_ids), group_ids: Patterns::new(group_ids) }
    }

    /// Whether it admits everything.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.members().iter().all(|(_, patterns)| patterns.texts.is_empty())
    }

    /// Its patterns, each with the member it is for: `type`, `user_id` or `group_id`.
    pub fn patterns(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let each = self.members().into_iter();
        each.flat_map(|(member, all)| all.texts.iter().map(move |pattern| (member, pattern.as_str())))
    }

    /// Whether it admits this event, as the vendor wrote it.
    #[must_use]
    pub fn admits(&self, event: &[u8]) -> bool {
        self.is_all() || self.admits_what_says(&facts(event))
    }

    /// Whether it admits an event that says this.
    #[must_use]
    pub fn admits_what_says(&self, facts: &Facts<'_>) -> bool {
        self.kinds.admit(facts.kind.as_deref())
            && self.user_ids.admit(facts.user_id.as_deref())
            && self.group_ids.admit(facts.group_id.as_deref())
    }

    /// What judging an event that says this costs at most, about, in steps of some ten nanoseconds.
    pub(in crate::events) fn cost(&self, facts: &Facts<'_>) -> usize {
        self.kinds.cost(facts.kind.as_deref())
            + self.user_ids.cost(facts.user_id.as_deref())
            + self.group_ids.cost(facts.group_id.as_deref())
    }

    /// The memory it takes, about.
    pub(in crate::events) fn weight(&self) -> usize {
        // Text, and what it was taken apart into.
        self.patterns().map(|(_, pattern)| 2 * pattern.len() + 96).sum()
    }

    fn members(&self) -> [(&'static str, &Patterns); 3] {
        [("type", &self.kinds), ("user_id", &self.user_ids), ("group_id", &self.group_ids)]
    }
}

impl Patterns {
    fn new(texts: &[String]) -> Self {
        let (wild, exact): (Vec<_>, Vec<_>) = texts.iter().partition(|text| text.contains('*'));
        Self {
            texts: texts.to_vec(),
            exact: exact.into_iter().cloned().collect(),
            wild: wild.into_iter().map(|text| Wild::new(text)).collect(),
        }
    }

    /// A member that is missing counts as empty.
    fn admit(&self, member: Option<&str>) -> bool {
        let member = member.unwrap_or_default();
        self.texts.is_empty() || self.exact.contains(member) || self.wild.iter().any(|pattern| pattern.fits(member))
    }

    fn cost(&self, member: Option<&str>) -> usize {
        let length = 1 + member.map_or(0, str::len) / 16;
        self.wild.iter().map(|pattern| 1 + pattern.between.len()).sum::<usize>() * length + length
    }
}

impl PartialEq for Patterns {
    fn eq(&self, other: &Self) -> bool {
        // What else there is was made of them.
        self.texts == other.texts
    }
}

impl Eq for Patterns {}

impl Hash for Patterns {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.texts.hash(state);
    }
}

impl Wild {
    /// Of a text that holds a star.
    fn new(text: &str) -> Self {
        let (head, rest) = text.split_once('*').unwrap_or((text, ""));
        let (between, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
        let between = between.split('*').filter(|run| !run.is_empty()).map(Into::into).collect();
        Self { head: head.into(), between, tail: tail.into() }
    }

    /// Takes each run between two `*` at its first place: if any way fits, this one does. Time is at most the product
    /// of both lengths.
    fn fits(&self, text: &str) -> bool {
        let Some(mut text) = text.strip_prefix(&*self.head) else { return false };
        for run in &self.between {
            match text.find(&**run) {
                Some(at) => text = &text[at + run.len()..],
                None => return false,
            }
        }
        text.ends_with(&*self.tail)
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

    properties! {
        #[test]
        fn a_star_stands_for_any_run(pattern in "[ab*]{0,7}", text in "[ab]{0,9}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let patterns = Patterns::new(std::slice::from_ref(&pattern));
            prop_assert_eq!(patterns.admit(Some(&text)), fits(&chars(&pattern), &chars(&text)));
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
        let written: Vec<_> = filter.patterns().collect();
        assert_eq!(written, [("type", "Login"), ("type", "Log*t"), ("user_id", "vip-*")]);
    }
}
