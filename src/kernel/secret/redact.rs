//! A [`Redactor`]: finds secrets in what others wrote, in the forms in which software repeats what it was sent.
//!
//! | form | as |
//! | --- | --- |
//! | as it is | `s3/cr+t` |
//! | JSON | `s3\/cr+t`, `s3\u002fcr\u002bt`, `\u0073\u0033…` |
//! | percent-encoded | `s3%2Fcr%2Bt`, `s3%2fcr%2bt`, `%73%33…` |
//! | HTML | `a&amp;b`, `a&#43;b`, `&#97;&#38;…` |
//! | hex | `73332f…`, `73332F…` |
//! | base64, within any longer text that was encoded | both alphabets, all three offsets |
//!
//! Invariants: a text without a secret is given back as the same buffer, uncopied. Every form is wiped when dropped,
//! and so is the index by which all are found in one pass ([`FormIndex`]). What else can be made of a secret
//! (encryption, compression, a half of it, twice encoded) is not found.

mod form_index;
mod forms;

use std::ops::Range;

use bytes::Bytes;
use zeroize::Zeroizing;

use form_index::FormIndex;
use forms::forms_of;

/// What stands in a secret's place. Has no character that JSON would escape.
pub const MASK: &str = "<redacted>";

/// In data (events, messages) shorter forms are not looked for: an ordinary word must not be taken for a secret.
const LEAST_IN_DATA: usize = 16;

/// In words (error answers, which are for people) shorter forms are not looked for.
const LEAST_IN_WORDS: usize = 6;

/// At the end of a text that was cut, so much of a secret's beginning is masked too.
const LEAST_AT_THE_CUT: usize = 4;

/// How a text is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// What callers are to get unchanged: only what cannot be there by chance is masked.
    Data,
    /// What people read: short secrets are masked as well.
    Words,
    /// [`Text::Words`] whose end is missing.
    Cut,
    /// [`Text::Data`] whose end is missing.
    CutData,
}

/// Knows the forms of some secrets.
pub struct Redactor {
    /// Those that are looked for in every text.
    long: FormIndex,
    /// Those that are looked for in words only.
    short: FormIndex,
}

/// Says nothing.
impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor(..)")
    }
}

impl Redactor {
    /// Finds these secrets, in each form in which they may come back.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut forms: Vec<_> = secrets.into_iter().flat_map(forms_of).map(Zeroizing::new).collect();
        forms.retain(|form| form.len() >= LEAST_IN_WORDS);
        forms.sort_unstable_by(|a, b| a.as_slice().cmp(b));
        forms.dedup();
        let (long, short) = forms.into_iter().partition(|form| form.len() >= LEAST_IN_DATA);
        Self { long: FormIndex::new(long), short: FormIndex::new(short) }
    }

    /// The text with each secret masked.
    #[must_use]
    pub fn clean(&self, text: Bytes, kind: Text) -> Bytes {
        let mut found = self.find(&text, kind);
        if found.is_empty() {
            return text;
        }
        found.sort_by_key(|range| range.start);
        let mut clean = Vec::with_capacity(text.len());
        let mut at = 0;
        for range in found {
            // One secret may lie within another (a key within a pair): then it is masked already.
            if range.start >= at {
                clean.extend_from_slice(&text[at..range.start]);
                clean.extend_from_slice(MASK.as_bytes());
            }
            at = at.max(range.end);
        }
        clean.extend_from_slice(&text[at..]);
        clean.into()
    }

    /// Whether a secret is in the text.
    #[must_use]
    pub fn is_in(&self, text: &[u8]) -> bool {
        !self.find(text, Text::Words).is_empty()
    }

    fn find(&self, text: &[u8], kind: Text) -> Vec<Range<usize>> {
        let indexes = match kind {
            Text::Data | Text::CutData => &[&self.long][..],
            Text::Words | Text::Cut => &[&self.long, &self.short],
        };
        let mut found = Vec::new();
        for index in indexes {
            index.find(text, &mut found);
            if matches!(kind, Text::Cut | Text::CutData) {
                found.extend(index.forms().filter_map(|form| cut_at_the_end(text, form)));
            }
        }
        found
    }
}

/// Where a text ends with the beginning of a form.
fn cut_at_the_end(text: &[u8], form: &[u8]) -> Option<Range<usize>> {
    let longest = (form.len() - 1).min(text.len());
    let cut = (LEAST_AT_THE_CUT..=longest).rev().find(|n| text.ends_with(&form[..*n]));
    cut.map(|n| text.len() - n..text.len())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    use memchr::memmem;
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "p/L+4nt\"ed&s3cr3t=Zz?9";

    fn clean(text: &str, kind: Text) -> String {
        let clean = Redactor::new([SECRET.as_bytes()]).clean(Bytes::copy_from_slice(text.as_bytes()), kind);
        String::from_utf8(clean.to_vec()).unwrap()
    }

    #[test]
    fn a_secret_is_masked_in_every_form() {
        let hex: String = SECRET.bytes().map(|b| format!("{b:02x}")).collect();
        for form in [
            SECRET,
            "p/L+4nt\\\"ed&s3cr3t=Zz?9",
            "p\\/L+4nt\\\"ed&s3cr3t=Zz?9",
            "p\\u002fL\\u002b4nt\\u0022ed\\u0026s3cr3t\\u003dZz\\u003f9",
            "p%2FL%2B4nt%22ed%26s3cr3t%3DZz%3F9",
            "p%2fL%2b4nt%22ed%26s3cr3t%3dZz%3f9",
            "p/L+4nt&quot;ed&amp;s3cr3t=Zz?9",
            &SECRET.bytes().map(|b| format!("\\u{b:04x}")).collect::<String>(),
            &SECRET.bytes().map(|b| format!("&#{b};")).collect::<String>(),
            &hex,
            &hex.to_ascii_uppercase(),
        ] {
            for kind in [Text::Data, Text::Words, Text::Cut] {
                assert_eq!(clean(&format!("a {form} b"), kind), "a <redacted> b", "{form}");
            }
        }
        for before in ["", "k", "ke", "key:"] {
            let text = STANDARD_NO_PAD.encode(format!("{before}{SECRET}; and more"));
            for text in [text.replace('+', "-").replace('/', "_"), text] {
                let clean = clean(&text, Text::Data);
                assert!(clean.contains(MASK) && clean.len() < text.len() - 15, "{text}: {clean}");
            }
        }
    }

    #[test]
    fn a_text_without_a_secret_is_the_same_buffer() {
        let text = Bytes::from(format!("{} {}", &SECRET[1..], &SECRET[..SECRET.len() - 1]));
        let clean = Redactor::new([SECRET.as_bytes()]).clean(text.clone(), Text::Words);
        assert_eq!((clean.as_ptr(), &clean), (text.as_ptr(), &text));
    }

    #[test]
    fn a_short_secret_is_masked_in_words_and_no_word_of_data_is_taken_for_one() {
        let redactor = Redactor::new([&b"demo-key"[..], b"abc"]);
        let clean = |kind| redactor.clean(Bytes::from_static(b"user demo-key-7 abc"), kind);
        assert_eq!(clean(Text::Data), "user demo-key-7 abc");
        assert_eq!(clean(Text::Words), "user <redacted>-7 abc");
    }

    #[test]
    fn what_was_cut_in_the_middle_of_a_secret_does_not_show_its_beginning() {
        for n in LEAST_AT_THE_CUT..SECRET.len() {
            assert_eq!(clean(&format!("a {}", &SECRET[..n]), Text::Cut), "a <redacted>", "{n}");
        }
        assert_eq!(clean("a p/L", Text::Cut), "a p/L");
        assert_eq!(clean("", Text::Cut), "");
    }

    #[test]
    fn a_secret_within_another_leaves_no_rest() {
        let redactor = Redactor::new([&b"the-key-of-the-app"[..], b"the-key-of-the-app:the-secret-of-it"]);
        let text = Bytes::from_static(b"<the-key-of-the-app:the-secret-of-it> the-key-of-the-app");
        assert_eq!(redactor.clean(text, Text::Data), "<<redacted>> <redacted>");
    }

    /// What [`Redactor::clean`] says, by one search for each form.
    fn cleaned_one_by_one(secrets: &[String], text: &[u8], kind: Text) -> Vec<u8> {
        let is_data = matches!(kind, Text::Data | Text::CutData);
        let least = if is_data { LEAST_IN_DATA } else { LEAST_IN_WORDS };
        // Of each byte of the text, where what begins there and is hidden ends.
        let mut hidden = vec![0; text.len()];
        let mut hide = |range: Range<usize>| hidden[range.start] = hidden[range.start].max(range.end);
        for form in secrets.iter().flat_map(|secret| forms_of(secret.as_bytes())).filter(|form| form.len() >= least) {
            let mut from = 0;
            while let Some(at) = memmem::find(&text[from..], &form) {
                hide(from + at..from + at + form.len());
                from += at + 1;
            }
            if matches!(kind, Text::Cut | Text::CutData) {
                let cut = (LEAST_AT_THE_CUT..form.len()).rev().find(|n| text.ends_with(&form[..*n]));
                cut.into_iter().for_each(|n| hide(text.len() - n..text.len()));
            }
        }
        let (mut clean, mut until) = (Vec::new(), 0);
        for (at, byte) in text.iter().enumerate() {
            if hidden[at] > 0 && at >= until {
                clean.extend_from_slice(MASK.as_bytes());
            }
            until = until.max(hidden[at]);
            if at >= until {
                clean.push(*byte);
            }
        }
        clean
    }

    /// Keys as vendors make them, pass phrases, and such as lie within each other or overlap themselves.
    fn secrets() -> impl Strategy<Value = Vec<String>> {
        let secret =
            prop_oneof!["[0-9a-f]{32}", "[ -~]{4,40}", "[ab]{5,40}", "a{5,40}", "[\\PC]{1,20}", "[a-z]{8}:[A-Z]{8}"];
        prop::collection::vec(secret, 1..4)
    }

    /// A piece of a text: of so many of the secrets' forms this one, from here to there; or anything.
    #[derive(Clone, Debug)]
    enum Part {
        Form(prop::sample::Index, Option<(prop::sample::Index, prop::sample::Index)>),
        Filler(Vec<u8>),
    }

    fn part() -> impl Strategy<Value = Part> {
        prop_oneof![
            any::<prop::sample::Index>().prop_map(|form| Part::Form(form, None)),
            any::<(prop::sample::Index, (prop::sample::Index, prop::sample::Index))>()
                .prop_map(|(form, piece)| Part::Form(form, Some(piece))),
            "[ab]{0,20}".prop_map(|text| Part::Filler(text.into_bytes())),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Part::Filler),
        ]
    }

    properties! {
        #[test]
        fn one_pass_finds_all_that_a_search_for_each_form_finds(
            secrets in secrets(),
            parts in prop::collection::vec(part(), 0..8),
        ) {
            let forms: Vec<_> = secrets.iter().flat_map(|secret| forms_of(secret.as_bytes())).collect();
            let text = parts.iter().flat_map(|part| match part {
                Part::Form(form, None) => form.get(&forms).clone(),
                Part::Form(form, Some((from, to))) => {
                    let form = form.get(&forms);
                    let (from, to) = (from.index(form.len() + 1), to.index(form.len() + 1));
                    form[from.min(to)..from.max(to)].to_vec()
                }
                Part::Filler(bytes) => bytes.clone(),
            });
            let text = Bytes::from_iter(text);
            let redactor = Redactor::new(secrets.iter().map(String::as_bytes));
            for kind in [Text::Data, Text::Words, Text::Cut, Text::CutData] {
                let clean = redactor.clean(text.clone(), kind);
                let expected = cleaned_one_by_one(&secrets, &text, kind);
                prop_assert_eq!(&clean, &expected, "{:?} of {:?}", kind, text);
                if kind == Text::Words {
                    prop_assert_eq!(redactor.is_in(&text), expected != text);
                }
            }
        }
    }
}
