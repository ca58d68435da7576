//! Is this boot healthy?
//!
//! The criteria are about what the release can break. A data partition that is damaged is no reason to go back to the
//! other slot, which would find the same damage.

use os_dbus::Bus;
use os_init::report::{self, Report, Volume};
use std::path::Path;
use std::time::{Duration, Instant};

/// Units without which the device is not what was installed.
const REQUIRED_UNITS: &[&str] = &["dbus.service", "NetworkManager.service", "docker.service"];

/// How often to look while waiting.
const INTERVAL: Duration = Duration::from_secs(1);

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
}

/// What keeps this boot from being healthy; empty when it is.
pub fn reasons(seen: &Observation) -> Vec<String> {
    let mut out = Vec::new();
    for unit in REQUIRED_UNITS {
        if *unit == "docker.service" && !seen.data {
            continue;
        }
        if seen.failed.iter().any(|f| f == unit) {
            out.push(format!("{unit} failed"));
        } else if !seen.active.iter().any(|a| a == unit) {
            out.push(format!("{unit} does not run"));
        }
    }
    if seen.data && !seen.engine {
        out.push("the container engine does not answer".to_owned());
    }
    out
}

/// Waits until the boot is healthy.
///
/// # Errors
/// What was still missing at the end of `limit`.
pub async fn wait(bus: &Bus, limit: Duration) -> Result<(), Vec<String>> {
    let start = Instant::now();
    loop {
        let missing = match observe(bus).await {
            Ok(seen) => reasons(&seen),
            Err(err) => vec![err.to_string()],
        };
        if missing.is_empty() {
            return Ok(());
        }
        if start.elapsed() >= limit {
            return Err(missing);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn observe(bus: &Bus) -> Result<Observation, os_dbus::BusError> {
    use os_dbus::Tried;
    let systemd = bus.systemd().await?;
    let units = systemd.list_units_filtered(&["failed", "active"]).await.tried("cannot list units")?;
    let named = |state: &str| units.iter().filter(|u| u.3 == state).map(|u| u.0.clone()).collect::<Vec<_>>();
    let active = named("active");
    // Asking a stopped engine would start it through its socket.
    let engine = active.iter().any(|u| u == "docker.service")
        && os_apps::engine::version(Duration::from_secs(10)).await.is_some();
    let data = Report::load(Path::new(report::PATH)).is_none_or(|r| r.data != Volume::Unusable);
    Ok(Observation { failed: named("failed"), active, engine, data })
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
        }
    }

    #[test]
    fn a_working_device_is_healthy() {
        assert!(reasons(&healthy()).is_empty());
        let mut app = healthy();
        app.failed.push("vendor-app.service".to_owned());
        assert!(reasons(&app).is_empty(), "an app is no reason to go back");
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
            engine: false,
            data: false,
            active: vec!["dbus.service".into(), "NetworkManager.service".into()],
            failed: vec![],
        };
        assert!(reasons(&seen).is_empty());
    }
}
