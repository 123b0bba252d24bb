//! One table of the file, and which of its keys were asked for.
//!
//! Invariant: a table is read by [`Table::read`] or [`Node::table`], which refuse every key that the reader did not ask
//! for.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::LazyLock;

use toml::de::DeTable;

use super::Document;
use super::node::Node;
use crate::config::documented;
use crate::config::key_path::{join, without_indices};
use crate::config::spelling::nearest;

/// A table that says nothing.
static EMPTY: LazyLock<DeTable<'static>> = LazyLock::new(DeTable::new);

/// What a table at this path comes to that says nothing.
pub(in crate::config) fn by_default<T>(path: &str, reader: impl FnOnce(&Table<'_>) -> T) -> T {
    let doc = Document::new("", &EMPTY).offline();
    Table::new(&doc, path.to_owned(), 0..0, &EMPTY).read(reader)
}

/// A table of the file while it is read.
pub(in crate::config) struct Table<'d> {
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
    pub(in crate::config) fn new(
        doc: &'d Document<'d>,
        path: String,
        span: Range<usize>,
        entries: &'d DeTable<'d>,
    ) -> Self {
        let faults_before = doc.count_faults();
        let (asked, needed, spared) = <(RefCell<_>, RefCell<_>, RefCell<_>)>::default();
        Self { doc, path, span, faults_before, entries, asked, needed, spared }
    }

    pub(in crate::config) fn read<T>(self, reader: impl FnOnce(&Self) -> T) -> T {
        let read = reader(&self);
        self.refuse_the_rest();
        let (asked, needed) = (self.asked.into_inner(), self.needed.into_inner());
        self.doc.note(|survey| survey.table(&self.path, &asked, &needed));
        read
    }

    /// The value of a key, if it is there.
    pub(in crate::config) fn take(&self, key: &'static str) -> Option<Node<'d>> {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&key) {
            asked.push(key);
        }
        let value = self.entries.get(key)?;
        Some(Node::new(self.doc, join(&self.path, key), value))
    }

    /// The value of a key that must be there. `mend` says what to write.
    pub(in crate::config) fn need(&self, key: &'static str, mend: &str) -> Option<Node<'d>> {
        self.needed.borrow_mut().push(key);
        let node = self.take(key);
        if node.is_none() {
            self.missing(key, mend);
        }
        node
    }

    /// Whether the key is there, good or not.
    pub(in crate::config) fn has(&self, key: &str) -> bool {
        self.entries.get(key).is_some()
    }

    /// The value of a key, read by `parse`; the documented default when it is absent or faulty.
    pub(in crate::config) fn or_default<T>(&self, key: &'static str, parse: impl Fn(Node<'d>) -> Option<T>) -> T {
        self.doc.note(|survey| survey.has_default(&join(&self.path, key)));
        if let Some(read) = self.take(key).and_then(&parse) {
            return read;
        }
        let path = join(&self.path, key);
        let value = documented::value(&without_indices(&path));
        let default = value.and_then(|value| parse(Node::new(self.doc, path, value)));
        default.expect("config/gateway.toml has each default, and a test reads them all")
    }

    /// A table inside this one; as an empty one when it is absent or none.
    pub(in crate::config) fn section<T>(&self, key: &'static str, reader: impl Fn(&Table<'d>) -> T) -> T {
        self.take(key)
            .and_then(|node| node.table(&reader))
            .unwrap_or_else(|| Table::new(self.doc, join(&self.path, key), self.span.clone(), &EMPTY).read(reader))
    }

    /// Refuses keys of features that this version does not have.
    pub(in crate::config) fn later(&self, keys: &[&'static str]) {
        self.refuse(keys, "is not available in this version", "Leave it out");
    }

    /// Refuses keys that have no place here.
    pub(in crate::config) fn refuse(&self, keys: &[&'static str], what: &str, mend: &str) {
        for key in keys {
            if let Some((key, _)) = self.entries.get_key_value(*key) {
                let path = join(&self.path, key.get_ref());
                self.doc.fault(path, &key.span(), what.to_owned(), mend.to_owned());
            }
        }
        self.spared.borrow_mut().extend(keys);
    }

    /// Lets every key pass: for a table whose kind is unknown, so that nothing can be said of the rest.
    pub(in crate::config) fn spare_the_rest(&self, keys: &[&'static str]) {
        self.spared.borrow_mut().extend(keys);
    }

    /// Says that a key is missing from this table.
    pub(in crate::config) fn missing(&self, key: &str, mend: &str) {
        self.doc.fault(join(&self.path, key), &self.span, "is missing".into(), mend.into());
    }

    /// Whether no fault was found in this table so far.
    pub(in crate::config) fn sound(&self) -> bool {
        self.doc.sound_since(self.faults_before, &self.path)
    }

    fn refuse_the_rest(&self) {
        let (asked, spared) = (self.asked.borrow(), self.spared.borrow());
        // A key that nobody reads is no note to oneself but most often a mistyped one, whose default would be in force
        // instead.
        for (key, _) in self.entries {
            let name = key.get_ref().as_ref();
            if asked.contains(&name) || spared.contains(&name) {
                continue;
            }
            let mend = match nearest(key.get_ref(), &asked) {
                Some(near) => format!("The nearest known key is `{near}`"),
                None => format!("Known here: {}", asked.join(", ")),
            };
            // What is like no key may be a secret in the wrong place, also if it looks like a word. The line says which
            // it is.
            let shown = if nearest(name, &asked).is_some() { name } else { "…" };
            self.doc.fault(join(&self.path, shown), &key.span(), "is not a known key".into(), mend);
        }
    }
}
