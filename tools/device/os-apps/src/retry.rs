//! Containers that could not be started when the engine came up.
//!
//! The engine starts before the drivers of most devices are loaded and before there is a network. It tries a container with
//! a restart policy once; where that fails (a serial adapter in `--device` that is not there yet, an address to publish a
//! port on, the parent interface of a macvlan network) it says why in the container's state and never tries again: the
//! policy is for containers that end. So they are tried again here: for three minutes after the engine has started, then when
//! `os-retry.timer` elapses, up to a day, and when a device is plugged in. In between nothing runs.

use crate::{engine, meant};
use anyhow::{Context, Result};
use os_dbus::{Bus, Verb};
use os_sys::{files, log};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Pauses before each look, in seconds: three minutes in all. A modem on USB takes up to one until it shows.
const PAUSES: &[u64] = &[0, 2, 3, 5, 5, 10, 10, 15, 20, 20, 30, 30, 30];
/// So many of them for a later look.
const LATER: usize = 3;
/// Active while there is something to try again later.
const TIMER: &str = "os-retry.timer";
/// There while a container cannot be started; a rule of udev looks at it.
const FAILING: &str = "/run/os/retry";

/// Tries until none is left, or the time is over.
///
/// # Errors
/// When systemd cannot be asked.
pub async fn run() -> Result<ExitCode> {
    let bus = Bus::system().await?;
    let later = bus.is_active(TIMER).await?;
    let mut failing = Ok(Vec::new());
    for pause in PAUSES.iter().take(if later { LATER } else { PAUSES.len() }) {
        tokio::time::sleep(Duration::from_secs(*pause)).await;
        // The engine may be restarted meanwhile: the next look asks the new one.
        failing = try_again().await;
        if failing.as_ref().is_ok_and(Vec::is_empty) {
            break;
        }
    }
    let failing = match failing {
        Ok(failing) => failing,
        Err(err) => {
            log::warn(&format!("{err:#}"));
            return Ok(ExitCode::SUCCESS);
        }
    };
    if failing.is_empty() {
        files::remove_if_there(Path::new(FAILING))?;
        if later {
            bus.queue(Verb::Stop, TIMER).await?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    files::write_if_changed(Path::new(FAILING), b"", 0o644)?;
    if !later {
        bus.queue(Verb::Start, TIMER).await?;
        // The owner's to mend; a container that cannot run is no failed unit of the system. os status has it from now on.
        failing.iter().for_each(|line| log::warn(line));
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts what should run and could not be started; returns what still cannot.
async fn try_again() -> Result<Vec<String>> {
    let docker = engine::connect().await.context("cannot reach the container engine")?;
    let mut failing = Vec::new();
    let containers = engine::inspected(&docker).await.context("cannot ask the engine for its containers")?;
    for container in containers.iter().filter(|container| meant::start_failed(container)) {
        let Some(name) = meant::name(container).or_else(|| container.id.clone()) else { continue };
        match docker.start_container(&name, None).await {
            Ok(()) => log::info(&format!("container {name} is started; what it needs came after the engine")),
            Err(err) => failing.push(format!("container {name} cannot be started: {err}")),
        }
    }
    Ok(failing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_minutes_are_enough() {
        assert_eq!(PAUSES.iter().sum::<u64>(), 180);
        assert!(PAUSES.iter().take(LATER).sum::<u64>() <= 5);
    }

    #[test]
    fn the_timer_and_the_rule_are_ours() {
        let timer = include_str!("../dist/os-retry.timer");
        assert!(timer.contains("RemainAfterElapse=no") && timer.matches("OnActiveSec=").count() > 3);
        assert!(include_str!("../dist/67-os-retry.rules").contains(&format!("TEST==\"{FAILING}\"")));
    }
}
