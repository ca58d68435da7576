//! Brings the kernel of a slot into memory, as the bootloader would: with the arguments that the slot says itself.

use crate::loader::Loader;
use crate::start::{self, Start};
use anyhow::{Context, Result};
use os_facts::{Role, Slot};
use os_sys::cmd::Cmd;
use os_sys::files;
use rustix::mount::MountFlags;
use std::path::Path;

/// Where the unit has the slot's kernel partition mounted for itself.
const DIR: &str = "/run/os-kexec";
/// A larger file is none that was made for us, in bytes.
const MAX: u64 = 64 << 10;

/// Loads the kernel of a slot with kexec(8); nothing is started yet.
///
/// # Errors
/// When the slot does not say how it is started in the way that ours do, or the kernel refuses.
pub fn load(slot: Slot) -> Result<()> {
    let loader = Loader::of_this_device()?;
    let device = Role::Kernel(slot).device();
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount(&device, DIR, "vfat", flags, None)
        .with_context(|| format!("cannot mount {}", device.display()))?;
    let dir = Path::new(DIR);
    let text = String::from_utf8(files::read_limited(&dir.join("slot.cfg"), MAX)?).context("slot.cfg is no text")?;
    let start = Start::parse(&text).context("slot.cfg is not of the form that this program knows")?;
    let own = loader.arguments().unwrap_or_default();
    // Not what this boot was started with: a device's first boot gives its partitions identifiers of their own.
    let ask = Cmd::new("blkid").args(["-p", "-o", "value", "-s", "PART_ENTRY_UUID"]).arg(Role::Boot.device());
    let boot = ask.read().context("the boot partition has no identifier")?;
    let boot = format!("os.boot={}", boot.trim());
    // As they are counted there.
    let tries = loader.tries().map(|tries| format!("os.tries={tries}")).unwrap_or_default();
    let arguments = start::arguments(slot, &[&boot, &tries, &own, start.arguments]);
    // By the system call that hands the files over, where the kernel has it: Debian's for arm64 has only the older one.
    Ok(Cmd::new("kexec")
        .args(["--kexec-syscall-auto", "--load"])
        .arg(dir.join(start.kernel))
        .arg(format!("--initrd={}", dir.join(start.initramfs).display()))
        .arg(format!("--command-line={arguments}"))
        .run()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "linux \"$os_kernel/vmlinuz\" $os_args os.roothash=ab os.rootsize=4096 quiet\n\
                        initrd \"$os_kernel/initramfs\"\n";

    #[test]
    fn a_slot_is_started_as_the_bootloader_would() {
        let start = Start::parse(TEXT).unwrap();
        assert_eq!((start.kernel, start.initramfs), ("vmlinuz", "initramfs"));
        assert_eq!(
            start::arguments(Slot::B, &["os.boot=1ab58d16", "os.tries=1,0", "mitigations=auto  x=1", start.arguments]),
            "os.slot=B rauc.slot=B os.boot=1ab58d16 os.tries=1,0 mitigations=auto x=1 os.roothash=ab os.rootsize=4096 quiet"
        );
    }
}
