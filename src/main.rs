//! Arguments, log set-up, exit codes.

use clap::Parser;
use std::alloc::System;
use std::process::ExitCode;
use strongroom::cli;
use zeroizing_alloc::ZeroAlloc;

/// Wipes all that is freed: requests and answers lie in buffers of hyper, rustls and serde_json too,
/// which free them as they are. What C libraries allocate is their own.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

#[expect(clippy::print_stderr, reason = "the one place that tells a person why it ends")]
fn main() -> ExitCode {
    match cli::run(cli::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("strongroom: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
