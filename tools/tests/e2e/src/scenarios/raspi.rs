//! The arm64 image on QEMU's Raspberry Pi 3: the board's own U-Boot, an SD card, its device tree and console.

use crate::harness::checks::Checks;
use crate::harness::lab::Lab;
use crate::harness::raspi::{self, Pi};
use crate::harness::taken::Taken;
use anyhow::{Result, ensure};
use lab::arch::Arch;
use os_boot::Bootloader;
use os_facts::Slot;
use std::time::{Duration, Instant};

/// The emulated card reads less than a megabyte a second.
const LIMIT: Duration = Duration::from_secs(1200);

pub(super) fn raspberry_pi(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let name = "a Raspberry Pi 3 starts from its card, runs its container and commits";
    let other = (lab.artifacts.arch != Arch::Arm64).then(|| format!("the image is for {}", lab.artifacts.machine));
    if let Some(why) = other.or_else(raspi::missing) {
        checks.skip(name, &why);
        return Ok(());
    }
    let taken = || Taken::from(&lab.disk.fat, Bootloader::UBoot);
    taken()?.tell(|loader| loader.set_arguments(raspi::ARGUMENTS).map(drop))?;
    checks.check(name, || {
        let mut pi = Pi::start(lab)?;
        pi.wait("A ok 1 try 1", LIMIT)?;
        pi.wait("automatic login", LIMIT)?;
        let start = Instant::now();
        loop {
            let status = pi.type_in("os status", Duration::from_secs(120))?;
            if status.contains("running") && status.contains("good") {
                break;
            }
            ensure!(start.elapsed() < LIMIT, "not committed in {} s: {status}", LIMIT.as_secs());
            std::thread::sleep(Duration::from_secs(10));
        }
        let model = pi.type_in("tr -d '\\0' </proc/device-tree/model", Duration::from_secs(60))?;
        ensure!(model.contains("Raspberry Pi 3 Model B"), "{model}");
        for container in lab.artifacts.containers() {
            let running = pi.type_in("docker ps --format '{{.Names}} {{.State}}'", Duration::from_secs(120))?;
            ensure!(running.contains(&format!("{container} running")), "{running}");
        }
        pi.type_in("sync", Duration::from_secs(120)).map(drop)
    });
    checks.check("its counters say that the slot is good", || {
        let now = taken()?.loader().counters()?;
        ensure!(now.next() == Some(Slot::A) && now.tries().to_string() == "0,0", "{}", now.tries());
        Ok(())
    });
    Ok(())
}
