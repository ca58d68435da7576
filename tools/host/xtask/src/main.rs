//! `xtask`: upkeep of this repository; what is compared, and what is written from something else.
//!
//! - [`check`] compares what both lanes must agree on, [`pages`] the book with its table of contents
//! - [`manifests`] finds dependencies that nothing uses
//! - [`config_docs`] writes the reference of config.json from its table of keys
//! - [`roots`] compares the root file systems that the two lanes built
//! - [`kconfig`] tries the options that the OS needs on real kernels and U-Boots
//! - [`crates_inc`] writes the crate list of the Yocto recipe

mod check;
mod config_docs;
mod crates_inc;
mod kconfig;
mod manifests;
mod pages;
mod roots;
mod walk;

use anyhow::Result;
use clap::{Parser, Subcommand};
use lab::repo::Repo;
use lab::tools_tree::HostTools;
use std::path::PathBuf;
use std::process::ExitCode;

/// Maintain this repository.
#[derive(Debug, Parser)]
#[command(name = "xtask", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check that both build lanes and the docs agree
    Check,
    /// Compare the root filesystems of both lanes: what starts, listens, is in /etc or runs with elevated privileges
    Roots {
        /// Root filesystem of the lab: a directory, or an erofs image (build/lab/development/slot/os-root-….verity)
        lab: PathBuf,
        /// Root filesystem of the Yocto lane, of the same variant
        yocto: PathBuf,
        #[command(flatten)]
        host_tools: HostTools,
    },
    /// Try on real sources whether the options that the OS needs survive Kconfig
    Kconfig {
        /// Whose configurations they are
        kind: kconfig::Kind,
        /// Table of machines: MACHINE ARCH MODE SOURCE CONFIG FRAGMENT…, see docs/internals.md
        table: PathBuf,
        /// Write the results into docs/
        #[arg(long)]
        record: bool,
    },
    /// Generate the reference and the schema of config.json in docs/
    Docs,
    /// Generate the lock file and the crate list of the Yocto recipe from tools/Cargo.lock
    Crates {
        /// Only compare; exit code 1 if the committed list is out of date
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(code) => code,
        Err(err) => {
            eprintln!("xtask: {err:#}");
            ExitCode::from(1)
        }
    }
}

fn run(args: Args) -> Result<ExitCode> {
    let repo = Repo::find()?;
    match args.command {
        Command::Check => check::run(&repo),
        Command::Roots { lab, yocto, host_tools } => {
            host_tools.enter(&repo)?;
            roots::run(&repo, &lab, &yocto).map(|()| ExitCode::SUCCESS)
        }
        Command::Kconfig { kind, table, record } => kconfig::run(&repo, kind, &table, record),
        Command::Docs => config_docs::write(&repo).map(|()| ExitCode::SUCCESS),
        Command::Crates { check } => crates_inc::run(&repo, check),
    }
}
