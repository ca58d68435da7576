//! Updates: for now the end of one, the health gate after a boot and the commit of the booted slot.
//!
//! The bootloader counts a try at every boot. Only a boot that passes [`health`] resets the count through RAUC; three
//! boots that do not, whatever the reason, lead to the other slot, even if nothing of ours runs.

pub mod health;

use anyhow::Context;
use clap::{Parser, Subcommand};
use os_dbus::{Bus, Tried, Verb};
use os_sys::log;
use std::process::ExitCode;
use std::time::Duration;

/// Update this device.
#[derive(Debug, Parser)]
#[command(name = "os-update", version)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Wait until the device works; exit code 1 when it does not in time
    Health {
        /// How long to wait, in seconds
        #[arg(long, default_value_t = 240)]
        timeout: u64,
    },
    /// Mark the booted slot as good
    Commit,
}

/// The applet.
///
/// # Errors
/// When the system bus or RAUC does not answer.
pub async fn main(args: Args) -> anyhow::Result<ExitCode> {
    let bus = Bus::system().await?;
    match args.command {
        Command::Health { timeout } => match health::wait(&bus, Duration::from_secs(timeout)).await {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(reasons) => {
                log::error(&format!("this boot is not healthy after {timeout} seconds: {}", reasons.join("; ")));
                Ok(ExitCode::from(1))
            }
        },
        Command::Commit => {
            let (slot, _) =
                bus.rauc().await?.mark("good", "booted").await.tried("RAUC did not mark the booted slot as good")?;
            log::info(&format!("{slot} is good"));
            // RAUC is started on demand and has no reason to stay: idle memory is for containers.
            bus.unit_job(Verb::Stop, "rauc.service").await.context("cannot let RAUC rest")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
