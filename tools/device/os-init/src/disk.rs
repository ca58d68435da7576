//! Finds the disk we booted from and its partitions.
//!
//! The bootloader hands over the identifier of the partition it was loaded from, so a second disk with the same labels
//! never wins. A copy of the whole disk carries the same identifier, too, and so do two disks that were just flashed: there
//! [`choose`] looks at the tries that the bootloader has just counted.

use os_boot::Tries;
use os_disk::table::{PartId, Partition, Table};
use os_facts::Role;
use std::fs::File;
use std::path::{Path, PathBuf};

/// One partition of the boot disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What the table says.
    pub entry: Partition,
    /// Its device node.
    pub device: PathBuf,
}

/// The disk we booted from.
#[derive(Debug, Clone)]
pub struct BootDisk {
    /// Kernel name, such as `mmcblk0`.
    pub name: String,
    /// Device node.
    pub device: PathBuf,
    /// Its partitions, in order.
    pub parts: Vec<Part>,
    /// Bytes of them that lie beyond its end.
    pub missing: u64,
}

impl BootDisk {
    /// The partition that has this role.
    pub fn part(&self, role: Role) -> Option<&Part> {
        self.parts.iter().find(|part| part.entry.role == Some(role))
    }
}

/// What one look at the disks found.
#[derive(Debug, Default)]
pub struct Scan {
    /// Disks that carry the wanted boot partition, in kernel order.
    pub found: Vec<BootDisk>,
    /// Every disk seen, for messages.
    pub seen: Vec<String>,
}

/// Which of the disks that carry the wanted boot partition the bootloader started from, and whether that is certain.
///
/// `counted` is what the bootloader says it has written to the counters of its disk before it started us, `found` what
/// each disk has there.
pub fn choose(counted: Option<Tries>, found: &[Option<Tries>]) -> Option<(usize, bool)> {
    if counted.is_none() {
        return (!found.is_empty()).then_some((0, found.len() == 1));
    }
    let mut agree = found.iter().enumerate().filter(|(_, tries)| **tries == counted).map(|(at, _)| at);
    match (agree.next(), agree.next()) {
        (Some(only), None) => Some((only, true)),
        (Some(first), Some(_)) => Some((first, false)),
        (None, _) => (!found.is_empty()).then_some((0, false)),
    }
}

/// Looks at every disk in `sys` (`/sys/class/block`) with nodes in `dev` (`/dev`).
pub fn scan(sys: &Path, dev: &Path, boot: Option<PartId>) -> Scan {
    let mut names: Vec<String> = std::fs::read_dir(sys)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !["loop", "ram", "zram", "dm-", "sr", "fd", "md"].iter().any(|p| name.starts_with(p)))
        .filter(|name| !sys.join(name).join("partition").exists())
        .collect();
    names.sort();
    let mut out = Scan::default();
    for name in names {
        out.seen.push(name.clone());
        let device = dev.join(&name);
        let Ok(mut file) = File::open(&device) else { continue };
        let Ok(table) = Table::read(&mut file) else { continue };
        let Ok(entries) = table.partitions() else { continue };
        // Where the bootloader does not say which one it is, a name tells. Any disk with an MBR has a first partition.
        let is_wanted = |id: PartId| boot.map_or(matches!(id, PartId::Gpt(_)), |boot| id == boot);
        let is_boot = |entry: &Partition| entry.role == Some(Role::Boot) && is_wanted(entry.id);
        let ours = entries.iter().any(is_boot);
        if ours {
            let parts = entries
                .into_iter()
                .map(|entry| {
                    let device = dev.join(partition_node(&name, entry.number));
                    Part { device, entry }
                })
                .collect();
            let missing = table.missing().unwrap_or(0);
            out.found.push(BootDisk { name, device, parts, missing });
        }
    }
    out
}

/// `sda` → `sda1`, `mmcblk0` → `mmcblk0p1`: the kernel puts a `p` after a digit.
pub fn partition_node(disk: &str, number: u32) -> String {
    let separator = if disk.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    format!("{disk}{separator}{number}")
}

/// udev rules that give the boot disk's partitions the names `/dev/disk/os/<role>`.
///
/// Written at every boot, because only the initramfs knows which disk that is.
pub fn udev_rules(disk: &BootDisk) -> String {
    let mut rules = format!("SUBSYSTEM==\"block\", KERNEL==\"{}\", SYMLINK+=\"disk/os/disk\"\n", disk.name);
    for part in &disk.parts {
        // What a table says beside that is not to be trusted, and no name for anything.
        if let Some(role) = part.entry.role {
            let kernel = partition_node(&disk.name, part.entry.number);
            rules.push_str(&format!("SUBSYSTEM==\"block\", KERNEL==\"{kernel}\", SYMLINK+=\"disk/os/{role}\"\n"));
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use os_disk::{gpt, mbr};

    const SIZE: u64 = 1 << 20;

    fn blank(dir: &Path, name: &str) -> File {
        let path = dir.join("dev").join(name);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
        file.set_len(32 * SIZE).unwrap();
        std::fs::create_dir_all(dir.join("sys").join(name)).unwrap();
        file
    }

    fn boot_id(file: &File) -> PartId {
        Table::read(&mut &*file).unwrap().partitions().unwrap()[0].id
    }

    /// Partitions of 1 MiB each.
    fn disk(dir: &Path, name: &str, parts: &[&str]) -> PartId {
        let file = blank(dir, name);
        let mut table = gpt::Table::new(&mut &file).unwrap();
        for (number, name) in (1..).zip(parts) {
            let kind = gpt::Guid::parse("0fc63daf-8483-4772-8e79-3d69d8477de4").unwrap();
            let start = u64::from(number) * SIZE;
            table.add(&gpt::NewPartition { number, name, kind, start, size: SIZE, bootable: false }).unwrap();
        }
        table.write(&mut &file).unwrap();
        boot_id(&file)
    }

    fn mbr_disk(dir: &Path, name: &str) -> PartId {
        let file = blank(dir, name);
        let part = |start| mbr::NewPartition { kind: mbr::LINUX, start: start * SIZE, size: SIZE, active: false };
        mbr::Table::new(&mut &file, &[4, 5, 6, 8, 10, 12, 14].map(part)).unwrap().write(&mut &file).unwrap();
        boot_id(&file)
    }

    #[test]
    fn the_disk_we_booted_from_wins_over_one_with_the_same_labels() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("dev")).unwrap();
        disk(dir.path(), "sda", &["os-boot", "os-data"]);
        let ours = disk(dir.path(), "sdb", &["os-boot", "os-data"]);
        disk(dir.path(), "sdc", &["other"]);
        std::fs::create_dir_all(dir.path().join("sys/loop0")).unwrap();
        let (sys, dev) = (dir.path().join("sys"), dir.path().join("dev"));
        let scan = super::scan(&sys, &dev, Some(ours));
        assert_eq!(scan.found.len(), 1);
        assert_eq!(scan.found[0].name, "sdb");
        assert_eq!(scan.found[0].part(Role::Data).unwrap().device, dev.join("sdb2"));
        assert_eq!(scan.seen, ["sda", "sdb", "sdc"]);
        assert_eq!(super::scan(&sys, &dev, None).found.len(), 2);
    }

    #[test]
    fn a_disk_with_an_mbr_is_found_by_its_signature_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("dev")).unwrap();
        mbr_disk(dir.path(), "mmcblk0");
        let ours = mbr_disk(dir.path(), "mmcblk1");
        let named = disk(dir.path(), "sda", &["os-boot", "os-data"]);
        let (sys, dev) = (dir.path().join("sys"), dir.path().join("dev"));
        let found = super::scan(&sys, &dev, Some(ours)).found;
        assert_eq!(found.iter().map(|disk| disk.name.as_str()).collect::<Vec<_>>(), ["mmcblk1"]);
        for role in Role::EACH {
            let wanted = dev.join(format!("mmcblk1p{}", role.mbr_number()));
            assert_eq!(found[0].part(role).unwrap().device, wanted);
        }
        let rules = udev_rules(&found[0]);
        assert!(rules.contains("KERNEL==\"mmcblk1p8\", SYMLINK+=\"disk/os/os-data\""), "{rules}");
        // Nobody's first partition is taken for ours.
        let found = super::scan(&sys, &dev, None).found;
        assert_eq!(found.iter().map(|disk| disk.parts[0].entry.id).collect::<Vec<_>>(), [named]);
        // A copy has the same signature, as one of a GPT has the same identifiers.
        std::fs::copy(dev.join("mmcblk1"), dev.join("mmcblk0")).unwrap();
        assert_eq!(super::scan(&sys, &dev, Some(ours)).found.len(), 2);
    }

    #[test]
    fn of_copies_of_one_disk_the_one_that_was_counted_on_is_booted() {
        let tries = |text: &str| Tries::parse(text);
        let (zero, one) = (tries("0,0"), tries("1,0"));
        for (counted, found, chosen) in [
            (one, &[][..], None),
            (None, &[zero], Some((0, true))),
            (None, &[zero, one], Some((0, false))),
            (one, &[one], Some((0, true))),
            (one, &[zero, one], Some((1, true))),
            (one, &[None, one, zero], Some((1, true))),
            // A copy of a device that was cut in the middle of a start; and a disk on which the bootloader cannot write.
            (one, &[zero, one, one], Some((1, false))),
            (one, &[zero], Some((0, false))),
            (one, &[None, None], Some((0, false))),
        ] {
            assert_eq!(choose(counted, found), chosen, "{counted:?} {found:?}");
        }
    }

    #[test]
    fn nodes_follow_the_kernels_naming() {
        assert_eq!(partition_node("sda", 1), "sda1");
        assert_eq!(partition_node("mmcblk0", 7), "mmcblk0p7");
        assert_eq!(partition_node("nvme0n1", 2), "nvme0n1p2");
    }

    #[test]
    fn hostile_partition_names_make_no_rule() {
        let entry = |name: &str| {
            let id = PartId::Mbr { signature: 0, number: 1 };
            let entry = Partition { number: 1, name: name.to_owned(), role: Role::of(name), id, start: 0, size: 0 };
            Part { entry, device: PathBuf::new() }
        };
        let disk = BootDisk {
            name: "vda".to_owned(),
            device: PathBuf::new(),
            parts: vec![entry("os-boot"), entry("os-\", RUN+=\"/bin/sh")],
            missing: 0,
        };
        let rules = udev_rules(&disk);
        assert_eq!(rules.lines().count(), 2);
        assert!(rules.contains("KERNEL==\"vda1\", SYMLINK+=\"disk/os/os-boot\""), "{rules}");
    }
}
