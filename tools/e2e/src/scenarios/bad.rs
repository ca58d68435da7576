//! Releases that are broken in other ways than the one of [`super::update`], and the good one after them.

use super::trials::{Bad, RETURN_LIMIT, apply, comes_back, take};
use crate::harness::checks::Checks;
use crate::harness::device::slot;
use crate::harness::lab::Lab;
use crate::harness::release::{HEALTH, arguments, broken};
use crate::harness::rig::Rig;
use crate::harness::vm::BOOT_ID;
use anyhow::Result;

/// What the release lacks that only systemd can leave.
const LACKS: &str = "no os-update";

pub(super) fn bad_releases(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let mut vm = rig.settled()?;
    let (home, mut boot) = (slot(&vm)?, vm.ssh(BOOT_ID)?);
    let no_network = arguments(format!("systemd.mask=NetworkManager.service {HEALTH}"));
    let no_bus = arguments(format!("systemd.mask=dbus.service systemd.mask=dbus.socket {HEALTH}"));
    let no_rauc = arguments(format!("systemd.mask=rauc.service {HEALTH}"));
    let (no_kernel, no_init) = (broken("vmlinuz"), broken("initramfs"));
    let early = "did not get to its health check";
    let version = |patch| lab.artifacts.later(2, patch);
    for bad in [
        Bad { version: version(0)?, what: "a broken kernel", change: &no_kernel, reason: early },
        Bad { version: version(1)?, what: "a broken init", change: &no_init, reason: early },
        Bad { version: version(3)?, what: "no network", change: &no_network, reason: "NetworkManager.service" },
        Bad { version: version(4)?, what: "no system bus", change: &no_bus, reason: "system bus" },
        Bad { version: version(5)?, what: "no RAUC", change: &no_rauc, reason: "cannot be kept" },
        Bad { version: version(6)?, what: LACKS, change: &arguments(HEALTH.to_owned()), reason: early },
    ] {
        match bad.what {
            LACKS => rig.publish_without(&bad.version, &["usr/bin/os-update"], bad.change)?,
            _ => rig.publish(&bad.version, bad.change)?,
        };
        let name = format!("{}: the device comes back by itself, says why, and does not try again", bad.what);
        checks.check(&name, || {
            apply(&mut vm, &boot, RETURN_LIMIT)?;
            boot = comes_back(&mut vm, &rig, &bad, &home)?;
            Ok(())
        });
    }
    rig.publish(&lab.artifacts.later(3, 0)?, &arguments("e2e.release=4".to_owned()))?;
    checks.check("the next good release is taken", || {
        take(&mut vm, &boot, lab.artifacts.other(&home)?, "e2e.release=4").map(drop)
    });
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}
