//! Trials that begin with a jump into the new kernel.

use super::update::{INSTALL_LIMIT, RETURN_LIMIT};
use crate::harness::checks::Checks;
use crate::harness::device::{COUNTERS, equal, is_kept, keep, settled, slot, update_status};
use crate::harness::lab::Lab;
use crate::harness::release::{Maker, arguments};
use crate::harness::site::Site;
use crate::harness::vm::{BOOT_LIMIT, PATIENCE, Restart};
use anyhow::{Result, ensure};
use os_sys::cmd::Cmd;
use serde_json::json;
use std::time::Duration;

/// A device that starts releases by kexec.
fn jumping(lab: &Lab) -> Result<()> {
    let config = json!({ "hostname": "e2e-jump", "os": { "update": { "trial": "kexec" } } });
    lab.disk.write("config.json", &lab.config(config)?)
}

/// A trial that begins with a jump, and passes.
pub(crate) fn jump(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let maker = Maker::new(lab)?;
    let bundle = maker.bundle("0.2.0", &arguments("e2e.release=2".to_owned()))?;
    jumping(lab)?;
    let mut vm = lab.boot_to_restart()?;
    vm.wait_ssh()?;
    settled(&vm)?;
    let login = vm.login();
    checks.check("the kernel is jumped into, and the bootloader told after the trial", || {
        // A health check of the owner's, which looks at what the bootloader would start while the trial is not over.
        vm.ssh(&format!(
            "mkdir -p /mnt/state/os/health.d && cd /mnt/state/os/health.d && cat > look <<'EOF'\n#!/bin/sh\n{COUNTERS} \
             > /mnt/state/in-trial\nEOF\nchmod +x look"
        ))?;
        let said = vm.through_restarts(|| osctl::device::update("127.0.0.1", &bundle, &login))?;
        ensure!(said.contains("0.2.0") && said.contains("stays"), "{said}");
        settled(&vm)?;
        equal(&slot(&vm)?, "B")?;
        // GRUB would have put BOOT_IMAGE= in front.
        equal(&vm.ssh("grep -o 'e2e.release=.\\|BOOT_IMAGE=' /proc/cmdline")?, "e2e.release=2")?;
        equal(&vm.ssh("cat /mnt/state/in-trial")?, "A_OK=1 A_TRY=0 B_OK=0 B_TRY=0 ORDER=A B")?;
        equal(&vm.ssh(COUNTERS)?, "A_OK=1 A_TRY=0 B_OK=1 B_TRY=0 ORDER=B A")
    });
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}

/// The plug is pulled in a trial that began with a jump: the bootloader knows nothing of it.
pub(crate) fn cut_after_jump(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let maker = Maker::new(lab)?;
    let site = Site::start(&lab.dir.join("site"))?;
    let bundle = maker.bundle("0.2.0", &arguments("e2e.release=2".to_owned()))?;
    Cmd::new("cp").arg(&bundle).arg(site.path("one.raucb")).run()?;
    jumping(lab)?;
    let mut vm = lab.boot_with_web(site.port, Restart::Restarts)?;
    vm.wait_ssh()?;
    settled(&vm)?;
    let kept = keep(&vm)?;
    checks.check("the plug is pulled in a trial that began with a jump, before its health check is over", || {
        vm.ssh(&format!("systemd-run --quiet --collect os update install {}", Site::url("one.raucb")))?;
        let start = std::time::Instant::now();
        // A machine that restarts begins a new console: two logins on one are a jump.
        while vm.console().matches("login: root").count() < 2 {
            ensure!(start.elapsed() < (INSTALL_LIMIT + BOOT_LIMIT) * PATIENCE, "no second login on the console");
            let said = vm.console();
            vm.watch(Duration::from_secs(1))?;
            ensure!(vm.console().len() >= said.len(), "the machine restarted; before, its console said: {said}");
        }
        Ok(())
    });
    drop(vm);
    let mut vm = lab.boot_with_web(site.port, Restart::Restarts)?;
    checks.check("the old slot starts, has the bootloader start the new one, and nothing is refused", || {
        vm.wait_console("Start (slot A)", Duration::from_secs(120))?;
        let kept_new = "grep -q e2e.release=2 /proc/cmdline && systemctl is-active os-commit >/dev/null";
        vm.wait_through_restarts(kept_new, RETURN_LIMIT)?;
        let status = update_status(&vm)?;
        ensure!(status["phase"] == "idle" && status["refused"] == json!([]), "{status}");
        ensure!(vm.ssh("os update log")?.contains("did not come up after the jump"), "{status}");
        equal(&vm.ssh("grep -o BOOT_IMAGE= /proc/cmdline; docker ps --format '{{.Names}}'")?, "BOOT_IMAGE=\nhello")?;
        is_kept(&vm, &kept)
    });
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}
