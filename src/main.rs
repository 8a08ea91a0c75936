//! The `jumar` binary: see the library for everything it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    jumar::cli::main()
}
