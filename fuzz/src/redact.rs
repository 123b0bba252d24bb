//! What the vendor wrote, cleaned of secrets: none is left in a form that software writes, and nothing else is changed.
//!
//! Input: a secret; on the next line what stands before it in a text; after that line what stands behind it.

use bytes::Bytes;
use memchr::memmem;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rtm_gateway::kernel::secret::redact::{MASK, Redactor, Text};

/// Shorter ones are not looked for, in words and in data.
const LEAST: [(Text, usize); 3] = [(Text::Words, 6), (Text::Cut, 6), (Text::Data, 16)];

/// Takes any bytes; panics when a promise is broken.
pub fn check(data: &[u8]) {
    let mut lines = data.splitn(3, |&b| b == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (secret, before, behind) = (line(), line(), line());
    // Of a secret that the mask itself holds a part of, the mask shows that part.
    if std::str::from_utf8(secret).is_err() || secret.len() < 6 || has(secret, b"redact") {
        return;
    }
    let redactor = Redactor::new([secret]);
    let without = Bytes::from([before, b"\n", behind].concat());
    let is_without = !redactor.is_in(&without);
    let texts: Vec<_> =
        forms(secret).into_iter().map(|form| (Bytes::from([before, &form, behind].concat()), form)).collect();
    for (text, _) in &texts {
        assert!(redactor.is_in(text));
    }
    for (kind, least) in LEAST {
        if is_without && kind != Text::Cut {
            assert_eq!(redactor.clean(without.clone(), kind).as_ptr(), without.as_ptr(), "copied, or changed");
        }
        for (text, form) in texts.iter().filter(|(_, form)| form.len() >= least) {
            let clean = redactor.clean(text.clone(), kind);
            assert!(has(&clean, MASK.as_bytes()), "{:?}", String::from_utf8_lossy(&clean));
            // The mask and what stands beside it may look like a secret by chance. Bytes, not a text: what is no UTF-8 would
            // be read as U+FFFD, of which a secret may consist.
            let left = without_masks(&clean);
            assert!(!has(&left, form), "{:?}", String::from_utf8_lossy(&left));
            if !has(before, MASK.as_bytes()) && !has(behind, MASK.as_bytes()) {
                only_secrets_are_gone(text, &clean);
            }
        }
    }
}

/// What is left stands in the text in its order.
fn only_secrets_are_gone(text: &[u8], clean: &[u8]) {
    let clean = String::from_utf8_lossy(clean).into_owned();
    if text.is_ascii() {
        let mut rest = std::str::from_utf8(text).expect("ASCII");
        for piece in clean.split(MASK) {
            let at = rest.find(piece).expect("what was not there");
            rest = &rest[at + piece.len()..];
        }
    }
}

fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(secret);
    let json = serde_json::to_string(&text).expect("a text is JSON");
    let percent = percent_encode(secret, NON_ALPHANUMERIC).to_string();
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![
        secret.to_vec(),
        json.as_bytes()[1..json.len() - 1].to_vec(),
        percent.into_bytes(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
    ];
    // Of a plain word the first three are one.
    forms.sort();
    forms.dedup();
    forms
}

/// The text with a line's end in place of each mask.
fn without_masks(clean: &[u8]) -> Vec<u8> {
    let mut left = Vec::with_capacity(clean.len());
    let mut at = 0;
    for mask in memmem::find_iter(clean, MASK) {
        left.extend_from_slice(&clean[at..mask]);
        left.push(b'\n');
        at = mask + MASK.len();
    }
    left.extend_from_slice(&clean[at..]);
    left
}

fn has(text: &[u8], part: &[u8]) -> bool {
    memmem::find(text, part).is_some()
}
