//! The engine: `daemon.json` is the image's, with what the configuration adds.

use super::effect::{Applied, then};
use super::{Device, Rows};
use crate::engine;
use anyhow::Result;
use os_dbus::Verb;
use serde_json::Value;
use std::path::Path;

/// What dockerd takes over while it runs (its documentation, "Configuration reload behavior").
const RELOADABLE: &[&str] = &["registry-mirrors", "insecure-registries"];

pub(super) async fn all(device: &Device<'_>, rows: &mut Rows) {
    let keys =
        ["/os/docker/registryMirrors", "/os/docker/insecureRegistries", "/os/docker/addressPools", "/os/docker/log"];
    rows.add_all(&keys, daemon(device).await);
}

async fn daemon(device: &Device<'_>) -> Applied {
    let (etc, image_etc) = (Path::new("/etc"), Path::new(crate::IMAGE_ETC));
    let wanted = engine::daemon(image_etc, &device.config.os.docker)?;
    let before = engine::daemon_in_force(etc).unwrap_or_default();
    let verb = if only_reloadable(&before, &wanted) { Verb::Reload } else { Verb::TryRestart };
    let written = engine::write_daemon(etc, &wanted)?;
    then("docker", written, async { Ok(device.bus.unit_job(verb, "docker.service").await?) }).await
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
    Ok(device.bus.unit_job(Verb::TryRestart, "docker.service").await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::merged;
    use crate::engine::tests::settings;
    use crate::types::Docker;

    #[test]
    fn only_what_the_engine_takes_over_while_it_runs_is_reloaded() {
        let (base, docker) = settings();
        assert!(!only_reloadable(&base, &merged(base.clone(), &docker)));
        let mirrors = Docker { registry_mirrors: vec!["https://b".to_owned()], ..Docker::default() };
        assert!(only_reloadable(&base, &merged(base.clone(), &mirrors)));
    }
}
