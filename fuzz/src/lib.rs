//! What is fuzzed, and what must hold of it: a module a target, each with one function `check` that takes any bytes.
//!
//! Invariants: a check reads nothing but its input and the files under `fuzz/files`, and panics only when a promise of the
//! gateway is broken. `fuzz/targets` hands the functions to libFuzzer; the gateway's `tests/it/corpus.rs` includes this file
//! by its path and calls them on the committed corpus, so this is plain stable Rust without anything of the fuzzer.
//!
//! A new target: a module here, its line in [`TARGETS`], `targets/NAME.rs`, its `[[bin]]` in `Cargo.toml`, seeds in
//! `corpus/NAME`, and words of its language in `dictionaries/NAME.dict`.

pub mod answers;
pub mod configuration;
pub mod cursor;
pub mod events;
pub mod framing;
pub mod headers;
pub mod history;
pub mod jwt;
pub mod pattern;
pub mod peers;
pub mod query;
pub mod record;
pub mod redact;
pub mod route;
pub mod token;

/// Takes any bytes; panics when a promise is broken.
pub type Check = fn(&[u8]);

/// Every target by its name, as the folders of the corpus are called.
pub const TARGETS: [(&str, Check); 15] = [
    ("answers", answers::check),
    ("configuration", configuration::check),
    ("cursor", cursor::check),
    ("events", events::check),
    ("framing", framing::check),
    ("headers", headers::check),
    ("history", history::check),
    ("jwt", jwt::check),
    ("pattern", pattern::check),
    ("peers", peers::check),
    ("query", query::check),
    ("record", record::check),
    ("redact", redact::check),
    ("route", route::check),
    ("token", token::check),
];
