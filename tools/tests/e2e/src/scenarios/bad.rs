//! Releases that are broken in other ways than the one of [`super::update`], and the good one after them.

use super::trials::{Bad, RETURN_LIMIT, apply, comes_back, take};
use crate::harness::checks::Checks;
use crate::harness::device::slot;
use crate::harness::lab::Lab;
use crate::harness::release::{HEALTH, arguments, broken};
use crate::harness::rig::Rig;
use crate::harness::vm::BOOT_ID;
use anyhow::Result;

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
    let soon = arguments(HEALTH.to_owned());
    let bad =
        |patch, what, change, reason| Ok::<_, anyhow::Error>(Bad { version: version(patch)?, what, change, reason });
    // With the files that its root lacks; what has none is left by systemd alone.
    for (bad, lacks) in [
        (bad(0, "no system bus", &no_bus, "system bus")?, None),
        (bad(1, "no RAUC", &no_rauc, "cannot be kept")?, None),
        (bad(2, "no os-update", &soon, early)?, Some("usr/bin/os-update")),
        (bad(3, "a broken kernel", &no_kernel, early)?, None),
        (bad(4, "a broken init", &no_init, early)?, None),
        (bad(5, "no network", &no_network, "NetworkManager.service")?, None),
    ] {
        match lacks {
            Some(file) => rig.publish_without(&bad.version, &[file], bad.change)?,
            None => rig.publish(&bad.version, bad.change)?,
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
