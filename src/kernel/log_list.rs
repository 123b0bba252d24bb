//! [`List`]: several texts as one field of a log line.
//!
//! `tracing` hands a field on as a number, as a text, or as something that can only be printed; an error alone keeps
//! its type. So a list is an error in name: the writer of JSON lines knows it by its type and writes an array.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// Several texts, in order. In a line of JSON it is an array, elsewhere it reads like one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List(Vec<Cow<'static, str>>);

impl List {
    /// Adds one at the end.
    pub fn push(&mut self, text: impl Into<Cow<'static, str>>) {
        self.0.push(text.into());
    }

    /// As the value of a field: `names = list.field()`.
    #[must_use]
    pub fn field(&self) -> &(dyn Error + 'static) {
        self
    }

    /// Its texts, in order.
    #[must_use]
    pub fn texts(&self) -> &[Cow<'static, str>] {
        &self.0
    }
}

impl<T: Into<Cow<'static, str>>> FromIterator<T> for List {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Self {
        Self(texts.into_iter().map(Into::into).collect())
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

impl Error for List {}
