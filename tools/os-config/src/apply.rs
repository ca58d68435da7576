//! Brings a decision into force, doing only what changed.
//!
//! This runs at boot before most services, so it never waits for a unit that is ordered after it: such jobs are queued.

use crate::decide::Decision;
use crate::model::Config;
use crate::status::{Outcome, Row, Status};
use crate::{CONFIG, LAST_GOOD, MAX_SIZE, STATUS, connections, decide};
use anyhow::{Result, anyhow};
use os_dbus::{Bus, Tried, Verb};
use os_sys::cmd::Cmd;
use os_sys::files::{self, ReadError, Written};
use std::path::Path;

/// Where sshd reads the keys (sshd_config.d/10-os.conf).
const AUTHORIZED_KEYS: &str = "/run/os/ssh/authorized_keys";
const TIMESYNCD: &str = "/run/systemd/timesyncd.conf.d/50-os-config.conf";
const JOURNALD: &str = "/run/systemd/journald.conf.d/50-os-config.conf";
const DEVELOPMENT_TARGET: &str = "os-development.target";
/// Present while development mode is on; units of the mode check it, so that none of them can start without it.
const DEVELOPMENT_FLAG: &str = "/run/os/development-mode";

/// Reads the file, decides, applies, and writes the status.
///
/// # Errors
/// When there is no system bus or the status cannot be written; a key that fails is in the status.
pub async fn run() -> Result<Status> {
    let file = match files::read_limited(Path::new(CONFIG), MAX_SIZE) {
        Ok(bytes) => Ok(bytes),
        Err(ReadError::File(err)) if err.is_not_found() => {
            Err("the file is missing; put one with at least {} there".to_owned())
        }
        Err(err) => Err(err.to_string()),
    };
    let last_good = files::read_limited(Path::new(LAST_GOOD), MAX_SIZE).ok();
    let decision = decide::decide(file.as_deref().map_err(Clone::clone), last_good.as_deref());
    if let (true, Ok(bytes)) = (decision.keep, &file) {
        files::write_if_changed(Path::new(LAST_GOOD), bytes, 0o600)?;
    }
    let bus = Bus::system().await?;
    let keys = keys(&bus, &decision.config).await;
    let Decision { source, problems, unknown, .. } = decision;
    let status = Status { version: 1, source, problems, unknown, keys };
    files::write_if_changed(Path::new(STATUS), &serde_json::to_vec_pretty(&status)?, 0o644)?;
    Ok(status)
}

async fn keys(bus: &Bus, config: &Config) -> Vec<Row> {
    let hostname = os_hostname::apply(bus, config.hostname.as_ref()).await.map_err(Into::into);
    let logging = persistent_logging(bus, config.persistent_logging == Some(true)).await;
    let development = development_mode(bus, config.development_mode.unwrap_or_else(default_development)).await;
    vec![
        row("/hostname", config.hostname.is_some(), hostname),
        row("/persistentLogging", config.persistent_logging.is_some(), logging),
        row("/developmentMode", config.development_mode.is_some(), development),
        row("/ntpServers", config.ntp_servers.is_some(), ntp_servers(bus, config).await),
        row("/os/sshKeys", config.ssh_keys.is_some(), ssh_keys(config)),
        network_profiles(bus).await,
    ]
}

fn row(key: &str, set: bool, result: Result<Written>) -> Row {
    let (outcome, reason) = match result {
        Ok(Written::Changed) => (Outcome::Applied, None),
        Ok(Written::Unchanged) => (Outcome::Unchanged, None),
        Err(err) => (Outcome::Failed, Some(format!("{err:#}"))),
    };
    Row { key: key.to_owned(), set, outcome, reason }
}

fn write(path: &str, content: Option<&str>) -> Result<Written> {
    let path = Path::new(path);
    Ok(match content {
        Some(text) => files::write_if_changed(path, text.as_bytes(), 0o644)?,
        None => files::remove_if_there(path)?,
    })
}

/// `VARIANT_ID` of os-release(5) decides: every variant but production is for developers.
fn default_development() -> bool {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    release.lines().any(|l| matches!(l, "VARIANT_ID=development" | "VARIANT_ID=standalone"))
}

async fn persistent_logging(bus: &Bus, on: bool) -> Result<Written> {
    if on && !files::is_mount_point("/var/log/journal") {
        return Err(anyhow!("the data partition is not mounted; the journal stays in RAM"));
    }
    let content = on.then_some("[Journal]\nStorage=persistent\nSystemMaxUse=256M\n");
    let written = write(JOURNALD, content)?;
    if written == Written::Changed {
        let done = switch_journal(bus, on).await;
        if done.is_err() && on {
            // What is not in force must not look as if it were: the next application tries again.
            write(JOURNALD, None)?;
        }
        done?;
    }
    Ok(written)
}

async fn switch_journal(bus: &Bus, on: bool) -> Result<()> {
    if !on {
        // journald lets go of the files before its new configuration forgets them.
        Cmd::new("journalctl").arg("--relinquish-var").run()?;
    }
    bus.unit_job(Verb::TryRestart, "systemd-journald.service").await?;
    if on {
        Cmd::new("journalctl").arg("--flush").run()?;
    }
    Ok(())
}

async fn development_mode(bus: &Bus, on: bool) -> Result<Written> {
    let written = write(DEVELOPMENT_FLAG, on.then_some(""))?;
    if written == Written::Changed {
        let verb = if on { Verb::Start } else { Verb::Stop };
        bus.queue(verb, DEVELOPMENT_TARGET).await?;
    }
    Ok(written)
}

async fn ntp_servers(bus: &Bus, config: &Config) -> Result<Written> {
    let servers = config.ntp_servers.as_ref().map(|s| s.as_slice().join(" ")).filter(|s| !s.is_empty());
    let content = servers.map(|s| format!("[Time]\nNTP={s}\n"));
    let written = write(TIMESYNCD, content.as_deref())?;
    if written == Written::Changed {
        bus.queue(Verb::TryRestart, "systemd-timesyncd.service").await?;
    }
    Ok(written)
}

fn ssh_keys(config: &Config) -> Result<Written> {
    let lines: String = config.ssh_keys.iter().flatten().map(|key| format!("{}\n", key.as_str())).collect();
    Ok(files::write_if_changed(Path::new(AUTHORIZED_KEYS), lines.as_bytes(), 0o600)?)
}

async fn network_profiles(bus: &Bus) -> Row {
    let import = connections::import(
        Path::new("/mnt/boot/system-connections"),
        Path::new("/etc/NetworkManager/system-connections"),
        Path::new("/mnt/state/os/config/imported-connections"),
    );
    let key = "system-connections/";
    let import = match import {
        Ok(import) => import,
        Err(err) => return row(key, true, Err(err.into())),
    };
    let reload = async {
        if import.changed
            && let Some(settings) = bus.network_settings().await?
        {
            settings.reload_connections().await.tried("NetworkManager cannot reload its profiles")?;
        }
        if !import.refused.is_empty() {
            return Err(anyhow!("left out {}", import.refused.join("; ")));
        }
        Ok(if import.changed { Written::Changed } else { Written::Unchanged })
    };
    row(key, import.any, reload.await)
}
