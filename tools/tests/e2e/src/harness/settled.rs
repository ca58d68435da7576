//! A device that has been through its first boot, kept running: the memory of the machine, its disk and its firmware's
//! variables. Scenarios that begin with such a device go on from a copy and save themselves the boot.
//!
//! It is kept in the build directory for the next run, under an identity that another image, another machine, another
//! QEMU or another way to make it change.

use crate::harness::artifacts::Artifacts;
use crate::harness::disk::copy;
use crate::harness::fat::Fat;
use crate::harness::lab::Lab;
use crate::harness::vm::{Start, Vm};
use anyhow::{Context, Result, anyhow};
use os_sys::cmd::Cmd;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// Where it is, and who may make it.
#[derive(Debug)]
pub(crate) struct Settled {
    dir: PathBuf,
    making: Mutex<()>,
}

/// The right to look whether it is there, and to make it; others wait meanwhile.
pub(crate) struct Claim<'a> {
    dir: &'a Path,
    identity: String,
    _making: MutexGuard<'a, ()>,
}

impl Settled {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, making: Mutex::new(()) }
    }

    /// `made`: everything that decides what is made, beside the image and QEMU.
    pub(crate) fn claim(&self, artifacts: &Artifacts, made: &str) -> Result<Claim<'_>> {
        let identity = identity(artifacts, made)?;
        let making = self.making.lock().map_err(|_| anyhow!("a chain panicked while it made the settled device"))?;
        Ok(Claim { dir: &self.dir, identity, _making: making })
    }
}

impl Claim<'_> {
    fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// True when it is there.
    pub(crate) fn is_made(&self) -> bool {
        std::fs::read_to_string(self.at("identity")).is_ok_and(|found| found == self.identity)
    }

    /// Keeps this one, which goes on afterwards.
    pub(crate) fn keep(self, lab: &Lab, vm: &mut Vm) -> Result<()> {
        std::fs::create_dir_all(self.dir)?;
        let _ = std::fs::remove_file(self.at("identity"));
        vm.freeze(&self.at("memory"))?;
        copy(&lab.disk.path, &self.at("disk.raw"))?;
        copy(&Vm::firmware_vars(&lab.dir), &self.at("firmware-vars.fd"))?;
        vm.go_on()?;
        Ok(std::fs::write(self.at("identity"), &self.identity)?)
    }

    /// Goes on with a copy of it, in place of the disk that was flashed.
    pub(crate) fn thaw(&self, lab: &Lab, start: Start<'_>) -> Result<Vm> {
        copy(&self.at("disk.raw"), &lab.disk.path)?;
        copy(&self.at("firmware-vars.fd"), &Vm::firmware_vars(&lab.dir))?;
        let memory = self.at("memory");
        let mut vm = Vm::start(&Start { frozen: Some(&memory), ..start })?;
        vm.wait_ssh()?;
        // It has slept.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        vm.ssh(&format!("date -s @{now} >/dev/null"))?;
        Ok(vm)
    }
}

fn identity(artifacts: &Artifacts, made: &str) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    let qemu = Cmd::new(lab::qemu::program(artifacts.arch))
        .arg("--version")
        .read()
        .context("QEMU does not say its version")?;
    let machine = [lab::qemu::board(artifacts.arch), lab::qemu::emulated(artifacts.arch)];
    (qemu, machine, made, artifacts.accel.processors(), &artifacts.root_hash, artifacts.keys.ssh_public()?)
        .hash(&mut hasher);
    let kernel = Fat::new(&artifacts.slot.kernel, 0);
    for name in os_slotmake::slot::FILES {
        kernel.read(name)?.hash(&mut hasher);
    }
    for path in [lab::qemu::firmware(artifacts.arch)?, artifacts.keys.channel_root.clone()] {
        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?.hash(&mut hasher);
    }
    let mut disk = File::open(&artifacts.image)?;
    for name in ["os-boot", "os-state", "os-data"] {
        let part = artifacts.part(name)?;
        hash_part(&mut disk, part.start, part.size, &mut hasher)?;
    }
    Ok(format!("{:016x}\n", hasher.finish()))
}

fn hash_part(disk: &mut File, start: u64, size: u64, hasher: &mut DefaultHasher) -> Result<()> {
    use std::io::Seek;
    disk.seek(std::io::SeekFrom::Start(start))?;
    let mut rest = disk.take(size);
    let mut block = vec![0; 1 << 20];
    loop {
        let got = rest.read(&mut block)?;
        if got == 0 {
            return Ok(());
        }
        hasher.write(block.get(..got).unwrap_or_default());
    }
}
