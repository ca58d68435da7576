//! The engine: `daemon.json` is the image's, with what the configuration adds.

use super::effect::{self, Applied, Effect};
use super::{Device, Rows};
use crate::links::{self, Link};
use anyhow::{Context, Result, anyhow, bail};
use os_config_model::daemon::Proved;
use os_config_model::engine;
use os_config_model::sysctl::Kernel;
use os_config_model::types::Docker;
use os_dbus::{Bus, BusError, Verb};
use os_sys::cmd::{Cmd, CmdError};
use os_sys::files;
use os_sys::log;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const UNIT: &str = "docker.service";
/// How long the engine may take to start.
const STARTS: Duration = Duration::from_secs(180);
/// How long it may take to say that it has taken settings over.
const ANSWERS: Duration = Duration::from_secs(10);

/// What dockerd takes over while it runs (its documentation, "Configuration reload behavior").
const RELOADABLE: &[&str] = &["registry-mirrors", "insecure-registries"];
/// What the initramfs of the next boot brings into force.
const AT_BOOT: &[&str] = &["bip"];

pub(super) async fn all(device: &Device<'_>, rows: &mut Rows) {
    let keys =
        ["/os/docker/registryMirrors", "/os/docker/insecureRegistries", "/os/docker/addressPools", "/os/docker/log"];
    let (known, others) = daemon(device).await;
    rows.add_all(&keys, known);
    rows.add("/os/docker/daemon", others);
    rows.add("/os/docker/bridge", bridge());
}

/// Containers that run keep the bridge that they are on: another one is there after the next boot.
fn bridge() -> Applied {
    let wanted =
        engine::daemon_in_force(Path::new("/etc")).and_then(|daemon| Some(daemon.get("bip")?.as_str()?.to_owned()));
    let links = links::parse(&Cmd::new("ip").args(["-json", "addr", "show"]).read()?);
    Ok(if is_there(&links, wanted.as_deref()) { Effect::Unchanged } else { Effect::AtBoot })
}

/// True when docker0 has the address, or is not there yet.
fn is_there(links: &[Link], wanted: Option<&str>) -> bool {
    let Some(docker0) = links.iter().find(|link| link.name == "docker0") else { return true };
    let has = |wanted: &str| docker0.addresses.iter().any(|a| format!("{}/{}", a.address, a.prefix) == wanted);
    wanted.is_none_or(has)
}

/// The keys that we know, and the settings that the engine alone understands. When it does not start with these, the others
/// are brought into force without them.
async fn daemon(device: &Device<'_>) -> (Applied, Applied) {
    let (docker, proved) = (&device.config.os.docker, Proved::device());
    let without = |daemon| Docker { daemon, ..docker.clone() };
    // The rescue system has no engine that could be asked.
    if Kernel::default().is_rescue() && !proved.has(&docker.daemon) {
        return (put(device, &without(Map::new()), Must::Not).await, Ok(Effect::AtBoot));
    }
    let must = if proved.has(&docker.daemon) { Must::Not } else { Must::Run };
    match put(device, docker, must).await {
        Ok(effect) => {
            if let Err(err) = proved.keep(&docker.daemon) {
                log::warn(&format!("{err:#}; the next boot tries os.docker.daemon again"));
            }
            (Ok(effect), Ok(effect))
        }
        Err(err) if docker.daemon.is_empty() => (Err(err), Ok(Effect::Unchanged)),
        Err(err) => (put(device, &without(proved.last()), Must::Not).await, Err(err)),
    }
}

/// Whether the engine has to run for settings to count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Must {
    /// It does, or takes them when it starts.
    Not,
    /// It is started: nobody else can say whether it takes them.
    Run,
}

/// Brings settings into force: they are checked, written, taken over by the engine, and asked for. Where that fails the former
/// ones are in force again.
async fn put(device: &Device<'_>, docker: &Docker, must: Must) -> Applied {
    let (etc, bus) = (Path::new("/etc"), device.bus);
    let wanted = engine::daemon(Path::new(os_facts::place::IMAGE_ETC), docker)?;
    let before = engine::daemon_in_force(etc);
    let owed = effect::memory("owed-docker");
    if before.as_ref() == Some(&wanted) && !owed.exists() {
        return Ok(Effect::Unchanged);
    }
    if let Some(why) = Refused::of(&wanted) {
        bail!("{why} (not tried again in this boot)");
    }
    if must == Must::Run && !files::is_mount_point(os_facts::place::DATA) {
        bail!("the engine does not run: the data partition is not mounted");
    }
    validate(&wanted)?;
    if must == Must::Run {
        // At boot it may be about to start its containers: it is not interrupted in that.
        let _ = within(bus.unit_job(Verb::Start, UNIT)).await;
    }
    let runs = bus.is_active(UNIT).await?;
    let reload = before.as_ref().is_some_and(|before| only_reloadable(before, &wanted));
    let (verb, back) = match must {
        Must::Run => (Verb::Restart, Verb::Restart),
        Must::Not if runs && reload => (Verb::Reload, Verb::Restart),
        Must::Not if runs => (Verb::TryRestart, Verb::Restart),
        // One that is off stays off.
        Must::Not => (Verb::TryRestart, Verb::TryRestart),
    };
    files::write_if_changed(&owed, b"", 0o600)?;
    engine::write_daemon(etc, &wanted)?;
    if let Err(err) = take_over(bus, verb, &wanted).await {
        if let Some(before) = before.filter(|before| *before != wanted) {
            engine::write_daemon(etc, &before)?;
            within(bus.unit_job(back, UNIT)).await.context("and the engine does not start without them")?;
            files::remove_if_there(&owed)?;
        }
        if !docker.daemon.is_empty() {
            Refused::keep(&wanted, &err)?;
        }
        return Err(err);
    }
    files::remove_if_there(&owed)?;
    Ok(Effect::Changed)
}

/// Asks the engine's program whether it understands settings. Some of what it cannot do it finds out when it starts.
fn validate(wanted: &Value) -> Result<()> {
    const CANDIDATE: &str = "/run/os/daemon.json.new";
    let path = Path::new(CANDIDATE);
    files::write_if_changed(path, &serde_json::to_vec_pretty(wanted)?, 0o600)?;
    let checked = Cmd::new("dockerd").args(["--validate", "-H", "fd://", "--config-file", CANDIDATE]).run();
    files::remove_if_there(path)?;
    match checked {
        // Its last words say which option it is; the file is gone.
        Err(CmdError::Failed { stderr, .. }) => {
            let marker = format!("{CANDIDATE}: ");
            bail!("the engine refuses it: {}", stderr.split_once(&marker).map_or(&*stderr, |(_, said)| said))
        }
        other => Ok(other?),
    }
}

/// What an engine that does not start may take, with all its tries.
async fn within(job: impl Future<Output = Result<(), BusError>>) -> Result<()> {
    let done = tokio::time::timeout(STARTS, job).await;
    Ok(done.map_err(|_| anyhow!("{UNIT} is not up after {} seconds", STARTS.as_secs()))??)
}

/// Has the engine take settings over, and asks it.
async fn take_over(bus: &Bus, verb: Verb, wanted: &Value) -> Result<()> {
    let now = SystemTime::now();
    if let Err(err) = within(bus.unit_job(verb, UNIT)).await {
        return Err(last_words(now).map_or(err, |said| anyhow!("the engine does not start with it: {said}")));
    }
    // One that is off takes them when it starts.
    if !bus.is_active(UNIT).await? {
        return Ok(());
    }
    let started = Instant::now();
    loop {
        let info = Cmd::new("docker").env("DOCKER_CONFIG", "/run/os/none").args(["info", "-f", "{{json .}}"]).read();
        let said: Value = serde_json::from_str(info.as_deref().unwrap_or_default()).unwrap_or_default();
        // A reload is over some time after its job.
        let Some(missing) = contradiction(&said, wanted) else { return Ok(()) };
        if started.elapsed() > ANSWERS {
            bail!("the engine runs, and has not taken over {missing}");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Why the engine gave up: its last line since then.
fn last_words(since: SystemTime) -> Option<String> {
    let since = since.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let since = format!("--since=@{since}");
    let said =
        Cmd::new("journalctl").args(["-u", UNIT, "_COMM=dockerd", "-o", "cat", "-n", "20", &since]).read().ok()?;
    let line = said.lines().rfind(|line| line.contains("failed to start daemon"))?;
    Some(line.trim_start_matches("failed to start daemon: ").to_owned())
}

/// The first setting that the engine says otherwise, as far as it says.
fn contradiction(info: &Value, wanted: &Value) -> Option<String> {
    const SAID: &[(&str, &str)] = &[
        ("log-driver", "LoggingDriver"),
        ("live-restore", "LiveRestoreEnabled"),
        ("labels", "Labels"),
        ("default-runtime", "DefaultRuntime"),
        ("debug", "Debug"),
    ];
    if info.get("ServerVersion").is_none() {
        return Some("anything: it does not answer".to_owned());
    }
    let none = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    let differs = |(option, field): &&(&str, &str)| {
        let (wanted, said) = (wanted.get(option), info.get(field).unwrap_or(&Value::Null));
        wanted.is_some_and(|wanted| wanted != said && !(none(wanted) && none(said)))
    };
    if let Some((option, _)) = SAID.iter().find(differs) {
        return Some((*option).to_owned());
    }
    let texts = |value: Option<&Value>| -> Vec<String> {
        let list = value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        list.map(|text| text.trim_end_matches('/').to_owned()).collect()
    };
    let registries = info.get("RegistryConfig");
    let of = |field: &str| registries.and_then(|registries| registries.get(field));
    let mirrors = texts(of("Mirrors"));
    if let Some(mirror) = texts(wanted.get("registry-mirrors")).into_iter().find(|mirror| !mirrors.contains(mirror)) {
        return Some(format!("the mirror {mirror}"));
    }
    // Ranges of addresses the engine writes in its own way.
    let is_insecure = |name: &str| {
        let secure = of("IndexConfigs").and_then(|all| all.get(name)?.get("Secure"));
        name.contains('/') || secure == Some(&Value::Bool(false))
    };
    let plain = |name: String| name.trim_start_matches("http://").trim_start_matches("https://").to_owned();
    let mut insecure = texts(wanted.get("insecure-registries")).into_iter().map(plain);
    insecure.find(|name| !is_insecure(name)).map(|name| format!("the registry {name}"))
}

/// Settings that the engine did not start with in this boot: it is not stopped for them again.
#[derive(Serialize, Deserialize)]
struct Refused {
    daemon: Value,
    why: String,
}

impl Refused {
    fn path() -> PathBuf {
        effect::memory("refused-docker")
    }

    fn of(wanted: &Value) -> Option<String> {
        let refused: Self = serde_json::from_slice(&std::fs::read(Self::path()).ok()?).ok()?;
        (refused.daemon == *wanted).then_some(refused.why)
    }

    fn keep(wanted: &Value, why: &anyhow::Error) -> Result<()> {
        let refused = Self { daemon: wanted.clone(), why: format!("{why:#}") };
        files::write_if_changed(&Self::path(), &serde_json::to_vec(&refused)?, 0o600)?;
        Ok(())
    }
}

/// True when the engine needs no restart for what changed.
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
    use os_config_model::engine::merged;
    use os_config_model::types::{Docker, Log, Pool};
    use serde_json::json;

    #[test]
    fn a_bridge_is_in_force_when_the_kernel_has_it() {
        let links = r#"[{"ifname":"docker0","addr_info":[{"local":"10.201.0.1","prefixlen":24},{"local":"fe80::1","prefixlen":64}]}]"#;
        let is_there = |json: &str, wanted| is_there(&links::parse(json), wanted);
        assert!(
            is_there(links, Some("10.201.0.1/24")) && is_there("[]", Some("10.201.0.1/24")) && is_there(links, None)
        );
        assert!(!is_there(links, Some("10.202.0.1/24")) && !is_there(links, Some("10.201.0.1/25")));
    }

    #[test]
    fn only_what_the_engine_takes_over_while_it_runs_is_reloaded() {
        let base = json!({"data-root": "/mnt/data/docker", "registry-mirrors": ["https://a"]});
        for docker in [
            Docker { address_pools: vec![Pool { base: "10.0.0.0/8".to_owned(), size: 24 }], ..Docker::default() },
            Docker { log: Some(Log { max_size: 5, max_files: 2 }), ..Docker::default() },
        ] {
            assert!(!only_reloadable(&base, &merged(base.clone(), &docker)), "{docker:?}");
        }
        let bridge = Docker { bridge: Some("10.201.0.1/24".to_owned()), ..Docker::default() };
        let merged_bridge = merged(base.clone(), &bridge);
        assert!(only_reloadable(&base, &merged_bridge));
        assert_eq!(merged_bridge["bip"], "10.201.0.1/24");
        let mirrors = Docker { registry_mirrors: vec!["https://b".to_owned()], ..Docker::default() };
        assert!(only_reloadable(&base, &merged(base.clone(), &mirrors)));
        let dns = Docker { daemon: serde_json::from_str(r#"{"dns": ["192.0.2.1"]}"#).unwrap(), ..bridge };
        let merged_dns = merged(base, &dns);
        assert_eq!(merged_dns["dns"][0], "192.0.2.1");
        assert!(!only_reloadable(&merged_bridge, &merged_dns));
    }

    // What the engine (26.1) says, without the fields that are not looked at.
    const INFO: &str = r#"{"ServerVersion": "26.1.5", "LoggingDriver": "journald", "LiveRestoreEnabled": true, "Labels": ["a=b"],
        "Debug": false, "DefaultRuntime": "runc", "RegistryConfig": {"InsecureRegistryCIDRs": ["10.0.0.0/8", "127.0.0.0/8"],
        "Mirrors": ["https://mirror.example/"], "IndexConfigs": {"registry.lan:5000": {"Secure": false}, "docker.io": {"Secure": true}}}}"#;

    #[test]
    fn what_the_engine_says_otherwise_is_named() {
        let info: Value = serde_json::from_str(INFO).unwrap();
        let asked = |wanted: &str| contradiction(&info, &serde_json::from_str(wanted).unwrap());
        assert_eq!(
            asked(
                r#"{"log-driver": "journald", "live-restore": true, "labels": ["a=b"], "mtu": 9000, "debug": false,
                "registry-mirrors": ["https://mirror.example"], "insecure-registries": ["registry.lan:5000", "10.1.2.3/8"]}"#
            ),
            None
        );
        for (wanted, said) in [
            (r#"{"log-driver": "local"}"#, "log-driver"),
            (r#"{"labels": []}"#, "labels"),
            (r#"{"default-runtime": "crun"}"#, "default-runtime"),
            (r#"{"registry-mirrors": ["https://other"]}"#, "https://other"),
            (r#"{"insecure-registries": ["docker.io"]}"#, "docker.io"),
        ] {
            assert!(asked(wanted).unwrap().contains(said), "{wanted}");
        }
        assert!(contradiction(&Value::Null, &Value::Null).unwrap().contains("answer"));
    }
}
