//! What the scenarios of a chain work on: a flashed disk, and machines that start from it.

use crate::harness::artifacts::Artifacts;
use crate::harness::disk::Disk;
use crate::harness::vm::{Restart, Start, Vm, WEB};
use crate::harness::volume;
use anyhow::Result;
use os_sys::cmd::Cmd;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Memory of a machine, in MiB.
const MEMORY: u32 = 1024;

/// What the scenarios work on.
pub(crate) struct Lab {
    pub(crate) artifacts: Arc<Artifacts>,
    pub(crate) dir: PathBuf,
    pub(crate) stranger: PathBuf,
    pub(crate) disk: Disk,
    /// Moments at which a recorded update is cut.
    pub(crate) points: usize,
}

impl Lab {
    pub(crate) fn new(artifacts: &Arc<Artifacts>, dir: PathBuf, points: usize) -> Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let stranger = dir.join("stranger");
        if !stranger.exists() {
            Cmd::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&stranger).run()?;
        }
        let disk = Disk::flash(artifacts, &dir)?;
        let _ = std::fs::remove_file(Vm::firmware_vars(&dir));
        Ok(Self { artifacts: Arc::clone(artifacts), dir, stranger, disk, points })
    }

    /// The same with the image on a disk that has an MBR.
    pub(crate) fn with_mbr(&self) -> Result<Self> {
        let disk = Disk::flash_mbr(&self.artifacts, &self.dir)?;
        let (artifacts, dir, stranger) = (Arc::clone(&self.artifacts), self.dir.clone(), self.stranger.clone());
        Ok(Self { artifacts, dir, stranger, disk, points: self.points })
    }

    pub(crate) fn boot(&self, extra: Vec<String>) -> Result<Vm> {
        Vm::start(&Start { extra, ..self.machine() })
    }

    /// A machine that finds a web server.
    pub(crate) fn boot_with_web(&self, port: u16, restart: Restart) -> Result<Vm> {
        Vm::start(&Start { web: vec![(WEB, port)], restart, ..self.machine() })
    }

    /// The same, from where a machine was frozen.
    pub(crate) fn thaw(&self, frozen: &Path, port: u16, restart: Restart) -> Result<Vm> {
        Vm::start(&Start { web: vec![(WEB, port)], restart, frozen: Some(frozen), ..self.machine() })
    }

    /// A machine that may restart, without any web server.
    pub(crate) fn boot_to_restart(&self) -> Result<Vm> {
        Vm::start(&Start { restart: Restart::Restarts, ..self.machine() })
    }

    /// What a machine has unless a scenario wants something else.
    pub(crate) fn machine(&self) -> Start<'_> {
        Start {
            arch: self.artifacts.arch,
            disk: &self.disk,
            dir: &self.dir,
            key: &self.artifacts.keys.ssh,
            accel: self.artifacts.accel,
            memory: MEMORY,
            page: self.artifacts.demo.as_ref().map(|demo| demo.port),
            extra: Vec::new(),
            web: Vec::new(),
            trace: false,
            restart: Restart::Ends,
            frozen: None,
        }
    }

    /// Deletes all that the chain made, gigabytes of disks and bundles.
    pub(crate) fn remove(self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }

    /// The files that the image has in its preload directory, if any: an archive, and what says which container to make.
    pub(crate) fn preloaded(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let volume = volume::at(&self.artifacts.image, self.artifacts.part("os-data")?.start);
        let files = self.artifacts.demo.iter().flat_map(|demo| &demo.files);
        let read = |file: &String| volume::dump(&volume, &format!("/preload/{file}"), &self.dir.join(file));
        files.map(|file| Ok((file.clone(), read(file)?))).collect()
    }

    pub(crate) fn config(&self, more: Value) -> Result<Vec<u8>> {
        let mut config = json!({ "os": { "sshKeys": [self.artifacts.keys.ssh_public()?] } });
        os_config_model::edit::merge(&mut config, &more);
        Ok(serde_json::to_vec_pretty(&config)?)
    }
}
