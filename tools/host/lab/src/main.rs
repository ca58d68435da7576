//! `lab`: builds and runs the image for developing and testing.

use anyhow::Result;
use clap::{Parser, Subcommand};
use lab::image::wishes::Wishes;
use lab::image::{self, bundle, compose};
use lab::repo::Repo;
use lab::tools_tree::HostTools;
use std::path::PathBuf;
use std::process::ExitCode;

/// Build and run the image for development and testing, from Debian's binary packages.
#[derive(Debug, Parser)]
#[command(name = "lab", version)]
struct Args {
    #[command(flatten)]
    host_tools: HostTools,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the disk image
    Build(Build),
    /// Boot the image in QEMU with the console on this terminal; Ctrl-A X quits
    Run(lab::run::Options),
    /// Make a signed update bundle from the built slot
    Bundle {
        /// production, development or standalone
        #[arg(long, default_value = "development", value_parser = image::VARIANTS.to_vec())]
        variant: String,
    },
    /// Build the device binary as shipped (takes minutes) and compare its size with its budget
    Size,
    /// Run the unit tests of what runs on devices, for the architecture in OS_ARCH
    Unit,
    #[command(hide = true)]
    Compose(compose::Args),
}

#[derive(Debug, clap::Args)]
struct Build {
    /// production, development or standalone
    #[arg(long, default_value = "development", value_parser = image::VARIANTS.to_vec())]
    variant: String,
    /// config.json for the boot partition; by default one with the SSH key in build/keys
    #[arg(long)]
    config: Option<PathBuf>,
    /// Container archive to preload, as written by docker save; NAME.json beside it describes the container
    #[arg(long)]
    preload: Vec<PathBuf>,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(code) => code,
        Err(err) => {
            eprintln!("lab: {err:#}");
            ExitCode::from(1)
        }
    }
}

fn run(Args { host_tools, command }: Args) -> Result<ExitCode> {
    let mut repo = Repo::find()?;
    // cargo needs none of its programs.
    if !matches!(command, Command::Size) {
        host_tools.enter(&repo)?;
    }
    match command {
        Command::Build(Build { variant, config, preload }) => {
            image::build(&repo, &image::Options { variant, config, preload })?;
        }
        Command::Run(options) => return lab::run::run(repo, &options),
        Command::Bundle { variant } => {
            // Of the slot that is there: its version too.
            let _ = Wishes::again(&mut repo, &variant);
            bundle::build(&repo, &variant)?;
        }
        Command::Size => image::size(&repo)?,
        Command::Unit => lab::unit::run(&repo)?,
        Command::Compose(args) => compose::run(&repo, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}
