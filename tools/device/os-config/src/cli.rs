//! The applet behind `os-config.service`, `os-import@.service` and `os-boot-log.service`.

use crate::import::{self, Report};
use crate::lock::Lock;
use crate::status::Status;
use crate::{KEYRING, STATUS, apply, boot_log};
use anyhow::Result;
use clap::{Parser, Subcommand};
use os_config_model::model::Problem;
use os_config_model::store::Store;
use os_dbus::{Bus, Verb};
use os_sys::log;
use os_sys::stick::Stick;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Apply config.json from the boot partition. The command for operators is `os config`.
#[derive(Debug, Parser)]
#[command(name = "os-config", version)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read and apply config.json; if it is refused, the last good one stays in force
    Apply,
    /// Import the configuration from a USB stick and write a report to it
    ImportStick {
        /// Partition, such as /dev/sda1
        device: PathBuf,
    },
    /// Preserve the beginning of this boot's log
    #[command(hide = true)]
    KeepBootLog,
}

/// The applet.
///
/// # Errors
/// When nothing could be applied at all.
pub async fn main(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Apply => {
            let status = apply::run(&Lock::take()?).await?;
            for line in status.complaints().iter().chain(&status.warnings) {
                log::warn(line);
            }
            // A refused file is the user's to mend, not a failed unit: the device works as before.
            Ok(ExitCode::SUCCESS)
        }
        Command::ImportStick { device } => {
            let report = stick(&device).await?;
            if report.taken && report.changed.is_empty() {
                log::info(&format!("nothing on {} is new", device.display()));
            } else if report.problems.is_empty() {
                log::info(&format!("configuration taken over from {}: {}", device.display(), report.changed.join(" ")));
            }
            for problem in &report.problems {
                log::warn(&format!("{}: {problem}", device.display()));
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::KeepBootLog => {
            if boot_log::keep()? {
                Bus::system().await?.queue(Verb::Stop, "os-boot-log.path").await?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn stick(device: &Path) -> Result<Report> {
    let stick = Stick::mount(device, Path::new("/run/os/stick"))?;
    let report = take(&stick).await?;
    stick.release()?;
    Ok(report)
}

async fn take(stick: &Stick) -> Result<Report> {
    let store = Store::device();
    let keyring = import::signed_only(&store).then_some(Path::new(KEYRING));
    let lock = Lock::take()?;
    let mut report = import::import(&store, stick.dir(), keyring, false)?;
    // The service takes it.
    drop(lock);
    if report.taken {
        let applied = async { Bus::system().await?.unit_job(Verb::Start, "os-config.service").await };
        match applied.await {
            Ok(()) => report.complaints = Status::load(Path::new(STATUS)).map(|s| s.complaints()).unwrap_or_default(),
            Err(err) => report.problems.push(Problem::whole(format!("cannot be applied: {err}"))),
        }
    }
    // A stick that is full or write-protected has still done its work.
    let written = stick.write().map_err(Into::into).and_then(|_writing| import::write_report(stick.dir(), &report));
    if let Err(err) = written {
        log::warn(&format!("no report on the stick: {err:#}"));
    }
    Ok(report)
}
