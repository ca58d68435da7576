//! Images that came with the disk image.
//!
//! `/mnt/data/preload` holds archives as `docker save` writes them, and beside an archive `NAME.tar` may lie `NAME.json`
//! with the container to make of it. An archive is removed when its image is loaded and its container runs, so a power
//! cut in the middle starts it again.

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
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where the archives lie.
pub const DIR: &str = "/mnt/data/preload";

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

/// Loads every archive in `dir`. One that fails stays for the next boot and does not stop the others.
///
/// # Errors
/// When the engine cannot be reached.
pub async fn run(dir: &Path) -> Result<ExitCode> {
    let archives = archives(dir);
    if archives.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let docker = engine::connect().await.context("cannot reach the container engine")?;
    let mut failed = false;
    for archive in archives {
        match load(&docker, &archive).await {
            Ok(()) => log::info(&format!("{} is loaded", archive.display())),
            Err(err) => {
                failed = true;
                log::error(&format!("cannot load {}: {err:#}", archive.display()));
            }
        }
    }
    Ok(if failed { ExitCode::from(1) } else { ExitCode::SUCCESS })
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

async fn load(docker: &Docker, archive: &Path) -> Result<()> {
    let spec_path = archive.with_extension("json");
    // Checked before the work of loading: a typo is told at once.
    let spec = match files::read_limited(&spec_path, MAX_SPEC) {
        Ok(bytes) => Some(Spec::parse(&bytes).with_context(|| format!("{} is not valid", spec_path.display()))?),
        Err(files::ReadError::File(err)) if err.is_not_found() => None,
        Err(err) => return Err(err.into()),
    };
    let file = File::open(archive)?;
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
    rustix::fs::syncfs(File::open(archive)?).context("cannot write what the engine keeps to the data partition")?;
    std::fs::remove_file(archive)?;
    files::remove_if_there(&spec_path)?;
    Ok(())
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
    fn only_archives_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.tar", "a.tar", "a.json", "x.txt"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(archives(dir.path()), [dir.path().join("a.tar"), dir.path().join("b.tar")]);
        assert!(archives(Path::new("/no/such")).is_empty());
    }
}
