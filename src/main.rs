//! The program: arguments → one verb → exit code. Prints what went wrong and what to do about it.

use clap::Parser as _;
use std::process::ExitCode;
use understudy::cli::{Cli, render};
use understudy::daemon::Signals;

/// The one of the system keeps what each thread once had.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: failed to start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        // First of all: the default action of SIGUSR1 ends the process.
        let signals = match Signals::install() {
            Ok(signals) => signals,
            Err(error) => {
                eprintln!("error: failed to install the signal handlers: {error}");
                return ExitCode::FAILURE;
            }
        };
        // reqwest panics without a provider; a second call in one process is harmless.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let cli = Cli::parse();
        let output = cli.output();
        match Box::pin(cli.execute(signals)).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("{}", render::failure(&failure, output));
                ExitCode::from(failure.code as u8)
            }
        }
    })
}
