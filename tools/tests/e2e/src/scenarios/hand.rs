//! A bundle by hand, and the way back.

use crate::harness::checks::Checks;
use crate::harness::device::{equal, settled, slot, update_status};
use crate::harness::lab::Lab;
use crate::harness::release::arguments;
use crate::harness::rig::Rig;
use crate::harness::vm::{BOOT_ID, BOOT_LIMIT};
use anyhow::{Result, ensure};

/// A bundle through ssh, and the way back by hand: no channel takes part.
pub(super) fn by_hand(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let rig = Rig::new(lab)?;
    let release = lab.artifacts.later(1, 0)?;
    let bundle = rig.maker.bundle(&release, &arguments("e2e.release=2".to_owned()))?;
    let mut vm = rig.settled()?;
    vm.ssh("os config unset /os/update/channel")?;
    let first = slot(&vm)?;
    let login = vm.login();
    // The trial finds a state partition without any space.
    let fill = "if grep -q e2e.release=2 /proc/cmdline; then dd if=/dev/zero of=/mnt/state/fill bs=1M; dd if=/dev/zero of=/mnt/state/fill2 bs=1k; sync; fi 2>/dev/null; exit 0";
    vm.ssh(&format!(
        "mkdir -p /mnt/state/os/health.d; printf '#!/bin/sh\\n%s\\n' '{fill}' >/mnt/state/os/health.d/fill; \
         chmod 755 /mnt/state/os/health.d/fill; test -s /mnt/state/os/update/reserve"
    ))?;
    checks.check("osctl device update brings a bundle through ssh, and waits until the device has decided", || {
        let said = vm.through_restarts(|| osctl::device::update("127.0.0.1", &bundle, &login))?;
        ensure!(said.contains(&release) && said.contains("stays"), "{said}");
        settled(&vm)?;
        equal(&slot(&vm)?, lab.artifacts.other(&first)?)?;
        equal(&vm.ssh("grep -o e2e.release=2 /proc/cmdline")?, "e2e.release=2")?;
        rig.containers_run(&vm)
    });
    checks.check("a full state partition keeps no release from being kept, and is shown", || {
        let status = update_status(&vm)?;
        ensure!(status["phase"] == "idle" && status["running"]["version"] == release, "{status}");
        let said = vm.ssh_code("os status")?.1;
        ensure!(said.contains("! /mnt/state is nearly full") && said.contains("du -axk /mnt/state"), "{said}");
        vm.ssh("rm /mnt/state/fill /mnt/state/fill2 /mnt/state/os/health.d/fill; sync")?;
        let said = vm.ssh_code("os status")?.1;
        ensure!(!said.contains("/mnt/state is nearly full"), "{said}");
        Ok(())
    });
    checks.check("what is no bundle for this device is refused, and why is said", || {
        let other = rig.maker.hollow("another-board", &lab.artifacts.later(4, 0)?)?;
        let said = vm.through_restarts(|| osctl::device::update("127.0.0.1", &other, &login));
        let said = said.map_or_else(|err| format!("{err:#}"), |text| format!("installed: {text}"));
        ensure!(said.contains("nothing was installed") && said.contains("Compatible mismatch"), "{said}");
        Ok(())
    });
    checks.check("an operator goes back to the release before, and the other one is not taken again", || {
        let boot = vm.ssh(BOOT_ID)?;
        vm.ssh("systemd-run --quiet --collect os update rollback --yes")?;
        vm.wait_restart(&boot, BOOT_LIMIT)?;
        settled(&vm)?;
        equal(&slot(&vm)?, &first)?;
        equal(&vm.ssh("grep -o 'e2e.release=.' /proc/cmdline || true")?, "")?;
        // What was given up for the last space was set aside again.
        vm.ssh("test -s /mnt/state/os/update/reserve")?;
        rig.containers_run(&vm)?;
        let status = update_status(&vm)?;
        ensure!(status["phase"] == "idle" && status["refused"][0]["version"] == release, "{status}");
        Ok(())
    });
    checks.check("osctl device selftest restarts the device, has its watchdog restart it, and reports both", || {
        let depth = osctl::device::selftest::Depth { full: true, watchdog: true, yes: true };
        let test = vm.through_restarts(|| osctl::device::selftest::selftest("127.0.0.1", &depth, &login))?;
        let text = test.to_string();
        ensure!(test.is_good(), "{text}");
        for passed in ["restart.returns", "restart.slot", "watchdog.restarts"] {
            ensure!(text.lines().any(|line| line.starts_with("passed") && line.contains(passed)), "{passed}: {text}");
        }
        settled(&vm)
    });
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}
