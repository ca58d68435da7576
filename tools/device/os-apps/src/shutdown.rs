//! The end of containers when the device shuts down.
//!
//! Containers live on while the engine is restarted (`live-restore`), and an engine that is set so stops none, not even when
//! the device goes: systemd would end their processes last of all, without the signal that the image asks for, the time
//! that it was given, and a log that still takes its last words. So the engine is told, before it stops, that this time
//! is the last: with `live-restore` off it stops them itself, and starts those again at its next start that ran. The setting
//! can be reloaded. `/etc` is in memory: the next boot has it as the image has it.

use crate::engine;
use anyhow::{Context, Result, ensure};
use os_config_model::engine::{DAEMON, daemon_in_force, write_daemon};
use os_sys::cmd::{Cmd, CmdError};
use serde_json::Value;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long the engine may take to reload its settings.
const PATIENCE: Duration = Duration::from_secs(15);

/// Called by systemd before it stops the engine.
///
/// # Errors
/// When the engine cannot be told.
pub async fn run() -> Result<ExitCode> {
    if !is_leaving()? {
        return Ok(ExitCode::SUCCESS);
    }
    let etc = Path::new("/etc");
    let settings = daemon_in_force(etc).with_context(|| format!("/etc/{DAEMON} cannot be read, or is no JSON"))?;
    write_daemon(etc, &last_time(settings)?)?;
    let process = std::env::var("MAINPID").context("systemd did not say which process the engine is")?;
    Cmd::new("kill").args(["-HUP", &process]).run()?;
    let docker = engine::connect().await.context("cannot reach the container engine")?;
    let start = Instant::now();
    while docker.info().await.context("the engine does not say how it is set")?.live_restore_enabled != Some(false) {
        ensure!(start.elapsed() < PATIENCE, "the engine does not take over /etc/{DAEMON}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(ExitCode::SUCCESS)
}

/// True when the device shuts down, restarts, or jumps into another kernel. (systemctl has its own socket to systemd: the bus
/// may be gone.)
fn is_leaving() -> Result<bool, CmdError> {
    let jobs = Cmd::new("systemctl").args(["list-jobs", "--no-legend", "--plain", "shutdown.target"]).read()?;
    Ok(jobs.contains("shutdown.target"))
}

/// The engine's settings, with containers that end with it.
fn last_time(mut settings: Value) -> Result<Value> {
    let object = settings.as_object_mut().context("the engine's settings are no object")?;
    object.insert("live-restore".to_owned(), false.into());
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn containers_end_with_the_engine_and_the_rest_stays() {
        let before = json!({"data-root": "/d", "live-restore": true, "log-opts": {"tag": "x"}});
        let settings = last_time(before).unwrap();
        assert_eq!(settings, json!({"data-root": "/d", "live-restore": false, "log-opts": {"tag": "x"}}));
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("docker")).unwrap();
        std::fs::write(dir.path().join(DAEMON), "{").unwrap();
        assert!(last_time(json!([])).is_err() && daemon_in_force(dir.path()).is_none());
    }
}
