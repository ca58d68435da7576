//! A bundle by hand, and the way back.

use crate::harness::checks::Checks;
use crate::harness::device::{equal, settled, slot, update_status};
use crate::harness::lab::Lab;
use crate::harness::release::{Maker, NOISE, arguments};
use crate::harness::vm::{BOOT_ID, BOOT_LIMIT};
use anyhow::{Result, ensure};
use serde_json::json;

/// A bundle through ssh, and the way back by hand: no channel takes part.
pub(crate) fn by_hand(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let maker = Maker::new(lab)?;
    let bundle = maker.bundle("0.2.0", &arguments("e2e.release=2".to_owned()))?;
    lab.disk.write("config.json", &lab.config(json!({ "hostname": "e2e-hand" }))?)?;
    let mut vm = lab.boot_to_restart()?;
    vm.wait_ssh()?;
    settled(&vm)?;
    let login = vm.login();
    checks.check("osctl device update brings a bundle through ssh, and waits until the device has decided", || {
        let said = vm.through_restarts(|| osctl::device::update("127.0.0.1", &bundle, &login))?;
        ensure!(said.contains("0.2.0") && said.contains("stays"), "{said}");
        settled(&vm)?;
        equal(&slot(&vm)?, "B")?;
        equal(&vm.ssh("grep -o e2e.release=2 /proc/cmdline; docker ps --format '{{.Names}}'")?, "e2e.release=2\nhello")
    });
    checks.check("what is no bundle for this device is refused, and why is said", || {
        let other = maker.bundle_with("another-board", "0.5.0", NOISE, &|_| Ok(()))?;
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
        equal(&slot(&vm)?, "A")?;
        equal(&vm.ssh("grep -o 'e2e.release=.' /proc/cmdline || true; docker ps --format '{{.Names}}'")?, "hello")?;
        let status = update_status(&vm)?;
        ensure!(status["phase"] == "idle" && status["refused"][0]["version"] == "0.2.0", "{status}");
        Ok(())
    });
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}
