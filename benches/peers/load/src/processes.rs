//! What processes have used.

use std::fs;
use std::time::Duration;

/// CPU time of all threads of the processes that are still there, by the scheduler's own clock: to the nanosecond, with
/// what the kernel did in their name.
pub(crate) fn cpu_time(pids: &[u32]) -> Duration {
    let tasks = pids.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok()).flatten().flatten();
    let nanos = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}
