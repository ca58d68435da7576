//! Containers through the Docker Engine API.
//!
//! - [`engine`] connects to the engine
//! - [`meant`] says which containers are meant to run and do not, [`volatile`] which keep data where it is lost
//! - [`retry`] starts containers again whose devices or addresses came after the engine
//! - [`shutdown`] has the engine stop containers when the device shuts down
//! - [`preload`] loads the images that came with the disk image and starts their containers, without any network

pub mod engine;
pub mod meant;
pub mod preload;
pub mod retry;
pub mod shutdown;
pub mod volatile;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Manage the containers of this device.
#[derive(Debug, Parser)]
#[command(name = "os-apps", version)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load the container images that came with the disk image and start their containers
    Preload,
    /// Retry containers that failed to start because a device or address was not available yet
    Retry,
    /// Stop the containers if the device is shutting down; run when docker.service stops
    #[command(hide = true)]
    Shutdown,
}

/// The applet.
///
/// # Errors
/// When the engine cannot be reached, or an image cannot be loaded.
pub async fn main(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Preload => preload::run().await,
        Command::Retry => retry::run().await,
        Command::Shutdown => shutdown::run().await,
    }
}
