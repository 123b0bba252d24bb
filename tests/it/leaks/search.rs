//! Finding planted secrets in whatever came out, however it was encoded.
//!
//! It works the other way round than the gateway's own redactor, so that one checks the other: not the secret is
//! encoded, but what came out is decoded in every way and searched for the secret. A fragment of [`FRAGMENT`] characters
//! is a find: cut and truncated secrets are leaks too. Letters' case does not matter, and reversed counts as well.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// So many characters of a secret in a row are a leak. By chance they do not occur: secrets are random.
const FRAGMENT: usize = 12;

/// One secret, and what may be said of it.
#[derive(Clone, Debug)]
pub(crate) struct Plant {
    pub(crate) name: String,
    pub(crate) secret: Vec<u8>,
}

/// Knows every fragment of every secret.
pub(crate) struct Search {
    fragments: HashMap<[u8; FRAGMENT], String>,
    /// Which first four bytes begin a fragment.
    beginnings: HashSet<[u8; 4]>,
}

/// A leak: whose, in which view of the text, and what stands around it.
#[derive(Debug)]
#[expect(dead_code, reason = "printed when a test fails")]
pub(crate) struct Leak {
    pub(crate) what: String,
    pub(crate) view: &'static str,
    pub(crate) around: String,
}

impl Search {
    pub(crate) fn new(plants: &[Plant]) -> Self {
        let mut search = Self { fragments: HashMap::new(), beginnings: HashSet::new() };
        for plant in plants {
            let forwards = plant.secret.to_ascii_lowercase();
            assert!(forwards.len() >= FRAGMENT, "{} is too short to be searched for", plant.name);
            let backwards: Vec<u8> = forwards.iter().rev().copied().collect();
            for (text, way) in [(forwards, ""), (backwards, ", backwards")] {
                for fragment in text.windows(FRAGMENT) {
                    search.beginnings.insert(fragment[..4].try_into().unwrap());
                    search.fragments.insert(fragment.try_into().unwrap(), format!("{}{way}", plant.name));
                }
            }
        }
        search
    }

    /// Every secret in a text, once for each view it shows in.
    pub(crate) fn find(&self, text: &[u8]) -> Vec<Leak> {
        let mut leaks = Vec::new();
        for (view, text) in views(text) {
            let mut found = HashSet::new();
            for at in 0..text.len().saturating_sub(FRAGMENT - 1) {
                let window = &text[at..at + FRAGMENT];
                if !self.beginnings.contains(&window[..4]) {
                    continue;
                }
                if let Some(what) = self.fragments.get(window)
                    && found.insert(what)
                {
                    let around = &text[at.saturating_sub(60)..(at + 80).min(text.len())];
                    let around = String::from_utf8_lossy(around).into_owned();
                    leaks.push(Leak { what: what.clone(), view, around });
                }
            }
        }
        leaks
    }
}

/// The text as it is and decoded in each way, in lower case.
fn views(text: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let json = unescape_json(text);
    let twice = unescape_json(&json);
    let percent = unescape_percent(&twice);
    let html = unescape_html(&twice);
    let mut views = Vec::new();
    // An encoded secret can be encoded again: percent over base64, JSON over either.
    for source in [&json, &percent] {
        for offset in 0..4 {
            views.push(("base64", decode_runs(source, is_base64, offset, 16, from_base64)));
        }
    }
    for offset in 0..2 {
        views.push(("hex", decode_runs(&json, |b| b.is_ascii_hexdigit(), offset, 24, from_hex)));
    }
    views.extend([
        ("percent", percent),
        ("HTML", html),
        ("JSON", json),
        ("JSON in JSON", twice),
        ("plain", text.to_vec()),
    ]);
    views.iter_mut().for_each(|(_, view)| view.make_ascii_lowercase());
    views
}

/// `\/`, `\"`, `\u002f`: what a backslash hides.
fn unescape_json(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'\\', [b'u', a, b, c, d, ..]) => match hex_value(&[*a, *b, *c, *d]).and_then(|n| u8::try_from(n).ok()) {
                Some(byte) => {
                    out.push(byte);
                    rest = &after[5..];
                }
                None => out.push(b'\\'),
            },
            (b'\\', [escaped @ (b'"' | b'\\' | b'/'), ..]) => {
                out.push(*escaped);
                rest = &after[1..];
            }
            _ => out.push(byte),
        }
    }
    out
}

fn unescape_percent(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| byte == b'%').and_then(hex_value).and_then(|n| u8::try_from(n).ok());
        out.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    out
}

fn unescape_html(text: &[u8]) -> Vec<u8> {
    let mut text = String::from_utf8_lossy(text).into_owned();
    for byte in 0x21..0x7f_u8 {
        for escaped in [format!("&#{byte};"), format!("&#x{byte:x};"), format!("&#x{byte:X};")] {
            if text.contains("&#") {
                text = text.replace(&escaped, &char::from(byte).to_string());
            }
        }
    }
    for (name, plain) in [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")] {
        text = text.replace(name, plain);
    }
    text.into_bytes()
}

/// Every run of `is` characters, decoded from its `offset`th on.
fn decode_runs(
    text: &[u8],
    is: impl Fn(&u8) -> bool,
    offset: usize,
    least: usize,
    decode: impl Fn(&[u8]) -> Vec<u8>,
) -> Vec<u8> {
    let mut out = Vec::new();
    for run in text.split(|b| !is(b)).filter(|run| run.len() >= least) {
        out.extend(decode(&run[offset..]));
        out.push(b'\n');
    }
    out
}

fn is_base64(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_".contains(byte)
}

fn from_base64(run: &[u8]) -> Vec<u8> {
    const LAX: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let standard = GeneralPurpose::new(&alphabet::STANDARD, LAX);
    let run: Vec<u8> = run
        .iter()
        .map(|b| {
            if *b == b'-' {
                b'+'
            } else if *b == b'_' {
                b'/'
            } else {
                *b
            }
        })
        .collect();
    // One character alone decodes to nothing.
    let whole = if run.len() % 4 == 1 { &run[..run.len() - 1] } else { &run[..] };
    standard.decode(whole).unwrap_or_default()
}

fn from_hex(run: &[u8]) -> Vec<u8> {
    run.chunks_exact(2).filter_map(|pair| hex_value(pair).and_then(|n| u8::try_from(n).ok())).collect()
}

fn hex_value(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |sum, digit| Some(sum * 16 + char::from(*digit).to_digit(16)?))
}

#[test]
fn the_search_finds_a_secret_in_every_form_and_nothing_else() {
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

    let secret = "7Qx/+m\"Zk&2rT~9vB=w4";
    let plant = Plant { name: "it".into(), secret: secret.into() };
    let search = Search::new(&[plant]);
    let each = |form: &dyn Fn(u8) -> String| secret.bytes().map(form).collect::<String>();
    let mut forms = vec![
        secret.to_owned(),
        secret.to_ascii_lowercase(),
        secret.to_ascii_uppercase(),
        secret.chars().rev().collect(),
        secret[4..17].to_owned(),
        serde_json::to_string(secret).unwrap(),
        serde_json::to_string(secret).unwrap().replace('/', "\\/"),
        serde_json::to_string(&serde_json::to_string(secret).unwrap()).unwrap(),
        percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC).to_string(),
        each(&|b| format!("%{b:02x}")),
        each(&|b| format!("%{b:02X}")),
        each(&|b| format!("{b:02x}")),
        each(&|b| format!("{b:02X}")),
        format!("0{}", each(&|b| format!("{b:02x}"))),
        each(&|b| format!("\\u{b:04X}")),
        each(&|b| format!("&#{b};")),
        each(&|b| format!("&#x{b:X};")),
        secret.replace('&', "&amp;").replace('"', "&quot;"),
    ];
    for before in ["", "k", "ke", "key"] {
        for engine in [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD] {
            let encoded = engine.encode(format!("{before}{secret} after"));
            forms.push(format!("x{encoded}"));
            forms.push(percent_encoding::utf8_percent_encode(&encoded, percent_encoding::NON_ALPHANUMERIC).to_string());
            forms.push(serde_json::to_string(&encoded).unwrap().replace('/', "\\/"));
            forms.push(encoded);
        }
    }
    for form in forms {
        let text = format!("{{\"message\":\"before {form} after\"}}\n");
        assert!(!search.find(text.as_bytes()).is_empty(), "not found: {form}");
    }
    let other = "7Qx/+m\"Zk&2 and rT~9vB=w4 and 7Qx/+m\"Zk&3";
    let encoded = STANDARD.encode(other);
    for text in [other, &encoded, "", "a", "%", "\\u00", "&#"] {
        let leaks = search.find(text.as_bytes());
        assert!(leaks.is_empty(), "{text}: {leaks:?}");
    }
}
