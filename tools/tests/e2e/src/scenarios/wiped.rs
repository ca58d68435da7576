//! What wipes leave.

use crate::harness::checks::Checks;
use crate::harness::device::{IDENTITY, equal, slot};
use crate::harness::lab::Lab;
use crate::harness::vm::Vm;
use anyhow::{Result, ensure};
use lab::arch::Arch;
use serde_json::Value;
use std::time::Duration;

/// What a wipe of data leaves, in the boot that carries it out.
pub(super) fn data_is_wiped(lab: &Lab, vm: &Vm, checks: &mut Checks) {
    checks.check("identity and host key survived, and are this device's own", || {
        equal(&vm.ssh(IDENTITY)?, std::fs::read_to_string(lab.dir.join("identity"))?.trim())
    });
    checks.check("data was wiped, once, and grown again", || {
        let status = vm.wait_for("os status --json", Duration::from_secs(120))?;
        let status: Value = serde_json::from_str(&status)?;
        ensure!(status["boot"]["data"] == "formatted" && status["boot"]["firstBoot"] == false, "{}", status["boot"]);
        equal(&vm.ssh("docker ps -aq; ls /mnt/boot/wipe* 2>/dev/null || true")?, "")?;
        let size: u64 = vm.ssh("findmnt -bn -o SIZE /mnt/data")?.trim().parse()?;
        ensure!(size > 3 << 30, "{size} bytes");
        Ok(())
    });
}

/// The boot after a wipe of everything that was cut off, of a copy of the disk: it is told of by nothing but the tries that the
/// bootloader counts on it, and the disk that it is a copy of comes first by name.
pub(super) fn wiped(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let has_copy = lab.artifacts.arch == Arch::X86_64;
    let mut vm = lab.boot(if has_copy { lab.disk.copy_to_start_from()? } else { Vec::new() })?;
    let counters = lab.disk.fat.read(&lab.disk.counters)?;
    let name = "of two copies of one disk, the one that the firmware started is used";
    let is_used = || {
        vm.wait_ssh()?;
        equal(&vm.ssh("readlink -f /dev/disk/os/disk")?, "/dev/vdb")?;
        let said = vm.ssh("os status")?;
        ensure!(said.contains("vda, vdb are copies of one disk. The bootloader started from vdb"), "{said}");
        let ids = vm.ssh("for d in vda vdb; do blkid -p -o value -s PTUUID /dev/$d; done | sort -u | wc -l")?;
        equal(&ids, "2")
    };
    match has_copy {
        true => checks.check(name, is_used),
        false => checks.skip(name, "U-Boot starts from the first disk, whichever QEMU names"),
    }
    checks.check("after the plug was pulled in the middle, it is carried out again, to the end", || {
        vm.wait_ssh()?;
        let status = vm.wait_for("os status --json || true", Duration::from_secs(60))?;
        let status: Value = serde_json::from_str(&status)?;
        let boot = &status["boot"];
        ensure!(boot["state"] == "formatted" && boot["data"] == "formatted" && boot["firstBoot"] == true, "{boot}");
        equal(&vm.ssh("ls /mnt/boot/wipe 2>/dev/null; ls /mnt/data/mark 2>/dev/null; true")?, "")
    });
    checks.check("the device has a new identity", || {
        let before = std::fs::read_to_string(lab.dir.join("identity"))?;
        let id = vm.ssh("cat /etc/machine-id")?;
        ensure!(!before.contains(id.trim()), "the machine id is the old one");
        Ok(())
    });
    checks.check("its start counts where it was counted", || {
        vm.wait_for(
            &format!("grep -aqx {}_TRY=0 {}", slot(&vm)?, lab.disk.mounted_counters()),
            Duration::from_secs(180),
        )?;
        if has_copy {
            ensure!(lab.disk.fat.read(&lab.disk.counters)? == counters, "the other disk was written");
            ensure!(lab.disk.fat.read_text("wipe")?.contains("all"), "the wipe was carried out on the other disk");
        }
        Ok(())
    });
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}
