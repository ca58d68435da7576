//! Loads the kernel modules that the hardware asks for. A kernel with everything built in has nothing to do here.

use crate::needs::{self, When};
use os_sys::cmd::Cmd;
use std::collections::BTreeSet;
use std::path::Path;

/// Devices that a disk is or hangs on nearly everywhere, as their aliases in sysfs begin: virtio, NVMe (PCI class 01.08), SD and
/// eMMC (PCI class 08.05, platform devices, cards). The others (SATA, SCSI, USB) have their drivers loaded when the disk is
/// not there yet: each costs time that a device without it need not spend before its containers run.
const LIKELY: &[&str] =
    &["virtio:", "pci:v00001AF4", "pci:*bc01sc08", "pci:*bc08sc05", "platform:", "of:", "acpi:", "mmc:"];

/// Loads what every boot needs by name. A module that does not exist is built in, or its absence shows at the step that needs it.
pub fn load_named() {
    let _ = Cmd::new("modprobe").arg("-a").arg("-q").args(needs::modules(When::Boot)).run();
}

/// Disks among them, or their controllers: their drivers take a moment until the disk shows.
const DISKS: &[&str] = &[
    "virtio:d00000002",
    "virtio:d00000008",
    "pci:*bc01sc08",
    "pci:*bc08sc05",
    "of:*mmc",
    "of:*sdh",
    "acpi:80860F14",
    "mmc:",
];

/// True when one of the devices in `known` may bring a disk by itself, without further drivers.
pub fn may_bring_disk(known: &BTreeSet<String>) -> bool {
    known.iter().any(|alias| DISKS.iter().any(|pattern| begins(alias, pattern)))
}

/// Which devices are given drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those of `LIKELY`, where the disk is on nearly every machine.
    Likely,
    /// All.
    All,
}

impl Scope {
    fn covers(self, alias: &str) -> bool {
        self == Self::All || LIKELY.iter().any(|pattern| begins(alias, pattern))
    }
}

/// True when `alias` begins as `pattern` says; `*` in it stands for any text.
fn begins(alias: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => alias.starts_with(pattern),
        Some((head, tail)) => alias.strip_prefix(head).is_some_and(|rest| rest.contains(tail)),
    }
}

/// Loads a driver for every device of `scope` that `sys` (`/sys/devices`) shows and that was not in `known`; returns how many
/// kinds of device were new. Called again until the disk is there: a bus driver brings up further devices.
pub fn coldplug(sys: &Path, scope: Scope, known: &mut BTreeSet<String>) -> usize {
    let mut fresh = Vec::new();
    collect(sys, 0, &mut |alias| {
        if scope.covers(&alias) && known.insert(alias.clone()) {
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
        assert_eq!(coldplug(dir.path(), Scope::Likely, &mut known), 1);
        assert_eq!(coldplug(dir.path(), Scope::All, &mut known), 1);
        assert_eq!(coldplug(dir.path(), Scope::All, &mut known), 0);
    }

    #[test]
    fn only_a_disk_is_waited_for() {
        let known = |alias: &str| BTreeSet::from([alias.to_owned()]);
        assert!(may_bring_disk(&known("virtio:d00000002v00001AF4")));
        assert!(may_bring_disk(&known("of:NmmcT(null)Cbrcm,bcm2711-emmc2")));
        assert!(!may_bring_disk(&known("virtio:d00000001v00001AF4")) && !may_bring_disk(&BTreeSet::new()));
    }

    #[test]
    fn where_a_disk_is_likely_comes_first() {
        for likely in [
            "virtio:d00000002v00001AF4",
            "pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00",
            "pci:v00008086d00005845sv00001AF4sd00001100bc01sc08i02",
            "pci:v00008086d00000F16sv00000000sd00000000bc08sc05i01",
            "of:NmmcT(null)Cbrcm,bcm2835-sdhost",
            "mmc:block",
        ] {
            assert!(Scope::Likely.covers(likely), "{likely}");
        }
        for other in ["pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01", "usb:v1D6Bp0002", "scsi:t-0x00"] {
            assert!(!Scope::Likely.covers(other) && Scope::All.covers(other), "{other}");
        }
    }
}
