//! What the scenarios of a chain work on: a flashed disk, and machines that start from it.

use crate::harness::disk::Disk;
use crate::harness::vm::{LIAR, Restart, Start, Vm, WEB};
use anyhow::Result;
use os_sys::cmd::Cmd;
use osctl::lab::keys::Keys;
use osctl::qemu::Accel;
use osctl::repo::Repo;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Variant under test.
pub(crate) const VARIANT: &str = "development";

/// What the scenarios work on.
pub(crate) struct Lab {
    pub(crate) repo: Repo,
    pub(crate) dir: PathBuf,
    pub(crate) keys: Keys,
    pub(crate) stranger: PathBuf,
    accel: Accel,
    pub(crate) disk: Disk,
    /// Moments at which a recorded update is cut.
    pub(crate) points: usize,
}

impl Lab {
    pub(crate) fn new(repo: &Repo, dir: PathBuf, keys: Keys, accel: Accel, points: usize) -> Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let stranger = dir.join("stranger");
        if !stranger.exists() {
            Cmd::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&stranger).run()?;
        }
        let disk = Disk::flash(repo, &repo.image(VARIANT), &dir)?;
        Ok(Self { repo: repo.clone(), dir, keys, stranger, accel, disk, points })
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

    /// The same, with a log of every write to the disk.
    pub(crate) fn boot_traced(&self, port: u16, liar: u16, extra: Vec<String>) -> Result<Vm> {
        let web = vec![(WEB, port), (LIAR, liar)];
        Vm::start(&Start { web, restart: Restart::Restarts, trace: true, extra, ..self.machine() })
    }

    fn machine(&self) -> Start<'_> {
        Start {
            disk: &self.disk,
            dir: &self.dir,
            key: &self.keys.ssh,
            accel: self.accel,
            extra: Vec::new(),
            web: Vec::new(),
            trace: false,
            restart: Restart::Ends,
            frozen: None,
        }
    }

    pub(crate) fn config(&self, more: Value) -> Result<Vec<u8>> {
        let mut config = json!({ "os": { "sshKeys": [self.keys.ssh_public()?] } });
        os_config::edit::merge(&mut config, &more);
        Ok(serde_json::to_vec_pretty(&config)?)
    }
}
