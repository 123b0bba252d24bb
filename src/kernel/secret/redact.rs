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
//! which is why they are searched one after another: an automaton for all would hold unwiped copies. What else can be
//! made of a secret (encryption, compression, a half of it, twice encoded) is not found.

use std::fmt::Write as _;
use std::ops::Range;

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use memchr::memmem;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use zeroize::Zeroizing;

/// What stands in a secret's place. Has no character that JSON would escape.
pub const MASK: &str = "<redacted>";

/// In data (events, messages) shorter forms are not looked for: an ordinary word must not be taken for a secret.
const LEAST_IN_DATA: usize = 16;

/// In words (error answers, which are for people) shorter forms are not looked for.
const LEAST_IN_WORDS: usize = 6;

/// At the end of a text that was cut, so much of a secret's beginning is masked too.
const LEAST_AT_THE_CUT: usize = 4;

/// All but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

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
    /// Longest first.
    forms: Vec<Zeroizing<Vec<u8>>>,
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
        // Longest first: where one form lies within another, the whole of the longer one is masked.
        forms.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        forms.dedup();
        Self { forms }
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
        let least = match kind {
            Text::Data | Text::CutData => LEAST_IN_DATA,
            Text::Words | Text::Cut => LEAST_IN_WORDS,
        };
        let mut found = Vec::new();
        for form in self.forms.iter().filter(|form| form.len() >= least) {
            if form.len() <= text.len() {
                found.extend(memmem::find_iter(text, form.as_slice()).map(|at| at..at + form.len()));
            }
            if matches!(kind, Text::Cut | Text::CutData) {
                let longest = (form.len() - 1).min(text.len());
                let cut = (LEAST_AT_THE_CUT..=longest).rev().find(|n| text.ends_with(&form[..*n]));
                found.extend(cut.map(|n| text.len() - n..text.len()));
            }
        }
        found
    }
}

fn forms_of(secret: &[u8]) -> Vec<Vec<u8>> {
    let percent = percent_encode(secret, NON_ALPHANUMERIC).to_string();
    let unreserved = percent_encode(secret, RESERVED).to_string();
    let every = each(secret, |_| false, |out, b| write!(out, "%{b:02X}"));
    let hex = each(secret, |_| false, |out, b| write!(out, "{b:02x}"));
    let is_word = |b: u8| b.is_ascii_alphanumeric();
    let unicode = each(secret, is_word, |out, b| write!(out, "\\u{b:04x}"));
    let unicode_all = each(secret, |_| false, |out, b| write!(out, "\\u{b:04x}"));
    let capital_all = each(secret, |_| false, |out, b| write!(out, "\\u{b:04X}"));
    let decimal_all = each(secret, |_| false, |out, b| write!(out, "&#{b};"));
    let capital = each(secret, is_word, |out, b| write!(out, "\\u{b:04X}"));
    let decimal = each(secret, |b| is_word(b) || b"/=-_.:".contains(&b), |out, b| write!(out, "&#{b};"));
    let mut forms = vec![
        lower_escapes(&percent),
        lower_escapes(&unreserved),
        lower_escapes(&every),
        percent.into_bytes(),
        unreserved.into_bytes(),
        every.into_bytes(),
        hex.to_ascii_uppercase().into_bytes(),
        hex.into_bytes(),
        unicode.into_bytes(),
        capital.into_bytes(),
        decimal.into_bytes(),
        unicode_all.into_bytes(),
        capital_all.into_bytes(),
        decimal_all.into_bytes(),
        secret.to_vec(),
    ];
    if let Ok(text) = std::str::from_utf8(secret) {
        let json = serde_json::Value::from(text).to_string();
        let json = json.get(1..json.len() - 1).unwrap_or_default();
        forms.push(json.replace('/', "\\/").into_bytes());
        forms.push(json.as_bytes().to_vec());
        let html = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        forms.push(html.replace('"', "&quot;").replace('\'', "&#39;").into_bytes());
    }
    for offset in 0..3 {
        forms.push(base64_within(&STANDARD_NO_PAD, secret, offset));
        forms.push(base64_within(&URL_SAFE_NO_PAD, secret, offset));
    }
    forms
}

/// The characters of base64 that a secret alone decides when it stands `offset` bytes (of three) into a longer text.
fn base64_within(engine: &impl base64::Engine, secret: &[u8], offset: usize) -> Vec<u8> {
    let padded = Zeroizing::new([&[0; 2][..offset], secret].concat());
    let text = Zeroizing::new(engine.encode(padded.as_slice()));
    let (from, to) = ((offset * 8).div_ceil(6), padded.len() * 8 / 6);
    text.as_bytes().get(from..to).unwrap_or_default().to_vec()
}

fn each(
    secret: &[u8],
    stays: impl Fn(u8) -> bool,
    mut escape: impl FnMut(&mut String, u8) -> std::fmt::Result,
) -> String {
    let mut out = String::with_capacity(secret.len() * 6);
    for byte in secret {
        if stays(*byte) {
            out.push(char::from(*byte));
        } else {
            // Writing to a String cannot fail.
            let _ = escape(&mut out, *byte);
        }
    }
    out
}

/// `%2F` as `%2f`.
fn lower_escapes(percent: &str) -> Vec<u8> {
    let mut left = 0;
    let lower = |c: char| {
        left = if c == '%' { 3 } else { usize::saturating_sub(left, 1) };
        if left > 0 { c.to_ascii_lowercase() } else { c }
    };
    percent.chars().map(lower).collect::<String>().into_bytes()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

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
}
