//! `os-manual`: writes completion and manual of the `os` command; a program of the build, not of the device.

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// Write the shell completion and the manual pages of the os command.
#[derive(Debug, Parser)]
#[command(name = "os-manual", version)]
struct Args {
    /// Directory to write to
    #[arg(value_name = "DIRECTORY")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let out = Args::parse().out;
    match os_cli::manual::write(&out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("os-manual: cannot write to {}: {err}", out.display());
            ExitCode::from(1)
        }
    }
}
