//! The forms of a secret: see the table of [`super::Redactor`]'s module.

use std::fmt::Write as _;

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use zeroize::Zeroizing;

/// All but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// All of them, also such as are the same.
pub(super) fn forms_of(secret: &[u8]) -> Vec<Vec<u8>> {
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
