//! The engine: `daemon.json` is the image's, with what the configuration adds.

use super::effect::{Applied, Effect, then};
use super::{Device, Rows};
use crate::engine;
use anyhow::Result;
use os_dbus::Verb;
use os_sys::cmd::Cmd;
use serde_json::Value;
use std::path::Path;

/// What dockerd takes over while it runs (its documentation, "Configuration reload behavior").
const RELOADABLE: &[&str] = &["registry-mirrors", "insecure-registries"];
/// What the initramfs of the next boot brings into force.
const AT_BOOT: &[&str] = &["bip", "dns"];

pub(super) async fn all(device: &Device<'_>, rows: &mut Rows) {
    let keys =
        ["/os/docker/registryMirrors", "/os/docker/insecureRegistries", "/os/docker/addressPools", "/os/docker/log"];
    rows.add_all(&keys, daemon(device).await);
    rows.add("/os/docker/bridge", bridge());
}

/// Containers that run keep the bridge that they are on: another one is there after the next boot.
fn bridge() -> Applied {
    let wanted =
        engine::daemon_in_force(Path::new("/etc")).and_then(|daemon| Some(daemon.get("bip")?.as_str()?.to_owned()));
    let links = Cmd::new("ip").args(["-json", "addr", "show"]).read()?;
    Ok(if is_there(&links, wanted.as_deref()) { Effect::Unchanged } else { Effect::AtBoot })
}

/// True when docker0 has the address, or is not there yet.
fn is_there(links: &str, wanted: Option<&str>) -> bool {
    let links: Vec<Value> = serde_json::from_str(links).unwrap_or_default();
    let Some(docker0) = links.iter().find(|link| link.get("ifname").is_some_and(|name| name == "docker0")) else {
        return true;
    };
    let addresses = docker0.get("addr_info").and_then(Value::as_array).into_iter().flatten();
    let mut texts = addresses.filter_map(|a| Some(format!("{}/{}", a.get("local")?.as_str()?, a.get("prefixlen")?)));
    wanted.is_none_or(|wanted| texts.any(|text| text == wanted))
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
            object.retain(|name, _| !RELOADABLE.contains(&name.as_str()) && !AT_BOOT.contains(&name.as_str()));
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
    fn a_bridge_is_in_force_when_the_kernel_has_it() {
        let links = r#"[{"ifname":"docker0","addr_info":[{"local":"10.201.0.1","prefixlen":24},{"local":"fe80::1","prefixlen":64}]}]"#;
        assert!(
            is_there(links, Some("10.201.0.1/24")) && is_there("[]", Some("10.201.0.1/24")) && is_there(links, None)
        );
        assert!(!is_there(links, Some("10.202.0.1/24")) && !is_there(links, Some("10.201.0.1/25")));
    }

    #[test]
    fn only_what_the_engine_takes_over_while_it_runs_is_reloaded() {
        let (base, docker) = settings();
        assert!(!only_reloadable(&base, &merged(base.clone(), &docker)));
        let bridge = Docker { bridge: Some("10.201.0.1/24".to_owned()), ..Docker::default() };
        let merged_bridge = merged(base.clone(), &bridge);
        assert!(only_reloadable(&base, &merged_bridge));
        assert_eq!(
            (merged_bridge["bip"].as_str(), merged_bridge["dns"][0].as_str()),
            (Some("10.201.0.1/24"), Some("10.201.0.1"))
        );
        let mirrors = Docker { registry_mirrors: vec!["https://b".to_owned()], ..Docker::default() };
        assert!(only_reloadable(&base, &merged(base.clone(), &mirrors)));
    }
}
