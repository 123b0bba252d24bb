//! The only ways in which a test over real sockets waits: for a condition, or because somebody's slowness is what is tried. No
//! other file of the tests sleeps (`layers.rs` looks): a test that sleeps until it "must be so" is slow, and fails on a busy
//! machine.

use std::time::Duration;

use super::client::DEADLINE;

/// Between two looks at a condition that nothing tells of.
const LOOK: Duration = Duration::from_millis(2);

/// Waits until it is so. Panics when it never comes about.
pub(crate) async fn eventually(mut is_so: impl FnMut() -> bool) {
    found(async || is_so().then_some(())).await;
}

/// Looks until there is something, and gives that. Panics when there never is.
pub(crate) async fn found<T>(look: impl AsyncFnMut() -> Option<T>) -> T {
    found_within(DEADLINE, look).await.expect("it never came about")
}

/// The same with a limit of its own.
pub(crate) async fn found_within<T>(limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            pause(LOOK).await;
        }
    };
    tokio::time::timeout(limit, looking).await.ok()
}

/// A caller, a network or a disk that is slow for this long, where that is what the test is about; or a time that has to pass
/// for nothing to happen in it. Never a way to wait for something that does happen.
pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Lets this much of a paused clock pass. Panics where the clock runs.
pub(crate) async fn pass(time: Duration) {
    let mut advancing = std::pin::pin!(tokio::time::advance(Duration::ZERO));
    // The first poll asks the clock; the rest of it would only give up the turn.
    let _ = advancing.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    tokio::time::sleep(time).await;
}
