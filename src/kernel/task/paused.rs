//! Tests that pause time: their clock stands still while a lane works, as it does for the runtime's own blocking
//! threads.

/// The work, until the end of which a paused clock does not go on by itself.
pub(super) fn standing_still(work: impl FnOnce() + Send + 'static) -> impl FnOnce() + Send + 'static {
    let (over, is_over) = std::sync::mpsc::channel::<()>();
    super::detached(move || {
        let _ = is_over.recv();
    });
    move || {
        work();
        drop(over);
    }
}
