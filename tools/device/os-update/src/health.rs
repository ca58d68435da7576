//! Is this boot healthy?
//!
//! The criteria are about what the release can break. A data partition that is damaged is no reason to go back to the
//! other slot, which would find the same damage. After an update, what the device did before is asked for too: its
//! network, and the containers that ran.

use crate::policy::{objects, programs};
use crate::state::{Phase, Store};
use os_dbus::{Bus, Tried};
use os_facts::report::{Report, Volume};
use os_sys::{files, log};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{Duration, Instant};

/// Units without which the device is not what was installed.
const REQUIRED_UNITS: &[&str] = &["dbus.service", "NetworkManager.service", ENGINE];

/// The engine's unit.
const ENGINE: &str = "docker.service";

/// Programs of an image, and of a device, that end with 0 when what they look after works.
const SCRIPTS: &[&str] = &["/usr/lib/os/health.d", "/mnt/state/os/health.d"];

/// How often to look while waiting.
const INTERVAL: Duration = Duration::from_secs(1);

/// NetworkManager's states from here on mean that a network is there (`NM_STATE_CONNECTED_LOCAL`).
const CONNECTED: u32 = 50;

/// How long the engine is waited for outside a trial.
const ENGINE_PATIENCE: Duration = Duration::from_secs(120);

/// How long a boot may take, unless the release says so itself with the kernel argument `os.health=SECONDS`.
const DEFAULT_LIMIT: u64 = 240;

/// What the health check of this boot still waits for, for `os status`; in RAM.
pub const WAITS: &str = "/run/os/health.json";

/// The content of [`WAITS`].
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waits {
    /// A line each; empty when it passed.
    pub waits_for: Vec<String>,
}

impl Waits {
    /// What was said last; nothing when no check has begun.
    pub fn load() -> Self {
        let read = std::fs::read(WAITS).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        read.unwrap_or_default()
    }

    /// Says it, where it is not what was said before.
    fn say(&mut self, missing: &[String]) {
        if self.waits_for == missing {
            return;
        }
        self.waits_for = missing.to_vec();
        log::info(&match missing {
            [] => "healthy".to_owned(),
            some => format!("not healthy yet: {}", some.join("; ")),
        });
        let text = serde_json::to_vec(self).unwrap_or_default();
        if let Err(err) = files::write_if_changed(Path::new(WAITS), &text, 0o644) {
            log::warn(&format!("{err}; os status does not say what is waited for"));
        }
    }
}

/// What a device did before an update.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// It had a network.
    pub network: bool,
    /// Its data partition was usable; older releases did not say.
    #[serde(default)]
    pub data: bool,
    /// Names of the containers that ran and are meant to after a restart.
    pub containers: Vec<String>,
}

/// What was seen in one look.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Units in state failed.
    pub failed: Vec<String>,
    /// Required units that are active.
    pub active: Vec<String>,
    /// The engine answers.
    pub engine: bool,
    /// The data partition is usable.
    pub data: bool,
    /// A network is there.
    pub network: bool,
    /// Containers that run.
    pub containers: Vec<String>,
}

/// What keeps this boot from being healthy; empty when it is. `engine`: the engine counts.
///
/// Outside a trial it does not, once it had its time: what keeps it down then, a full disk above all, is no fault of the
/// release, and the other slot would find the same. A start that is not confirmed for it would use up the tries of both.
pub fn reasons(seen: &Observation, before: &Before, engine: bool) -> Vec<String> {
    let mut out = Vec::new();
    for unit in REQUIRED_UNITS {
        if *unit == ENGINE && !(seen.data && engine) {
            continue;
        }
        if seen.failed.iter().any(|f| f == unit) {
            out.push(format!("{unit} failed"));
        } else if !seen.active.iter().any(|a| a == unit) {
            out.push(format!("{unit} does not run"));
        }
    }
    if seen.data && engine && !seen.engine {
        out.push("the container engine does not answer".to_owned());
    }
    if before.data && !seen.data {
        out.push("the data partition cannot be used, and could before the update".to_owned());
    }
    if before.network && !seen.network {
        out.push("there is no network, and there was one before the update".to_owned());
    }
    let missing = before.containers.iter().filter(|name| seen.engine && !seen.containers.contains(name));
    out.extend(missing.map(|name| format!("container {name} does not run, and ran before the update")));
    out
}

/// The time limit of this boot.
pub fn limit(cmdline: &str) -> Duration {
    let given = cmdline.split_ascii_whitespace().find_map(|word| word.strip_prefix("os.health=")?.parse().ok());
    Duration::from_secs(given.unwrap_or(DEFAULT_LIMIT))
}

/// What the device does now.
///
/// # Errors
/// When the bus does not answer.
pub async fn now(bus: &Bus) -> Result<Before, os_dbus::BusError> {
    let seen = observe(bus).await?;
    Ok(Before { network: seen.network, data: seen.data, containers: seen.containers })
}

/// Waits until the boot is healthy.
///
/// # Errors
/// What was still missing at the end of `limit`.
pub async fn wait(limit: Duration) -> Result<(), Vec<String>> {
    let state = Store::device().load();
    let trial = matches!(state.phase, Phase::Trial { .. });
    // Of another boot, where there is no trial.
    let before = state.before.filter(|_| trial).unwrap_or_default();
    let start = Instant::now();
    let (mut connected, mut waits, mut passed_over) = (None, Waits::default(), false);
    loop {
        // A bus that does not work is what a release may have broken; one that was restarted is another connection.
        let seen = match connected.take() {
            Some(bus) => Ok(bus),
            None => Bus::system().await,
        };
        let seen = match seen {
            Ok(bus) => observe(&bus).await.inspect(|_| connected = Some(bus)),
            Err(err) => Err(err),
        };
        let mut missing = match seen {
            Ok(seen) => {
                let engine = trial || start.elapsed() < ENGINE_PATIENCE.min(limit / 2);
                passed_over = !engine && seen.data && !seen.engine;
                reasons(&seen, &before, engine)
            }
            Err(err) => vec![err.to_string()],
        };
        if missing.is_empty() {
            missing = SCRIPTS.iter().flat_map(|dir| failing(Path::new(dir), limit)).collect();
        }
        waits.say(&missing);
        if missing.is_empty() {
            if passed_over {
                log::error("the engine does not work; this start counts all the same, see journalctl -u docker");
            }
            return Ok(());
        }
        if start.elapsed() >= limit {
            return Err(missing);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// What the programs of a directory say against this boot.
fn failing(dir: &Path, limit: Duration) -> Vec<String> {
    let name = |program: &Path| program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let said = |program: &Path| Some(format!("{}: {}", name(program), objects(program, limit.as_secs())?));
    programs(dir).iter().filter_map(|program| said(program)).collect()
}

async fn observe(bus: &Bus) -> Result<Observation, os_dbus::BusError> {
    let systemd = bus.systemd().await?;
    let units = systemd.list_units_filtered(&["failed", "active"]).await.tried("cannot list units")?;
    let named = |state: &str| units.iter().filter(|u| u.3 == state).map(|u| u.0.clone()).collect::<Vec<_>>();
    let mut active = named("active");
    // A name may lead to another unit, as dbus.service does to dbus-broker.service, and the list has that one's.
    for unit in REQUIRED_UNITS {
        if !active.iter().any(|found| found == unit) && bus.is_active(unit).await? {
            active.push((*unit).to_owned());
        }
    }
    // Asking a stopped engine would start it through its socket.
    let engine =
        active.iter().any(|u| u == ENGINE) && os_apps::engine::version(Duration::from_secs(10)).await.is_some();
    let mut containers = Vec::new();
    if engine && let Ok(docker) = os_apps::engine::connect().await {
        containers = os_apps::engine::meant_to_run(&docker).await.unwrap_or_default();
        containers.sort();
    }
    let network = match bus.network_manager().await? {
        Some(manager) => manager.state().await.is_ok_and(|state| state >= CONNECTED),
        None => false,
    };
    let data = Report::of_this_boot().is_none_or(|r| r.data != Volume::Unusable);
    Ok(Observation { failed: named("failed"), active, engine, data, network, containers })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Observation {
        Observation {
            failed: vec![],
            active: REQUIRED_UNITS.iter().map(|u| (*u).to_owned()).collect(),
            engine: true,
            data: true,
            network: true,
            containers: vec!["web".to_owned()],
        }
    }

    fn reasons(seen: &Observation) -> Vec<String> {
        super::reasons(seen, &Before::default(), true)
    }

    #[test]
    fn what_was_there_before_an_update_has_to_be_there_after_it() {
        let before = Before { network: true, data: true, containers: vec!["web".to_owned()] };
        assert!(super::reasons(&healthy(), &before, true).is_empty());
        let seen = Observation { network: false, containers: vec![], ..healthy() };
        let said = super::reasons(&seen, &before, true);
        assert!(said.len() == 2 && said[0].contains("network") && said[1].contains("web"), "{said:?}");
        // Nothing was there: nothing is missed.
        assert!(reasons(&seen).is_empty());
        let lost = Observation { data: false, engine: false, containers: vec![], ..healthy() };
        let said = super::reasons(&lost, &before, true);
        assert!(said.len() == 1 && said[0].contains("data partition"), "{said:?}");
    }

    #[test]
    fn the_release_says_how_long_it_may_take() {
        assert_eq!(limit("quiet os.health=30 x"), Duration::from_secs(30));
        assert_eq!(limit("quiet os.health=soon"), Duration::from_secs(240));
    }

    #[test]
    fn a_program_that_fails_is_heard() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("door");
        std::fs::write(&path, "#!/bin/sh\necho the door is open >&2; exit 1\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(failing(dir.path(), Duration::from_secs(5)), ["door: exit status: 1: the door is open"]);
        std::fs::write(&path, "#!/bin/sh\nsleep 9\n").unwrap();
        assert_eq!(failing(dir.path(), Duration::from_secs(1)), ["door: no answer in 1 seconds"]);
    }

    #[test]
    fn a_working_device_is_healthy() {
        assert!(reasons(&healthy()).is_empty());
        let mut app = healthy();
        app.failed.push("vendor-app.service".to_owned());
        assert!(reasons(&app).is_empty(), "an app is no reason to go back");
    }

    #[test]
    fn outside_a_trial_a_dead_engine_costs_no_slot_a_try() {
        let mut seen = healthy();
        seen.engine = false;
        seen.active.retain(|unit| unit != ENGINE);
        seen.failed.push(ENGINE.to_owned());
        assert_eq!(reasons(&seen).len(), 2);
        assert!(super::reasons(&seen, &Before::default(), false).is_empty());
    }

    #[test]
    fn a_dead_engine_or_network_is_not() {
        let mut seen = healthy();
        seen.engine = false;
        seen.active.retain(|u| u != "NetworkManager.service");
        seen.failed.push("NetworkManager.service".to_owned());
        assert_eq!(reasons(&seen), ["NetworkManager.service failed", "the container engine does not answer"]);
    }

    #[test]
    fn damaged_data_is_not_the_releases_fault() {
        let seen = Observation {
            data: false,
            active: vec!["dbus.service".into(), "NetworkManager.service".into()],
            ..Observation::default()
        };
        assert!(reasons(&seen).is_empty());
    }
}
