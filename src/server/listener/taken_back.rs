//! Requests on one HTTP/2 connection that a caller takes back before they are answered (CVE-2023-44487, where the
//! stream was looked at): a request costs its work although nobody waits for it.

use std::sync::{Arc, Mutex};

use super::burst::Burst;
use crate::kernel::sync::lock;

/// As many as a browser that is closed, or a client whose user types ahead, takes back at a time.
const AT_ONCE: u32 = 200;
const PER_SECOND: u32 = 10;

/// Counts the requests that callers take back before they have an answer. Cheap to clone.
#[derive(Clone)]
pub(super) struct TakenBack(Arc<Mutex<TakenBackCount>>);

struct TakenBackCount {
    left: Burst,
    are_too_many: bool,
}

impl TakenBack {
    pub(super) fn new() -> Self {
        let left = Burst::new(AT_ONCE, PER_SECOND);
        Self(Arc::new(Mutex::new(TakenBackCount { left, are_too_many: false })))
    }

    pub(super) fn unanswered(&self) -> Unanswered {
        Unanswered(Some(self.clone()))
    }

    pub(super) fn are_too_many(&self) -> bool {
        lock(&self.0).are_too_many
    }
}

/// A request that has no answer yet. Counted as taken back when dropped so.
pub(super) struct Unanswered(Option<TakenBack>);

impl Unanswered {
    pub(super) fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(taken_back) = &self.0 {
            let mut count = lock(&taken_back.0);
            count.are_too_many |= !count.left.take();
        }
    }
}
