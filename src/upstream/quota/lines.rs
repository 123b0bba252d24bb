//! One seat for a piece of work that several wait for: in the line of each of them, until one of them gets it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Bucket, Refused, Seat};
use crate::vendor::order::{Payer, Sharer};

/// In so many lines at most: who stands in one counts there until it leaves.
const LINES: usize = 8;

/// A place in one client's line.
struct Line {
    payer: Payer,
    seat: Pin<Box<dyn Future<Output = Result<Seat, Refused>> + Send>>,
    refused: Option<Refused>,
}

impl Bucket {
    /// [`Bucket::seat`], for whoever of those who wait for the same is first. It comes to stand in the line of who joins
    /// them, and leaves that of who leaves; while there is none it stands in `payer`'s.
    ///
    /// # Errors
    /// When none of them can be given one.
    pub async fn seat_of_any(
        self: &Arc<Self>,
        payer: &Payer,
        mut sharers: watch::Receiver<Vec<Sharer>>,
        deadline: Instant,
    ) -> Result<Seat, Refused> {
        let mut lines: Vec<Line> = Vec::new();
        let mut may_change = true;
        loop {
            let mut payers: Vec<Payer> =
                sharers.borrow_and_update().iter().take(LINES).map(|sharer| sharer.payer.clone()).collect();
            if payers.is_empty() {
                payers.push(payer.clone());
            }
            lines.retain(|line| payers.contains(&line.payer));
            payers.retain(|payer| lines.iter().all(|line| line.payer != *payer));
            lines.extend(payers.into_iter().map(|payer| Line::new(self, payer, deadline)));
            tokio::select! {
                biased;
                first = poll_fn(|cx| poll_first(&mut lines, cx)) => return first,
                changed = sharers.changed(), if may_change => may_change = changed.is_ok(),
            }
        }
    }
}

impl Line {
    fn new(bucket: &Arc<Bucket>, payer: Payer, deadline: Instant) -> Self {
        let (bucket, client) = (Arc::clone(bucket), payer.clone());
        let seat = Box::pin(async move { bucket.seat(&client, deadline).await });
        Self { payer, seat, refused: None }
    }
}

/// The first seat that comes. A refusal, when that is all that came, or the bucket is not the one to ask any more.
fn poll_first(lines: &mut [Line], cx: &mut Context<'_>) -> Poll<Result<Seat, Refused>> {
    for line in lines.iter_mut().filter(|line| line.refused.is_none()) {
        match line.seat.as_mut().poll(cx) {
            Poll::Ready(Err(why)) if why != Refused::Moved => line.refused = Some(why),
            Poll::Ready(given) => return Poll::Ready(given),
            Poll::Pending => {}
        }
    }
    let refusals: Option<Vec<Refused>> = lines.iter().map(|line| line.refused).collect();
    let soonest = |why: &Refused| match *why {
        Refused::Spent { retry_after } => (0, Some(retry_after)),
        Refused::Crowded | Refused::Moved => (1, None),
    };
    match refusals.and_then(|refusals| refusals.into_iter().min_by_key(soonest)) {
        Some(why) => Poll::Ready(Err(why)),
        None => Poll::Pending,
    }
}
