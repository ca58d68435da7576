//! `os`: the one command on the device.

mod config;
mod disk;
mod slot;
mod status;
mod wipe;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use os_update::Mark;
use std::process::ExitCode;

/// Look after this device.
///
/// Exit codes: 0 done, 1 the answer is no or something is wrong, 2 the command was not understood.
#[derive(Debug, Parser)]
#[command(name = "os", version)]
pub struct Args {
    /// Print JSON instead of text; its form is stable
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Version, slots, health, disk, memory, network, engine and configuration at a glance
    Status,
    /// The configuration of the device, config.json
    Config {
        #[command(subcommand)]
        command: config::Command,
    },
    /// Releases from the channel
    Update {
        #[command(subcommand)]
        command: os_update::Command,
    },
    /// The two system slots
    Slot {
        #[command(subcommand)]
        command: SlotCommand,
    },
    /// The data partition and its encryption
    Disk {
        #[command(subcommand)]
        command: disk::Command,
    },
    /// Erase apps, state, data or all of it at the next boot
    Wipe {
        /// What to erase
        what: WipeTarget,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Restart now
        #[arg(long)]
        reboot: bool,
    },
}

#[derive(Debug, Subcommand)]
enum SlotCommand {
    /// Both slots as the bootloader and RAUC see them
    Status,
    /// Start the other slot from the next boot on, whatever release it holds
    Switch {
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Restart now
        #[arg(long)]
        reboot: bool,
    },
    /// Say of a slot what the health check says otherwise
    Mark {
        /// What it is
        state: Mark,
        /// Which one, A or B; the one that runs, if not given
        #[arg(value_parser = ["A", "B"])]
        slot: Option<String>,
    },
}

/// What `os wipe` erases.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum WipeTarget {
    /// Containers and images
    Apps,
    /// Identity and host configuration
    State,
    /// Containers, apps and logs
    Data,
    /// Both
    All,
}

/// The applet.
///
/// # Errors
/// When what was asked for cannot be done.
pub async fn main(args: Args) -> Result<ExitCode> {
    let json = args.json;
    let for_everybody = matches!(&args.command, Command::Config { command } if command.is_for_everybody());
    if !for_everybody && !rustix::process::geteuid().is_root() {
        bail!("this takes root: log in as root, or use sudo");
    }
    match args.command {
        Command::Status => {
            let status = status::collect().await;
            if json {
                print_json(&status)?
            } else {
                os_sys::out::print(format_args!("{status}"))
            }
            Ok(code(status.is_good()))
        }
        Command::Config { command } => config::run(command, json).await,
        Command::Slot { command } => slot::run(command, json).await,
        Command::Update { command } => os_update::run(command, json).await,
        Command::Disk { command } => disk::run(&command, json),
        Command::Wipe { what, yes, reboot } => wipe::request(what, yes, reboot),
    }
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    os_sys::say!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}
