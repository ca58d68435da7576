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
    /// Disk images and cards
    Image {
        #[command(subcommand)]
        command: Image,
    },
    /// Releases for devices: a directory of static, signed files
    Channel {
        #[command(subcommand)]
        command: channel_commands::Command,
    },
    /// A device on the network, over ssh
    Device {
        #[command(subcommand)]
        command: Device,
    },
}

#[derive(Debug, Subcommand)]
enum Image {
    /// Write config.json into an image or onto a card; what the device would refuse is not written
    Configure {
        /// Image (raw, .zst, .gz, .xz) or disk, such as /dev/sdb
        image: PathBuf,
        #[command(flatten)]
        change: osctl::image::Change,
    },
}

#[derive(Debug, Subcommand)]
enum Device {
    /// Install a bundle on it and wait until its health check has decided; no server and no channel is needed
    Update {
        /// Name or address
        host: String,
        /// The bundle, signed for that device
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
