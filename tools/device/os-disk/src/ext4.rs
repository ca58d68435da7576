//! What ext4's superblock, its copies and what is beside them say of a partition that no program has looked at yet
//! (the kernel's Documentation/filesystems/ext4/super.rst and group_descr.rst).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// What the filesystem of data is made with (mke2fs(8)). Blocks of 4 KiB and an ordinary number of inodes, however small it begins:
/// it grows to the end of the disk, and what mke2fs takes for a small one ends at 256 GiB and keeps 6 % of all that follows for
/// inodes. With `metadata_csum_seed` the UUID changes without rewriting every checksum.
pub const MKFS: &[&str] = &["-T", "default", "-b", "4096", "-O", "metadata_csum_seed"];

/// How much of a partition must be zero for it to count as blank, in bytes. Every filesystem, LUKS and RAID signature
/// lies within it.
const BLANK_PROBE: u64 = 4 << 20;

/// Where the first copy of the superblock lies, for blocks of 1, 2 and 4 KiB, in bytes.
const COPIES: [(u64, u64); 3] = [(8193 << 10, 1 << 10), (32 << 20, 2 << 10), (128 << 20, 4 << 10)];
/// `s_magic`, and its place in a superblock.
const MAGIC: [u8; 2] = [0x53, 0xef];
const MAGIC_AT: u64 = 0x38;
/// Where the superblock itself lies, in bytes.
const START: u64 = 1024;
/// `s_feature_incompat`, and the bit of it that is set while the filesystem is mounted: its journal has to be replayed.
const INCOMPAT_AT: u64 = 0x60;
const RECOVER: u8 = 0x04;
/// How much of a group's descriptor does not change: where its bitmaps and its inodes lie.
const FIXED: usize = 12;

/// True when nothing was ever there: the start of the device is all zero, and so is every place of a copy of ext4's
/// superblock. Flash that lost its first block reads as zero as well, and the filesystem can be had back then.
///
/// # Errors
/// When the device cannot be read.
pub fn is_blank(device: &Path) -> io::Result<bool> {
    let mut file = File::open(device)?;
    // Unlike a file, a device refuses places behind its end.
    let size = file.seek(SeekFrom::End(0))?;
    for copy in COPIES.map(|(copy, _)| copy).into_iter().filter(|copy| copy + 1024 <= size) {
        let mut magic = [0; 2];
        file.seek(SeekFrom::Start(copy + MAGIC_AT))?;
        if file.read_exact(&mut magic).is_ok() && magic == MAGIC {
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

/// True when what lies where the description of the first group of blocks was is neither that, nor what flash has that lost it:
/// somebody has put something else there since, and only the copies further behind are left of ext4.
///
/// # Errors
/// When the device cannot be read.
pub fn is_taken_by_another(device: &Path) -> io::Result<bool> {
    let mut file = File::open(device)?;
    let size = file.seek(SeekFrom::End(0))?;
    let mut read = |at: u64| -> io::Result<[u8; 512]> {
        let mut sector = [0; 512];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut sector)?;
        Ok(sector)
    };
    for (copy, block) in COPIES.into_iter().filter(|(copy, block)| copy + 2 * block <= size) {
        let at = usize::try_from(MAGIC_AT).unwrap_or_default();
        if read(copy)?.get(at..).is_none_or(|bytes| !bytes.starts_with(&MAGIC)) {
            continue;
        }
        // The descriptors are in the block behind the superblock's.
        let (kept, found) = (read(copy + block)?, read((START / block + 1) * block)?);
        let is_lost = found.iter().all(|byte| Some(byte) == found.first());
        return Ok(!is_lost && kept.get(..FIXED) != found.get(..FIXED));
    }
    Ok(false)
}

/// True when an ext4 filesystem was mounted when the device was last on: it did not shut down.
pub fn was_mounted(device: &Path) -> bool {
    let look = || -> io::Result<bool> {
        let mut file = File::open(device)?;
        let (mut magic, mut incompat) = ([0; 2], [0; 4]);
        file.seek(SeekFrom::Start(START + MAGIC_AT))?;
        file.read_exact(&mut magic)?;
        file.seek(SeekFrom::Start(START + INCOMPAT_AT))?;
        file.read_exact(&mut incompat)?;
        Ok(magic == MAGIC && incompat.first().is_some_and(|low| low & RECOVER != 0))
    };
    look().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_filesystem_that_was_not_unmounted_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fs.img");
        File::create(&path).unwrap().set_len(16 << 20).unwrap();
        assert!(!was_mounted(&path));
        assert!(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&path).status().unwrap().success());
        assert!(!was_mounted(&path));
        let set = Command::new("debugfs").args(["-w", "-R", "feature needs_recovery"]).arg(&path).output().unwrap();
        assert!(set.status.success());
        assert!(was_mounted(&path));
    }
}
