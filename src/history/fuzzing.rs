//! Doors for the fuzz targets (`fuzz/`) and the corpus test: what this module reads and sends, made visible from
//! outside.
//!
//! Invariant: only what the service itself calls is called here; nothing is decided.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::error::Error;
use super::pager::{Page, Pager, Pages};
use super::{cursor, query};
use crate::kernel::names::AppId;
use crate::kernel::sync::lock;
use crate::vendor::history::{Direction, Filter, PageQuery};

/// A history query as it was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Understood {
    pub filter: Filter,
    pub from: Option<u64>,
    pub to: Option<u64>,
    pub offset: u64,
    pub limit: usize,
    pub direction: Direction,
}

/// What a query's body led to.
#[derive(Debug)]
pub struct Asked {
    /// How it was understood.
    pub query: Understood,
    /// What the vendor was asked, in order.
    pub sent: Vec<PageQuery>,
    /// What the caller gets.
    pub messages: Vec<Bytes>,
}

/// Reads the body of a query and pages through a list of so many messages that does not move: message `n` is
/// `{"ms":n}`. The vendor's window is not applied to it.
///
/// # Errors
/// What the body is refused for, or why the list could not be read.
pub fn ask(body: &[u8], max_limit: usize, messages: u64) -> Result<Asked, Error> {
    let query = query::parse_body(body, max_limit)?;
    let list = Arc::new(StaticList { messages, sent: Mutex::default() });
    let mut pager = Pager::new(Arc::clone(&list), &query);
    let mut all = Vec::new();
    let read = async {
        while let Some(texts) = pager.next().await? {
            all.extend(texts);
        }
        Ok::<(), Error>(())
    };
    read.now_or_never().ok_or_else(|| Error::BadUpstream("the pager waits for a list that stands still".into()))??;
    let sent = std::mem::take(&mut *lock(&list.sent));
    Ok(Asked { query: understood(query), sent, messages: all })
}

/// Reads a count's parameters.
///
/// # Errors
/// What they are refused for.
pub fn count(query: &[(String, String)]) -> Result<Filter, Error> {
    query::parse_count(query).map(|(filter, _)| filter)
}

/// Reads a stream's parameters, and its cursor when it has one.
///
/// # Errors
/// What they are refused for.
pub fn stream(query: &[(String, String)]) -> Result<Understood, Error> {
    let (query, cursor) = query::parse_stream(query)?;
    if let Some(text) = cursor {
        cursor::read(
            text,
            cursor::query_hash(&AppId::parse("a1").map_err(|_| Error::NoSuchHandle)?, &query),
            query.direction,
        )?;
    }
    Ok(understood(query))
}

fn understood(query: query::Query) -> Understood {
    let query::Query { filter, within, offset, limit, direction } = query;
    Understood { filter, from: within.from, to: within.to, offset, limit, direction }
}

struct StaticList {
    messages: u64,
    sent: Mutex<Vec<PageQuery>>,
}

impl Pages for StaticList {
    async fn page(&self, query: PageQuery) -> Result<Page, Error> {
        let end = query.offset.saturating_add(query.limit as u64).min(self.messages);
        let ms = |n: u64| if query.direction == Direction::Asc { n } else { self.messages - 1 - n };
        let texts = (query.offset..end).map(|n| format!("{{\"ms\":{}}}", ms(n)).into()).collect();
        lock(&self.sent).push(query);
        Ok(Page { texts, ..Page::default() })
    }
}
