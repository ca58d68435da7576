//! The partitions that are written: mounted, grown, encrypted, and erased where somebody asks for it. Nothing here keeps the
//! device from starting.

use super::{BOOT, DATA, STATE, SYSROOT, as_asked, fs, note};
use crate::console;
use crate::disk::{BootDisk, Part};
use crate::encryption::{self, Data};
use crate::{reserve, storage};
use anyhow::{Context, Result};
use os_disk::ext4;
use os_disk::table::Table;
use os_facts::Role;
use os_facts::identity;
use os_facts::protection::Protection;
use os_facts::report::{Report, Volume};
use os_sys::cmd::Cmd;
use os_sys::files;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use std::fs::File;
use std::path::{Path, PathBuf};

pub(super) fn mount_boot(disk: &BootDisk, report: &mut Report) {
    let Some(part) = disk.part(Role::Boot) else {
        return note(report, format!("{} has no partition os-boot", disk.name));
    };
    // fsck.fat(8): 0 clean, 1 corrected. Anything else shows when the mount fails.
    let _ = Cmd::new("fsck.fat").arg("-a").arg(&part.device).run();
    let options = c"umask=0077,flush";
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
    if let Err(err) = mount(&part.device, BOOT, "vfat", flags, Some(options)) {
        note(report, format!("cannot mount os-boot: {err}; the last good configuration stays in force"));
    }
}

/// Formats the state partition; true when that is done. The key of data is kept when data is.
pub(super) fn erase_state(disk: &BootDisk, keep_key: bool, report: &mut Report) -> bool {
    as_asked(report, "wiping os-state");
    let erase = || -> Result<()> {
        let part = disk.part(Role::State).with_context(|| format!("{} has no partition os-state", disk.name))?;
        // A state that cannot be mounted has no key to keep.
        if keep_key && mount_ext4(&part.device, STATE).is_ok() {
            let carried = encryption::carry_key(Path::new(STATE), Path::new(BOOT));
            unmount(STATE, UnmountFlags::empty())?;
            carried.context("the key of data cannot be kept")?;
        }
        Ok(storage::format(&part.device, "os-state")?)
    };
    let done = erase();
    if let Err(err) = &done {
        note(report, format!("wiping os-state failed and will be tried again at the next boot: {err:#}"));
    }
    done.is_ok()
}

/// Erases what the engine keeps; true when nothing is left of it.
pub(super) fn erase_apps(report: &mut Report) -> bool {
    if report.data == Volume::Unusable {
        let text = "containers and images cannot be wiped without os-data; that is tried again at the next boot";
        note(report, text.to_owned());
        return false;
    }
    as_asked(report, "wiping containers and images");
    let mut left = Vec::new();
    for dir in os_config_model::wipe::APPS {
        match std::fs::remove_dir_all(Path::new(DATA).join(dir)) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => left.push(format!("{dir}: {err}")),
            _ => {}
        }
    }
    if !left.is_empty() {
        note(report, format!("wiping failed and will be tried again at the next boot: {}", left.join("; ")));
    }
    left.is_empty()
}

fn mount_ext4(device: &Path, target: &str) -> rustix::io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    // A longer commit interval spares flash; fsync still reaches the medium at once.
    mount(device, target, "ext4", flags, Some(c"commit=30"))
}

/// Mounts state; returns true when the device has no identity yet.
pub(super) fn mount_state(disk: &BootDisk, wiped: bool, report: &mut Report) -> bool {
    report.unclean = disk.part(Role::State).is_some_and(|part| ext4::was_mounted(&part.device));
    let prepared = disk.part(Role::State).map(|part| (part, storage::prepare(&part.device, "os-state")));
    let mut why = None;
    report.state = match prepared {
        Some((part, found)) => {
            why = found.why;
            match found.volume {
                Volume::Unusable => Volume::Unusable,
                volume if mount_ext4(&part.device, STATE).is_ok() => {
                    if volume == Volume::Repaired {
                        note(report, "os-state had errors; they were repaired".to_owned());
                    }
                    if wiped { Volume::Formatted } else { volume }
                }
                _ => Volume::Unusable,
            }
        }
        None => Volume::Unusable,
    };
    if let Some(why) = why {
        note(report, why);
    }
    if report.state == Volume::Unusable {
        note(report, "this boot uses a temporary state, with a new identity".to_owned());
        if let Err(err) = fs("tmpfs", STATE, MountFlags::NOSUID | MountFlags::NODEV, "mode=0755,size=64m") {
            console::error(&format!("{err:#}"));
        }
        // A damaged state is no first boot: the disk keeps its identifiers.
        return false;
    }
    if let Err(err) = encryption::return_key(Path::new(STATE), Path::new(BOOT)) {
        note(report, format!("the key of data cannot be put back: {err:#}"));
    }
    if let Err(err) = reserve::keep_state(Path::new(STATE)) {
        note(report, format!("os-state has no reserve for when it is full: {err}"));
    }
    identity::is_missing(Path::new(STATE))
}

/// Gives this copy of the image, or of another disk, identifiers of its own, so that two disks never clash.
pub(super) fn make_unique(disk: &BootDisk, report: &mut Report) {
    let mut failed = Vec::new();
    if report.state != Volume::Unusable
        && let Some(part) = disk.part(Role::State)
    {
        // The UUID of a mounted filesystem must not change under it.
        let _ = unmount(STATE, UnmountFlags::empty());
        if let Err(err) = storage::new_uuid(&part.device) {
            failed.push(format!("os-state: {err}"));
        }
        if let Err(err) = mount_ext4(&part.device, STATE) {
            failed.push(format!("os-state: {err}"));
        }
    }
    if let Some(part) = disk.part(Role::Data)
        && ext4::is_blank(&part.device).is_ok_and(|blank| !blank)
        && !encryption::is_luks(&part.device)
        && let Err(err) = storage::new_uuid(&part.device)
    {
        failed.push(format!("os-data: {err}"));
    }
    let table = || -> Result<()> {
        let mut file = File::options().read(true).write(true).open(&disk.device)?;
        let mut table = Table::read(&mut file)?;
        table.randomize()?;
        table.write(&mut file)?;
        Ok(file.sync_all()?)
    };
    if let Err(err) = table() {
        failed.push(format!("partition table: {err:#}"));
    }
    if failed.is_empty() {
        console::info("disk and filesystems have identifiers of their own now");
    } else {
        note(report, format!("cannot give new identifiers to {}", failed.join("; ")));
    }
}

/// Mounts data; false when it was to be wiped and was not.
pub(super) fn mount_data(
    disk: &BootDisk,
    wipe: bool,
    first_boot: bool,
    wanted: Option<Protection>,
    report: &mut Report,
) -> bool {
    let Some(part) = disk.part(Role::Data) else {
        note(report, format!("{} has no partition os-data: containers will not run", disk.name));
        return !wipe;
    };
    let data = Data {
        device: &part.device,
        sysroot: Path::new(SYSROOT),
        state: (report.state != Volume::Unusable).then_some(Path::new(STATE)),
        boot: Path::new(BOOT),
        wanted,
    };
    if wanted.is_some() || encryption::is_luks(&part.device) || data.is_unfinished() {
        lend_to_root(report);
    }
    let mut wiped = false;
    if wipe {
        as_asked(report, "wiping os-data");
        match data.format() {
            Ok(()) => wiped = true,
            Err(err) => {
                note(report, format!("wiping os-data failed and will be tried again at the next boot: {err:#}"));
            }
        }
    }
    let opened = open_data(disk, part, &data, report);
    take_back(report);
    let (found, device) = match &opened {
        Ok(device) => {
            let prepared = storage::prepare(device, "os-data");
            if let Some(why) = prepared.why {
                note(report, why);
            }
            (prepared.volume, device.as_path())
        }
        Err(err) => {
            report.encryption.problem = Some(format!("{err:#}"));
            note(report, format!("{err:#}"));
            (Volume::Unusable, part.device.as_path())
        }
    };
    if found == Volume::Unusable || mount_ext4(device, DATA).is_err() {
        report.data = Volume::Unusable;
        note(report, "os-data cannot be used: the device runs without containers. Nothing was erased".to_owned());
        return wiped || !wipe;
    }
    if found == Volume::Repaired && !first_boot {
        note(report, "os-data had errors; they were repaired".to_owned());
    }
    report.data = if wiped { Volume::Formatted } else { found };
    if let Err(err) = storage::grow(device) {
        note(report, format!("cannot grow the filesystem of os-data: {err}"));
    }
    match reserve::tend(Path::new(DATA)) {
        Ok(None) => {}
        Ok(Some(given_up)) => note(report, given_up),
        Err(err) => note(report, format!("os-data has no reserve for when it is full: {err}")),
    }
    wiped || !wipe
}

/// Grows the partition, encrypts it when that is wanted, opens it when it is encrypted; returns what to mount.
fn open_data(disk: &BootDisk, part: &Part, data: &Data<'_>, report: &mut Report) -> Result<PathBuf> {
    report.encryption.wanted = data.wanted.map(Protection::word).map(str::to_owned);
    data.recover()?;
    if data.wanted.is_some() && ext4::is_blank(&part.device)? {
        data.format()?;
    } else if let Err(err) = data.encrypt(|needed| grow_partition(disk, part.entry.number, Some(needed)).map(drop)) {
        report.encryption.problem = Some(format!("{err:#}"));
        note(report, format!("{err:#}"));
    }
    if !encryption::is_luks(&part.device) {
        grow_data(disk, part, report);
        return Ok(part.device.clone());
    }
    data.finish_encrypting()?;
    grow_data(disk, part, report);
    let opened = data.open()?;
    report.encryption.found = match data.settle(opened) {
        Ok(now) => now,
        Err(err) => {
            report.encryption.problem = Some(format!("{err:#}"));
            note(report, format!("{err:#}"));
            opened
        }
    };
    Ok(encryption::MAPPED.into())
}

fn grow_data(disk: &BootDisk, part: &Part, report: &mut Report) {
    match grow_partition(disk, part.entry.number, None) {
        Ok(0) => {}
        Ok(more) => console::info(&format!("os-data grew by {} MiB", more >> 20)),
        Err(err) => note(report, format!("cannot grow os-data: {err:#}")),
    }
}

/// What programs of the root slot need when they run inside it already now.
const LENT: [&str; 4] = ["dev", "proc", "sys", "run"];

fn lend_to_root(report: &mut Report) {
    for dir in LENT {
        if let Err(err) = mount_bind(format!("/{dir}"), Path::new(SYSROOT).join(dir)) {
            note(report, format!("cannot lend /{dir} to the root slot: {err}"));
        }
    }
}

fn take_back(report: &mut Report) {
    for dir in LENT.map(|dir| format!("{SYSROOT}/{dir}")) {
        if files::is_mount_point(&dir)
            && let Err(err) = unmount(&dir, UnmountFlags::DETACH)
        {
            note(report, format!("cannot take {dir} back: {err}"));
        }
    }
}

/// Grows the partition to `size` bytes, or to the end of the disk, and tells the kernel; returns the bytes gained.
fn grow_partition(disk: &BootDisk, number: u32, size: Option<u64>) -> Result<u64> {
    let mut file = File::options().read(true).write(true).open(&disk.device)?;
    let mut table = Table::read(&mut file)?;
    let more = table.growth(number)?;
    if more == 0 {
        return Ok(0);
    }
    table.grow(number, size)?;
    table.write(&mut file)?;
    file.sync_all()?;
    Cmd::new("partx").args(["--update", "--nr", &number.to_string()]).arg(&disk.device).run()?;
    Ok(more)
}
