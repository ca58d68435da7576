//! What scenarios with releases have in common.

use crate::harness::device::{settled, slot, update_status};
use crate::harness::release::Change;
use crate::harness::rig::Rig;
use crate::harness::vm::{BOOT_ID, BOOT_LIMIT, Vm};
use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// How long RAUC may take to write a slot under software emulation.
pub(super) const INSTALL_LIMIT: Duration = Duration::from_secs(240);
/// How long a device may take to come back from a release that does not boot: three tries and a boot of the old one.
pub(super) const RETURN_LIMIT: Duration = Duration::from_secs(400);

/// A release that is no good.
pub(super) struct Bad<'a> {
    pub(super) version: String,
    /// What is wrong with it.
    pub(super) what: &'static str,
    /// How it is made.
    pub(super) change: Change<'a>,
    /// What the device has to say of it.
    pub(super) reason: &'static str,
}

/// Runs `os update apply` and waits for the restart that follows; returns the new boot.
pub(super) fn apply(vm: &mut Vm, boot: &str, limit: Duration) -> Result<String> {
    // In a unit of its own: the restart ends the login.
    vm.ssh("systemd-run --quiet --unit=apply --collect os update apply")?;
    vm.wait_restart_by("apply", boot, INSTALL_LIMIT + limit)
}

/// Takes the release that the channel offers, and checks that it runs in `wanted` and stays; returns the new boot.
pub(super) fn take(vm: &mut Vm, boot: &str, wanted: &str, mark: &str) -> Result<String> {
    let boot = apply(vm, boot, BOOT_LIMIT)?;
    settled(vm)?;
    let found = slot(vm)?;
    ensure!(found == wanted, "it runs in slot {found}, wanted {wanted}");
    let (code, _) = vm.ssh_code(&format!("grep -q ' {mark} ' /proc/cmdline"))?;
    ensure!(code == 0, "{mark} is no kernel argument of what runs");
    Ok(boot)
}

/// Waits until the device is back in slot `home` from a release that it is trying, says why, and does not want it again;
/// returns the boot.
pub(super) fn comes_back(vm: &mut Vm, rig: &Rig<'_>, bad: &Bad<'_>, home: &str) -> Result<String> {
    // A trial that fails late lets people in before.
    let back = format!("grep -q rauc.slot={home} /proc/cmdline && systemctl is-active os-commit >/dev/null");
    vm.wait_through_restarts(&back, RETURN_LIMIT)?;
    let boot = vm.ssh(BOOT_ID)?;
    let status = update_status(vm)?;
    let refused = status["refused"].as_array().and_then(|r| r.last()).context("nothing is refused")?;
    ensure!(status["phase"] == "idle" && refused["version"] == bad.version, "{status}");
    ensure!(refused["reason"].as_str().is_some_and(|r| r.contains(bad.reason)), "{refused}");
    let text = vm.ssh("os update check")?;
    ensure!(text.contains("failed on this device"), "{text}");
    rig.containers_run(vm)?;
    Ok(boot)
}
