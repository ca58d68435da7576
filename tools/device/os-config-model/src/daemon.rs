//! `os.docker.daemon`: settings that only the engine understands. What of them the system relies on is refused; the rest is the
//! engine's to check, by starting with it.

use anyhow::Result;
use os_sys::files;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Where it is kept what the engine has run with.
pub const PROVED: &str = "/mnt/state/os/engine-proved.json";
/// Which release that was.
pub const RELEASE: &str = "/usr/lib/os-release";
/// A record that is larger is none of ours, in bytes.
const MAX_RECORD: u64 = 64 << 10;

const PLACES: &str = "the image says where the engine keeps things";
const LISTENS: &str = "docker.socket is what listens; the key for the network is developmentMode";
const CONTAINERD: &str = "docker.service says which containerd the engine uses";
const OUT_OF_SIGHT: &str = "images and containers that are there would be out of sight";
const BRIDGE: &str = "the key for it is os.docker.bridge";
const PROXY: &str = "the key for it is os.network.proxy";

/// Options that are refused, each with the reason.
pub const FIXED: &[(&str, &str)] = &[
    ("data-root", PLACES),
    ("graph", PLACES),
    ("exec-root", PLACES),
    ("pidfile", PLACES),
    ("hosts", LISTENS),
    ("tls", LISTENS),
    ("tlsverify", LISTENS),
    ("tlscacert", LISTENS),
    ("tlscert", LISTENS),
    ("tlskey", LISTENS),
    ("containerd", CONTAINERD),
    ("containerd-namespace", CONTAINERD),
    ("containerd-plugin-namespace", CONTAINERD),
    ("storage-driver", OUT_OF_SIGHT),
    ("storage-opts", OUT_OF_SIGHT),
    ("userns-remap", OUT_OF_SIGHT),
    ("live-restore", "containers have to outlive the restart of the engine that a change of config.json may cause"),
    ("authorization-plugins", "the system asks the engine too; a plugin that does not answer would keep it out"),
    ("bridge", BRIDGE),
    ("bip", BRIDGE),
    ("proxies", PROXY),
    ("http-proxy", PROXY),
    ("https-proxy", PROXY),
    ("no-proxy", PROXY),
];

/// Options that are a key too, which decides alone when it is set.
const KEYS: &[(&str, &str)] = &[("default-address-pools", "addressPools"), ("log-driver", "log"), ("log-opts", "log")];

/// What of `os.docker.daemon` is refused, each with the reason; `docker` is all of `os.docker`.
pub fn refused(docker: &Map<String, Value>) -> Vec<(String, String)> {
    let Some(daemon) = docker.get("daemon").and_then(Value::as_object) else { return Vec::new() };
    let why = |(option, value): (&String, &Value)| {
        if value.is_null() {
            return None;
        }
        if let Some((_, why)) = FIXED.iter().find(|(fixed, _)| fixed == option) {
            return Some((option.clone(), format!("is refused: {why}")));
        }
        if option == "features" && value.get("containerd-snapshotter").is_some() {
            return Some((option.clone(), format!("is refused with containerd-snapshotter: {OUT_OF_SIGHT}")));
        }
        let (_, key) = KEYS.iter().find(|(name, _)| name == option)?;
        docker.contains_key(*key).then(|| (option.clone(), format!("is set by os.docker.{key} too; leave one out")))
    };
    daemon.iter().filter_map(why).collect()
}

/// What the engine of which release has run with. It is believed at boot, before anything could be tried; an engine of another
/// release may not take it.
#[derive(Debug, Clone)]
pub struct Proved {
    /// The record.
    pub record: PathBuf,
    /// os-release(5).
    pub release: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    release: String,
    daemon: Map<String, Value>,
}

impl Proved {
    /// On the running device.
    pub fn device() -> Self {
        Self { record: PROVED.into(), release: RELEASE.into() }
    }

    fn record(&self) -> Option<Record> {
        let record: Record = serde_json::from_slice(&files::read_limited(&self.record, MAX_RECORD).ok()?).ok()?;
        (Some(&record.release) == self.release().as_ref()).then_some(record)
    }

    fn release(&self) -> Option<String> {
        os_sys::release::field_of(&std::fs::read_to_string(&self.release).ok()?, "VERSION_ID")
    }

    /// What it ran with last; nothing, when that was another release.
    pub fn last(&self) -> Map<String, Value> {
        self.record().map(|record| record.daemon).unwrap_or_default()
    }

    /// True when this release's engine has run with these settings, or there are none.
    pub fn has(&self, daemon: &Map<String, Value>) -> bool {
        daemon.is_empty() || self.record().is_some_and(|record| record.daemon == *daemon)
    }

    /// Remembers that the engine runs with these settings.
    ///
    /// # Errors
    /// When state cannot be written.
    pub fn keep(&self, daemon: &Map<String, Value>) -> Result<()> {
        if daemon.is_empty() {
            files::remove_if_there(&self.record)?;
            return Ok(());
        }
        let record = Record { release: self.release().unwrap_or_default(), daemon: daemon.clone() };
        files::write_if_changed(&self.record, &serde_json::to_vec_pretty(&record)?, 0o600)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn options(docker: Value) -> Vec<String> {
        refused(docker.as_object().unwrap()).into_iter().map(|(option, _)| option).collect()
    }

    #[test]
    fn what_the_system_relies_on_is_refused() {
        let all: Map<String, Value> = FIXED.iter().map(|(option, _)| ((*option).to_owned(), json!("x"))).collect();
        assert_eq!(options(json!({ "daemon": all })).len(), FIXED.len());
        assert_eq!(options(json!({"daemon": {"features": {"containerd-snapshotter": true}}})), ["features"]);
        let good = json!({"userland-proxy": false, "dns": ["192.0.2.1"], "log-opts": {"max-size": "5m"},
            "insecure-registries": ["a:1"], "registry-mirrors": ["https://m"], "default-ulimits": {}, "bip": null,
            "features": {"buildkit": true}});
        assert_eq!(options(json!({ "daemon": good })), Vec::<String>::new());
    }

    #[test]
    fn an_option_stands_in_one_place() {
        let both = json!({"log": {"maxSize": 1, "maxFiles": 1}, "daemon": {"log-driver": "local", "debug": true}});
        assert_eq!(options(both), ["log-driver"]);
    }

    #[test]
    fn a_damaged_record_proves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let proved = Proved { record: dir.path().join("proved"), release: dir.path().join("os-release") };
        std::fs::write(&proved.release, "VERSION_ID=1\n").unwrap();
        let daemon = json!({"debug": true}).as_object().unwrap().clone();
        assert!(!proved.has(&daemon) && proved.has(&Map::new()));
        proved.keep(&daemon).unwrap();
        assert!(proved.has(&daemon));
        let text = std::fs::read(&proved.record).unwrap();
        for cut in 0..text.len() - 1 {
            std::fs::write(&proved.record, &text[..cut]).unwrap();
            assert!(!proved.has(&daemon), "{cut}");
        }
        proved.keep(&Map::new()).unwrap();
        assert!(!proved.record.exists());
    }
}
