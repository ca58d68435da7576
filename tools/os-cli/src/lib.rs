//! `os`: the one command on the device.

mod status;
mod wipe;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use os_config::status::Status as ConfigStatus;
use os_dbus::Bus;
use std::path::{Path, PathBuf};
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
        command: ConfigCommand,
    },
    /// The two system slots
    Slot {
        #[command(subcommand)]
        command: SlotCommand,
    },
    /// Erase state, data or both at the next boot
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
enum ConfigCommand {
    /// Result per key of the last application; exit code 1 when something is wrong
    Status,
    /// Apply config.json now (this happens by itself when the file changes)
    Apply,
    /// Check a file without applying it; exit code 1 when it is refused
    Check {
        /// The file
        #[arg(default_value = os_config::CONFIG)]
        file: PathBuf,
    },
    /// JSON Schema of config.json
    Schema,
}

#[derive(Debug, Subcommand)]
enum SlotCommand {
    /// Both slots as the bootloader and RAUC see them
    Status,
}

/// What `os wipe` erases.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum WipeTarget {
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
    match args.command {
        Command::Status => {
            let status = status::collect().await;
            if json {
                print_json(&status)?
            } else {
                print!("{status}")
            }
            Ok(code(status.is_good()))
        }
        Command::Config { command } => config(command, json).await,
        Command::Slot { command: SlotCommand::Status } => {
            let slots = status::slots(&Bus::system().await?).await?;
            if json {
                print_json(&slots)?;
            } else {
                slots.iter().for_each(|slot| println!("{slot}"));
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Wipe { what, yes, reboot } => wipe::request(what, yes, reboot),
    }
}

async fn config(command: ConfigCommand, json: bool) -> Result<ExitCode> {
    match command {
        ConfigCommand::Status => {
            let status = ConfigStatus::load(Path::new(os_config::STATUS))
                .context("no result yet; see journalctl -u os-config")?;
            if json {
                print_json(&status)?
            } else {
                print!("{status}")
            }
            Ok(code(status.is_good()))
        }
        ConfigCommand::Apply => {
            let status = os_config::apply::run().await?;
            if json {
                print_json(&status)?
            } else {
                print!("{status}")
            }
            Ok(code(status.is_good()))
        }
        ConfigCommand::Check { file } => {
            let bytes = os_sys::files::read_limited(&file, os_config::MAX_SIZE)?;
            let problems = os_config::model::parse(&bytes).err().unwrap_or_default();
            if json {
                print_json(&problems)?;
            } else {
                problems.iter().for_each(|p| println!("{}: {}", p.pointer, p.message));
            }
            Ok(code(problems.is_empty()))
        }
        ConfigCommand::Schema => {
            print_json(&os_config::model::schema()?)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}
