//! What keeps secrets inside the process that holds them.
//!
//! Invariants: a process that is hardened writes no core file, however it dies and whatever limits it was started with;
//! no other process of the same user reads its memory or environment (`/proc/PID/mem`, `environ`, `ptrace`). Root can.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Turns core dumps and inspection off.
/// Fails when the system refuses either, which a sandbox may.
pub(super) fn harden() -> std::io::Result<()> {
    // The soft limit and the hard one: nobody raises it again. A core piped to a program (`kernel.core_pattern = |...`)
    // pays no heed to a limit of 0 in every kernel; that is what the second call is for.
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
