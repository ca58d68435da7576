//! Boots the built image in QEMU and checks what a user would: over the serial console, QMP, ssh, HTTP and the wire.
//!
//! - [`vm`] is the machine and the ways into it
//! - [`disk`] edits the boot partition of a powered-off machine
//! - [`mdns`] asks for a name on the machine's second network card
//! - [`tpm`] is the machine's TPM
//! - [`checks`] counts and prints
//! - [`scenarios`] are the boots: the first and long one, the changed configuration, the broken ones, rescue
//! - [`bench`] measures a boot beside a plain Debian's

mod bench;
mod checks;
#[expect(clippy::indexing_slicing, reason = "indexing a JSON value that is not there gives null")]
mod configuration;
mod disk;
mod mdns;
#[expect(clippy::indexing_slicing, reason = "indexing a JSON value that is not there gives null")]
mod scenarios;
mod tpm;
mod vm;

use anyhow::Result;
use clap::{Parser, Subcommand};
use osctl::repo::Repo;
use std::process::ExitCode;

/// End-to-end tests of the built image.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the scenarios
    Run {
        /// Only scenarios whose name contains this
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Measure boot time and memory beside a plain Debian, and write docs/benchmarks.md
    Bench,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(code) => code,
        Err(err) => {
            eprintln!("e2e: {err:#}");
            ExitCode::from(1)
        }
    }
}

fn run(args: Args) -> Result<ExitCode> {
    let repo = Repo::find()?;
    match args.command {
        Command::Run { only } => {
            let checks = scenarios::run(&repo, &only)?;
            Ok(checks.finish())
        }
        Command::Bench => {
            bench::run(&repo)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
