//! Arguments, log set-up, exit codes.

use clap::Parser;
use std::process::ExitCode;
use strongroom::cli;

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
