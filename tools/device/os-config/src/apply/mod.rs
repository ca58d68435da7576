//! Brings a decision into force, doing only what changed.
//!
//! This runs at boot before most services, so it never waits for a unit that is ordered after it: such jobs are queued.
//! Where a service has an interface on D-Bus it is used; else a file is written where the service looks for it. `/etc` is
//! the image's at every boot (an overlay in RAM), so nothing written there outlives the configuration that asked for it.

mod boot;
mod docker;
mod effect;
mod links;
mod network;
mod proxy;
mod services;
mod sysctl;
mod system;
mod trust;

use crate::lock::Lock;
use crate::status::{Outcome, Row, Status};
use crate::{STATUS, import};
use anyhow::{Context, Result};
use effect::{Applied, Effect};
use os_config_model::decide::{self, Decision};
use os_config_model::keys::KEYS;
use os_config_model::store::Store;
use os_config_model::types::Config;
use os_config_model::{json, seal};
use os_dbus::Bus;
use os_sys::files;
use std::path::Path;

/// Read by those whom they are for, when they need them.
const READ_WHEN_NEEDED: [&str; 7] = [
    "/os/import/signedOnly",
    "/os/update/channel",
    "/os/update/mode",
    "/os/update/window",
    "/os/update/metered",
    "/os/update/rateLimit",
    "/os/update/trial",
];

/// A file that never comes to rest is left to the next change.
const MAX_ROUNDS: usize = 5;

/// What an applier works with.
struct Device<'a> {
    bus: &'a Bus,
    config: &'a Config,
    store: &'a Store,
}

/// Reads the file, decides, applies, and writes the status.
///
/// # Errors
/// When there is no system bus or the status cannot be written; a key that fails is in the status.
pub async fn run(lock: &Lock) -> Result<Status> {
    let store = Store::device();
    let bus = Bus::system().await?;
    let imported = import::from_boot_partition(&store);
    if files::is_mount_point(os_facts::place::BOOT) {
        store.make_directories();
        publish_schema(&store);
    }
    // systemd does not watch while this runs: what changes meanwhile is seen here.
    let mut status = None;
    // While a slow board boots, a service may take longer to start than the bus waits for it; a moment later it does not.
    let mut again = true;
    for _ in 0..MAX_ROUNDS {
        let before = store.fingerprint();
        let new = apply(&bus, &store, lock).await?;
        let failed = new.has_failed();
        status = Some(new.after(status));
        if store.fingerprint() == before && !(failed && std::mem::take(&mut again)) {
            break;
        }
    }
    let status = status.context("nothing was applied")?;
    files::write_if_changed(Path::new(STATUS), &serde_json::to_vec_pretty(&status)?, 0o644)?;
    if let Some(report) = imported {
        report.leave_on_boot_partition(&store)?;
    }
    Ok(status)
}

/// The schema lies beside the file, so that an editor on any PC checks while a person types.
fn publish_schema(store: &Store) {
    let written = os_config_model::model::schema()
        .map_err(anyhow::Error::from)
        .and_then(|schema| Ok(serde_json::to_vec(&schema)?))
        .and_then(|text| Ok(files::write_if_changed(&store.boot().join("config.schema.json"), &text, 0o644)?));
    if let Err(err) = written {
        os_sys::log::warn(&format!("{err:#}"));
    }
}

async fn apply(bus: &Bus, store: &Store, lock: &Lock) -> Result<Status> {
    let (decision, file) = decide::from_store(store);
    if let Ok(bytes) = &file {
        // A read-only or missing boot partition must not keep the configuration from being applied.
        if let Err(err) = store.mend(bytes) {
            os_sys::log::warn(&err.to_string());
        }
        if decision.keep {
            store.keep(bytes)?;
        }
    }
    let device = Device { bus, config: &decision.accepted.config, store };
    let warnings = decision.accepted.warnings.iter().map(ToString::to_string).collect();
    let mut rows = Rows { set: decision.accepted.set.clone(), rows: Vec::new(), warnings, notes: Vec::new() };
    system::identity(&device, &mut rows).await;
    system::time(&device, &mut rows).await;
    system::kernel(&device, &mut rows).await;
    sysctl::all(&device, &mut rows).await;
    system::memory(&device, &mut rows).await;
    network::all(&device, &mut rows).await;
    trust::all(&device, &mut rows).await;
    docker::all(&device, &mut rows).await;
    services::all(&device, &mut rows).await;
    boot::all(&device, &mut rows).await;
    rows.add_all(&READ_WHEN_NEEDED, Ok(Effect::Unchanged));
    rows.add(
        "/os/sealSecrets",
        match &file {
            Ok(_) if device.config.os.seal_secrets == Some(true) && decision.problems.is_empty() => {
                seal_now(store, lock).map(|moved| if moved > 0 { Effect::Changed } else { Effect::Unchanged })
            }
            _ => Ok(Effect::Unchanged),
        },
    );
    rows.complete();
    let Decision { accepted, source, problems, .. } = decision;
    let Rows { rows: keys, warnings, mut notes, .. } = rows;
    let without_effect = accepted.without_effect.iter().map(|(key, why)| format!("{key}: no effect; {why}")).collect();
    let kept = store.ssh_keys().filter(|keys| accepted.config.os.ssh_keys.is_none() && !keys.is_empty());
    notes.extend(kept.map(|keys| {
        format!("os.sshKeys: not set; the {} that were set last stay in force (os config set os.sshKeys [] takes them away)", keys.len())
    }));
    Ok(Status { version: 1, source, problems, unknown: accepted.unknown, without_effect, warnings, notes, keys })
}

/// Moves the secrets of the file into state.
///
/// # Errors
/// When the file is no JSON, or something cannot be written. The secrets are in state before they leave the file.
pub fn seal_now(store: &Store, _lock: &Lock) -> Result<usize> {
    let bytes = store.read().map_err(anyhow::Error::msg)?;
    let mut root = json::read(&bytes).map_err(anyhow::Error::msg)?;
    let mut secrets = store.secrets();
    let moved = seal::seal(&mut root, &mut secrets)?;
    if moved > 0 {
        let text = os_config_model::edit::to_text(&root);
        store.write_secrets(&secrets, &[&text, &bytes])?;
        store.write(&text)?;
        store.keep(&text)?;
    }
    Ok(moved)
}

/// The result, key by key.
struct Rows {
    set: Vec<&'static str>,
    rows: Vec<Row>,
    /// What is in force, and may not do what its owner expects.
    warnings: Vec<String>,
    /// What else a person should know.
    notes: Vec<String>,
}

impl Rows {
    fn add(&mut self, key: &str, result: Applied) {
        self.add_as(key, self.set.contains(&key), result);
    }

    /// For what is no key of the file.
    fn add_as(&mut self, key: &str, set: bool, result: Applied) {
        let (outcome, reason) = match result {
            Ok(Effect::Changed) => (Outcome::Applied, None),
            Ok(Effect::Unchanged) => (Outcome::Unchanged, None),
            Ok(Effect::AtBoot) => (Outcome::Pending, None),
            Err(err) => (Outcome::Failed, Some(format!("{err:#}"))),
        };
        self.rows.push(Row { key: key.to_owned(), set, outcome, reason });
    }

    /// For keys that are brought into force together.
    fn add_all(&mut self, keys: &[&str], result: Applied) {
        for key in keys {
            let copy = match &result {
                Ok(effect) => Ok(*effect),
                Err(err) => Err(anyhow::anyhow!("{err:#}")),
            };
            self.add(key, copy);
        }
    }

    /// A key that nobody spoke of is not in force, and must not look as if it were.
    fn complete(&mut self) {
        for key in KEYS.iter().map(|key| key.pointer) {
            if !self.rows.iter().any(|row| row.key == key) {
                self.add(key, Err(anyhow::anyhow!("nothing in this release brings it into force; please report it")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The appliers ask services, which no unit test has; that each key has one can be seen without.
    #[test]
    fn every_key_has_an_applier() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/apply");
        let mut code = String::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            code.push_str(text.split("#[cfg(test)]").next().unwrap());
        }
        for key in KEYS.iter().map(|key| key.pointer) {
            assert!(code.contains(&format!("\"{key}\"")), "{key} is brought into force nowhere in src/apply/");
        }
    }

    #[test]
    fn a_key_that_was_passed_over_has_failed() {
        let mut rows = Rows { set: vec!["/hostname"], rows: Vec::new(), warnings: Vec::new(), notes: Vec::new() };
        rows.add_all(&READ_WHEN_NEEDED, Ok(Effect::Unchanged));
        rows.complete();
        assert_eq!(rows.rows.len(), KEYS.len());
        let failed = rows.rows.iter().filter(|row| row.outcome == Outcome::Failed).count();
        assert_eq!(failed, KEYS.len() - READ_WHEN_NEEDED.len());
        assert!(rows.rows.iter().any(|row| row.key == "/hostname" && row.set && row.reason.is_some()));
    }
}
