//! The boot after every key, one that fails, and one without its TPM.

use super::keys::TPM;
use crate::harness::checks::Checks;
use crate::harness::device::{equal, settled, slot};
use crate::harness::lab::Lab;
use crate::harness::tpm::{self, Tpm};
use crate::harness::vm::PATIENCE;
use anyhow::{Result, ensure};
use std::time::Duration;

/// Has the kernel leave the initramfs packed, so that it finds no root and panics, whatever the machine.
const BREAKS: &str = "initcall_blacklist=populate_rootfs";

/// The boot after [`super::keys::every_key`], and one that fails.
pub(super) fn next_boot(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let no_tpm = tpm::missing(lab.artifacts.arch);
    let tpm = Tpm::start(lab.artifacts.arch, &lab.dir.join(TPM))?;
    let mut vm = lab.boot(tpm.iter().flat_map(Tpm::arguments).collect())?;
    vm.wait_ssh()?;
    vm.wait_for("os config status", Duration::from_secs(60))?;
    let mut recovery = String::new();
    let name = "data was opened with the TPM, and a recovery key can be had";
    let opened = || {
        equal(&vm.ssh("os disk encryption; findmnt -n -o SOURCE /mnt/data")?, "tpm2\n/dev/mapper/os-data")?;
        let earlier = vm.ssh("os disk recovery-key")?;
        recovery = vm.ssh("os disk recovery-key")?;
        let opens = |key: &str| {
            // The TPM would open it whatever the key.
            let open = "cryptsetup open --test-passphrase --disable-external-tokens --key-file - /dev/disk/os/os-data";
            Ok::<_, anyhow::Error>(vm.ssh_code(&format!("printf %s {} | {open}", key.trim()))?.0 == 0)
        };
        ensure!(
            opens(&recovery)? && !opens(&earlier)?,
            "the new key does not open data, or the earlier one still does"
        );
        let dump = vm.ssh("cryptsetup luksDump /dev/disk/os/os-data")?;
        ensure!(dump.matches(": luks2\n").count() == 2, "the second recovery key did not replace the first: {dump}");
        Ok(())
    };
    match no_tpm {
        Some(why) => checks.skip(name, why),
        None => checks.check(name, opened),
    }
    checks.check("os status says that the device was shut down", || {
        ensure!(vm.ssh_code("os status --json")?.1.contains("\"lastRun\": \"orderly\""), "it does not");
        Ok(())
    });
    checks.check("kernel arguments of config.json are in force", || {
        equal(&vm.ssh("grep -o 'mitigations=auto os-e2e=1' /proc/cmdline")?, "mitigations=auto os-e2e=1")
    });
    checks.check("the wipe of config.json erased the containers, once, and nothing else", || {
        let status = vm.ssh_code("os config status --json")?.1;
        ensure!(!status.contains("pending"), "{status}");
        vm.wait_for("systemctl is-active docker", Duration::from_secs(120))?;
        equal(&vm.ssh("docker ps -aq; docker images -q; cat /mnt/data/first-boot; ls /mnt/boot/wipe 2>/dev/null; cat /mnt/boot/wipe.last")?, "hello\ne2e-1")
    });
    checks.check("sealed secrets serve the next boot too", || {
        let text = vm.ssh("nmcli -s -g 802-11-wireless-security.psk connection show 'config.json Workshop'")?;
        equal(&text, "correct horse battery")
    });
    checks.check("the first-boot script does not run again", || {
        let (code, _) = vm.ssh_code("journalctl -b -u os-first-boot --no-pager -o cat | grep -q Starting")?;
        ensure!(code != 0, "it ran");
        Ok(())
    });
    checks.check("the health of the boot was confirmed", || {
        let confirmed = format!("grep -aqx {}_TRY=0 {}", slot(&vm)?, lab.disk.mounted_counters());
        vm.wait_for(&confirmed, Duration::from_secs(180)).map(drop)
    });
    vm.ssh("os config set os.encryption.data key")?;
    vm.ssh(&format!("os config set os.kernel.arguments {BREAKS}"))?;
    checks.check("the power button turns the device off", || vm.power_off());
    let failing = lab.boot(Vec::new())?;
    let start = std::time::Instant::now();
    while !failing.console().contains("Kernel panic") && start.elapsed() < Duration::from_secs(60) * PATIENCE {
        std::thread::sleep(Duration::from_millis(200));
    }
    let console = failing.console();
    drop(failing);
    checks.check("a kernel argument that breaks the boot really did", || {
        // -no-reboot ends the machine where a real one would start again.
        ensure!(console.contains("Kernel panic"), "no panic with {BREAKS}");
        Ok(())
    });
    if no_tpm.is_none() {
        lab.disk.fat.write("recovery-key", format!("{}\r\n", recovery.trim()).as_bytes())?;
    }
    let mut vm = lab.boot(Vec::new())?;
    let name = "without its TPM, data is opened with the recovery key, which leaves nothing on the boot partition";
    match no_tpm {
        Some(why) => checks.skip(name, why),
        None => checks.check(name, || {
            vm.wait_ssh()?;
            equal(
                &vm.ssh("os disk encryption; cat /mnt/data/first-boot; ls /mnt/boot/recovery-key 2>/dev/null || true")?,
                "key\nhello",
            )
        }),
    }
    checks.check("the boot after that leaves the arguments out and says so", || {
        vm.wait_ssh()?;
        let (code, _) = vm.ssh_code(&format!("grep -q {BREAKS} /proc/cmdline"))?;
        ensure!(code != 0, "{BREAKS} is still there");
        let text = vm.wait_for(
            "os config status | grep 'did not get to its end with these arguments'",
            Duration::from_secs(60),
        )?;
        ensure!(text.contains("os.kernel.arguments"), "{text}");
        vm.ssh("os config unset os.kernel.arguments && os config status >/dev/null").map(drop)
    });
    // For the boot that comes next. Starts that were not confirmed are counted, and there was one already.
    vm.ssh("echo kept > /mnt/data/mark")?;
    settled(&vm)?;
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}
