//! Keeps the hands off a disk that this machine uses.

use anyhow::{Context, Result, bail};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Refuses a disk of which anything is mounted, swapped to or part of another device.
pub(super) fn refuse_if_used(device: &Path) -> Result<()> {
    let rdev = std::fs::metadata(device)?.rdev();
    let number = format!("{}:{}", rustix::fs::major(rdev), rustix::fs::minor(rdev));
    let sys = Path::new("/sys/dev/block").join(&number);
    if sys.join("partition").exists() {
        bail!("{} is a partition; give the whole disk", device.display());
    }
    let mut numbers = vec![number];
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&sys).with_context(|| format!("cannot look into {}", sys.display()))?.flatten() {
        if entry.path().join("partition").exists() {
            numbers.push(os_sys::files::read_text(&entry.path().join("dev"))?.trim().to_owned());
            names.push(entry.file_name().to_string_lossy().into_owned());
            refuse_holders(device, &entry.path())?;
        }
    }
    refuse_holders(device, &sys)?;
    // proc_pid_mountinfo(5): the third field is the number of the device, the fifth where it is mounted.
    for line in os_sys::files::read_text(Path::new("/proc/self/mountinfo"))?.lines() {
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
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
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
