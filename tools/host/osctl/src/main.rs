//! `osctl`: the one command on the workstation.

mod channel_commands;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Prepare images, publish releases and update devices from a workstation.
#[derive(Debug, Parser)]
#[command(name = "osctl", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Configure disk images and cards
    Image {
        #[command(subcommand)]
        command: Image,
    },
    /// Publish releases; a channel is a directory of static, signed files
    Channel {
        #[command(subcommand)]
        command: channel_commands::Command,
    },
    /// Manage a device on the network, over SSH
    Device {
        #[command(subcommand)]
        command: Device,
    },
}

#[derive(Debug, Subcommand)]
enum Image {
    /// Write config.json to an image or a card; what the device would refuse is not written
    Configure {
        /// Image (raw, .zst, .gz, .xz) or disk, such as /dev/sdb
        image: PathBuf,
        #[command(flatten)]
        change: osctl::image::Change,
    },
}

#[derive(Debug, Subcommand)]
enum Device {
    /// Install a bundle and wait for the result of its health check; needs neither server nor channel
    Update {
        /// Host name or address
        host: String,
        /// Bundle, signed for that device
        bundle: PathBuf,
        #[command(flatten)]
        ssh: osctl::device::Ssh,
    },
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("osctl: {err:#}");
            ExitCode::from(1)
        }
    }
}

fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Image { command: Image::Configure { image, change } } => {
            let config = osctl::image::configure(&image, &change)?;
            os_sys::say!("{}", serde_json::to_string_pretty(&config)?);
            Ok(())
        }
        Command::Channel { command } => channel_commands::run(command),
        Command::Device { command: Device::Update { host, bundle, ssh } } => {
            os_sys::say!("{}", osctl::device::update(&host, &bundle, &ssh)?);
            Ok(())
        }
    }
}
