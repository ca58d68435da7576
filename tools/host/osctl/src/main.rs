//! `osctl`: the one command on the workstation.

mod channel_commands;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Prepare images, publish releases, update and test devices, and add boards, from a workstation.
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
    /// Add boards
    Layer {
        #[command(subcommand)]
        command: Layer,
    },
}

#[derive(Debug, Subcommand)]
enum Layer {
    /// Create the layer of a board whose machine is in a BSP layer, with a kas file and a CI workflow
    ///
    /// Reads the machine's configuration and the git checkouts, and prints what it took from there and what is left to check.
    /// Nothing is built. docs/add-a-board.md has the rest.
    New {
        #[command(flatten)]
        options: Box<osctl::layer::Options>,
        /// Print JSON instead of text, in a stable format (docs/json.md)
        #[arg(long)]
        json: bool,
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
    /// Test what the OS needs of a board, and print a report to send; exit code 1 if a check failed
    ///
    /// Runs os selftest on the device, which changes nothing there, and compares the options of its kernel. The report has no
    /// host name, address, network or serial number. docs/hardware-check.md says what is left to test by hand.
    #[command(name = "selftest")]
    SelfTest {
        /// Host name or address
        host: String,
        #[command(flatten)]
        depth: osctl::device::selftest::Depth,
        /// Print JSON instead of text, in a stable format (docs/json.md)
        #[arg(long)]
        json: bool,
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
        Command::Layer { command: Layer::New { options, json } } => {
            os_sys::out::answer(&osctl::layer::new(&options)?, json);
            Ok(())
        }
        Command::Channel { command } => channel_commands::run(command),
        Command::Device { command: Device::Update { host, bundle, ssh } } => {
            os_sys::say!("{}", osctl::device::update(&host, &bundle, &ssh)?);
            Ok(())
        }
        Command::Device { command: Device::SelfTest { host, depth, json, ssh } } => {
            osctl::device::selftest::report(&osctl::device::selftest::selftest(&host, &depth, &ssh)?, json)
        }
    }
}
