//! What containers may take from a device: all of its disk, all of its memory.

use crate::harness::artifacts::NO_DEMO;
use crate::harness::checks::Checks;
use crate::harness::lab::Lab;
use crate::harness::rig::Rig;
use crate::harness::vm::{BOOT_ID, Vm};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

/// Both, on a settled device.
pub(super) fn pressure(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let rig = Rig::new(lab)?;
    let mut vm = rig.settled()?;
    full(&mut vm, checks);
    hog(&vm, lab, checks);
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}

/// The last space of data is gone, and the device hangs.
fn full(vm: &mut Vm, checks: &mut Checks) {
    let name = "with data full and a restart by the watchdog, the engine starts, the start counts, and os status says all of it";
    checks.check(name, || {
        let boot = vm.ssh(BOOT_ID)?;
        vm.ssh(
            "os update pause; free=$(($(stat -f -c '%f * %S' /mnt/data))); fallocate -l $((free - (8 << 20))) /mnt/data/fill; \
             dd if=/dev/zero of=/mnt/data/fill2 bs=64K 2>/dev/null; sync; os status | grep -q '/mnt/data is nearly full'",
        )?;
        // The first process does not run any more, and nobody feeds the watchdog.
        let _ = vm.ssh("echo 1 > /sys/fs/cgroup/init.scope/cgroup.freeze");
        let again = format!("test $(cat /proc/sys/kernel/random/boot_id) != {}", boot.trim());
        vm.wait_through_restarts(&format!("{again} && systemctl is-active os-commit docker"), Duration::from_secs(300))?;
        let status = vm.ssh_code("os status")?.1;
        // What the watchdog knows of it is lost here: a machine that restarts is another one.
        for said in ["os-data is full", "containers running", "the device was not shut down before this start"] {
            ensure!(status.contains(said), "{said}: {status}");
        }
        vm.ssh("rm /mnt/data/fill /mnt/data/fill2; os update resume").map(drop)
    });
}

/// How long a login may wait while memory is short.
const ANSWERS: Duration = Duration::from_secs(45);

/// A container takes more memory than there is, and what it takes cannot be compressed.
fn hog(vm: &Vm, lab: &Lab, checks: &mut Checks) {
    let name = "a container that takes all memory is killed, and nothing else is; the device answers all the while";
    let Some(demo) = &lab.artifacts.demo else { return checks.skip(name, NO_DEMO) };
    checks.check(name, || {
        let boot = vm.ssh(BOOT_ID)?;
        vm.ssh(&format!(
            "docker run -d --name hog {} /bin/busybox sh -c '/bin/busybox base64 /dev/urandom | /bin/busybox sort'",
            demo.image
        ))?;
        let (start, mut slowest) = (Instant::now(), Duration::ZERO);
        let ended = loop {
            let asked = Instant::now();
            let killed = vm.ssh("journalctl -k -b -o cat --no-pager | grep 'Killed process' || true")?;
            slowest = slowest.max(asked.elapsed());
            if !killed.trim().is_empty() {
                break killed;
            }
            ensure!(start.elapsed() < Duration::from_secs(400), "nothing was killed");
            std::thread::sleep(Duration::from_secs(2));
        };
        println!(
            "killed after {:.0} s; the slowest answer took {:.1} s",
            start.elapsed().as_secs_f64(),
            slowest.as_secs_f64()
        );
        ensure!(ended.lines().all(|line| line.contains("(busybox)")), "{ended}");
        ensure!(slowest < ANSWERS, "an answer took {slowest:?}");
        vm.wait_for("docker rm -f hog", Duration::from_secs(60))?;
        let state = vm.ssh("cat /proc/sys/kernel/random/boot_id; systemctl --failed --no-legend --plain")?;
        ensure!(state.trim() == boot.trim(), "{state}");
        Ok(())
    });
}
