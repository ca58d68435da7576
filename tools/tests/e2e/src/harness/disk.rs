//! The disk of a powered-off machine, and sticks.

use crate::harness::artifacts::Artifacts;
use crate::harness::fat::Fat;
use anyhow::Result;
use os_sys::cmd::Cmd;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Size of the disk the image is copied to, in bytes: data must have something to grow into.
const DISK_SIZE: u64 = 6 << 30;

/// A disk with the image on it.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) path: PathBuf,
    /// The boot partition, or the only one of a stick.
    pub(crate) fat: Fat,
    /// The counters of the bootloader there.
    pub(crate) counters: String,
    work: PathBuf,
}

impl Disk {
    /// "Flashes" the image: a sparse copy on a larger disk.
    pub(crate) fn flash(artifacts: &Artifacts, dir: &Path) -> Result<Self> {
        let path = dir.join("disk.raw");
        copy(&artifacts.image, &path)?;
        File::options().write(true).open(&path)?.set_len(DISK_SIZE)?;
        let fat = Fat::new(&path, artifacts.part("os-boot")?.start);
        let counters = format!("{}/{}", artifacts.loader_dir, os_boot::counters::FILE);
        Ok(Self { path, fat, counters, work: dir.to_owned() })
    }

    /// A USB stick with a label, of so many MiB, with a partition as sticks have one.
    pub(crate) fn stick(dir: &Path, label: &str, size: u64) -> Result<Self> {
        let path = dir.join("stick.raw");
        let _ = std::fs::remove_file(&path);
        File::create(&path)?.set_len(size << 20)?;
        let table = dir.join("stick.table");
        std::fs::write(&table, "label: dos\nstart=2048, type=c\n")?;
        Cmd::new("sfdisk").arg("-q").arg(&path).stdin(File::open(&table)?).run()?;
        let kib = ((size - 1) << 10).to_string();
        let fat = if size < 256 { "16" } else { "32" };
        Cmd::new("mkfs.fat").args(["-F", fat, "-n", label, "--offset=2048"]).arg(&path).arg(kib).run()?;
        Ok(Self { fat: Fat::new(&path, 1 << 20), path, counters: String::new(), work: dir.to_owned() })
    }

    /// QEMU's arguments for a stick that is not plugged in; see [`crate::harness::vm::Vm::plug`].
    pub(crate) fn stick_arguments(&self) -> Vec<String> {
        let text = format!(
            "-device qemu-xhci,id=xhci -blockdev driver=raw,node-name=stick,file.driver=file,file.filename={}",
            self.path.display()
        );
        text.split(' ').map(str::to_owned).collect()
    }

    /// QEMU's arguments for a copy of this disk, from which the firmware starts; this one comes first by name.
    pub(crate) fn copy_to_start_from(&self) -> Result<Vec<String>> {
        let path = self.work.join("copy.raw");
        copy(&self.path, &path)?;
        let drive = format!("if=none,id=copy,format=raw,cache=unsafe,discard=unmap,file={}", path.display());
        Ok(["-drive", &drive, "-device", "virtio-blk-pci,drive=copy,bootindex=0"].map(str::to_owned).to_vec())
    }

    /// Where the counters are on the running device.
    pub(crate) fn mounted_counters(&self) -> String {
        format!("{}/{}", os_facts::place::BOOT, self.counters)
    }

    /// Changes variables of GRUB's environment block.
    pub(crate) fn set_grub(&self, assignments: &[String]) -> Result<()> {
        let file = self.work.join("grubenv");
        std::fs::write(&file, self.fat.read(&self.counters)?)?;
        Cmd::new("grub-editenv").arg(&file).arg("set").args(assignments).run()?;
        self.fat.write(&self.counters, &std::fs::read(&file)?)
    }
}

/// Copies a sparse file, sharing its blocks where the filesystem can.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    let _ = std::fs::remove_file(to);
    Ok(Cmd::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(from).arg(to).run()?)
}
