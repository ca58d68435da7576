//! Trials that begin with a jump into the new kernel.

use super::trials::{INSTALL_LIMIT, RETURN_LIMIT};
use crate::harness::checks::Checks;
use crate::harness::device::{COUNTERS, counters, equal, is_kept, keep, settled, slot, update_status};
use crate::harness::lab::Lab;
use crate::harness::release::arguments;
use crate::harness::rig::Rig;
use crate::harness::site::Site;
use crate::harness::vm::{BOOT_LIMIT, PATIENCE, Vm};
use anyhow::{Result, ensure};
use os_sys::cmd::Cmd;
use serde_json::json;
use std::time::Duration;

/// A settled device that starts releases by kexec.
fn jumping(rig: &Rig<'_>) -> Result<Vm> {
    let vm = rig.settled()?;
    vm.ssh("os config set /os/update/trial kexec")?;
    Ok(vm)
}

/// A trial that begins with a jump, and passes.
pub(super) fn jump(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let rig = Rig::new(lab)?;
    let release = lab.artifacts.later(1, 0)?;
    let bundle = rig.maker.bundle(&release, &arguments("e2e.release=2".to_owned()))?;
    let mut vm = jumping(&rig)?;
    let first = slot(&vm)?;
    let second = lab.artifacts.other(&first)?;
    let slots = &lab.artifacts.slots;
    let login = vm.login();
    checks.check("the kernel is jumped into, and the bootloader told after the trial", || {
        // A health check of the owner's, which looks at what the bootloader would start while the trial is not over.
        vm.ssh(&format!(
            "mkdir -p /mnt/state/os/health.d && cd /mnt/state/os/health.d && cat > look <<'EOF'\n#!/bin/sh\n{COUNTERS} \
             > /mnt/state/in-trial\nEOF\nchmod +x look"
        ))?;
        let said = vm.through_restarts(|| osctl::device::update("127.0.0.1", &bundle, &login))?;
        ensure!(said.contains(&release) && said.contains("stays"), "{said}");
        settled(&vm)?;
        equal(&slot(&vm)?, second)?;
        // GRUB would have put BOOT_IMAGE= in front.
        equal(&vm.ssh("grep -o 'e2e.release=.\\|BOOT_IMAGE=' /proc/cmdline")?, "e2e.release=2")?;
        equal(&vm.ssh("cat /mnt/state/in-trial")?, &counters(slots, &[&first], &first))?;
        equal(&vm.ssh(COUNTERS)?, &counters(slots, &[&first, second], second))
    });
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}

/// The plug is pulled in a trial that began with a jump: the bootloader knows nothing of it.
pub(super) fn cut_after_jump(lab: &Lab, checks: &mut Checks) -> Result<()> {
    if let Some(why) = lab.artifacts.no_console() {
        checks.skip("the plug is pulled in a trial that began with a jump: the console would show that it began", why);
        return Ok(());
    }
    let rig = Rig::new(lab)?;
    let bundle = rig.maker.bundle(&lab.artifacts.later(1, 0)?, &arguments("e2e.release=2".to_owned()))?;
    Cmd::new("cp").arg(&bundle).arg(rig.site.path("one.raucb")).run()?;
    let mut vm = jumping(&rig)?;
    let first = slot(&vm)?;
    let kept = keep(&vm)?;
    checks.check("the plug is pulled in a trial that began with a jump, before its health check is over", || {
        vm.ssh(&format!("systemd-run --quiet --collect os update install {}", Site::url("one.raucb")))?;
        let start = std::time::Instant::now();
        // A machine that restarts begins a new console: another login on the same one is a jump.
        let logins = |vm: &Vm| vm.console().matches("login: root").count();
        let before = logins(&vm);
        while logins(&vm) == before {
            ensure!(start.elapsed() < (INSTALL_LIMIT + BOOT_LIMIT) * PATIENCE, "no other login on the console");
            let said = vm.console();
            vm.watch(Duration::from_millis(200))?;
            ensure!(vm.console().len() >= said.len(), "the machine restarted; before, its console said: {said}");
        }
        Ok(())
    });
    drop(vm);
    let mut vm = rig.boot()?;
    checks.check("the old slot starts, has the bootloader start the new one, and nothing is refused", || {
        vm.wait_console(&format!("Start (slot {first})"), Duration::from_secs(120))?;
        let kept_new = "grep -q e2e.release=2 /proc/cmdline && systemctl is-active os-commit >/dev/null";
        vm.wait_through_restarts(kept_new, RETURN_LIMIT)?;
        let status = update_status(&vm)?;
        ensure!(status["phase"] == "idle" && status["refused"] == json!([]), "{status}");
        ensure!(vm.ssh("os update log")?.contains("did not come up after the jump"), "{status}");
        equal(&vm.ssh("grep -o BOOT_IMAGE= /proc/cmdline")?, "BOOT_IMAGE=")?;
        rig.containers_run(&vm)?;
        is_kept(&vm, &kept)
    });
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}
