//! `os`: the one command on the device.
//!
//! With `--json` every command prints one object ([`os_sys::out::json`]); docs/json.md has an example of each, and the tests
//! here compare them.

mod config;
mod disk;
mod engine;
#[cfg(feature = "manual")]
pub mod manual;
mod restart;
mod selftest;
mod slot;
mod status;
mod wipe;

use anyhow::{Result, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Parser, Subcommand};
use os_facts::{Slot, WipeScope};
use os_sys::cmd::Cmd;
use os_sys::out;
use os_update::Mark;
use serde::Serialize;
use std::ffi::OsString;
use std::process::ExitCode;

/// Manage this device.
///
/// Exit codes: 0 success, 1 failure or a negative answer, 2 usage error.
#[derive(Debug, Parser)]
#[command(name = "os", version)]
pub struct Args {
    /// Print JSON instead of text, in a stable format (docs/json.md)
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show version, slots, health, disk, memory, network, engine and configuration; exit code 1 if something is wrong
    Status,
    /// Test what the OS needs of this board; exit code 1 if a check failed
    ///
    /// Reads what the kernel and the services say, reads 64 MiB from the disk, looks for Wi-Fi networks, and runs a container
    /// of its own, which it removes. Nothing else is changed. The report names the board and the release; it has no host name,
    /// address, network or serial number, so that it can be shown to others.
    #[command(name = "selftest")]
    SelfTest {
        /// Leave out what takes seconds: reading the disk, looking for networks, the container
        #[arg(long)]
        quick: bool,
    },
    /// Show and change config.json, the configuration of the device
    Config {
        #[command(subcommand)]
        command: config::Command,
    },
    /// Check for releases, install them and roll back
    Update {
        #[command(subcommand)]
        command: os_update::Command,
    },
    /// Show the two system slots and select the one to boot
    Slot {
        #[command(subcommand)]
        command: SlotCommand,
    },
    /// Manage the encryption of the data partition
    Disk {
        #[command(subcommand)]
        command: disk::Command,
    },
    /// Erase apps, state, data or all of them at the next boot
    ///
    /// config.json is kept: the host name, networks and SSH keys in it apply again. Apps that came with the image are
    /// restored.
    Wipe {
        /// What to erase
        #[arg(value_parser = wipe::scopes())]
        what: WipeScope,
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
        /// Restart now
        #[arg(long)]
        reboot: bool,
    },
}

#[derive(Debug, Subcommand)]
enum SlotCommand {
    /// Show both slots as the bootloader and RAUC see them
    Status,
    /// Boot the other slot from the next restart on, whichever release it holds
    Switch {
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
        /// Restart now
        #[arg(long)]
        reboot: bool,
    },
    /// Override the recorded status of a slot
    Mark {
        /// New status
        state: Mark,
        /// Slot, A or B; by default the running one
        #[arg(value_parser = PossibleValuesParser::new(Slot::BOTH.map(Slot::name)).try_map(|name| name.parse::<Slot>()))]
        slot: Option<Slot>,
    },
}

/// What was typed. What is not understood is said as text, or as JSON where that was asked for.
///
/// # Errors
/// The exit code to end with: 0 after `--help`, 2 when the command was not understood.
pub fn parse(words: impl Iterator<Item = OsString>) -> Result<Args, ExitCode> {
    let words: Vec<OsString> = words.collect();
    Args::try_parse_from(&words).map_err(|err| {
        if err.use_stderr() && words.iter().any(|word| word == "--json") {
            let text = err.render().to_string();
            out::json_error(text.trim_start_matches("error: ").trim());
        } else {
            let _ = err.print();
        }
        ExitCode::from(u8::try_from(err.exit_code()).unwrap_or(2))
    })
}

/// The applet.
///
/// # Errors
/// When what was asked for cannot be done; with `--json` that is printed.
pub async fn main(args: Args) -> Result<ExitCode> {
    let json = args.json;
    match run(args).await {
        Err(err) if json => {
            out::json_error(&format!("{err:#}"));
            Ok(ExitCode::from(1))
        }
        done => done,
    }
}

async fn run(args: Args) -> Result<ExitCode> {
    let json = args.json;
    let for_everybody = matches!(&args.command, Command::Config { command } if command.is_for_everybody());
    if !for_everybody && !rustix::process::geteuid().is_root() {
        bail!("this takes root: log in as root, or use sudo");
    }
    match args.command {
        Command::Status => {
            let status = status::collect().await;
            out::answer(&status, json);
            Ok(code(status.is_good()))
        }
        Command::SelfTest { quick } => {
            let test = selftest::run(quick).await;
            out::answer(&test, json);
            Ok(code(test.is_good()))
        }
        Command::Config { command } => config::run(command, json).await,
        Command::Slot { command } => slot::run(command, json).await,
        Command::Update { command } => os_update::run(command, json).await,
        Command::Disk { command } => disk::run(&command, json),
        Command::Wipe { what, yes, reboot } => wipe::request(what, yes, reboot, json),
    }
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// Says that something was done, and restarts the device where that was asked for.
fn finish(text: &str, answer: &impl Serialize, reboot: bool, json: bool) -> Result<ExitCode> {
    if json {
        out::json(answer);
    } else {
        os_sys::say!("{text}");
    }
    if reboot {
        Cmd::new("systemctl").arg("reboot").run()?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests;
