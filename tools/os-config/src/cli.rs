//! The applet behind `os-config.service`.

use crate::{apply, model};
use anyhow::Result;
use clap::{Parser, Subcommand};
use os_sys::log;
use std::path::PathBuf;
use std::process::ExitCode;

/// Apply config.json from the boot partition.
#[derive(Debug, Parser)]
#[command(name = "os-config", version)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read config.json and bring it into force; a refused file leaves the last good one
    Apply,
    /// Check a file without applying it; exit code 1 when it is refused
    Check {
        /// The file
        file: PathBuf,
    },
}

/// The applet.
///
/// # Errors
/// When nothing could be applied at all.
pub async fn main(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Apply => {
            let status = apply::run().await?;
            for line in status.complaints() {
                log::warn(&line);
            }
            // A refused file is the user's to mend, not a failed unit: the device works as before.
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { file } => {
            let bytes = os_sys::files::read_limited(&file, crate::MAX_SIZE)?;
            match model::parse(&bytes) {
                Ok(good) => {
                    for key in good.unknown {
                        println!("{key}: unknown key, no effect");
                    }
                    println!("{} is a good configuration", file.display());
                    Ok(ExitCode::SUCCESS)
                }
                Err(problems) => {
                    for problem in problems {
                        println!("{}: {}", problem.pointer, problem.message);
                    }
                    Ok(ExitCode::from(1))
                }
            }
        }
    }
}
