//! `xtask`: upkeep of this repository; what is compared, and what is written from something else.
//!
//! - [`check`] compares what both lanes must agree on, [`pages`] the book with its table of contents
//! - [`config_docs`] writes the reference of config.json from its table of keys
//! - [`roots`] compares the root file systems that the two lanes built
//! - [`crates_inc`] writes the crate list of the Yocto recipe

mod check;
mod config_docs;
mod crates_inc;
mod pages;
mod roots;

use anyhow::Result;
use clap::{Parser, Subcommand};
use lab::repo::Repo;
use std::path::PathBuf;
use std::process::ExitCode;

/// Look after this repository.
#[derive(Debug, Parser)]
#[command(name = "xtask", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare what both build lanes must agree on
    Check,
    /// Compare the root file systems that both lanes built: what starts, listens, is in /etc, runs with others' rights
    Roots {
        /// Root of the lab: a directory, or an erofs image such as build/lab/development/slot/os-root-….verity
        lab: PathBuf,
        /// Root of the Yocto lane, of the same variant
        yocto: PathBuf,
    },
    /// Write the reference of config.json into docs/ from its table of keys
    Docs,
    /// Write the lock file and the crate list of the Yocto recipe from tools/Cargo.lock
    Crates {
        /// Only compare; exit code 1 when the committed list is out of date
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
        Command::Roots { lab, yocto } => {
            lab::tools_tree::enter(&repo, false)?;
            roots::run(&repo, &lab, &yocto).map(|()| ExitCode::SUCCESS)
        }
        Command::Docs => config_docs::write(&repo).map(|()| ExitCode::SUCCESS),
        Command::Crates { check } => crates_inc::run(&repo, check),
    }
}
