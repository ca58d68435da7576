//! Loads the kernel modules that the hardware asks for. A kernel with everything built in has nothing to do here.

use os_sys::cmd::Cmd;
use std::collections::BTreeSet;
use std::path::Path;

/// What the flow needs by name, whatever the hardware: filesystems, verity, zram with its compressors.
const ALWAYS: &[&str] = &[
    "ext4",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_iso8859_1",
    "erofs",
    "squashfs",
    "dm_mod",
    "dm_verity",
    "sha256_generic",
    "zram",
    "overlay",
];

/// Loads [`ALWAYS`]. A module that does not exist is built in, or its absence shows at the step that needs it.
pub fn load_named() {
    let _ = Cmd::new("modprobe").arg("-a").arg("-q").args(ALWAYS).run();
}

/// Loads a driver for every device that `sys` (`/sys/devices`) shows and that was not in `known`; returns how many
/// kinds of device were new. Called again until the disk is there: a bus driver brings up further devices.
pub fn coldplug(sys: &Path, known: &mut BTreeSet<String>) -> usize {
    let mut fresh = Vec::new();
    collect(sys, 0, &mut |alias| {
        if known.insert(alias.clone()) {
            fresh.push(alias);
        }
    });
    if !fresh.is_empty() {
        // -b: honour blacklists. Most aliases have no module in the initramfs; -q keeps that quiet.
        let _ = Cmd::new("modprobe").args(["-a", "-b", "-q"]).args(&fresh).run();
    }
    fresh.len()
}

/// sysfs is a tree with links back up; real directories are at most this deep.
const MAX_DEPTH: usize = 24;

fn collect(dir: &Path, depth: usize, found: &mut impl FnMut(String)) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth < MAX_DEPTH {
            collect(&entry.path(), depth + 1, found);
        } else if kind.is_file()
            && entry.file_name() == "modalias"
            && let Ok(alias) = std::fs::read_to_string(entry.path())
            && !alias.trim().is_empty()
        {
            found(alias.trim().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_alias_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("pci/0000/virtio")).unwrap();
        std::fs::write(dir.path().join("pci/modalias"), "pci:x\n").unwrap();
        std::fs::write(dir.path().join("pci/0000/virtio/modalias"), "virtio:y\n").unwrap();
        std::fs::write(dir.path().join("pci/0000/modalias"), "pci:x\n").unwrap();
        let mut known = BTreeSet::new();
        assert_eq!(coldplug(dir.path(), &mut known), 2);
        assert_eq!(coldplug(dir.path(), &mut known), 0);
    }
}
