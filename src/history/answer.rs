//! [`Answer`]: what a caller is given.

use bytes::Bytes;

use super::job::Product;
use super::query::Query;
use super::render;
use super::source::Source;
use crate::kernel::clock::UnixMillis;

const COMMA: Bytes = Bytes::from_static(b",");

/// An answer to a caller: a JSON body whose `request_id` is still to be written.
#[derive(Clone, Debug)]
pub struct Answer {
    /// How far the query is: what status the answer has.
    pub state: AnswerState,
    /// Where the messages can be fetched, as the body has it (`~/…`); none of a count, or of a fetch.
    pub location: Option<String>,
    /// The members of the body after `request_id`, rendered: `"code":"ok",…` without braces, in chunks to be written
    /// one after another. The large one is shared between callers.
    pub members: Vec<Bytes>,
}

/// How far a query is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerState {
    /// The messages are there: 200.
    Done,
    /// `Prefer: respond-async`: 202 with `location`.
    Accepted,
    /// A GET of a handle whose work goes on: 200 with `code: "in progress"`, as the vendor says it.
    InProgress,
}

impl Answer {
    /// The messages of a query.
    pub(super) fn messages(query: &Query, location: String, product: &Product, source: &Source) -> Self {
        let head = render::located("ok", query, &location);
        Self { location: Some(location), ..Self::done(head, product, source) }
    }

    /// A count.
    pub(super) fn count(product: &Product, source: &Source) -> Self {
        Self::done(render::code("ok"), product, source)
    }

    fn done(head: Bytes, product: &Product, source: &Source) -> Self {
        let members = members(head, source.as_of()).chain([COMMA, product.member.clone()]).collect();
        Self { state: AnswerState::Done, location: None, members }
    }

    /// The query will be answered at its location.
    pub(super) fn accepted(query: &Query, location: String, as_of: Option<UnixMillis>) -> Self {
        let members = members(render::located("in progress", query, &location), as_of).collect();
        Self { state: AnswerState::Accepted, location: Some(location), members }
    }

    /// What a handle leads to is not there yet.
    pub(super) fn in_progress() -> Self {
        let members = vec![render::code("in progress")];
        Self { state: AnswerState::InProgress, location: None, members }
    }

    /// What a handle leads to.
    pub(super) fn fetched(product: &Product, as_of: Option<UnixMillis>) -> Self {
        let members = members(render::code("ok"), as_of).chain([COMMA, product.member.clone()]).collect();
        Self { state: AnswerState::Done, location: None, members }
    }

    /// Says of which seconds a count is. The vendor counts whole ones, so who asked for others has to be told.
    pub(super) fn say_range(&mut self, range: Bytes) {
        self.members.extend([COMMA, range]);
    }
}

/// The first members: a head, and since when the answer is owed, where it was asked for before this request.
fn members(head: Bytes, as_of: Option<UnixMillis>) -> impl Iterator<Item = Bytes> {
    let as_of = as_of.map(|as_of| [COMMA, render::as_of(as_of)]).into_iter().flatten();
    std::iter::once(head).chain(as_of)
}
