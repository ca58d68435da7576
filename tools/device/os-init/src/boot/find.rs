//! Waits for the disk that the bootloader started from.

use super::note;
use crate::cmdline::Cmdline;
use crate::console;
use crate::disk::{self, BootDisk};
use crate::modules::{self, Scope};
use anyhow::{Result, bail};
use os_boot::{Loader, Tries};
use os_facts::Role;
use os_facts::report::Report;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a likely disk that does not show, or is not ours, keeps the drivers of others from being loaded.
const LIKELY_WAIT: Duration = Duration::from_millis(500);

/// How long a disk that may be another one's copy waits for the other to show.
const TWIN_WAIT: Duration = Duration::from_secs(3);

/// Where a boot partition is mounted for a look at its counters.
const LOOK: &str = "/look";

/// The disk that we boot from.
pub(super) struct Booted {
    pub(super) disk: BootDisk,
    /// Another disk carries the same identifiers.
    pub(super) has_twin: bool,
}

/// Finds it, loading drivers as it takes.
pub(super) fn booted(cmdline: &Cmdline, report: &mut Report) -> Result<Booted> {
    let start = Instant::now();
    let (mut known, mut scope) = (BTreeSet::new(), Scope::Likely);
    let (mut tries, mut first_seen) = (BTreeMap::new(), None);
    let mut next_word = Duration::from_secs(5);
    loop {
        let fresh = modules::coldplug(Path::new("/sys/devices"), scope, &mut known);
        let scan = disk::scan(Path::new("/sys/class/block"), Path::new("/dev"), cmdline.boot);
        let found: Vec<_> = scan.found.iter().map(|disk| counted_on(disk, cmdline, &mut tries)).collect();
        let chosen = disk::choose(cmdline.tries, &found);
        if let Some((at, is_certain)) = chosen
            && (is_certain || first_seen.get_or_insert_with(Instant::now).elapsed() >= TWIN_WAIT)
        {
            return Ok(settle(scan.found, at, is_certain, report));
        }
        let wanted = cmdline.boot.map_or("named os-boot".to_owned(), |id| format!("with PARTUUID {id}"));
        if start.elapsed() >= cmdline.wait && chosen.is_none() {
            bail!(
                "no disk has a boot partition {wanted} after {} seconds; disks seen: {}",
                cmdline.wait.as_secs(),
                if scan.seen.is_empty() { "none".to_owned() } else { scan.seen.join(" ") }
            );
        }
        if start.elapsed() >= next_word {
            console::warn(&format!("waiting for the boot partition {wanted}; disks so far: {}", scan.seen.join(" ")));
            next_word += Duration::from_secs(5);
        }
        if fresh > 0 {
            // The driver of a bus brings up what is on it.
            continue;
        }
        if scope == Scope::Likely && (!modules::may_bring_disk(&known) || start.elapsed() >= LIKELY_WAIT) {
            scope = Scope::All;
            continue;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Takes one of the disks and says what is remarkable about that.
fn settle(mut found: Vec<BootDisk>, at: usize, is_certain: bool, report: &mut Report) -> Booted {
    let names = found.iter().map(|disk| disk.name.as_str()).collect::<Vec<_>>().join(", ");
    let has_twin = found.len() > 1;
    let disk = found.swap_remove(at);
    match (has_twin, is_certain) {
        (true, true) => note(
            report,
            format!(
                "{names} are copies of one disk. The bootloader started from {}, which gets identifiers of its own",
                disk.name
            ),
        ),
        (true, false) => note(
            report,
            format!(
                "{names} are copies of one disk, and nothing tells which of them the bootloader started from. This boot \
                 uses {}, which gets identifiers of its own, so that the next one is certain",
                disk.name
            ),
        ),
        (false, false) => note(
            report,
            format!(
                "the tries that the bootloader has counted are not on {}: its firmware may not be able to write there, \
                 and a release that does not start is not given up then",
                disk.name
            ),
        ),
        (false, true) => {}
    }
    if disk.missing > 0 {
        let missing = disk.missing.div_ceil(1 << 20);
        let text = "is smaller than the disk that it was copied from";
        note(
            report,
            format!("{} {text}: {missing} MiB are missing, and the kernel may refuse its partitions", disk.name),
        );
    }
    report.disk = disk.name.clone();
    Booted { disk, has_twin }
}

/// The tries on a disk's boot partition, if it can be read. Looked at only where the bootloader says what to compare with.
fn counted_on(disk: &BootDisk, cmdline: &Cmdline, known: &mut BTreeMap<String, Tries>) -> Option<Tries> {
    cmdline.tries?;
    if let Some(tries) = known.get(&disk.name) {
        return Some(*tries);
    }
    let part = disk.part(Role::Boot)?;
    std::fs::create_dir_all(LOOK).ok()?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(&part.device, LOOK, "vfat", flags, None).ok()?;
    let tries = Loader::on(Path::new(LOOK)).and_then(|loader| Ok(loader.tries()?));
    let _ = unmount(LOOK, UnmountFlags::DETACH);
    let tries = tries.ok()?;
    known.insert(disk.name.clone(), tries);
    Some(tries)
}
