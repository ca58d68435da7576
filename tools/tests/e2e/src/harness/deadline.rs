//! The moment at which a run has to be over. A run that is ended from outside says nothing of what took so long; one that
//! ends itself does.

use anyhow::{Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::sync::Mutex;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// When that is, in seconds since 1970, for whatever runs inside.
pub(crate) const VARIABLE: &str = "OS_TEST_DEADLINE";

static DEADLINE: OnceLock<Instant> = OnceLock::new();

/// Machines that run now.
static MACHINES: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Sets it: so many seconds from now, or what the environment says.
pub(crate) fn set(seconds: Option<u64>) -> Result<()> {
    let left = match (seconds, std::env::var(VARIABLE)) {
        (Some(seconds), _) => seconds,
        (None, Err(_)) => return Ok(()),
        (None, Ok(text)) => {
            let Ok(at) = text.parse::<u64>() else { bail!("{VARIABLE} is '{text}'; it is seconds since 1970") };
            at.saturating_sub(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
        }
    };
    let _ = DEADLINE.set(Instant::now() + Duration::from_secs(left));
    Ok(())
}

/// How long it still is, if there is one.
pub(crate) fn left() -> Option<Duration> {
    DEADLINE.get().map(|at| at.saturating_duration_since(Instant::now()))
}

/// True when it is over.
pub(crate) fn passed() -> bool {
    left().is_some_and(|left| left.is_zero())
}

/// An error when it is over: for loops that wait.
pub(crate) fn check() -> Result<()> {
    if passed() {
        bail!("the deadline of this run has passed");
    }
    Ok(())
}

/// Remembers a machine, so that [`end_machines`] ends it.
pub(crate) fn started(machine: u32) {
    if let Ok(mut machines) = MACHINES.lock() {
        machines.push(machine);
    }
}

/// Forgets one that has ended, whose number may come again.
pub(crate) fn ended(machine: u32) {
    if let Ok(mut machines) = MACHINES.lock() {
        machines.retain(|m| *m != machine);
    }
}

/// Ends all machines, so that nothing waits for one any more.
pub(crate) fn end_machines() {
    let Ok(machines) = MACHINES.lock() else { return };
    for pid in machines.iter().filter_map(|m| i32::try_from(*m).ok().and_then(Pid::from_raw)) {
        let _ = kill_process(pid, Signal::KILL);
    }
}
