//! The `jumar` binary: see the library for everything it does.

use std::process::ExitCode;

/// Buffers are taken and given back on many threads; this allocator returns them to the system, so that the memory budget
/// bounds what the process takes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    jumar::cli::main()
}
