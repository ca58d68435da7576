//! Checking, repairing, growing and formatting the ext4 partitions.

use os_disk::ext4::{self, MKFS};
use os_facts::report::Volume;
use os_sys::cmd::{Cmd, CmdError};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// So much is overwritten before a filesystem is made, in bytes: both headers of LUKS2 lie within it.
const WIPED: u64 = 5 << 20;

/// What the filesystem of state is made with: small files, in many small groups, each with a copy of what the next damage takes.
const MKFS_SMALL: &[&str] = &["-i", "8192", "-O", "metadata_csum_seed"];

/// What a partition holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing was ever there.
    Blank,
    /// An ext4 filesystem, or what is left of one that nothing else has taken the place of.
    Ext4,
    /// Something of somebody else's, by its name: a filesystem, a member of a RAID or of LVM, swap, a partition table.
    Foreign(String),
}

/// A partition that was looked at, and repaired where that was possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Its condition.
    pub volume: Volume,
    /// Why it is not repaired, or not checked, for people.
    pub why: Option<String>,
}

/// Outcome of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// No errors.
    Clean,
    /// Errors, all corrected.
    Repaired,
    /// Errors that could not be corrected, or no filesystem.
    Broken,
    /// A newer release has used a feature that this e2fsck does not know, in its words. Nothing is known to be damaged.
    Unsupported(String),
}

/// Checks an ext4 filesystem: first what is safe without asking, then with every answer yes.
pub fn check(device: &Path) -> Check {
    match fsck(device, "-p") {
        Check::Broken => match fsck(device, "-y") {
            // -y answers differ from "nothing to do": the first pass did find errors.
            Check::Clean | Check::Repaired => Check::Repaired,
            other => other,
        },
        other => other,
    }
}

fn fsck(device: &Path, mode: &str) -> Check {
    match Cmd::new("e2fsck").arg(mode).arg(device).hear() {
        Ok(()) => Check::Clean,
        // e2fsck(8): 1 errors corrected, 2 corrected and a reboot advised (only for a mounted filesystem).
        Err(err) if matches!(err.code(), Some(1..=3)) => Check::Repaired,
        Err(err) => {
            let said = err.to_string();
            let feature = said.lines().find(|line| line.contains("unsupported feature"));
            feature.map_or(Check::Broken, |line| Check::Unsupported(line.trim().to_owned()))
        }
    }
}

/// Looks at what a device holds, by its signatures.
///
/// # Errors
/// When it cannot be read.
pub fn content(device: &Path) -> std::io::Result<Content> {
    /// Exit codes of blkid(8): nothing was found, several things were.
    const NOTHING: Option<i32> = Some(2);
    const SEVERAL: Option<i32> = Some(8);
    if ext4::is_blank(device)? {
        return Ok(Content::Blank);
    }
    let found = match Cmd::new("blkid").args(["-p", "-o", "export"]).arg(device).read() {
        Ok(found) => found,
        Err(err) if err.code() == SEVERAL => return Ok(Content::Foreign("several things at once".to_owned())),
        // A damaged superblock is no signature; e2fsck takes one of its copies, and everything that lies there now with it.
        Err(err) if err.code() == NOTHING => {
            let unknown = || Content::Foreign("data of a kind that is not known".to_owned());
            return Ok(if ext4::is_taken_by_another(device)? { unknown() } else { Content::Ext4 });
        }
        Err(err) => return Err(std::io::Error::other(err)),
    };
    let value = |name: &str| found.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    Ok(match (value("TYPE"), value("PTTYPE")) {
        (Some("ext4" | "ext3" | "ext2"), _) => Content::Ext4,
        (Some(kind), _) if value("USAGE") == Some("filesystem") => Content::Foreign(format!("a {kind} filesystem")),
        (Some(kind), _) => Content::Foreign(kind.to_owned()),
        (None, Some(table)) => Content::Foreign(format!("a partition table ({table})")),
        (None, None) => Content::Ext4,
    })
}

/// Makes a new ext4 filesystem, whatever was there.
///
/// # Errors
/// When mkfs fails.
pub fn format(device: &Path, label: &str) -> Result<(), CmdError> {
    // No header of what was there before is to be found again; where that fails, mkfs does as well.
    let _ = wipe_start(device);
    let options = if label == "os-data" { MKFS } else { MKFS_SMALL };
    Cmd::new("mkfs.ext4").args(["-F", "-q"]).args(options).args(["-L", label]).arg(device).run()
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
/// A blank partition is formatted. One that holds something which cannot be repaired, or is not ours to repair, is left alone.
pub fn prepare(device: &Path, label: &str) -> Prepared {
    let plain = |volume| Prepared { volume, why: None };
    let unusable = |why: String| Prepared { volume: Volume::Unusable, why: Some(why) };
    match content(device) {
        Ok(Content::Blank) => match format(device, label) {
            Ok(()) => plain(Volume::Formatted),
            Err(err) => unusable(format!("{label} is blank and cannot be formatted: {err}")),
        },
        Ok(Content::Foreign(what)) => {
            unusable(format!("{label} holds {what}, which is left alone; {} makes a new filesystem", wipe(label)))
        }
        Ok(Content::Ext4) => match check(device) {
            Check::Clean => plain(Volume::Ok),
            Check::Repaired => plain(Volume::Repaired),
            Check::Broken => unusable(format!(
                "{label} cannot be repaired. Nothing was erased; {} makes a new filesystem",
                wipe(label)
            )),
            // The kernel may know what e2fsck does not.
            Check::Unsupported(feature) => Prepared {
                volume: Volume::Ok,
                why: Some(format!(
                    "{label} was not checked: {feature}. It was used by a newer release; nothing is wrong with it"
                )),
            },
        },
        Err(err) => unusable(format!("{label} cannot be read: {err}")),
    }
}

/// The command that makes a new filesystem on a partition.
fn wipe(label: &str) -> String {
    format!("'os wipe {}'", label.trim_start_matches("os-"))
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
        assert_eq!(prepare(&path, "os-data").volume, Volume::Formatted);
        assert_eq!(prepare(&path, "os-data").volume, Volume::Ok);
        new_uuid(&path).unwrap();
        assert_eq!(prepare(&path, "os-data").volume, Volume::Ok);
    }

    #[test]
    fn damaged_superblock_is_repaired_from_its_copy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fs.img");
        for label in ["os-state", "os-data"] {
            File::create(&path).unwrap().set_len(160 << 20).unwrap();
            format(&path, label).unwrap();
            damage(&path, 1024 + 0x18, 64, 0xff);
            assert_eq!(prepare(&path, label).volume, Volume::Repaired, "{label}");
            assert_eq!(prepare(&path, label).volume, Volume::Ok, "{label}");
        }
    }

    #[test]
    fn a_filesystem_that_lost_its_start_is_not_blank() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fs.img");
        File::create(&path).unwrap().set_len(160 << 20).unwrap();
        for block in ["1024", "4096"] {
            Cmd::new("mkfs.ext4").args(["-q", "-F", "-b", block]).arg(&path).run().unwrap();
            damage(&path, 0, 4 << 20, 0);
            assert!(!ext4::is_blank(&path).unwrap(), "{block}");
            assert_eq!(prepare(&path, "os-data").volume, Volume::Repaired, "{block}");
        }
    }

    #[test]
    fn what_somebody_else_put_there_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fs.img");
        // Each over an ext4 whose copies of the superblock are still there.
        let made: [(&str, &[&str], &str); 3] = [
            ("mkfs.vfat", &[], "a vfat filesystem"),
            ("mkswap", &[], "swap"),
            ("sfdisk", &["-q"], "a partition table (dos)"),
        ];
        for (program, arguments, name) in made {
            File::create(&path).unwrap().set_len(160 << 20).unwrap();
            Cmd::new("mkfs.ext4").args(["-q", "-F", "-b", "4096"]).arg(&path).run().unwrap();
            let table = dir.path().join("table");
            std::fs::write(&table, "label: dos\n,\n").unwrap();
            if program == "sfdisk" {
                damage(&path, 1024, 1024, 0);
            }
            Cmd::new(program).args(arguments).arg(&path).stdin(File::open(&table).unwrap()).run().unwrap();
            let before = std::fs::read(&path).unwrap();
            let found = prepare(&path, "os-data");
            assert_eq!(found.volume, Volume::Unusable, "{program}");
            assert!(
                found.why.as_ref().unwrap().contains(name) && found.why.unwrap().contains("'os wipe data'"),
                "{program}"
            );
            assert!(std::fs::read(&path).unwrap() == before, "{program}: the partition was written to");
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn data_that_no_program_knows_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fs.img");
        for block in ["1024", "4096"] {
            // The copies of the superblock are still there, further behind than what was put at the start.
            File::create(&path).unwrap().set_len(160 << 20).unwrap();
            Cmd::new("mkfs.ext4").args(["-q", "-F", "-b", block]).arg(&path).run().unwrap();
            let mut file = File::options().write(true).open(&path).unwrap();
            let text: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
            file.write_all(&text).unwrap();
            let before = std::fs::read(&path).unwrap();
            let found = prepare(&path, "os-data");
            assert_eq!(found.volume, Volume::Unusable, "{block}");
            assert!(found.why.unwrap().contains("not known"), "{block}");
            assert!(std::fs::read(&path).unwrap() == before, "{block}: the partition was written to");
        }
    }

    #[test]
    fn a_feature_that_e2fsck_does_not_know_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = image(dir.path());
        // Without checksums, so that the bit alone is what is wrong; 0x60 is s_feature_incompat.
        Cmd::new("mkfs.ext4").args(["-q", "-F", "-O", "^metadata_csum"]).arg(&path).run().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[1024 + 0x62] |= 0x08;
        std::fs::write(&path, &bytes).unwrap();
        let found = prepare(&path, "os-state");
        assert_eq!(found.volume, Volume::Ok);
        assert!(found.why.as_ref().unwrap().contains("unsupported feature"), "{found:?}");
        assert!(!found.why.unwrap().contains("wipe"));
        assert!(std::fs::read(&path).unwrap() == bytes);
    }

    #[test]
    fn a_small_filesystem_grows_to_two_tebibytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fs.img");
        File::create(&path).unwrap().set_len(256 << 20).unwrap();
        format(&path, "os-data").unwrap();
        File::options().write(true).open(&path).unwrap().set_len(2 << 40).unwrap();
        grow(&path).unwrap();
        let text = Cmd::new("dumpe2fs").arg("-h").arg(&path).read().unwrap();
        let value = |name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
            line.trim().parse().unwrap()
        };
        let (blocks, inodes) = (value("Block count"), value("Inode count"));
        assert_eq!((blocks, value("Block size")), ((2 << 40) / 4096, 4096));
        assert!(inodes * value("Inode size") * 50 < 2 << 40, "{inodes} inodes");
    }

    #[test]
    fn what_cannot_be_repaired_is_never_formatted() {
        let dir = tempfile::tempdir().unwrap();
        let path = image(dir.path());
        damage(&path, 0, 16 << 20, 0xa5);
        let before = std::fs::read(&path).unwrap();
        assert_eq!(prepare(&path, "os-data").volume, Volume::Unusable);
        assert!(std::fs::read(&path).unwrap() == before, "the partition was written to");
    }
}
