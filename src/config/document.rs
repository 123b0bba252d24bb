//! A TOML file whose every key knows its path and line, and a list of what is wrong with it.
//!
//! Invariants: a table is read by [`Table::read`] or [`Node::table`], which refuse every key that the reader did not ask
//! for; a reader that meets a fault notes it and goes on, so that one pass finds them all.

use std::cell::{Cell, OnceCell, RefCell};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::LazyLock;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::documented;
use super::finding::Finding;
use super::survey::{Form, Survey};

/// A table that says nothing.
static EMPTY: LazyLock<DeTable<'static>> = LazyLock::new(DeTable::new);

/// What a table at this path comes to that says nothing.
pub(super) fn by_default<T>(path: &str, reader: impl FnOnce(&Table<'_>) -> T) -> T {
    let doc = Document::new("", &EMPTY).offline();
    Table::new(&doc, path.to_owned(), 0..0, &EMPTY).read(reader)
}

/// The file, and what was found in it so far.
pub(super) struct Document<'d> {
    text: &'d str,
    root: &'d DeTable<'d>,
    /// Where lines end, once that was asked for.
    lines: OnceCell<Vec<usize>>,
    /// The byte whose column was counted last, and that column: findings come mostly in order, and a line may be long.
    counted: Cell<(usize, usize)>,
    /// Whether files and variables that are named are looked at.
    looks: bool,
    found: RefCell<Found>,
    /// Notes what is asked for, when that is the question.
    survey: Option<RefCell<Survey>>,
}

/// What a reading brings up beside the values.
#[derive(Default)]
pub(super) struct Found {
    pub(super) faults: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
    /// Files the configuration refers to.
    pub(super) files: Vec<PathBuf>,
    /// Those of them that hold a secret.
    pub(super) secrets: std::collections::BTreeSet<PathBuf>,
    /// Empty unless it was asked for.
    pub(super) survey: Survey,
}

impl<'d> Document<'d> {
    pub(super) fn new(text: &'d str, root: &'d DeTable<'d>) -> Self {
        let (lines, counted, found) = (OnceCell::new(), Cell::new((0, 1)), RefCell::default());
        Self { text, root, lines, counted, looks: true, found, survey: None }
    }

    /// Notes what is asked for.
    pub(super) fn surveyed(self) -> Self {
        Self { survey: Some(RefCell::default()), ..self }
    }

    /// Looks at none of the files and variables that it names.
    pub(super) fn offline(self) -> Self {
        Self { looks: false, ..self }
    }

    /// Reads the top level.
    pub(super) fn read<T>(&'d self, reader: impl FnOnce(&Table<'d>) -> T) -> T {
        Table::new(self, String::new(), 0..0, self.root).read(reader)
    }

    /// A fault at a path that a check across sections knows by name.
    pub(super) fn fault_at(&self, path: &str, what: impl Into<String>, mend: impl Into<String>) {
        let finding = self.finding(path.to_owned(), &self.locate(path), what.into(), mend.into());
        self.found.borrow_mut().faults.push(finding);
    }

    /// A warning at a path.
    pub(super) fn warn_at(&self, path: &str, what: impl Into<String>, mend: impl Into<String>) {
        let finding = self.finding(path.to_owned(), &self.locate(path), what.into(), mend.into());
        self.found.borrow_mut().warnings.push(finding);
    }

    /// Whether no fault was found at this path or below it.
    pub(super) fn sound(&self, path: &str) -> bool {
        self.sound_since(0, path)
    }

    /// The same of the faults behind the first so many.
    fn sound_since(&self, first: usize, path: &str) -> bool {
        let below = |fault: &Finding| fault.path.strip_prefix(path).is_some_and(|rest| !rest.starts_with(is_bare));
        !self.found.borrow().faults[first..].iter().any(below)
    }

    pub(super) fn into_found(self) -> Found {
        let mut found = self.found.into_inner();
        found.faults.sort_by_key(|f| (f.line, f.column));
        found.warnings.sort_by_key(|f| (f.line, f.column));
        found.survey = self.survey.map(RefCell::into_inner).unwrap_or_default();
        found
    }

    fn note(&self, note: impl FnOnce(&mut Survey)) {
        if let Some(survey) = &self.survey {
            note(&mut survey.borrow_mut());
        }
    }

    fn finding(&self, path: String, span: &Range<usize>, what: String, mend: String) -> Finding {
        let (line, column) = self.position(span.start);
        Finding { path, line: Some(line), column: Some(column), what, mend }
    }

    /// [`position`], without reading the text from its beginning each time: there may be as many findings as lines.
    fn position(&self, at: usize) -> (usize, usize) {
        let newlines = self.lines.get_or_init(|| self.text.match_indices('\n').map(|(at, _)| at).collect());
        let before = newlines.partition_point(|newline| *newline < at);
        let start = before.checked_sub(1).map_or(0, |last| newlines[last] + 1);
        let (from, first) =
            Some(self.counted.get()).filter(|(last, _)| (start..=at).contains(last)).unwrap_or((start, 1));
        let column = self.text.get(from..at).map_or(1, |line| line.chars().count() + first);
        self.counted.set((at, column));
        (before + 1, column)
    }

    /// Where the path stands; where its nearest ancestor does when it does not.
    fn locate(&self, path: &str) -> Range<usize> {
        let mut span = 0..0;
        let mut here = None;
        for step in path.split(['.', '[', ']']).filter(|step| !step.is_empty()) {
            let next = match here {
                None => self.root.get(step),
                Some(value) => match step.parse::<usize>() {
                    Ok(index) => DeValue::get(value, index),
                    Err(_) => DeValue::get(value, step),
                },
            };
            let Some(next) = next else { break };
            span = next.span();
            here = Some(next.get_ref());
        }
        span
    }
}

/// One table.
pub(super) struct Table<'d> {
    doc: &'d Document<'d>,
    path: String,
    span: Range<usize>,
    /// How many faults there were when its reading began: its own come behind them.
    faults_before: usize,
    entries: &'d DeTable<'d>,
    /// What the reader knows, and what it cannot do without.
    asked: RefCell<Vec<&'static str>>,
    needed: RefCell<Vec<&'static str>>,
    /// What is already refused, or cannot be judged.
    spared: RefCell<Vec<&'static str>>,
}

impl<'d> Table<'d> {
    fn new(doc: &'d Document<'d>, path: String, span: Range<usize>, entries: &'d DeTable<'d>) -> Self {
        let faults_before = doc.found.borrow().faults.len();
        let (asked, needed, spared) = <(RefCell<_>, RefCell<_>, RefCell<_>)>::default();
        Self { doc, path, span, faults_before, entries, asked, needed, spared }
    }

    fn read<T>(self, reader: impl FnOnce(&Self) -> T) -> T {
        let read = reader(&self);
        self.refuse_the_rest();
        let (asked, needed) = (self.asked.into_inner(), self.needed.into_inner());
        self.doc.note(|survey| survey.table(&self.path, &asked, &needed));
        read
    }

    /// The value of a key, if it is there.
    pub(super) fn take(&self, key: &'static str) -> Option<Node<'d>> {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&key) {
            asked.push(key);
        }
        let value = self.entries.get(key)?;
        Some(Node { doc: self.doc, path: join(&self.path, key), value })
    }

    /// The value of a key that must be there. `mend` says what to write.
    pub(super) fn need(&self, key: &'static str, mend: &str) -> Option<Node<'d>> {
        self.needed.borrow_mut().push(key);
        let node = self.take(key);
        if node.is_none() {
            self.missing(key, mend);
        }
        node
    }

    /// Whether the key is there, good or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.get(key).is_some()
    }

    /// The value of a key, read by `parse`; the documented default when it is absent or faulty.
    pub(super) fn or_default<T>(&self, key: &'static str, parse: impl Fn(Node<'d>) -> Option<T>) -> T {
        self.doc.note(|survey| survey.has_default(&join(&self.path, key)));
        if let Some(read) = self.take(key).and_then(&parse) {
            return read;
        }
        let path = join(&self.path, key);
        let value = documented::value(&without_indices(&path));
        let default = value.and_then(|value| parse(Node { doc: self.doc, path, value }));
        default.expect("config/gateway.toml has each default, and a test reads them all")
    }

    /// A table inside this one; as an empty one when it is absent or none.
    pub(super) fn section<T>(&self, key: &'static str, reader: impl Fn(&Table<'d>) -> T) -> T {
        self.take(key)
            .and_then(|node| node.table(&reader))
            .unwrap_or_else(|| Table::new(self.doc, join(&self.path, key), self.span.clone(), &EMPTY).read(reader))
    }

    /// Refuses keys of features that this version does not have.
    pub(super) fn later(&self, keys: &[&'static str]) {
        self.refuse(keys, "is not available in this version", "Leave it out");
    }

    /// Refuses keys that have no place here.
    pub(super) fn refuse(&self, keys: &[&'static str], what: &str, mend: &str) {
        for key in keys {
            if let Some((key, _)) = self.entries.get_key_value(*key) {
                let path = join(&self.path, key.get_ref());
                self.fault_on(path, &key.span(), what.to_owned(), mend.to_owned());
            }
        }
        self.spared.borrow_mut().extend(keys);
    }

    /// Lets every key pass: for a table whose kind is unknown, so that nothing can be said of the rest.
    pub(super) fn spare_the_rest(&self, keys: &[&'static str]) {
        self.spared.borrow_mut().extend(keys);
    }

    /// Says that a key is missing from this table.
    pub(super) fn missing(&self, key: &str, mend: &str) {
        self.fault_on(join(&self.path, key), &self.span, "is missing".into(), mend.into());
    }

    /// Whether no fault was found in this table so far.
    pub(super) fn sound(&self) -> bool {
        self.doc.sound_since(self.faults_before, &self.path)
    }

    fn fault_on(&self, path: String, span: &Range<usize>, what: String, mend: String) {
        let finding = self.doc.finding(path, span, what, mend);
        self.doc.found.borrow_mut().faults.push(finding);
    }

    fn refuse_the_rest(&self) {
        let (asked, spared) = (self.asked.borrow(), self.spared.borrow());
        for (key, _) in self.entries {
            let name = key.get_ref().as_ref();
            if asked.contains(&name) || spared.contains(&name) {
                continue;
            }
            let mend = match nearest(key.get_ref(), &asked) {
                Some(near) => format!("The nearest known key is `{near}`"),
                None => format!("Known here: {}", asked.join(", ")),
            };
            // What is like no key may be a secret in the wrong place, also if it looks like a word. The line says which it is.
            let shown = if nearest(name, &asked).is_some() { name } else { "…" };
            self.fault_on(join(&self.path, shown), &key.span(), "is not a known key".into(), mend);
        }
    }
}

/// One value.
#[derive(Clone)]
pub(super) struct Node<'d> {
    doc: &'d Document<'d>,
    pub(super) path: String,
    value: &'d Spanned<DeValue<'d>>,
}

impl<'d> Node<'d> {
    /// Whether what the value names is to be looked at.
    pub(super) fn looks(&self) -> bool {
        self.doc.looks
    }

    pub(super) fn value(&self) -> &'d DeValue<'d> {
        self.value.get_ref()
    }

    /// Notes that the value is faulty. Gives `None`, the value's place in what is being read.
    pub(super) fn fault<T>(&self, what: impl Into<String>, mend: impl Into<String>) -> Option<T> {
        let finding = self.doc.finding(self.path.clone(), &self.value.span(), what.into(), mend.into());
        self.doc.found.borrow_mut().faults.push(finding);
        None
    }

    /// Notes that a key of this table is faulty.
    pub(super) fn fault_in(&self, key: &str, what: &str, mend: &str) {
        self.doc.fault_at(&join(&self.path, key), what, mend);
    }

    /// Notes that the value is questionable.
    pub(super) fn warn(&self, what: impl Into<String>, mend: impl Into<String>) {
        let finding = self.doc.finding(self.path.clone(), &self.value.span(), what.into(), mend.into());
        self.doc.found.borrow_mut().warnings.push(finding);
    }

    /// Notes that the configuration refers to a file.
    pub(super) fn refers_to(&self, file: PathBuf) {
        self.doc.found.borrow_mut().files.push(file);
    }

    /// Notes that the configuration refers to a file that holds a secret.
    pub(super) fn keeps_secret_in(&self, file: PathBuf) {
        self.doc.found.borrow_mut().secrets.insert(file.clone());
        self.refers_to(file);
    }

    /// Notes the form that the value must have, where a survey is taken.
    pub(super) fn must_be(&self, form: impl FnOnce() -> Form) {
        self.doc.note(|survey| survey.form(&self.path, form()));
    }

    /// The table that this value must be.
    pub(super) fn table<T>(&self, reader: impl FnOnce(&Table<'d>) -> T) -> Option<T> {
        let DeValue::Table(entries) = self.value() else {
            return self
                .fault("must be a table", format!("Write [{0}], or {0} = {{ … }}", without_indices(&self.path)));
        };
        self.must_be(|| Form::Table);
        Some(Table::new(self.doc, self.path.clone(), self.value.span(), entries).read(reader))
    }

    /// The entries of the array that this value must be.
    pub(super) fn entries(&self, like: &str) -> Option<Vec<Self>> {
        let DeValue::Array(entries) = self.value() else {
            return self.fault("must be an array", format!("Write {like}"));
        };
        self.must_be(|| Form::List);
        let entry = |(n, value)| Self { doc: self.doc, path: format!("{}[{n}]", self.path), value };
        Some(entries.iter().enumerate().map(entry).collect())
    }
}

/// Line and column of a byte, both from 1; the column counts characters.
pub(super) fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

pub(super) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(is_bare);
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

fn is_bare(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

pub(super) fn without_indices(path: &str) -> String {
    path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect()
}

/// The known word nearest to a mistyped one, if one is near.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // A longer text is no mistyped key, and the distance costs the product of the lengths.
    if word.len() > 64 {
        return None;
    }
    let near = |candidate: &str| distance(word, candidate);
    let best = known.iter().copied().min_by_key(|candidate| near(candidate))?;
    (near(best) <= (best.len() / 3).clamp(1, 3)).then_some(best)
}

/// How many characters must be added, removed or replaced to make one word the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
