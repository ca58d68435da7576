//! What is asked of a device again and again.

use crate::harness::lab::Lab;
use crate::harness::vm::Vm;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;

/// Prints the name that the device announces.
pub(crate) const AVAHI_NAME: &str = "busctl call org.freedesktop.Avahi / org.freedesktop.Avahi.Server GetHostNameFqdn";

/// Prints what the bootloader knows of the slots.
pub(crate) const COUNTERS: &str =
    r"grep -ao '^[A-Z]_[A-Z]*=.*\|^ORDER=.*' $(find /mnt/boot -name grubenv) | sort | tr '\n' ' '";

/// What [`COUNTERS`] prints when these slots are good, none has a start that was not confirmed, and `first` comes first.
pub(crate) fn counters(slots: &[String], good: &[&str], first: &str) -> String {
    let slot = |slot: &String| format!("{slot}_OK={} {slot}_TRY=0", u8::from(good.contains(&slot.as_str())));
    let order = std::iter::once(first).chain(slots.iter().map(String::as_str).filter(|slot| *slot != first));
    let [slots, order] = [slots.iter().map(slot).collect::<Vec<_>>(), order.map(str::to_owned).collect()];
    format!("{} ORDER={}", slots.join(" "), order.join(" "))
}

pub(crate) fn equal(found: &str, wanted: &str) -> Result<()> {
    ensure!(found.trim() == wanted, "found '{}', wanted '{wanted}'", found.trim());
    Ok(())
}

/// What must survive a reboot.
pub(crate) const IDENTITY: &str = "cat /etc/machine-id /mnt/state/os/device-id /mnt/state/os/ssh/ssh_host_ed25519_key.pub; \
     blkid -p -o value -s PTUUID /dev/disk/os/disk; blkid -o value -s UUID /dev/disk/os/os-state";

/// For the scenarios that come back to it.
pub(crate) fn remember_identity(lab: &Lab, vm: &Vm) -> Result<()> {
    Ok(std::fs::write(lab.dir.join("identity"), vm.ssh(IDENTITY)?)?)
}

/// Has the rescue system do what it does after 15 minutes in which nobody comes.
pub(crate) fn leave_rescue(vm: &mut Vm, console: &str) -> Result<()> {
    // Nobody typed at the consoles, where this variant logs in by itself, but not for long enough.
    vm.ssh(&format!("touch -a -d '15 minutes ago' /dev/{console} /dev/tty1"))?;
    // Again, should this login not be over by then.
    let timer = "systemd-run --quiet --on-active=15 --on-unit-inactive=15 --timer-property=AccuracySec=1s";
    vm.ssh(&format!("{timer} systemctl start os-rescue.service"))?;
    // A login that asks whether it did would keep it from it.
    vm.forget_connection();
    vm.wait_next_start(Duration::from_secs(100))
}

/// Files that no update may change: name on the partition, and path on the device.
const KEPT: [(&str, &str); 2] = [("/os/device-id", "/mnt/state/os/device-id"), ("/mark", "/mnt/data/mark")];

/// Puts something onto data, and returns what state and data hold from now on: name on the partition, and content.
pub(crate) fn keep(vm: &Vm) -> Result<Vec<(&'static str, String)>> {
    vm.ssh("head -c 300000 /dev/urandom | base64 > /mnt/data/mark; sync")?;
    KEPT.map(|(name, path)| Ok((name, vm.ssh(&format!("cat {path}"))?))).into_iter().collect()
}

/// State and data hold what they held.
pub(crate) fn is_kept(vm: &Vm, kept: &[(&str, String)]) -> Result<()> {
    for ((_, path), (_, content)) in KEPT.iter().zip(kept) {
        ensure!(vm.ssh(&format!("cat {path}"))?.trim() == content.trim(), "{path} is not what it was");
    }
    Ok(())
}

pub(crate) fn update_status(vm: &Vm) -> Result<Value> {
    Ok(serde_json::from_str(&vm.ssh("os update status --json")?)?)
}

/// What every installation from a channel fetched, in MiB, oldest first.
pub(crate) fn came(vm: &Vm) -> Result<Vec<u64>> {
    let log: Value = serde_json::from_str(&vm.ssh("os update log --json")?)?;
    let texts = log["history"].as_array().into_iter().flatten().filter_map(|event| event["text"].as_str());
    texts.filter_map(|text| text.strip_suffix(" MiB came from the channel")).map(|mib| Ok(mib.parse()?)).collect()
}

pub(crate) fn slot(vm: &Vm) -> Result<String> {
    let status: Value = serde_json::from_str(&vm.wait_for("os status --json || true", Duration::from_secs(60))?)?;
    Ok(status["boot"]["slot"].as_str().unwrap_or_default().to_owned())
}

/// Waits until the health of the boot was confirmed. systemd says so by itself when the start is over: asking again and
/// again would take the processor from what is waited for.
pub(crate) fn settled(vm: &Vm) -> Result<()> {
    let started = "timeout 100 systemctl is-system-running --wait >/dev/null";
    vm.wait_for(&format!("{{ {started}; systemctl is-active os-commit >/dev/null; }}"), Duration::from_secs(150))
        .map(drop)
}

/// Where journald keeps its files, from the files it has open.
pub(crate) fn journal_on_data(vm: &Vm, wanted: bool) -> Result<()> {
    let pid = "$(systemctl show -p MainPID --value systemd-journald)";
    let open = format!("ls -l /proc/{pid}/fd | grep -c ' /run/log/journal/\\| /var/log/journal/.*' || true");
    ensure!(vm.ssh(&open)?.trim() != "0", "journald has no journal open at all");
    let not = if wanted { "" } else { "!" };
    vm.wait_for(&format!("{not} ls -l /proc/{pid}/fd | grep -q /var/log/journal"), Duration::from_secs(20)).map(drop)
}

/// These containers run, and no other.
pub(crate) fn run_containers(vm: &Vm, names: &[String]) -> Result<()> {
    let wanted = names.join(" ");
    let found = "$(docker ps --format '{{.Names}}' | sort | tr '\n' ' ' | sed 's/ $//')";
    vm.wait_for(&format!("test \"{found}\" = '{wanted}'"), Duration::from_secs(60))
        .map(drop)
        .with_context(|| format!("'{wanted}' are to run; {}", vm.ssh("docker ps -a").unwrap_or_default()))
}

/// The kernel has killed nothing for want of memory, in this boot and in those before it.
pub(crate) fn nothing_was_killed(vm: &Vm) -> Result<()> {
    const SAYS: &str = "out of memory";
    let journal = vm.ssh("journalctl -k -b --no-pager -o cat")?;
    ensure!(!journal.trim().is_empty(), "the journal has nothing of the kernel");
    // The journal of a boot that ended is gone; errors of the kernel are on the console, too.
    let said = vm.consoles() + &journal;
    let killed: Vec<&str> = said.lines().filter(|line| line.to_lowercase().contains(SAYS)).collect();
    ensure!(killed.is_empty(), "{}", killed.join("\n"));
    Ok(())
}

/// The boot has ended, and no unit has failed.
pub(crate) fn every_unit_came_up(vm: &Vm) -> Result<()> {
    // Nothing that failed comes up by being waited for.
    let ended = "systemctl is-system-running --wait | grep -E 'running|degraded'";
    let ended = vm.wait_for(ended, Duration::from_secs(240));
    let failed = vm.ssh("systemctl --failed --no-legend --plain")?;
    ensure!(failed.trim().is_empty(), "{}", failed.trim());
    ended.map(drop)
}

/// Waits until timesyncd has these servers of the configuration: os-config queues its restart and does not wait for it.
pub(crate) fn time_servers(vm: &Vm, wanted: &str) -> Result<()> {
    let ask = "timedatectl show-timesync --property=SystemNTPServers --value";
    vm.wait_for(&format!("test \"$({ask})\" = '{wanted}'"), Duration::from_secs(30))
        .map(drop)
        .with_context(|| format!("wanted '{wanted}', found '{}'", vm.ssh(ask).unwrap_or_default().trim()))
}
