//! The `rtm-gateway` binary: parses the command line and runs one command.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use rtm_gateway::cli::Cli;
use zeroizing_alloc::ZeroAlloc;

/// Wipes all that is freed: also what libraries copied of a secret (read and write buffers, texts that grew).
#[global_allocator]
static WIPING: ZeroAlloc<std::alloc::System> = ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    Cli::main()
}
