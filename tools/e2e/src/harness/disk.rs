//! The boot partition of a powered-off machine, edited as a person with a card reader would.

use anyhow::{Context, Result};
use os_sys::cmd::Cmd;
use osctl::lab::disk::layout;
use osctl::repo::Repo;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Size of the disk the image is copied to, in bytes: data must have something to grow into.
const DISK_SIZE: u64 = 6 << 30;

/// A disk with the image on it.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) path: PathBuf,
    boot_offset: u64,
    work: PathBuf,
}

impl Disk {
    /// "Flashes" the image: a sparse copy on a larger disk.
    pub(crate) fn flash(repo: &Repo, image: &Path, dir: &Path) -> Result<Self> {
        let path = dir.join("disk.raw");
        let _ = std::fs::remove_file(&path);
        Cmd::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(image).arg(&path).run()?;
        File::options().write(true).open(&path)?.set_len(DISK_SIZE)?;
        let layout = layout(repo, &repo.vars()?)?;
        let boot_offset = layout.find("os-boot").context("the layout has no os-boot")?.start;
        Ok(Self { path, boot_offset, work: dir.to_owned() })
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
        Ok(Self { path, boot_offset: 1 << 20, work: dir.to_owned() })
    }

    /// QEMU's arguments for a stick that is not plugged in; see [`crate::harness::vm::Vm::plug`].
    pub(crate) fn stick_arguments(&self) -> Vec<String> {
        let text = format!(
            "-device qemu-xhci,id=xhci -blockdev driver=raw,node-name=stick,file.driver=file,file.filename={}",
            self.path.display()
        );
        text.split(' ').map(str::to_owned).collect()
    }

    /// Copies a directory and all in it.
    pub(crate) fn copy_in(&self, dir: &Path) -> Result<()> {
        Ok(self.mtools("mcopy").arg("-s").arg("-o").arg(dir).arg("::").run()?)
    }

    fn mtools(&self, program: &str) -> Cmd {
        let image = format!("{}@@{}", self.path.display(), self.boot_offset);
        Cmd::new(program).env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(image)
    }

    /// Writes a file on the boot partition, replacing what is there.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let file = self.work.join("boot-file");
        std::fs::write(&file, content)?;
        self.mtools("mcopy").arg("-o").arg(&file).arg(format!("::{name}")).run()?;
        Ok(())
    }

    /// Makes a directory on the boot partition, if it is not there.
    pub(crate) fn make_dir(&self, name: &str) -> Result<()> {
        if self.mtools("mdir").arg("-b").arg(format!("::{name}")).run().is_ok() {
            return Ok(());
        }
        Ok(self.mtools("mmd").arg(format!("::{name}")).run()?)
    }

    /// Reads a file of the boot partition.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let file = self.work.join("boot-file");
        self.mtools("mcopy").arg("-n").arg("-o").arg(format!("::{name}")).arg(&file).run()?;
        Ok(std::fs::read(&file)?)
    }

    /// Removes a file of the boot partition.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        Ok(self.mtools("mdel").arg(format!("::{name}")).run()?)
    }

    /// Changes variables of GRUB's environment block.
    pub(crate) fn set_grub(&self, assignments: &[&str]) -> Result<()> {
        let file = self.work.join("grubenv");
        std::fs::write(&file, self.read("EFI/BOOT/grubenv")?)?;
        Cmd::new("grub-editenv").arg(&file).arg("set").args(assignments).run()?;
        self.write("EFI/BOOT/grubenv", &std::fs::read(&file)?)
    }
}
