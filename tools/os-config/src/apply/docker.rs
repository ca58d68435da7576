//! The engine: `daemon.json` is the image's, with what the configuration adds.

use super::effect::{Applied, of_image, then};
use super::{Device, Rows};
use crate::types::Docker;
use anyhow::{Context, Result};
use os_dbus::Verb;
use os_sys::files::{self, Written};
use serde_json::{Map, Value, json};
use std::path::Path;

const DAEMON: &str = "/etc/docker/daemon.json";

/// What dockerd takes over while it runs (its documentation, "Configuration reload behavior").
const RELOADABLE: &[&str] = &["registry-mirrors", "insecure-registries"];

pub(super) async fn all(device: &Device<'_>, rows: &mut Rows) {
    let keys =
        ["/os/docker/registryMirrors", "/os/docker/insecureRegistries", "/os/docker/addressPools", "/os/docker/log"];
    rows.add_all(&keys, daemon(device).await);
}

async fn daemon(device: &Device<'_>) -> Applied {
    let image = of_image("docker/daemon.json");
    let base: Value =
        serde_json::from_slice(&std::fs::read(&image).with_context(|| format!("cannot read {}", image.display()))?)
            .with_context(|| format!("{} is no JSON", image.display()))?;
    let wanted = merged(base, &device.config.os.docker);
    let before: Value = std::fs::read(DAEMON).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
    let verb = if only_reloadable(&before, &wanted) { Verb::Reload } else { Verb::TryRestart };
    // Compared as JSON: the image's file may be laid out otherwise.
    let written = match before == wanted {
        true => Written::Unchanged,
        false => files::write_if_changed(Path::new(DAEMON), &serde_json::to_vec_pretty(&wanted)?, 0o644)?,
    };
    then("docker", written, async { Ok(device.bus.queue(verb, "docker.service").await?) }).await
}

fn merged(base: Value, docker: &Docker) -> Value {
    let mut out = match base {
        Value::Object(object) => object,
        _ => Map::new(),
    };
    let mut list = |name: &str, items: &[String]| {
        if !items.is_empty() {
            let before = out.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
            let mut all = before;
            all.extend(items.iter().map(|i| Value::from(i.as_str())).filter(|i| !all.contains(i)).collect::<Vec<_>>());
            out.insert(name.to_owned(), all.into());
        }
    };
    list("registry-mirrors", &docker.registry_mirrors);
    list("insecure-registries", &docker.insecure_registries);
    if !docker.address_pools.is_empty() {
        let pools: Vec<Value> =
            docker.address_pools.iter().map(|p| json!({ "base": p.base, "size": p.size })).collect();
        out.insert("default-address-pools".to_owned(), pools.into());
    }
    if let Some(log) = &docker.log {
        out.insert("log-driver".to_owned(), "local".into());
        let options = json!({ "max-size": format!("{}m", log.max_size), "max-file": log.max_files.to_string() });
        out.insert("log-opts".to_owned(), options);
    }
    Value::Object(out)
}

fn only_reloadable(before: &Value, after: &Value) -> bool {
    let rest = |value: &Value| {
        let mut value = value.clone();
        if let Some(object) = value.as_object_mut() {
            object.retain(|name, _| !RELOADABLE.contains(&name.as_str()));
        }
        value
    };
    rest(before) == rest(after)
}

/// The engine's unit takes its environment and its authorities only when it starts.
pub(super) async fn restart(device: &Device<'_>) -> Result<()> {
    Ok(device.bus.queue(Verb::TryRestart, "docker.service").await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Log, Pool};

    #[test]
    fn the_images_settings_stay_and_ours_are_added() {
        let base =
            json!({"data-root": "/mnt/data/docker", "log-driver": "journald", "registry-mirrors": ["https://a"]});
        let docker = Docker {
            registry_mirrors: vec!["https://a".to_owned(), "https://b".to_owned()],
            address_pools: vec![Pool { base: "10.0.0.0/8".to_owned(), size: 24 }],
            log: Some(Log { max_size: 5, max_files: 2 }),
            ..Docker::default()
        };
        let found = merged(base.clone(), &docker);
        assert_eq!(
            found,
            json!({"data-root": "/mnt/data/docker", "log-driver": "local", "registry-mirrors": ["https://a", "https://b"],
                   "default-address-pools": [{"base": "10.0.0.0/8", "size": 24}],
                   "log-opts": {"max-size": "5m", "max-file": "2"}})
        );
        assert!(!only_reloadable(&base, &found));
        let mirrors = Docker { registry_mirrors: vec!["https://b".to_owned()], ..Docker::default() };
        assert!(only_reloadable(&base, &merged(base.clone(), &mirrors)));
        assert_eq!(merged(base.clone(), &Docker::default()), base);
    }
}
