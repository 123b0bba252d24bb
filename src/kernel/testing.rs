//! Time in the library's own tests: a paused clock's, but between two looks at a condition.

use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

/// Lets this much of a paused clock pass, for whoever waits and for whatever else is due meanwhile. Panics where the clock runs:
/// a test that really sleeps is slow, and fails on a busy machine (`tests/it/layers.rs`: tests wait by this alone).
pub(crate) async fn pass(time: Duration) {
    let mut advancing = pin!(tokio::time::advance(Duration::ZERO));
    // The first poll asks whether the clock is paused. The rest would only give up the task's turn, which is the tests' to give.
    let _ = advancing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    tokio::time::sleep(time).await;
}

/// Between two looks at a condition that nothing tells of, by whichever clock there is: the real store is tried in real time.
pub(crate) async fn look_again() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}
