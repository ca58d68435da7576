//! What the container engine reads of `config.json` when it starts: its proxy, its `daemon.json`, the authorities that it
//! trusts.
//!
//! The initramfs lays these files down, so that the engine starts without waiting for anything of ours
//! ([`lay_down`]). The application finds them as they have to be, and restarts the engine only for what changes later.

use crate::daemon::Proved;
use crate::store::Store;
use crate::types::{Config, Docker};
use crate::{formats, names, proxy};
use anyhow::{Context, Result};
use os_sys::files::{self, Written};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// The engine's configuration, below `/etc`.
pub const DAEMON: &str = "docker/daemon.json";

/// The bundle of certificates that programs believe which have not been told otherwise, below `/etc`.
pub const BUNDLE: &str = "ssl/certs/ca-certificates.crt";

/// Where [`lay_down`] finds and writes things: the initramfs has the coming root elsewhere.
#[derive(Debug, Clone)]
pub struct Places {
    /// `/etc` of the coming root, which can be written.
    pub etc: PathBuf,
    /// The same as the image has it.
    pub image_etc: PathBuf,
    /// The boot partition and what is kept of it.
    pub store: Store,
    /// The file of [`proxy::ENVIRONMENT`].
    pub proxy: PathBuf,
    /// What the engine has run with.
    pub proved: Proved,
    /// The state partition.
    pub state: PathBuf,
    /// The file of [`names::RESOLV_CONF`].
    pub resolv_conf: PathBuf,
}

/// Writes what the engine has to know before it starts; returns what could not be written or understood. What is as the
/// image has it is left alone.
pub fn lay_down(config: &Config, places: &Places) -> Vec<String> {
    let mut problems = Vec::new();
    let mut attempt = |what: &str, done: Result<()>| {
        if let Err(err) = done {
            problems.push(format!("{what} for the engine: {err:#}"));
        }
    };
    let mut docker = config.os.docker.clone();
    // An engine that does not start with them would start at no boot; the application tries them first.
    if !places.proved.has(&docker.daemon) {
        docker.daemon.clear();
    }
    if docker != Docker::default() {
        let done = daemon(&places.image_etc, &docker).and_then(|v| write_daemon(&places.etc, &v).map(drop));
        attempt("settings", done);
    }
    let os_dns = !config.os.network.resolver_is_off();
    let laid_down = names::lay_down(&places.state, &places.resolv_conf, os_dns, bridge(&places.etc).as_deref());
    attempt("names", laid_down);
    let certificates = certificates(config);
    if !certificates.is_empty() {
        attempt("authorities", write_bundle(&places.etc, &places.image_etc, &certificates).map(drop));
    }
    let of_files = proxy::of_system(&places.store);
    for problem in of_files.problems {
        attempt("proxy", Err(anyhow::Error::msg(problem)));
    }
    if let Some(proxy) = config.os.network.proxy.as_ref().or(of_files.proxy.as_ref()) {
        let text = proxy::environment(proxy);
        let written = files::write_if_changed(&places.proxy, text.as_bytes(), proxy::ENVIRONMENT_MODE);
        attempt("proxy", written.map(drop).map_err(Into::into));
    }
    problems
}

/// `daemon.json`: the image's, with what the configuration adds.
///
/// # Errors
/// When the image's cannot be read or is no JSON.
pub fn daemon(image_etc: &Path, docker: &Docker) -> Result<Value> {
    let image = image_etc.join(DAEMON);
    let bytes = std::fs::read(&image).with_context(|| format!("cannot read {}", image.display()))?;
    let base = serde_json::from_slice(&bytes).with_context(|| format!("{} is no JSON", image.display()))?;
    Ok(merged(base, docker))
}

/// `daemon.json` as the engine finds it; none when it cannot be read or is no JSON.
pub fn daemon_in_force(etc: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(etc.join(DAEMON)).ok()?).ok()
}

/// The address of the engine's bridge, as the engine is told it.
pub fn bridge(etc: &Path) -> Option<String> {
    let daemon = daemon_in_force(etc)?;
    Some(daemon.get("bip")?.as_str()?.split('/').next().unwrap_or_default().to_owned())
}

/// Writes `daemon.json` when it says something else; compared as JSON, because the image's may be laid out otherwise.
///
/// # Errors
/// When it cannot be written.
pub fn write_daemon(etc: &Path, wanted: &Value) -> Result<Written> {
    if daemon_in_force(etc).as_ref() == Some(wanted) {
        return Ok(Written::Unchanged);
    }
    Ok(files::write_if_changed(&etc.join(DAEMON), &serde_json::to_vec_pretty(wanted)?, 0o644)?)
}

/// The settings of `base` with what the configuration adds.
pub fn merged(base: Value, docker: &Docker) -> Value {
    let mut out = match base {
        Value::Object(object) => object,
        _ => Map::new(),
    };
    // What is null is not set, here as everywhere.
    let set = docker.daemon.iter().filter(|(_, value)| !value.is_null());
    out.extend(set.map(|(name, value)| (name.clone(), value.clone())));
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
    if let Some(bridge) = &docker.bridge {
        out.insert("bip".to_owned(), bridge.as_str().into());
    }
    if let Some(log) = &docker.log {
        out.insert("log-driver".to_owned(), "local".into());
        let options = json!({ "max-size": format!("{}m", log.max_size), "max-file": log.max_files.to_string() });
        out.insert("log-opts".to_owned(), options);
    }
    Value::Object(out)
}

/// The certificates of a configuration, one text for each, each once.
pub fn certificates(config: &Config) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let balena = config.balena_root_ca.as_deref().and_then(formats::decode_certificate);
    let mut out: Vec<String> = Vec::new();
    for text in config.os.ca_certificates.iter().cloned().chain(balena) {
        for part in text.replace('\r', "").split_inclusive(END) {
            let part = part.trim().to_owned() + "\n";
            if part.contains(END) && !out.contains(&part) {
                out.push(part);
            }
        }
    }
    out
}

/// Writes the bundle: the image's certificates and these.
///
/// # Errors
/// When the image's cannot be read, or the bundle not written.
pub fn write_bundle(etc: &Path, image_etc: &Path, certificates: &[String]) -> Result<Written> {
    let image = image_etc.join(BUNDLE);
    let mut bundle = std::fs::read_to_string(&image).with_context(|| format!("cannot read {}", image.display()))?;
    for certificate in certificates {
        bundle.push_str(certificate);
    }
    Ok(files::write_if_changed(&etc.join(BUNDLE), bundle.as_bytes(), 0o644)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Log, Pool, Proxy};

    /// Settings of an image, and what a configuration wants beside them.
    fn settings() -> (Value, Docker) {
        let base =
            json!({"data-root": "/mnt/data/docker", "log-driver": "journald", "registry-mirrors": ["https://a"]});
        let docker = Docker {
            registry_mirrors: vec!["https://a".to_owned(), "https://b".to_owned()],
            address_pools: vec![Pool { base: "10.0.0.0/8".to_owned(), size: 24 }],
            log: Some(Log { max_size: 5, max_files: 2 }),
            ..Docker::default()
        };
        (base, docker)
    }

    #[test]
    fn the_images_settings_stay_and_ours_are_added() {
        let (base, docker) = settings();
        assert_eq!(
            merged(base.clone(), &docker),
            json!({"data-root": "/mnt/data/docker", "log-driver": "local", "registry-mirrors": ["https://a", "https://b"],
                   "default-address-pools": [{"base": "10.0.0.0/8", "size": 24}],
                   "log-opts": {"max-size": "5m", "max-file": "2"}})
        );
        assert_eq!(merged(base.clone(), &Docker::default()), base);
    }

    fn places(dir: &Path) -> Places {
        let places = Places {
            etc: dir.join("etc"),
            image_etc: dir.join("image"),
            store: Store::at(&dir.join("boot"), &dir.join("state")),
            proxy: dir.join("run/proxy"),
            proved: Proved { record: dir.join("state/proved"), release: dir.join("os-release") },
            state: dir.join("state"),
            resolv_conf: dir.join("run/resolv.conf"),
        };
        for etc in [&places.etc, &places.image_etc] {
            std::fs::create_dir_all(etc.join("docker")).unwrap();
            std::fs::create_dir_all(etc.join("ssl/certs")).unwrap();
            std::fs::write(etc.join(DAEMON), "{ \"bip\":\"172.17.0.1/16\" }").unwrap();
            std::fs::write(etc.join(BUNDLE), "image\n").unwrap();
        }
        places
    }

    #[test]
    fn the_engine_finds_what_it_needs_before_it_starts() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let mut config = Config::default();
        assert!(lay_down(&config, &places).is_empty());
        // Nothing was asked for: the image's own files stay as they are.
        assert_eq!(std::fs::read_to_string(places.etc.join(DAEMON)).unwrap(), "{ \"bip\":\"172.17.0.1/16\" }");
        assert!(!places.proxy.exists());
        let resolv_conf = || std::fs::read_to_string(&places.resolv_conf).unwrap();
        assert!(resolv_conf().contains("\nnameserver 127.0.0.1\nnameserver 172.17.0.1\noptions "));
        std::fs::write(places.state.join(names::REMEMBERED), "nameserver 192.168.1.1\nsearch home.lan a/b\n").unwrap();
        config.os.docker.insecure_registries = vec!["registry.lan:5000".to_owned()];
        config.os.ca_certificates = vec![include_str!("../examples/ca.pem").to_owned()];
        config.os.network.proxy = Some(Proxy { url: "http://p:1".to_owned(), no_proxy: Vec::new() });
        assert!(lay_down(&config, &places).is_empty());
        let daemon: Value = serde_json::from_slice(&std::fs::read(places.etc.join(DAEMON)).unwrap()).unwrap();
        assert_eq!(daemon, json!({"bip": "172.17.0.1/16", "insecure-registries": ["registry.lan:5000"]}));
        assert!(std::fs::read_to_string(places.etc.join(BUNDLE)).unwrap().starts_with("image\n-----BEGIN"));
        assert!(std::fs::read_to_string(&places.proxy).unwrap().contains("HTTP_PROXY=\"http://p:1\""));
        assert!(resolv_conf().contains("\nnameserver 172.17.0.1\nsearch home.lan\n"), "{}", resolv_conf());
        // What the application compares with afterwards is the same.
        assert_eq!(write_daemon(&places.etc, &daemon).unwrap(), Written::Unchanged);
    }

    #[test]
    fn settings_of_a_person_are_there_at_boot_once_this_release_has_run_with_them() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        std::fs::write(dir.path().join("os-release"), "VERSION_ID=0.2.0\n").unwrap();
        let mut config = Config::default();
        config.os.docker.insecure_registries = vec!["registry.lan:5000".to_owned()];
        config.os.docker.daemon = serde_json::from_str(r#"{"userland-proxy": true, "mtu": null}"#).unwrap();
        let laid_down = || daemon_in_force(&places.etc).unwrap();
        assert!(lay_down(&config, &places).is_empty());
        assert_eq!(laid_down(), json!({"bip": "172.17.0.1/16", "insecure-registries": ["registry.lan:5000"]}));
        places.proved.keep(&config.os.docker.daemon).unwrap();
        assert!(lay_down(&config, &places).is_empty());
        assert_eq!(laid_down()["userland-proxy"], true);
        assert_eq!(laid_down().get("mtu"), None);
        // Another release has another engine.
        std::fs::write(dir.path().join("os-release"), "VERSION_ID=0.3.0\n").unwrap();
        assert!(lay_down(&config, &places).is_empty());
        assert_eq!(laid_down().get("userland-proxy"), None);
    }

    #[test]
    fn what_cannot_be_laid_down_is_told_and_holds_nothing_else_back() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        std::fs::write(places.image_etc.join(DAEMON), "{").unwrap();
        std::fs::create_dir_all(places.store.boot().join(proxy::DIRECTORY)).unwrap();
        std::fs::write(places.store.boot().join("system-proxy/redsocks.conf"), "hello").unwrap();
        let mut config = Config::default();
        config.os.docker.registry_mirrors = vec!["https://m".to_owned()];
        config.os.network.proxy = Some(Proxy { url: "http://p:1".to_owned(), no_proxy: Vec::new() });
        let problems = lay_down(&config, &places);
        assert!(
            problems.len() == 2 && problems[0].contains("no JSON") && problems[1].contains("redsocks"),
            "{problems:?}"
        );
        assert!(places.proxy.exists());
    }

    #[test]
    fn certificates_are_taken_apart_and_counted_once() {
        let pem = include_str!("../examples/ca.pem");
        let mut config = Config::default();
        config.os.ca_certificates = vec![pem.replace('\n', "\r\n").repeat(2), pem.to_owned()];
        config.balena_root_ca = Some(include_str!("../examples/ca.b64").to_owned());
        assert_eq!(certificates(&config), [pem]);
    }
}
