//! An [`Entry`] of a list, as far as it could be read.

/// An app or a client as far as it could be read.
pub(super) struct Entry<N, T> {
    pub(super) name: Option<N>,
    pub(super) whole: Option<T>,
}
