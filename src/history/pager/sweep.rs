//! Reading a part of the list from the head of a window, so that nothing is missing whatever moved meanwhile.
//!
//! Invariant: what comes out is an unbroken piece of the list at one instant, in order; or an error, when the list moves
//! faster than it can be read.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::time::sleep;

use super::run::{Message, Run};
use super::{Error, PAGE, Pager, Pages};
use crate::vendor::history::Filter;

/// How often a window is swept anew because its head moved meanwhile, and the first wait between.
const SWEEPS: u32 = 8;
const SWEEP_PAUSE: Duration = Duration::from_millis(100);

/// Pages in flight when a sweep is read for the second time.
const SWEEP_WINDOW: usize = 8;

/// Most messages in one sweep, so that one second of an absurd list cannot take all memory.
const SWEEP_MAX: usize = 100_000;

impl<P: Pages> Pager<P> {
    /// Reads a window from an offset on, one page after another, until a message lies beyond `ms` or the list ends.
    /// Gives an unbroken piece, and whether more may follow.
    pub(super) async fn sweep(&mut self, filter: &Filter, offset: u64, ms: u64) -> Result<(Vec<Message>, bool), Error> {
        // The series is given up: what is in flight would stand still, and keep seats, while this is awaited.
        self.series.flight.clear();
        let mut pause = SWEEP_PAUSE;
        for _ in 0..SWEEPS {
            if let Some(piece) = self.sweep_joined(filter, offset, ms).await? {
                return Ok(piece);
            }
            if let Some(piece) = self.sweep_still(filter, offset, ms).await? {
                return Ok(piece);
            }
            sleep(pause).await;
            pause *= 2;
        }
        Err(Error::BadUpstream("the list of messages moves faster than it can be read".into()))
    }

    /// A sweep of pages that overlap by half and must cover each other. Nothing if one does not.
    async fn sweep_joined(
        &mut self,
        filter: &Filter,
        mut offset: u64,
        ms: u64,
    ) -> Result<Option<(Vec<Message>, bool)>, Error> {
        let mut piece = self.page(filter, offset).await?;
        let mut full = piece.len() >= PAGE;
        let Some(mut run) = Run::begin(self.direction, &piece) else { return Ok(Some((piece, full))) };
        while full && !self.is_before(ms, run.last_ms) {
            offset = offset.saturating_add(PAGE as u64 / 2);
            let page = self.page(filter, offset).await?;
            if !run.covered_by(&page) {
                return Ok(None);
            }
            full = page.len() >= PAGE;
            let new = run.unknown(page);
            run.advance(&new);
            piece.extend(new);
            bounded(&piece)?;
        }
        Ok(Some((piece, full)))
    }

    /// A sweep of pages side by side that must read the same a second time. Nothing if they do not.
    async fn sweep_still(
        &mut self,
        filter: &Filter,
        offset: u64,
        ms: u64,
    ) -> Result<Option<(Vec<Message>, bool)>, Error> {
        let mut piece = Vec::new();
        let mut full = true;
        while full && piece.last().is_none_or(|last: &Message| !self.is_before(ms, last.ms)) {
            let page = self.page(filter, offset.saturating_add(piece.len() as u64)).await?;
            full = page.len() >= PAGE;
            piece.extend(page);
            bounded(&piece)?;
        }
        Ok(self.is_still(filter, offset, &piece).await?.then_some((piece, full)))
    }

    /// Whether the same messages are there at the same offsets now.
    async fn is_still(&mut self, filter: &Filter, offset: u64, piece: &[Message]) -> Result<bool, Error> {
        let queries = (0..piece.len())
            .step_by(PAGE)
            .map(|skip| self.query(filter, offset.saturating_add(skip as u64), PAGE))
            .collect::<Vec<_>>();
        let pages = Arc::clone(&self.pages);
        let mut again = stream::iter(queries)
            .map(|query| {
                let pages = Arc::clone(&pages);
                async move { pages.page(query).await }
            })
            .buffered(SWEEP_WINDOW);
        let mut left = piece.iter();
        while let Some(page) = again.next().await {
            if !page?.texts.iter().all(|text| left.next().is_some_and(|message| message.text == *text)) {
                return Ok(false);
            }
        }
        Ok(left.next().is_none() && self.in_order(piece))
    }
}

fn bounded(piece: &[Message]) -> Result<(), Error> {
    if piece.len() > SWEEP_MAX {
        return Err(Error::BadUpstream("too many messages in one second".into()));
    }
    Ok(())
}
