//! From TOML text to a checked [`Config`]: all faults at once, nothing half-read.
//!
//! Invariants: a [`Config`] leaves here only when there was no fault; every key that is absent has its default, and no
//! key is ignored. Reading looks at the files that the configuration names (secrets, certificates) and at nothing else:
//! nothing is bound, created or written. Relative paths, in the file too, are taken from the working directory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::document::{Document, Findings, position};
use super::draft::Draft;
use super::finding::{Faults, Finding};
use super::survey::Survey;
use super::{Config, apps, checks, clients, documented, jwt, sections, upstream};
use crate::kernel::files::{self, Content, Unreadable};

/// A configuration that passed every rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub config: Config,
    /// What is allowed but looks wrong.
    pub warnings: Vec<Finding>,
    /// The configuration file and every file it refers to: what a reload must watch.
    pub files: Vec<PathBuf>,
    /// Those of them that hold one secret and nothing else.
    pub secrets: BTreeSet<PathBuf>,
}

/// Reads and checks a configuration file.
///
/// # Errors
/// All faults of the file, or the one that it cannot be read.
pub fn from_file(path: &Path) -> Result<Loaded, Faults> {
    from_content(&files::read(path, files::CONFIGURATION), path)
}

/// [`from_file`], looking at no other file, and at no variable.
///
/// # Errors
/// As for `from_file`, as far as the text alone shows.
pub fn offline(path: &Path) -> Result<Loaded, Faults> {
    of_content(&files::read(path, files::CONFIGURATION), path, false)
}

/// Checks what was read of a configuration file.
///
/// # Errors
/// All faults of the file, or the one that it cannot be read.
pub fn from_content(content: &Result<Content, Unreadable>, path: &Path) -> Result<Loaded, Faults> {
    of_content(content, path, true)
}

fn of_content(content: &Result<Content, Unreadable>, path: &Path, looks: bool) -> Result<Loaded, Faults> {
    let content = content
        .as_ref()
        .map_err(|why| whole_file(path, None, &format!("cannot be read: {why}"), "Name a readable file"))?;
    match std::str::from_utf8(content) {
        Ok(text) => loaded(text, path, looks),
        Err(why) => {
            let good = String::from_utf8_lossy(&content[..why.valid_up_to()]);
            let (line, column) = position(&good, good.len());
            Err(whole_file(path, Some((line, column)), "is not UTF-8", "Save it as UTF-8 text"))
        }
    }
}

/// Checks the text of a configuration; `file` is where it came from, for messages and the list of files.
///
/// # Errors
/// All faults of the text, or its first error of syntax.
pub fn from_text(text: &str, file: &Path) -> Result<Loaded, Faults> {
    loaded(text, file, true)
}

fn loaded(text: &str, file: &Path, looks: bool) -> Result<Loaded, Faults> {
    let root = DeTable::parse(text).map_err(|error| {
        let at = error.span().map(|span| position(text, span.start));
        whole_file(file, at, &format!("is not TOML: {}", error.message()), "Mend the line, then check again")
    })?;
    let doc = Document::new(text, root.get_ref());
    let (config, found) = read_all(if looks { doc } else { doc.offline() });
    let Findings { faults, warnings, files: named, secrets, .. } = found;
    let mut files = vec![file.to_owned()];
    files.extend(named);
    files.sort();
    files.dedup();
    match config {
        Some(config) if faults.is_empty() => Ok(Loaded { config, warnings, files, secrets }),
        _ => Err(Faults { file: file.to_owned(), faults, warnings, files, secrets }),
    }
}

/// What is asked for where every key is there.
pub(super) fn survey() -> Survey {
    let mut survey = Survey::default();
    for text in [false, true].map(documented::turned_on) {
        if let Ok(root) = DeTable::parse(&text) {
            survey.extend(read_all(Document::new(&text, root.get_ref()).offline().surveyed()).1.survey);
        }
    }
    survey
}

/// What the text alone shows to be wrong.
#[cfg(test)]
pub(super) fn faults(text: &str) -> Vec<Finding> {
    let root = DeTable::parse(text).unwrap();
    read_all(Document::new(text, root.get_ref()).offline()).1.faults
}

/// Reads every part, whatever is wrong with the others. `None` when an app or client is too broken to have a value.
#[cfg(test)]
pub(super) fn read(text: &str, root: &DeTable<'_>) -> (Option<Config>, Findings) {
    read_all(Document::new(text, root).surveyed())
}

fn read_all(doc: Document<'_>) -> (Option<Config>, Findings) {
    let draft = doc.read(|top| {
        let upstream = top.section("upstream", upstream::upstream);
        Draft {
            server: top.section("server", sections::server),
            admin: top.section("admin", sections::admin),
            log: top.section("log", sections::log),
            store: top.section("store", sections::store),
            jwt: top.section("identity", jwt::identity),
            apps: apps::all(top, upstream.vendor),
            clients: clients::all(top),
            upstream,
        }
    });
    // Whatever is wrong with a section, the others are judged against each other: one run is to find all there is to
    // mend.
    checks::all(&doc, &draft);
    let Draft { server, admin, log, store, upstream, jwt, apps, clients } = draft;
    let apps = apps.into_iter().map(|app| app.whole).collect::<Option<Vec<_>>>();
    let clients = clients.into_iter().map(|client| client.whole).collect::<Option<Vec<_>>>();
    let config =
        apps.zip(clients).map(|(apps, clients)| Config { server, admin, log, store, upstream, jwt, apps, clients });
    (config, doc.into_found())
}

fn whole_file(file: &Path, at: Option<(usize, usize)>, what: &str, mend: &str) -> Faults {
    let (line, column) = at.unzip();
    let fault = Finding { path: String::new(), line, column, what: what.into(), mend: mend.into() };
    let files = vec![file.to_owned()];
    Faults { file: file.to_owned(), faults: vec![fault], warnings: Vec::new(), files, secrets: BTreeSet::new() }
}

#[cfg(test)]
mod tests;
