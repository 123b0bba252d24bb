//! One seat for a piece of work that several wait for: in the line of each of them, until one of them gets it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Bucket, NoSeat, Seat};
use crate::vendor::order::{Payer, Sharer};

/// At most so many clients' queues are stood in at a time: who waits in one counts there until it leaves.
const MAX_PAYERS: usize = 8;

/// The wait for a seat in one client's queue.
struct PayerWait {
    payer: Payer,
    seat: Pin<Box<dyn Future<Output = Result<Seat, NoSeat>> + Send>>,
    refused: Option<NoSeat>,
}

/// [`Bucket::seat`], for whoever of those who wait for the same is first. It comes to stand in the line of who joins
/// them, and leaves that of who leaves; while there is none it stands in `payer`'s.
///
/// # Errors
/// When none of them can be given one.
pub(crate) async fn seat_of_any(
    bucket: &Arc<Bucket>,
    payer: &Payer,
    mut sharers: watch::Receiver<Vec<Sharer>>,
    deadline: Instant,
) -> Result<Seat, NoSeat> {
    let mut waits: Vec<PayerWait> = Vec::new();
    let mut may_change = true;
    loop {
        let mut payers: Vec<Payer> =
            sharers.borrow_and_update().iter().take(MAX_PAYERS).map(|sharer| sharer.payer.clone()).collect();
        if payers.is_empty() {
            payers.push(payer.clone());
        }
        waits.retain(|wait| payers.contains(&wait.payer));
        payers.retain(|payer| waits.iter().all(|wait| wait.payer != *payer));
        waits.extend(payers.into_iter().map(|payer| PayerWait::new(bucket, payer, deadline)));
        tokio::select! {
            biased;
            first = poll_fn(|cx| poll_first(&mut waits, cx)) => return first,
            changed = sharers.changed(), if may_change => may_change = changed.is_ok(),
        }
    }
}

impl PayerWait {
    fn new(bucket: &Arc<Bucket>, payer: Payer, deadline: Instant) -> Self {
        let (bucket, client) = (Arc::clone(bucket), payer.clone());
        let seat = Box::pin(async move { bucket.seat(&client, deadline).await });
        Self { payer, seat, refused: None }
    }
}

/// The first seat that comes. A refusal, when that is all that came, or the bucket is not the one to ask any more.
fn poll_first(waits: &mut [PayerWait], cx: &mut Context<'_>) -> Poll<Result<Seat, NoSeat>> {
    for wait in waits.iter_mut().filter(|wait| wait.refused.is_none()) {
        match wait.seat.as_mut().poll(cx) {
            Poll::Ready(Err(why)) if why != NoSeat::Moved => wait.refused = Some(why),
            Poll::Ready(given) => return Poll::Ready(given),
            Poll::Pending => {}
        }
    }
    let refusals: Option<Vec<NoSeat>> = waits.iter().map(|wait| wait.refused).collect();
    let soonest = |why: &NoSeat| match *why {
        NoSeat::Spent { retry_after } => (0, Some(retry_after)),
        NoSeat::Crowded | NoSeat::Moved => (1, None),
    };
    match refusals.and_then(|refusals| refusals.into_iter().min_by_key(soonest)) {
        Some(why) => Poll::Ready(Err(why)),
        None => Poll::Pending,
    }
}
