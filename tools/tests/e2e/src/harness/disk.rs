//! The disk of a powered-off machine, and sticks.

use crate::harness::artifacts::Artifacts;
use crate::harness::fat::Fat;
use anyhow::{Context, Result, ensure};
use os_disk::mbr;
use os_facts::Role;
use os_sys::cmd::Cmd;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Size of the disk the image is copied to, in bytes: data must have something to grow into.
const DISK_SIZE: u64 = 6 << 30;

/// Bytes before the first partition of a disk with an MBR, and what partitions there begin at a multiple of.
const BOOTLOADER: u64 = 4 << 20;

/// What of sector 0 does not belong to it: signature and entries.
const ENTRIES: std::ops::Range<usize> = 440..512;

/// Stands for the bootloader of a board: bytes that nothing of ours writes.
fn bootloader() -> Vec<u8> {
    (0..=250).cycle().zip(0..BOOTLOADER).map(|(byte, _)| byte).collect()
}

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

    /// The same for a board whose boot ROM needs the first sectors: the partitions of the image on a disk with an MBR, and
    /// [`bootloader`] before the first of them.
    pub(crate) fn flash_mbr(artifacts: &Artifacts, dir: &Path) -> Result<Self> {
        let path = dir.join("mbr.raw");
        let mut disk = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        disk.set_len(DISK_SIZE)?;
        let mut next = BOOTLOADER;
        let mut parts = Vec::new();
        for part in &artifacts.parts {
            parts.push(mbr::NewPartition {
                kind: if part.role == Some(Role::Boot) { mbr::FAT32 } else { mbr::LINUX },
                start: next,
                size: part.size,
                active: part.role == Some(Role::Boot),
            });
            // With room for the entry of a logical one.
            next = (next + part.size + mbr::EBR_SECTORS * os_disk::SECTOR).next_multiple_of(BOOTLOADER);
        }
        disk.write_all(&bootloader())?;
        mbr::Table::new(&mut disk, &parts)?.write(&mut disk)?;
        for (from, to) in artifacts.parts.iter().zip(&parts) {
            Cmd::new("dd")
                .args([
                    "bs=1M",
                    "iflag=skip_bytes,count_bytes",
                    "oflag=seek_bytes",
                    "conv=sparse,notrunc",
                    "status=none",
                ])
                .arg(format!("if={}", artifacts.image.display()))
                .arg(format!("of={}", path.display()))
                .args([format!("skip={}", from.start), format!("count={}", from.size), format!("seek={}", to.start)])
                .run()?;
        }
        let first = parts.first().context("the image has no partition")?;
        let counters = format!("{}/{}", artifacts.loader_dir, os_boot::counters::FILE);
        Ok(Self { fat: Fat::new(&path, first.start), path, counters, work: dir.to_owned() })
    }

    /// Whether all of [`bootloader`] is still there.
    pub(crate) fn has_bootloader(&self) -> Result<()> {
        let (wanted, mut found) = (bootloader(), Vec::new());
        File::open(&self.path)?.take(BOOTLOADER).read_to_end(&mut found)?;
        let wrong = |at: &usize| !ENTRIES.contains(at) && found.get(*at) != wanted.get(*at);
        let first = (0..wanted.len()).find(wrong);
        ensure!(first.is_none(), "byte {} of the disk was changed", first.unwrap_or_default());
        Ok(())
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
