//! What is made of the keys for people and their editors: a JSON Schema, and the table in `docs/configuration.md`.

use std::fmt::Write as _;

use serde_json::Value;

use super::documented::{self, Key};
use super::load;

/// The JSON Schema (draft 2020-12) of a configuration: every key, its form, its default and its meaning. What only
/// several values together make wrong it does not know: `rtm-gateway check` does.
#[must_use]
pub fn schema() -> Value {
    load::survey().schema()
}

/// The text of `docs/configuration.md`, made from the documented keys.
#[must_use]
pub fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    // Writing to a String cannot fail.
    let _ = sections(&mut page);
    page
}

const INTRODUCTION: &str = "\
# Configuration

Every key. [config/gateway.toml](../config/gateway.toml) has them with examples, as a file to begin with, and is printed by
`rtm-gateway config`; `rtm-gateway config --as json-schema` prints the schema that lies beside it, for editors and pipelines, and
`--as markdown` this page.

Durations are texts with a unit, `\"250ms\"`, `\"2s\"`, `\"5m\"`, `\"7d\"`; sizes too, `\"512B\"`, `\"1MiB\"`, `\"10MB\"`. A key without a
default may be left out, unless it is said to be needed. A changed file is applied without a restart; where the last column says
`restart`, the new value waits for one, and `/admin/v1/config` names it.
";

fn sections(page: &mut String) -> std::fmt::Result {
    let survey = load::survey();
    for Key { path, value, about, is_read_at_start } in documented::KEYS.iter() {
        let Some(value) = value else {
            let is_list = documented::is_list(path);
            let (open, close) = if is_list { ("[[", "]]") } else { ("[", "]") };
            writeln!(page, "\n## {open}{path}{close}\n")?;
            if !about.is_empty() {
                writeln!(page, "{}.\n", capitalized(about))?;
            }
            writeln!(page, "| key | value | default | meaning | |\n| --- | --- | --- | --- | --- |")?;
            continue;
        };
        let name = path.rsplit_once('.').map_or(path.as_str(), |(_, name)| name);
        let default = if survey.is_default(path) { format!("`{value}`") } else { String::new() };
        let restart = if *is_read_at_start { "restart" } else { "" };
        let (form, about) = (cell(&survey.in_words(path)), cell(about));
        writeln!(page, "| `{name}` | {form} | {} | {about} | {restart} |", cell(&default))?;
    }
    Ok(())
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn in_project(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
    }

    /// `UPDATE_REFERENCE=1 cargo test --lib reference` writes them anew.
    #[test]
    fn the_schema_and_the_table_in_the_project_are_made_from_the_documented_file() {
        let schema = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
        for (path, made) in [("config/gateway.schema.json", schema), ("docs/configuration.md", markdown())] {
            if std::env::var_os("UPDATE_REFERENCE").is_some() {
                std::fs::write(in_project(path), &made).unwrap();
            }
            let there = std::fs::read_to_string(in_project(path)).unwrap_or_default();
            assert!(there == made, "{path} is old: UPDATE_REFERENCE=1 cargo test --lib reference");
        }
    }

    #[test]
    fn each_key_is_documented_and_each_that_is_documented_is_read() {
        let documented: std::collections::BTreeSet<String> =
            documented::KEYS.iter().map(|key| key.path.clone()).collect();
        let survey = load::survey();
        let inside = |path: &&String| {
            !documented.iter().any(|key| {
                documented::key(key).is_some_and(|key| key.value.is_some())
                    && path.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with('.'))
            })
        };
        let read: std::collections::BTreeSet<String> =
            survey.paths().iter().filter(inside).filter(|path| *path != "identity").cloned().collect();
        assert_eq!(read, documented);
        for key in documented::KEYS.iter() {
            assert!(!key.about.is_empty(), "{} is not explained", key.path);
        }
    }

    #[test]
    fn each_default_stands_in_the_file_and_can_be_read() {
        for text in [false, true].map(documented::turned_on) {
            let faults = load::faults(&text);
            assert!(faults.is_empty(), "{faults:?}");
        }
        let survey = load::survey();
        let defaults = survey.defaults();
        assert!(defaults.len() > 40, "{}", defaults.len());
        for path in defaults {
            assert!(documented::value(path).is_some(), "{path}");
        }
    }

    #[test]
    fn what_is_said_to_be_turned_off_by_a_zero_is() {
        let said: Vec<&Key> = documented::KEYS.iter().filter(|key| key.about.contains("\"0s\"")).collect();
        assert!(said.len() >= 4);
        for key in said {
            let name = key.path.rsplit_once('.').unwrap().1;
            let text = documented::turned_on(false);
            let line = text.lines().find(|line| line.starts_with(&format!("{name} = "))).unwrap();
            let off = text.replace(line, &format!("{name} = \"0s\""));
            let faults = load::faults(&off);
            assert!(faults.is_empty(), "{}: {faults:?}", key.path);
        }
    }

    #[test]
    fn the_documents_name_no_key_that_there_is_not() {
        let (mut named, paths) = (0, load::survey().paths());
        let folder = std::fs::read_dir(in_project("docs")).unwrap().map(|entry| entry.unwrap().path());
        for file in folder.chain([in_project("README.md"), in_project("SECURITY.md")]).filter(|file| file.is_file()) {
            let text = std::fs::read_to_string(&file).unwrap();
            for word in text.split('`').skip(1).step_by(2) {
                let first = word.split('.').next().unwrap();
                let is_bare = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.');
                let sections = ["server", "admin", "log", "store", "upstream", "identity", "apps", "clients"];
                if !word.contains('.') || !word.chars().all(is_bare) || !sections.contains(&first) {
                    continue;
                }
                named += 1;
                assert!(paths.contains(word), "{}: {word}", file.display());
            }
        }
        assert!(named > 20, "{named}");
    }
}
