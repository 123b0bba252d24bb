//! `config/gateway.toml`, read as the table of keys: what a key means, its default, and whether a reload takes it.
//!
//! The file is the one place where these stand. The loader takes defaults from it; the JSON Schema and the table in
//! `docs/configuration.md` are made from it, with what the loader says of the form of each value ([`super::survey`]).
//!
//! Its form: a line `key = value` is a key, `#key = value` one that is turned off, `#   key = value` one that may stand
//! in place of the key below it. The comment above a key is its meaning; keys that follow without one share it.
//! `[section]` and its comment likewise. What is read at the start only says so in these words.

use std::collections::HashSet;
use std::sync::LazyLock;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The text of the file, as it was when the gateway was built.
pub(crate) const TEXT: &str = include_str!("../../config/gateway.toml");

/// The words of a key, or of a section, that a reload does not take.
const AT_START: &str = "at the start only";

/// A key, or a section of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// Its place, as `apps.events.retention`.
    pub(crate) path: String,
    /// What stands in the file: the default of a key that has one, else an example. Nothing of a section.
    pub(crate) value: Option<&'static str>,
    /// What it means, as prose.
    pub(crate) about: String,
    /// A change waits for a restart.
    pub(crate) is_read_at_start: bool,
}

/// All keys and sections, in the order of the file, each once.
pub(crate) static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| keys(TEXT));

/// The key at a path.
pub(crate) fn key(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether a section stands for each of several.
pub(super) fn is_list(path: &str) -> bool {
    TEXT.contains(&format!("[[{path}]]"))
}

/// What stands in the file at a path without indices. Of several places the first.
pub(super) fn value(path: &str) -> Option<&'static Spanned<DeValue<'static>>> {
    static TABLES: LazyLock<[DeTable<'static>; 2]> = LazyLock::new(|| {
        // Keys that exclude each other, as `jwks_file` and `jwks_url`, cannot be on in one text.
        static TEXTS: LazyLock<[String; 2]> = LazyLock::new(|| [false, true].map(turned_on));
        TEXTS.each_ref().map(|text| {
            DeTable::parse(text).expect("config/gateway.toml is TOML also with every key turned on").into_inner()
        })
    });
    TABLES.iter().find_map(|table| find(table, path))
}

fn find<'t>(table: &'t DeTable<'static>, path: &str) -> Option<&'t Spanned<DeValue<'static>>> {
    let (step, rest) = path.split_once('.').unwrap_or((path, ""));
    let value = table.get(step)?;
    match value.get_ref() {
        _ if rest.is_empty() => Some(value),
        DeValue::Table(table) => find(table, rest),
        DeValue::Array(entries) => {
            let tables = entries.iter().filter_map(|entry| entry.get_ref().as_table());
            tables.into_iter().find_map(|table| find(table, rest))
        }
        _ => None,
    }
}

/// A value of the file as JSON.
pub(super) fn json(value: &DeValue<'_>) -> serde_json::Value {
    match value {
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().into(),
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Array(entries) => entries.iter().map(|entry| json(entry.get_ref())).collect(),
        DeValue::Table(table) => {
            table.iter().map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref()))).collect()
        }
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Float(_) | DeValue::Datetime(_) => serde_json::Value::Null,
    }
}

/// The file with every key turned on; with `instead`, those that may stand in place of another in its place.
pub(super) fn turned_on(instead: bool) -> String {
    let mut text = String::new();
    let mut is_replaced = false;
    for line in TEXT.lines() {
        match Line::read(line) {
            Line::Instead { line, .. } if instead => {
                is_replaced = true;
                text.push_str(line);
            }
            Line::Key { .. } if is_replaced => is_replaced = false,
            Line::Key { line, .. } | Line::Section { line, .. } => text.push_str(line),
            Line::Instead { .. } | Line::Prose(_) | Line::Blank => {}
        }
        text.push('\n');
    }
    text
}

/// A line of the file.
enum Line<'l> {
    /// `line` is the line, turned on.
    Key {
        name: &'l str,
        value: &'l str,
        line: &'l str,
    },
    Instead {
        name: &'l str,
        value: &'l str,
        about: &'l str,
        line: &'l str,
    },
    Section {
        path: &'l str,
        about: &'l str,
        line: &'l str,
    },
    Prose(&'l str),
    Blank,
}

impl<'l> Line<'l> {
    fn read(raw: &'l str) -> Self {
        let line = raw.strip_prefix('#').unwrap_or(raw);
        let section = line.strip_prefix("[[").and_then(|rest| rest.split_once("]]"));
        if let Some((path, rest)) = section.or_else(|| line.strip_prefix('[').and_then(|rest| rest.split_once(']'))) {
            return Self::Section { path, about: rest.trim_start().trim_start_matches("# "), line };
        }
        if let Some((name, value)) = assigned(line) {
            return Self::Key { name, value, line };
        }
        let Some(prose) = raw.strip_prefix('#') else { return Self::Blank };
        match prose.strip_prefix("   ").and_then(assigned) {
            Some((name, rest)) => {
                let (value, about) = rest.split_once(" # ").unwrap_or((rest, ""));
                Self::Instead { name, value: value.trim_end(), about, line: prose.trim_start() }
            }
            None => Self::Prose(prose.trim_start()),
        }
    }
}

/// The two sides of `key = value`.
fn assigned(line: &str) -> Option<(&str, &str)> {
    line.split_once(" = ")
        .filter(|(name, _)| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'))
}

fn keys(text: &'static str) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    let (mut section, mut waits) = ("", false);
    let mut examples = HashSet::new();
    // The comment that was read last, and whether it is still being read.
    let (mut about, mut goes_on) = (String::new(), false);
    for line in text.lines().map(Line::read) {
        let is_prose = matches!(line, Line::Prose(_));
        let key = match line {
            Line::Blank => {
                about.clear();
                None
            }
            Line::Prose(prose) => {
                if !goes_on {
                    about.clear();
                }
                about.extend((!about.is_empty()).then_some(' '));
                about.push_str(prose);
                None
            }
            Line::Section { path, about: said, .. } => {
                (section, waits) = (path, said.contains(AT_START));
                said.clone_into(&mut about);
                Some((path.to_owned(), None, said))
            }
            Line::Key { name, value, .. } => Some((format!("{section}.{name}"), Some(value), about.as_str())),
            Line::Instead { name, value, about: said, .. } => {
                let said = if said.is_empty() { about.as_str() } else { said };
                Some((format!("{section}.{name}"), Some(value), said))
            }
        };
        // One that may stand in place of another belongs to that one's comment.
        let is_instead = matches!(line, Line::Instead { .. });
        goes_on = is_prose || is_instead;
        let Some((path, value, about)) = key else { continue };
        match keys.iter_mut().find(|key| key.path == path) {
            // What stands in place of it was an example.
            Some(key) if examples.contains(&path) => key.value = value,
            Some(_) => {}
            None => {
                let is_read_at_start = waits || about.to_ascii_lowercase().contains(AT_START);
                keys.push(Key { path: path.clone(), value, about: about.to_owned(), is_read_at_start });
            }
        }
        if is_instead {
            examples.insert(path);
        } else {
            examples.remove(&path);
        }
    }
    keys
}
