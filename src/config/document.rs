//! A TOML file whose every key knows its path and line, and a list of what is wrong with it.
//!
//! Invariant: a reader that meets a fault notes it and goes on, so that one pass finds them all.

pub(super) mod node;
pub(super) mod table;

use std::cell::{Cell, OnceCell, RefCell};
use std::ops::Range;
use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use self::table::Table;
use super::finding::Finding;
use super::key_path::is_bare;
use super::survey::Survey;

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
    found: RefCell<Findings>,
    /// Notes what is asked for, when that is the question.
    survey: Option<RefCell<Survey>>,
}

/// What a reading brings up beside the values.
#[derive(Default)]
pub(super) struct Findings {
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

    /// Whether files and variables that are named are looked at.
    pub(super) fn looks(&self) -> bool {
        self.looks
    }

    pub(super) fn fault(&self, path: String, span: &Range<usize>, what: String, mend: String) {
        let finding = self.finding(path, span, what, mend);
        self.found.borrow_mut().faults.push(finding);
    }

    pub(super) fn warn(&self, path: String, span: &Range<usize>, what: String, mend: String) {
        let finding = self.finding(path, span, what, mend);
        self.found.borrow_mut().warnings.push(finding);
    }

    pub(super) fn refers_to(&self, file: PathBuf) {
        self.found.borrow_mut().files.push(file);
    }

    pub(super) fn keeps_secret_in(&self, file: PathBuf) {
        let mut found = self.found.borrow_mut();
        found.secrets.insert(file.clone());
        found.files.push(file);
    }

    pub(super) fn count_faults(&self) -> usize {
        self.found.borrow().faults.len()
    }

    /// A fault at a path that a check across sections knows by name.
    pub(super) fn fault_at(&self, path: &str, what: impl Into<String>, mend: impl Into<String>) {
        self.fault(path.to_owned(), &self.locate(path), what.into(), mend.into());
    }

    /// A warning at a path.
    pub(super) fn warn_at(&self, path: &str, what: impl Into<String>, mend: impl Into<String>) {
        self.warn(path.to_owned(), &self.locate(path), what.into(), mend.into());
    }

    /// Whether no fault was found at this path or below it.
    pub(super) fn sound(&self, path: &str) -> bool {
        self.sound_since(0, path)
    }

    /// The same of the faults behind the first so many.
    pub(super) fn sound_since(&self, first: usize, path: &str) -> bool {
        let below = |fault: &Finding| fault.path.strip_prefix(path).is_some_and(|rest| !rest.starts_with(is_bare));
        !self.found.borrow().faults[first..].iter().any(below)
    }

    pub(super) fn into_found(self) -> Findings {
        let mut found = self.found.into_inner();
        // Checks across sections come last, and people mend a file from its top.
        found.faults.sort_by_key(|f| (f.line, f.column));
        found.warnings.sort_by_key(|f| (f.line, f.column));
        found.survey = self.survey.map(RefCell::into_inner).unwrap_or_default();
        found
    }

    /// Tells the survey, where one is taken.
    pub(super) fn note(&self, note: impl FnOnce(&mut Survey)) {
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

/// Line and column of a byte, both from 1; the column counts characters.
pub(super) fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
