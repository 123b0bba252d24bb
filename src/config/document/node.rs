//! One value of the file, which knows its path and line. How each kind of value is read is in `super::values`, beside
//! the sections where one section alone reads it.

use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeValue;

use super::Document;
use super::table::Table;
use crate::config::key_path::{join, without_indices};
use crate::config::survey::Form;

/// A value of the file, and where it stands.
#[derive(Clone)]
pub(in crate::config) struct Node<'d> {
    doc: &'d Document<'d>,
    path: String,
    value: &'d Spanned<DeValue<'d>>,
}

impl<'d> Node<'d> {
    pub(in crate::config) fn new(doc: &'d Document<'d>, path: String, value: &'d Spanned<DeValue<'d>>) -> Self {
        Self { doc, path, value }
    }

    /// Whether what the value names is to be looked at.
    pub(in crate::config) fn looks(&self) -> bool {
        self.doc.looks()
    }

    pub(in crate::config) fn value(&self) -> &'d DeValue<'d> {
        self.value.get_ref()
    }

    /// Notes that the value is faulty. Gives `None`, the value's place in what is being read.
    pub(in crate::config) fn fault<T>(&self, what: impl Into<String>, mend: impl Into<String>) -> Option<T> {
        self.doc.fault(self.path.clone(), &self.value.span(), what.into(), mend.into());
        None
    }

    /// Notes that a key of this table is faulty.
    pub(in crate::config) fn fault_in(&self, key: &str, what: &str, mend: &str) {
        self.doc.fault_at(&join(&self.path, key), what, mend);
    }

    /// Notes that the value is questionable.
    pub(in crate::config) fn warn(&self, what: impl Into<String>, mend: impl Into<String>) {
        self.doc.warn(self.path.clone(), &self.value.span(), what.into(), mend.into());
    }

    /// Notes that the configuration refers to a file.
    pub(in crate::config) fn refers_to(&self, file: PathBuf) {
        self.doc.refers_to(file);
    }

    /// Notes that the configuration refers to a file that holds a secret.
    pub(in crate::config) fn keeps_secret_in(&self, file: PathBuf) {
        self.doc.keeps_secret_in(file);
    }

    /// Notes the form that the value must have, where a survey is taken.
    pub(in crate::config) fn must_be(&self, form: impl FnOnce() -> Form) {
        self.doc.note(|survey| survey.form(&self.path, form()));
    }

    /// The table that this value must be.
    pub(in crate::config) fn table<T>(&self, reader: impl FnOnce(&Table<'d>) -> T) -> Option<T> {
        let DeValue::Table(entries) = self.value() else {
            return self
                .fault("must be a table", format!("Write [{0}], or {0} = {{ … }}", without_indices(&self.path)));
        };
        self.must_be(|| Form::Table);
        Some(Table::new(self.doc, self.path.clone(), self.value.span(), entries).read(reader))
    }

    /// The entries of the array that this value must be.
    pub(in crate::config) fn entries(&self, like: &str) -> Option<Vec<Self>> {
        // A value by itself is not taken for a list of one: where that is meant, `one_or_more` says so.
        let DeValue::Array(entries) = self.value() else {
            return self.fault("must be an array", format!("Write {like}"));
        };
        self.must_be(|| Form::List);
        let entry = |(n, value)| Self::new(self.doc, format!("{}[{n}]", self.path), value);
        Some(entries.iter().enumerate().map(entry).collect())
    }
}
