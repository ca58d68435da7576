//! Updates: from the channel into the other slot, through a trial boot and its health check, to stay or to go back.
//!
//! - [`step`] is the whole of it as a function without side effects, [`state`] what is remembered
//! - [`trust`] reads a channel and decides what of it is believed; [`policy`] whether now is the time
//! - [`eos`] finds the channel where another system has it
//! - `install` has RAUC check and write a bundle, `os-transport` brings it there, [`progress`] says how far it is
//! - [`hand`] notices what an operator did with RAUC
//! - `operator` does what one wants of the slots
//! - `index` has RAUC look at a slot that is half written, so that what is there is not fetched again
//! - [`stick`] takes a channel from a USB stick
//! - `bus` offers the same to other programs, as `os.Update1`
//! - [`health`] decides about a boot; `course` does what follows, `machine` is the device that it is done to
//! - [`agent`] carries everything on, [`outcome`] says what it came to, [`standing`] where it is
//!
//! The bootloader counts a try at every boot. Only a boot that passes [`health`] resets the count through RAUC; three
//! boots that do not, whatever the reason, lead to the other slot, even if nothing of ours runs.

pub mod agent;
mod bus;
mod course;
pub mod eos;
pub mod hand;
pub mod health;
mod index;
mod install;
mod machine;
mod operator;
pub mod outcome;
pub mod policy;
pub mod progress;
pub mod standing;
pub mod state;
pub mod step;
pub mod stick;
pub mod trust;
pub mod version;
mod write;

pub use agent::let_rauc_rest;
use agent::{Agent, Asked};
use anyhow::Result;
use clap::{Parser, Subcommand};
pub use machine::Mark;
use os_facts::Slot;
use os_sys::{log, out};
use os_transport::Source;
use outcome::{Done, Outcome};
use serde_json::json;
use standing::{Log, Standing};
use state::{Phase, Store, Verdict};
use std::process::ExitCode;
use std::time::Duration;

/// How long the interface on the bus stays when nobody asks.
const IDLE: Duration = Duration::from_secs(30);

/// Update this device.
#[derive(Debug, Parser)]
#[command(name = "os-update", version)]
pub struct Args {
    /// Print JSON instead of text, in a stable format (docs/json.md)
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Check the channel for a release; nothing is installed
    Check {
        /// Another channel
        #[command(flatten)]
        from: From,
    },
    /// Install the newest release and restart into it now, without confirmation
    Apply {
        /// Another channel
        #[command(flatten)]
        from: From,
    },
    /// Install a bundle from a file or URL, even an older version, and restart into it now
    Install {
        /// Path or URL of a bundle signed for this device
        bundle: String,
    },
    /// Show the update status
    Status,
    /// Restart into the release that ran before the last update
    Rollback {
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
    },
    /// Suspend automatic updates until `resume`
    Pause,
    /// Resume automatic updates
    Resume,
    /// Show the update log and the end of the journal of the last boot that failed its health check
    Log {
        /// Number of lines of that journal; by default all that were kept
        #[arg(short = 'n', long, value_name = "LINES")]
        lines: Option<usize>,
        /// Do not use a pager, even on a terminal
        #[arg(long)]
        no_pager: bool,
    },
    /// Run the periodic update check
    #[command(hide = true)]
    Timer,
    /// Install from the channel on a USB stick labelled UPDATE
    #[command(hide = true)]
    Stick {
        /// Partition, such as /dev/sda1
        device: std::path::PathBuf,
    },
    /// Serve the D-Bus interface os.Update1 until it is idle
    #[command(hide = true)]
    Serve,
    /// Load the kernel of a slot for a trial by kexec
    #[command(hide = true)]
    LoadKernel {
        /// Slot
        #[arg(value_parser = ["A", "B"])]
        slot: Slot,
    },
    /// Wait until this boot is healthy, or report why it is not
    #[command(hide = true)]
    Health,
    /// Commit the slot after its boot passed the health check
    #[command(hide = true)]
    Commit,
    /// End a trial that did not pass its health check in time
    #[command(hide = true)]
    Deadline,
    /// Move the clock forward to the newest signed date
    #[command(hide = true)]
    Clock,
    /// Leave rescue mode when no operator is logged in: give the slots their tries back and restart
    #[command(hide = true)]
    LeaveRescue,
}

/// Where releases come from.
#[derive(Debug, Clone, clap::Args)]
pub struct From {
    /// Address or directory of a channel to use instead of the configured one, such as one on a USB stick
    #[arg(long, value_name = "CHANNEL")]
    from: Option<String>,
}

impl From {
    fn source(&self) -> Result<Option<Source>> {
        Ok(self.from.as_deref().map(Source::parse).transpose()?)
    }
}

/// The words of other systems for the same: `--check`, `--apply`, `--rollback`.
pub fn arguments(given: impl Iterator<Item = std::ffi::OsString>) -> Vec<std::ffi::OsString> {
    let mut args: Vec<_> = given.collect();
    if let Some(first) = args.get_mut(1) {
        for word in ["check", "apply", "rollback", "status"] {
            if *first == *format!("--{word}") {
                *first = word.into();
            }
        }
    }
    args
}

/// The applet.
///
/// # Errors
/// When what was asked for cannot be done.
pub async fn main(args: Args) -> Result<ExitCode> {
    run(args.command, args.json).await
}

/// One command; `os update` calls it too.
///
/// # Errors
/// When what was asked for cannot be done.
pub async fn run(command: Command, json: bool) -> Result<ExitCode> {
    // Whoever asks: a timer, the bus, or a person whose shell knows nothing of it.
    if let Ok(text) = std::fs::read_to_string(os_config_model::proxy::ENVIRONMENT) {
        os_transport::go_through(os_config_model::proxy::variables(&text));
    }
    match command {
        Command::Check { from } => {
            let source = from.source()?;
            let found = agent(false, async |agent| agent.check(source.as_ref()).await).await?;
            if json {
                out::json(&found);
            } else {
                os_sys::say!("{}", found.text);
            }
        }
        Command::Apply { from } => {
            let source = from.source()?;
            let told = |text: &str| tell(text, json);
            let done = agent(false, async |agent| agent.run(Asked::Person, source.as_ref(), &told).await).await?;
            return Ok(answer(&done, json));
        }
        Command::Install { bundle } => {
            let told = |text: &str| tell(text, json);
            let done = agent(false, async |agent| agent.install_by_hand(&bundle, &told).await).await?;
            return Ok(answer(&done, json));
        }
        Command::Timer => {
            if !matches!(policy::Policy::load().channel, Ok(None)) {
                // A channel out of reach is nothing that ails the device. What was said is kept for os update status.
                match agent(false, async |agent| agent.run(Asked::Timer, None, &|_| ()).await).await {
                    Ok(done) => log::info(&done.text),
                    Err(err) => log::warn(&format!("{err:#}")),
                }
            }
        }
        Command::Stick { device } => log::info(&stick::update(&device).await?),
        Command::LoadKernel { slot } => os_boot::kexec::load(slot)?,
        Command::Serve => os_dbus::updates::serve(bus::Service::device(), IDLE).await?,
        Command::Status => out::answer(&Standing::of_device(), json),
        Command::Rollback { yes } => {
            if !yes {
                os_sys::ask::agree("restarts the device into what ran before the last update", "back")?;
            }
            let mut agent = Agent::take_over().await?;
            let done = agent.go_back().await;
            agent.rest().await;
            done?;
            return Ok(answer(&Done::new(Outcome::Restarting, "restarting into what ran before"), json));
        }
        Command::Pause => set_paused(true, json).await?,
        Command::Resume => set_paused(false, json).await?,
        Command::Log { lines, .. } if json => out::json(&Log::of_device(lines)),
        Command::Log { lines, no_pager } => out::paged(&Log::of_device(lines).to_string(), !no_pager),
        Command::Health => return health_of_this_boot().await,
        Command::Commit => {
            agent(true, async |agent| {
                agent.healthy().await?;
                // One that is being left stays a trial until the device has restarted.
                if !matches!(agent.state().phase, Phase::Trial { .. }) {
                    os_sys::files::remove_if_there(std::path::Path::new(os_facts::trial::PATH))?;
                }
                Ok(())
            })
            .await?;
        }
        Command::Deadline => {
            // Without the lock: what has passed may be installing its successor.
            if matches!(Store::device().load().phase, Phase::Trial { .. }) {
                let verdict = Verdict::failed("it did not pass its health check in time");
                agent(true, async |agent| agent.unhealthy(verdict).await).await?;
            }
        }
        Command::Clock => {
            let floor = os_facts::clock::floor(std::path::Path::new("/"), std::path::Path::new(os_facts::place::STATE));
            if let Some(was) = os_facts::clock::raise(floor)? {
                let date = os_sys::date::local;
                log::info(&format!("the clock said {}, and {} has passed for certain", date(was), date(floor)));
            }
        }
        Command::LeaveRescue => {
            log::info(&agent(true, async |agent| agent.leave_rescue().await).await?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Marks a slot by hand; `None` is the one that runs.
///
/// # Errors
/// When a release is on trial, or nothing would be left to start.
pub async fn mark(state: Mark, slot: Option<Slot>) -> Result<Slot> {
    agent(false, async |agent| agent.mark_by_hand(state, slot).await).await
}

/// Has the other slot be started from the next boot on.
///
/// # Errors
/// When a release is on trial, or the other slot may not be started.
pub async fn switch() -> Result<Slot> {
    agent(false, async |agent| agent.switch().await).await
}

/// Does something with the lock held; nothing stays resident afterwards.
async fn agent<T>(wait: bool, work: impl AsyncFnOnce(&mut Agent) -> Result<T>) -> Result<T> {
    let mut agent = Agent::new(wait).await?;
    let done = work(&mut agent).await;
    agent.rest().await;
    done
}

async fn health_of_this_boot() -> Result<ExitCode> {
    let limit = health::limit(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default());
    let Err(reasons) = health::wait(limit).await else { return Ok(ExitCode::SUCCESS) };
    let verdict = Verdict::failed(format!("not healthy after {} seconds: {}", limit.as_secs(), reasons.join("; ")));
    agent(true, async |agent| agent.unhealthy(verdict).await).await?;
    Ok(ExitCode::from(1))
}

async fn set_paused(paused: bool, json: bool) -> Result<()> {
    let agent = Agent::new(false).await;
    // An installation that is under way sees the file and stops.
    Store::device().pause(paused)?;
    if let Ok(mut agent) = agent {
        agent.remember(if paused { "paused by an operator" } else { "resumed by an operator" })?;
    }
    if json {
        out::json(&json!({ "paused": paused }));
    }
    Ok(())
}

/// Says something on the way, where it would not stand in the answer.
fn tell(text: &str, json: bool) {
    if !json {
        os_sys::say!("{text}");
    }
}

fn answer(done: &Done, json: bool) -> ExitCode {
    if json {
        out::json(done);
    } else if done.outcome != Outcome::Restarting {
        os_sys::say!("{}", done.text);
    }
    if done.is_yes() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_other_systems_are_understood() {
        for (given, wanted) in [("--check", "check"), ("--apply", "apply"), ("status", "status"), ("--help", "--help")]
        {
            let args = arguments(["os-update", given].into_iter().map(Into::into));
            assert_eq!(args, ["os-update", wanted]);
        }
    }
}
