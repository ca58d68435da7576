//! Where a firmware starts the slots and counts nothing: what `grub.cfg` does on other boards.

use super::note;
use crate::cmdline::Cmdline;
use crate::console;
use crate::disk::BootDisk;
use crate::restart;
use anyhow::{Context, Result, bail};
use os_boot::tryboot::{self, Choice, Started};
use os_boot::{Bootloader, Loader, Tries, start};
use os_facts::Role;
use os_facts::report::Report;
use os_sys::files;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use std::path::Path;

/// Where the boot partition is mounted meanwhile.
const COUNT: &str = "/count";
/// The kernel's arguments, completed; it stands in place of the kernel's own for all that come later.
const COMPLETED: &str = "/run/os/cmdline";
const RESCUE: &str = "systemd.unit=os-rescue.target";

/// What the firmware has started; none where a bootloader has chosen and counted, or a kernel was jumped into.
pub(super) fn started(cmdline: &Cmdline) -> Option<Started> {
    let counts_nothing = Bootloader::of_this_device().is_ok_and(|found| found == Bootloader::RpiTryboot);
    if cmdline.tries.is_none() && counts_nothing { Started::read(Path::new(tryboot::CHOSEN)) } else { None }
}

/// Chooses the slot and counts its try. Returns where this one is to go on, with everything in `/proc/cmdline` that a bootloader
/// would have handed over.
pub(super) fn choose(started: Started, disk: &BootDisk, report: &mut Report) -> Result<()> {
    let (choice, tries) = match counted(started, disk) {
        Ok((choice, tries)) => (choice, Some(tries)),
        Err(err) => {
            let slot = started.slot;
            note(report, format!("{err:#}; the firmware started slot {slot}, and this try of it is not counted"));
            (Choice::Run, None)
        }
    };
    let more = match choice {
        Choice::Run => "",
        Choice::Rescue => RESCUE,
        Choice::Restart(argument) => {
            console::warn(&format!("restarting into slot {}", started.slot.other()));
            let err = restart::with(argument.unwrap_or_default());
            bail!("cannot restart: {err}");
        }
    };
    let tries = tries.map(|tries| format!("os.tries={tries}")).unwrap_or_default();
    let complete = || -> Result<()> {
        let arguments = files::read_text(Path::new("/proc/cmdline"))?;
        std::fs::create_dir_all("/run/os")?;
        std::fs::write(COMPLETED, start::arguments(started.slot, &[&tries, more, &arguments]) + "\n")?;
        Ok(mount_bind(COMPLETED, "/proc/cmdline")?)
    };
    if let Err(err) = complete() {
        note(report, format!("cannot complete /proc/cmdline: {err:#}; RAUC does not know which slot this is"));
    }
    Ok(())
}

fn counted(started: Started, disk: &BootDisk) -> Result<(Choice, Tries)> {
    let part = disk.part(Role::Boot).with_context(|| format!("{} has no partition os-boot", disk.name))?;
    std::fs::create_dir_all(COUNT)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
    mount(&part.device, COUNT, "vfat", flags, Some(c"flush")).context("cannot mount os-boot")?;
    let counted = Loader::on(Path::new(COUNT)).map_err(anyhow::Error::from).and_then(|loader| {
        let choice = loader.choose(started)?;
        Ok((choice, loader.tries()?))
    });
    unmount(COUNT, UnmountFlags::empty()).context("cannot unmount os-boot")?;
    counted
}
