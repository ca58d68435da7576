//! Keys of the machine itself.

use super::Keys;
use crate::harness::device::{equal, journal_on_data, time_servers};
use crate::harness::vm::Vm;
use anyhow::{Context, ensure};
use os_config_model::keys::KEYS;
use serde_json::json;

/// Where there is no TPM, the configuration has the key on the disk.
pub(super) fn machine(vm: &Vm, has_tpm: bool, keys: &mut Keys<'_>) {
    keys.check(&["/hostname"], || equal(&vm.ssh("hostnamectl --static; hostname")?, "kiosk-3\nkiosk-3"));
    keys.check(&["/persistentLogging"], || journal_on_data(vm, true));
    keys.check(&["/developmentMode"], || equal(&vm.ssh("systemctl is-active os-docker-tcp.socket")?, "active"));
    keys.check(&["/ntpServers"], || time_servers(vm, "0.pool.ntp.org 192.0.2.1"));
    keys.check(&["/os/sshKeys"], || {
        let file = vm.ssh("mkdir -p /run/sshd; /usr/sbin/sshd -T | sed -n 's/^authorizedkeysfile //p'")?;
        equal(&vm.ssh(&format!("grep -c ssh-ed25519 {}", file.trim()))?, "2")
    });
    keys.check(&["/os/time/zone"], || {
        equal(&vm.ssh("timedatectl show -p Timezone --value; date -d 2026-07-01T12:00 +%Z")?, "Europe/Berlin\nCEST")
    });
    keys.check(&["/os/locale/lang"], || {
        let text = vm.ssh(
            "busctl get-property org.freedesktop.locale1 /org/freedesktop/locale1 org.freedesktop.locale1 Locale",
        )?;
        equal(&text, "as 1 \"LANG=C\"")
    });
    // Debian builds systemd without the helper that loads it into the kernel; localed is as far as this image goes.
    keys.check(&["/os/locale/keymap"], || {
        let text = vm.ssh(
            "busctl get-property org.freedesktop.locale1 /org/freedesktop/locale1 org.freedesktop.locale1 VConsoleKeymap",
        )?;
        equal(&text, "s \"de\"")
    });
    keys.check(&["/os/watchdog"], || {
        equal(
            &vm.ssh("systemctl show -p RuntimeWatchdogUSec --value; cat /sys/class/watchdog/watchdog0/timeout")?,
            "1min\n60",
        )
    });
    keys.check(&["/os/udevRules"], || equal(&vm.ssh("readlink /dev/example")?, "null"));
    keys.checks.check("rules that udevd would drop are refused with their line, and those before stay", || {
        let rules = json!({"99-example": "KERNEL==\"zero\", SYMLINK+=\"example\"\nLBEL=\"x\"\n"});
        let (code, text) = vm.ssh_code(&format!("printf %s '{rules}' | os config set os.udevRules -"))?;
        ensure!(code == 1 && text.contains("99-example: line 2: Invalid key 'LBEL'"), "exit code {code}: {text}");
        equal(&vm.ssh("udevadm settle; readlink /dev/example")?, "null")
    });
    keys.check(&["/os/kernel/modules", "/os/kernel/moduleOptions"], || {
        equal(&vm.ssh("cat /sys/module/nbd/parameters/nbds_max")?, "4")
    });
    keys.check(&["/os/memory/zramSwap"], || {
        let swap: u64 = vm.ssh("swapon --show=SIZE --bytes --noheadings --raw | head -1")?.trim().parse()?;
        let ram: u64 = vm.ssh("awk '/MemTotal/ {print $2 * 1024}' /proc/meminfo")?.trim().parse()?;
        let example = KEYS.iter().find(|key| key.pointer == "/os/memory/zramSwap").context("no such key")?.example;
        let percent: u64 = example.parse().with_context(|| format!("the example is '{example}'"))?;
        let wanted = ram / 100 * percent;
        ensure!(swap.abs_diff(wanted) < 1 << 20, "{swap} bytes, wanted {wanted}");
        Ok(())
    });
    keys.check(&["/os/memory/swapFile"], || {
        let text = vm.ssh("swapon --show=NAME,SIZE --bytes --noheadings --raw | grep swapfile")?;
        let size: u64 = text.trim().strip_prefix("/mnt/data/swapfile ").context("no swap file")?.parse()?;
        // Without the header, and as the kernel's table rounds it.
        ensure!(size.abs_diff(64 << 20) < 64 << 10, "{text}");
        Ok(())
    });
    keys.check(&["/os/memory/swappiness"], || equal(&vm.ssh("sysctl -n vm.swappiness")?, "60"));
    keys.check(&["/os/kernel/sysctl"], || {
        let both = || vm.ssh("sysctl -n vm.max_map_count net.ipv4.tcp_keepalive_time");
        equal(&both()?, "262144\n600")?;
        let (code, text) = vm.ssh_code("os config set /os/kernel/sysctl/vm.e2e 1 2>&1")?;
        ensure!(code == 1 && text.contains("vm.e2e"), "exit code {code}: {text}");
        let (code, text) = vm.ssh_code("os config set /os/kernel/sysctl/kernel.panic 0 2>&1")?;
        ensure!(code == 1 && text.contains("restart"), "exit code {code}: {text}");
        equal(&both()?, "262144\n600")?;
        vm.ssh("os config unset os.kernel.sysctl")?;
        equal(&vm.ssh("sysctl -n net.ipv4.tcp_keepalive_time")?, "7200")
    });
    keys.check(&["/os/firstBoot"], || {
        equal(
            &vm.ssh("cat /mnt/data/first-boot; ls /mnt/state/os/first-boot.done")?,
            "hello\n/mnt/state/os/first-boot.done",
        )
    });
    keys.check(&["/os/encryption/data"], || {
        let found = vm.ssh("os disk encryption; ls /mnt/state/os/data.key 2>/dev/null || true")?;
        if !has_tpm {
            return equal(&found, "key\n/mnt/state/os/data.key");
        }
        equal(&found, "tpm2")?;
        let dump = vm.ssh("cryptsetup luksDump /dev/disk/os/os-data")?;
        ensure!(dump.matches(": luks2\n").count() == 1 && dump.contains("systemd-tpm2"), "{dump}");
        Ok(())
    });
}
