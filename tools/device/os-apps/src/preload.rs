//! Images that came with the disk image: archives as `docker save` writes them, and beside an archive `NAME.tar` may lie
//! `NAME.json` with the container to make of it.
//!
//! - In `/usr/lib/os/preload` they are part of the system, verified like the rest of it. They are loaded once, and again
//!   when a wipe has taken them: a device that is reset does what it was made for.
//! - In `/mnt/data/preload` they are there for once, and removed when the image is loaded and the container runs.
//!
//! That an archive is loaded is written down last, so a power cut in the middle starts it again.

use crate::engine;
use anyhow::{Context, Result};
use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum};
use bollard::query_parameters::{CreateContainerOptionsBuilder, ImportImageOptionsBuilder};
use futures_util::{StreamExt, stream};
use os_dbus::{Bus, Verb};
use os_sys::{files, log};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where the archives lie that are part of the system.
const SYSTEM: &str = "/usr/lib/os/preload";
/// Where they lie that are used once.
const ONCE: &str = "/mnt/data/preload";
/// A file for each archive of the system that was loaded; goes when apps are wiped.
const LOADED: &str = "/mnt/data/os/preloaded";

/// How much of an archive is in memory at a time, in bytes.
const CHUNK: usize = 64 << 10;

/// A container description larger than this is refused, in bytes.
const MAX_SPEC: u64 = 64 << 10;

/// The container to make of an image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Name of the container.
    pub name: String,
    /// Image reference, as the archive tags it.
    pub image: String,
    /// Host port (TCP) to container port.
    #[serde(default)]
    pub ports: BTreeMap<u16, u16>,
    /// Environment variables.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

impl Spec {
    /// Reads a description.
    ///
    /// # Errors
    /// When it is not valid JSON of this form.
    pub fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    fn body(&self) -> ContainerCreateBody {
        let bindings = self.ports.iter().map(|(host, inside)| {
            let binding = PortBinding { host_ip: None, host_port: Some(host.to_string()) };
            (format!("{inside}/tcp"), Some(vec![binding]))
        });
        ContainerCreateBody {
            image: Some(self.image.clone()),
            env: Some(self.environment.iter().map(|(k, v)| format!("{k}={v}")).collect()),
            exposed_ports: Some(self.ports.values().map(|inside| format!("{inside}/tcp")).collect()),
            host_config: Some(HostConfig {
                port_bindings: Some(bindings.collect::<HashMap<_, _>>()),
                restart_policy: Some(RestartPolicy {
                    name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
                    maximum_retry_count: None,
                }),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }
}

/// Where an archive comes from, and what says that it is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Archive {
    /// It is removed.
    Once(PathBuf),
    /// The second is written.
    System(PathBuf, PathBuf),
}

impl Archive {
    fn path(&self) -> &Path {
        let (Self::Once(path) | Self::System(path, _)) = self;
        path
    }

    /// What is written down of an archive: another one by the same name is loaded anew.
    fn mark(path: &Path) -> std::io::Result<String> {
        let meta = path.metadata()?;
        Ok(format!("{} bytes of {}\n", meta.len(), meta.mtime()))
    }

    /// It is loaded, and its container runs.
    fn done(&self) -> Result<()> {
        match self {
            Self::Once(path) => {
                std::fs::remove_file(path)?;
                files::remove_if_there(&path.with_extension("json"))?;
            }
            Self::System(path, mark) => {
                if let Some(dir) = mark.parent() {
                    std::fs::create_dir_all(dir)?;
                }
                files::write_if_changed(mark, Self::mark(path)?.as_bytes(), 0o644)?;
            }
        }
        Ok(())
    }
}

/// Loads every archive that is to be. One that fails stays for the next boot and does not stop the others.
///
/// # Errors
/// When the engine cannot be reached.
pub async fn run() -> Result<ExitCode> {
    let archives = wanted(Path::new(SYSTEM), Path::new(LOADED), Path::new(ONCE));
    if archives.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let docker = engine::connect().await.context("cannot reach the container engine")?;
    let mut failed = false;
    for archive in archives {
        let path = archive.path();
        match load(&docker, &archive).await {
            Ok(()) => log::info(&format!("{} is loaded", path.display())),
            Err(err) => {
                failed = true;
                log::error(&format!("cannot load {}: {err:#}", path.display()));
            }
        }
    }
    Ok(if failed { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// What of the system was not loaded yet, and then what is to be used once.
fn wanted(system: &Path, loaded: &Path, once: &Path) -> Vec<Archive> {
    let of_system = archives(system).into_iter().filter_map(|path| {
        let mark = loaded.join(path.file_name()?);
        let written = std::fs::read_to_string(&mark).ok();
        (written != Archive::mark(&path).ok()).then_some(Archive::System(path, mark))
    });
    of_system.chain(archives(once).into_iter().map(Archive::Once)).collect()
}

fn archives(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "tar"))
        .collect();
    found.sort();
    found
}

async fn load(docker: &Docker, archive: &Archive) -> Result<()> {
    let path = archive.path();
    let spec_path = path.with_extension("json");
    // Checked before the work of loading: a typo is told at once.
    let spec = match files::read_limited(&spec_path, MAX_SPEC) {
        Ok(bytes) => Some(Spec::parse(&bytes).with_context(|| format!("{} is not valid", spec_path.display()))?),
        Err(files::ReadError::File(err)) if err.is_not_found() => None,
        Err(err) => return Err(err.into()),
    };
    let file = File::open(path)?;
    let chunks = stream::unfold(file, |mut file| async move {
        let mut buffer = vec![0; CHUNK];
        let chunk = match file.read(&mut buffer) {
            Ok(0) => return None,
            Ok(got) => {
                buffer.truncate(got);
                Ok(buffer.into())
            }
            Err(err) => Err(err),
        };
        Some((chunk, file))
    });
    let mut progress = docker.import_image_stream(ImportImageOptionsBuilder::default().build(), chunks, None);
    while let Some(step) = progress.next().await {
        if let Some(err) = step?.error_detail {
            anyhow::bail!("the engine refused it: {}", err.message.unwrap_or_default());
        }
    }
    if let Some(spec) = &spec {
        start(docker, spec).await?;
    }
    // The engine keeps what it says of the container in files that it does not push to the medium: data commits every 30
    // seconds, and a power cut before that would leave a container that was made and never started.
    let data = File::open("/mnt/data").context("the data partition is gone")?;
    rustix::fs::syncfs(data).context("cannot write what the engine keeps to the data partition")?;
    archive.done()
}

async fn start(docker: &Docker, spec: &Spec) -> Result<()> {
    let options = CreateContainerOptionsBuilder::default().name(&spec.name).build();
    let made_before = match docker.create_container(Some(options), spec.body()).await {
        Ok(_) => false,
        // It was made before a power cut; starting it is all that is left.
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 409, .. }) => true,
        Err(err) => return Err(err).with_context(|| format!("cannot create container {}", spec.name)),
    };
    let start = async || {
        let started = docker.start_container(&spec.name, None).await;
        started.with_context(|| format!("cannot start container {}", spec.name))
    };
    match start().await {
        // The engine forgets the networks of containers that a power cut stopped, but keeps their ports until it ends.
        Err(err) if made_before => {
            log::warn(&format!("{err:#}; the engine is restarted, and then the container once more"));
            Bus::system().await?.unit_job(Verb::Restart, "docker.service").await?;
            start().await
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_becomes_a_container_that_survives_reboots() {
        let spec = Spec::parse(br#"{"name":"hello","image":"hello:1","ports":{"80":8080}}"#).unwrap();
        let body = spec.body();
        let host = body.host_config.unwrap();
        assert_eq!(host.port_bindings.unwrap()["8080/tcp"].as_ref().unwrap()[0].host_port.as_deref(), Some("80"));
        assert_eq!(host.restart_policy.unwrap().name, Some(RestartPolicyNameEnum::UNLESS_STOPPED));
    }

    #[test]
    fn a_typo_in_a_description_is_an_error() {
        assert!(Spec::parse(br#"{"name":"a","image":"b","port":{}}"#).is_err());
        assert!(Spec::parse(br#"{"name":"a"}"#).is_err());
    }

    #[test]
    fn what_the_system_brings_is_loaded_once_and_again_after_a_wipe() {
        let dir = tempfile::tempdir().unwrap();
        let [system, loaded, once] = ["system", "loaded", "once"].map(|name| dir.path().join(name));
        std::fs::create_dir(&system).unwrap();
        std::fs::create_dir(&once).unwrap();
        std::fs::write(system.join("till.tar"), "1").unwrap();
        std::fs::write(once.join("demo.tar"), "1").unwrap();
        let names = || -> Vec<String> {
            let archives = wanted(&system, &loaded, &once);
            archives.iter().map(|a| a.path().file_name().unwrap().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(names(), ["till.tar", "demo.tar"]);
        for archive in wanted(&system, &loaded, &once) {
            archive.done().unwrap();
        }
        assert!(names().is_empty() && system.join("till.tar").exists() && !once.join("demo.tar").exists());
        // A release brings another one.
        std::fs::write(system.join("till.tar"), "22").unwrap();
        assert_eq!(names(), ["till.tar"]);
        wanted(&system, &loaded, &once)[0].done().unwrap();
        assert!(names().is_empty());
        std::fs::remove_dir_all(&loaded).unwrap();
        assert_eq!(names(), ["till.tar"]);
    }

    #[test]
    fn a_wipe_of_apps_takes_what_says_that_they_are_loaded() {
        for path in [LOADED, ONCE] {
            let below = path.strip_prefix("/mnt/data/").unwrap();
            assert!(os_config_model::wipe::APPS.contains(&below), "{path}");
        }
    }

    #[test]
    fn only_archives_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.tar", "a.tar", "a.json", "x.txt"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(archives(dir.path()), [dir.path().join("a.tar"), dir.path().join("b.tar")]);
        assert!(archives(Path::new("/no/such")).is_empty());
    }
}
