//! Checking, repairing, growing and formatting the ext4 partitions.

use crate::report::Volume;
use os_sys::cmd::{Cmd, CmdError};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// How much of a partition must be zero for it to count as blank, in bytes. Every filesystem, LUKS and RAID signature
/// lies within it.
const BLANK_PROBE: u64 = 4 << 20;

/// So much is overwritten before a filesystem is made, in bytes: both headers of LUKS2 lie within it.
const WIPED: u64 = 5 << 20;

/// Outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// No errors.
    Clean,
    /// Errors, all corrected.
    Repaired,
    /// Errors that could not be corrected, or no filesystem.
    Broken,
}

/// Checks an ext4 filesystem: first what is safe without asking, then with every answer yes.
pub fn check(device: &Path) -> Check {
    match fsck(device, "-p") {
        Check::Broken => match fsck(device, "-y") {
            // -y answers differ from "nothing to do": the first pass did find errors.
            Check::Clean | Check::Repaired => Check::Repaired,
            Check::Broken => Check::Broken,
        },
        other => other,
    }
}

fn fsck(device: &Path, mode: &str) -> Check {
    match Cmd::new("e2fsck").arg(mode).arg(device).run() {
        Ok(()) => Check::Clean,
        // e2fsck(8): 1 errors corrected, 2 corrected and a reboot advised (only for a mounted filesystem).
        Err(err) if matches!(err.code(), Some(1..=3)) => Check::Repaired,
        Err(_) => Check::Broken,
    }
}

/// Where ext4 keeps the first copy of its superblock, for blocks of 1, 2 and 4 KiB, in bytes.
const COPIES: [u64; 3] = [8193 << 10, 32 << 20, 128 << 20];
/// `s_magic`, and its place in a superblock (the kernel's Documentation/filesystems/ext4/super.rst).
const EXT4_MAGIC: [u8; 2] = [0x53, 0xef];
const EXT4_MAGIC_AT: u64 = 0x38;

/// True when nothing was ever there: the start of the device is all zero, and so is every place of a copy of ext4's
/// superblock. Flash that lost its first block reads as zero as well, and the filesystem can be had back then.
///
/// # Errors
/// When the device cannot be read.
pub fn is_blank(device: &Path) -> std::io::Result<bool> {
    let mut file = File::open(device)?;
    for copy in COPIES {
        let mut magic = [0; 2];
        file.seek(SeekFrom::Start(copy + EXT4_MAGIC_AT))?;
        if file.read_exact(&mut magic).is_ok() && magic == EXT4_MAGIC {
            return Ok(false);
        }
    }
    file.rewind()?;
    let mut file = file.take(BLANK_PROBE);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let got = file.read(&mut buffer)?;
        if got == 0 {
            return Ok(true);
        }
        if buffer.get(..got).is_none_or(|bytes| bytes.iter().any(|b| *b != 0)) {
            return Ok(false);
        }
    }
}

/// Makes a new ext4 filesystem, whatever was there.
///
/// # Errors
/// When mkfs fails.
pub fn format(device: &Path, label: &str) -> Result<(), CmdError> {
    // No header of what was there before is to be found again; where that fails, mkfs does as well.
    let _ = wipe_start(device);
    // metadata_csum_seed lets the UUID change without rewriting every checksum.
    Cmd::new("mkfs.ext4").args(["-F", "-q", "-O", "metadata_csum_seed", "-L", label]).arg(device).run()
}

fn wipe_start(device: &Path) -> std::io::Result<()> {
    let mut file = File::options().write(true).open(device)?;
    let end = file.seek(SeekFrom::End(0))?.min(WIPED);
    file.rewind()?;
    std::io::copy(&mut std::io::repeat(0).take(end), &mut file)?;
    file.sync_all()
}

/// Grows a mounted ext4 filesystem to its partition; nothing happens when it fills it already.
///
/// # Errors
/// When resize2fs fails.
pub fn grow(device: &Path) -> Result<(), CmdError> {
    Cmd::new("resize2fs").arg(device).run()
}

/// Gives an unmounted ext4 filesystem a new UUID.
///
/// # Errors
/// When tune2fs fails.
pub fn new_uuid(device: &Path) -> Result<(), CmdError> {
    Cmd::new("tune2fs").args(["-U", "random"]).arg(device).run()
}

/// Brings a partition into a state in which it can be mounted, without ever losing what it held.
///
/// A blank partition is formatted. One that holds something which cannot be repaired is left alone.
pub fn prepare(device: &Path, label: &str) -> Volume {
    match is_blank(device) {
        Ok(true) => match format(device, label) {
            Ok(()) => Volume::Formatted,
            Err(_) => Volume::Unusable,
        },
        Ok(false) => match check(device) {
            Check::Clean => Volume::Ok,
            Check::Repaired => Volume::Repaired,
            Check::Broken => Volume::Unusable,
        },
        Err(_) => Volume::Unusable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn image(dir: &Path) -> std::path::PathBuf {
        let path = dir.join("fs.img");
        File::create(&path).unwrap().set_len(16 << 20).unwrap();
        path
    }

    fn damage(path: &Path, at: u64, length: usize, byte: u8) {
        let mut file = File::options().write(true).open(path).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&vec![byte; length]).unwrap();
    }

    // Real e2fsprogs on a plain file: the same programs run on the device.
    #[test]
    fn blank_is_formatted_then_clean() {
        let dir = tempfile::tempdir().unwrap();
        let path = image(dir.path());
        assert_eq!(prepare(&path, "os-data"), Volume::Formatted);
        assert_eq!(prepare(&path, "os-data"), Volume::Ok);
        new_uuid(&path).unwrap();
        assert_eq!(prepare(&path, "os-data"), Volume::Ok);
    }

    #[test]
    fn damaged_superblock_is_repaired_from_its_copy() {
        let dir = tempfile::tempdir().unwrap();
        let path = image(dir.path());
        format(&path, "os-data").unwrap();
        damage(&path, 1024 + 0x18, 32, 0xff);
        assert_eq!(prepare(&path, "os-data"), Volume::Repaired);
        assert_eq!(prepare(&path, "os-data"), Volume::Ok);
    }

    #[test]
    fn a_filesystem_that_lost_its_start_is_not_blank() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fs.img");
        File::create(&path).unwrap().set_len(160 << 20).unwrap();
        for block in ["1024", "4096"] {
            Cmd::new("mkfs.ext4").args(["-q", "-F", "-b", block]).arg(&path).run().unwrap();
            damage(&path, 0, 4 << 20, 0);
            assert!(!is_blank(&path).unwrap(), "{block}");
            assert_eq!(prepare(&path, "os-data"), Volume::Repaired, "{block}");
        }
    }

    #[test]
    fn what_cannot_be_repaired_is_never_formatted() {
        let dir = tempfile::tempdir().unwrap();
        let path = image(dir.path());
        damage(&path, 0, 16 << 20, 0xa5);
        let before = std::fs::read(&path).unwrap();
        assert_eq!(prepare(&path, "os-data"), Volume::Unusable);
        assert!(std::fs::read(&path).unwrap() == before, "the partition was written to");
    }
}
