//! Keeps the hands off a disk that this machine uses.

use anyhow::{Context, Result, bail};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Refuses a disk of which anything is mounted, swapped to or part of another device.
pub(super) fn refuse_if_used(device: &Path) -> Result<()> {
    let rdev = std::fs::metadata(device)?.rdev();
    let number = format!("{}:{}", rustix::fs::major(rdev), rustix::fs::minor(rdev));
    let sys = Path::new("/sys/dev/block").join(&number).canonicalize().context("the kernel knows no such disk")?;
    let mounts = os_sys::files::read_text(Path::new("/proc/self/mountinfo"))?;
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    refuse(device, &number, &sys, &mounts, &swaps)
}

/// `sys` is what the kernel shows of the disk, `number` its device number, the rest are files of proc(5).
fn refuse(device: &Path, number: &str, sys: &Path, mounts: &str, swaps: &str) -> Result<()> {
    if sys.join("partition").exists() {
        bail!("{} is a partition; give the whole disk", device.display());
    }
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (mut numbers, mut names) = (vec![number.to_owned()], vec![name(sys)]);
    for entry in std::fs::read_dir(sys).with_context(|| format!("cannot look into {}", sys.display()))?.flatten() {
        if entry.path().join("partition").exists() {
            numbers.push(os_sys::files::read_text(&entry.path().join("dev"))?.trim().to_owned());
            names.push(name(&entry.path()));
            refuse_holders(device, &entry.path())?;
        }
    }
    refuse_holders(device, sys)?;
    // proc_pid_mountinfo(5): the third field is the number of the device, the fifth where it is mounted.
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        if let (Some(number), Some(target)) = (fields.get(2), fields.get(4))
            && numbers.iter().any(|n| n == number)
        {
            bail!(
                "{} is in use: it is mounted at {target}. Unmount it first, if it is not this machine's own disk",
                device.display()
            );
        }
    }
    if names.iter().any(|name| swaps.lines().any(|l| l.starts_with(&format!("/dev/{name} ")))) {
        bail!("{} is in use: this machine swaps to it", device.display());
    }
    Ok(())
}

fn refuse_holders(device: &Path, sys: &Path) -> Result<()> {
    if let Some(holder) = std::fs::read_dir(sys.join("holders")).into_iter().flatten().flatten().next() {
        bail!("{} is in use by {}", device.display(), holder.file_name().to_string_lossy());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const OTHERS: &str = "22 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw\n23 1 8:1 / /srv rw - ext4 /dev/sda1 rw\n";

    /// What the kernel shows of a disk sdb with one partition.
    fn sdb(dir: &Path) -> PathBuf {
        let sys = dir.join("sdb");
        std::fs::create_dir_all(sys.join("holders")).unwrap();
        std::fs::create_dir_all(sys.join("sdb1/holders")).unwrap();
        std::fs::create_dir_all(sys.join("queue")).unwrap();
        std::fs::write(sys.join("sdb1/partition"), "1\n").unwrap();
        std::fs::write(sys.join("sdb1/dev"), "8:17\n").unwrap();
        sys
    }

    fn said(sys: &Path, mounts: &str, swaps: &str) -> String {
        refuse(Path::new("/dev/sdb"), "8:16", sys, mounts, swaps)
            .map_or_else(|err| err.to_string(), |()| "free".to_owned())
    }

    #[test]
    fn a_disk_in_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let sys = sdb(dir.path());
        assert_eq!(said(&sys, OTHERS, "Filename Type\n/dev/sda2 partition 1 0 -2\n"), "free");
        for number in ["8:16", "8:17"] {
            let mounts = format!("{OTHERS}24 1 {number} / /mnt rw - vfat /dev/sdb rw\n");
            assert!(said(&sys, &mounts, "").contains("mounted at /mnt"), "{number}");
        }
        for name in ["sdb", "sdb1"] {
            assert!(said(&sys, OTHERS, &format!("/dev/{name} partition 1 0 -2\n")).contains("swaps"), "{name}");
        }
        std::fs::write(sys.join("sdb1/holders/dm-0"), "").unwrap();
        assert!(said(&sys, OTHERS, "").contains("in use by dm-0"));
        assert!(said(&sys.join("sdb1"), OTHERS, "").contains("whole disk"));
    }
}
