//! A device whose boot ROM needs the first sectors of its disk, which has an MBR therefore: its first boot, and a release from
//! a channel.

use super::trials::take;
use crate::harness::checks::Checks;
use crate::harness::device::{equal, every_unit_came_up, settled, slot};
use crate::harness::lab::Lab;
use crate::harness::release::arguments;
use crate::harness::rig::Rig;
use crate::harness::vm::BOOT_ID;
use anyhow::{Context, Result, ensure};
use os_disk::table::{PartId, Partition, Table};
use os_facts::Role;
use std::fs::File;

pub(super) fn mbr(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let lab = &lab.with_mbr()?;
    let mut rig = Rig::new(lab)?;
    rig.configure()?;
    let flashed = parts(lab)?;
    let mut vm = rig.boot()?;
    vm.wait_ssh()?;
    settled(&vm)?;
    checks.say(&format!("settled after {:.0} s", vm.started.elapsed().as_secs_f64()));
    checks.check("every unit came up", || every_unit_came_up(&vm));
    checks.check("the disk was found by the signature that the bootloader names, and has another one now", || {
        let signature = signature(&flashed)?;
        let named = format!("os.boot={signature:08x}-01");
        vm.ssh(&format!("grep -qiw {named} /proc/cmdline")).with_context(|| format!("no {named}"))?;
        let now = vm.ssh("sfdisk --disk-id /dev/disk/os/disk")?;
        ensure!(
            now.trim() != format!("0x{signature:08x}"),
            "the disk still has the signature that it was flashed with"
        );
        Ok(())
    });
    checks.check("what is what is known by the numbers of the partitions", || {
        for role in Role::EACH {
            let node = vm.ssh(&format!("readlink -f {}", role.device().display()))?;
            ensure!(node.trim().ends_with(&format!("vda{}", role.mbr_number())), "{role} is {node}");
        }
        Ok(())
    });
    checks.check("data has grown to the end of the disk, and the extended partition with it", || {
        let size: u64 = vm.ssh("findmnt -bn -o SIZE /mnt/data")?.trim().parse()?;
        ensure!(size > 3 << 30, "{size} bytes");
        let verdict = vm.ssh("sfdisk --verify /dev/disk/os/disk 2>&1 || true")?;
        ensure!(verdict.contains("No errors detected"), "{verdict}");
        // Where the kernel and the medium have the same idea of it.
        equal(
            &vm.ssh("blockdev --getsize64 /dev/disk/os/os-data")?,
            &vm.ssh("echo $(($(sfdisk -l -o Sectors -q /dev/disk/os/disk | tail -1) * 512))")?,
        )
    });
    let home = slot(&vm)?;
    let other = lab.artifacts.other(&home)?.to_owned();
    rig.publish(&lab.artifacts.later(1, 0)?, &arguments("e2e.release=2".to_owned()))?;
    checks.check("1 to 2: it is installed, started in the other slot, found healthy, and stays", || {
        let boot = vm.ssh(BOOT_ID)?;
        take(&mut vm, &boot, &other, "e2e.release=2").map(drop)
    });
    checks.check("the power button turns the device off", || vm.power_off());
    checks.check("every partition is where it was, and the board's bootloader as it was", || {
        let now = parts(lab)?;
        ensure!(now.len() == flashed.len(), "{} partitions", now.len());
        for (old, new) in flashed.iter().zip(&now) {
            let same = old.role == new.role && old.start == new.start;
            ensure!(same && (old.size == new.size) == (old.role != Some(Role::Data)), "{old:?} became {new:?}");
        }
        ensure!(signature(&flashed)? != signature(&now)?, "the signature is the old one");
        lab.disk.has_bootloader()
    });
    Ok(())
}

fn parts(lab: &Lab) -> Result<Vec<Partition>> {
    let table = Table::read(&mut File::open(&lab.disk.path)?)?;
    ensure!(matches!(table, Table::Mbr(_)), "the disk has a GPT");
    Ok(table.partitions()?)
}

fn signature(parts: &[Partition]) -> Result<u32> {
    match parts.first().context("no partition")?.id {
        PartId::Mbr { signature, .. } => Ok(signature),
        PartId::Gpt(_) => anyhow::bail!("the disk has a GPT"),
    }
}
