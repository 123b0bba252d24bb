//! The `rtm-gateway` binary: parses the command line and runs one command.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use rtm_gateway::cli::Cli;
use rtm_gateway::cli::signals::Signals;
use rtm_gateway::kernel::heap;
use tikv_jemallocator::Jemalloc;
use zeroizing_alloc::ZeroAlloc;

/// Wipes all that is freed: also what libraries copied of a secret (read and write buffers, texts that grew). Below it
/// is an allocator that gives memory back to the system.
#[global_allocator]
static WIPING: ZeroAlloc<Jemalloc> = ZeroAlloc(Jemalloc);

fn main() -> ExitCode {
    // First of all: a signal that comes before this ends the process.
    let signals = Signals::of_serve();
    // A system that gives no thread for it has memory given back later, by those who allocate.
    let _ = heap::give_back();
    Cli::main(signals)
}
