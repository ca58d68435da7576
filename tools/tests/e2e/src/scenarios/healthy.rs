//! What a healthy device shows whoever looks: a quiet journal, answers to programs, apps that it was shipped with.

use crate::harness::artifacts::{Demo, NO_DEMO};
use crate::harness::checks::Checks;
use crate::harness::device::equal;
use crate::harness::vm::Vm;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;

/// Warnings of a healthy boot that are not ours to mend, each with the reason.
const EXCUSED: &[(&str, &str)] = &[
    ("encrypting os-data", "ours, and meant to be seen on the console: it takes minutes"),
    ("GPT:", "the kernel reads the table before it has grown to the end of a larger disk"),
    ("tsc:", "the emulated machine"),
    ("pci-host-generic ", "the emulated machine"),
    ("amd_pstate:", "the emulated machine"),
    ("APIC calibration", "the emulated machine, on a host that is busy"),
    ("hrtimer: interrupt took", "the emulated machine, on a host that is busy"),
    ("warning: no upstream servers configured", "os-dns starts before the network is there"),
    ("device-mapper: core: CONFIG_IMA_DISABLE_HTABLE", "how Debian configures its kernel"),
];

/// Commands that change nothing, and what their object has to have.
const ANSWERS: &[(&str, &str)] = &[
    ("os status", "slots"),
    ("os selftest --quick", "checks"),
    ("os config status", "keys"),
    ("os config get", "value"),
    ("os config get hostname", "value"),
    ("os config validate", "good"),
    ("os config diff", "differences"),
    ("os config history", "versions"),
    ("os config keys", "keys"),
    ("os update status", "phase"),
    ("os update log", "history"),
    ("os slot status", "slots"),
    ("os disk encryption", "found"),
    ("os update check", "error"),
    ("os config get no.such.key", "value"),
    ("os config set no.such.key 1", "error"),
    ("os wipe data", "error"),
    ("os no-such-command", "error"),
];

/// What the self test has to find on every machine that the suite makes.
const TESTED: [&str; 17] = [
    "machine.memory",
    "slots.booted",
    "slots.committed",
    "slots.counters",
    "slots.rauc",
    "disk.partitions",
    "disk.alignment",
    "disk.grown",
    "disk.volumes",
    "disk.speed",
    "clock.floor",
    "watchdog.armed",
    "network.state",
    "engine.answers",
    "engine.cgroups",
    "engine.storage",
    "engine.container",
];

fn self_test(vm: &Vm, options: &str) -> Result<Value> {
    let (code, text) = vm.ssh_code(&format!("os selftest --json {options}"))?;
    let test: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    ensure!((code == 0) == (test["failed"] == 0), "exit code {code}: {text}");
    Ok(test)
}

pub(super) fn healthy(vm: &Vm, demo: Option<&Demo>, checks: &mut Checks) {
    checks.check("nothing in the journal is a warning", || is_quiet(vm));
    checks.check("--json is one object with a version, whatever comes", || {
        for (command, field) in ANSWERS {
            let (_, text) = vm.ssh_code(&format!("{command} --json </dev/null 2>/dev/null"))?;
            let answer: Value = serde_json::from_str(&text).with_context(|| format!("{command}: {text}"))?;
            ensure!(answer["version"] == 1 && answer.get(field).is_some(), "{command}: {text}");
        }
        Ok(())
    });
    checks.check("the self test passes, skips nothing that this machine has, and leaves nothing behind", || {
        let left = "docker images -aq | sort; docker ps -aq; ls /run/os | grep selftest || true";
        let before = vm.ssh(left)?;
        let test = self_test(vm, "")?;
        ensure!(test["failed"] == 0, "{test:#}");
        let passed = test["checks"].as_array().into_iter().flatten().filter(|check| check["outcome"] == "passed");
        let passed: Vec<&str> = passed.filter_map(|check| check["name"].as_str()).collect();
        let missing: Vec<&&str> = TESTED.iter().filter(|name| !passed.contains(name)).collect();
        ensure!(missing.is_empty(), "{missing:?} did not pass: {test:#}");
        equal(&vm.ssh(left)?, before.trim())
    });
    checks.check("the self test finds counters that differ from their copy, and says what mends them", || {
        let file = vm.ssh("find /mnt/boot -name grubenv.copy")?;
        let file = file.trim();
        vm.ssh(&format!("printf X | dd of={file} bs=1 seek=600 conv=notrunc 2>/dev/null"))?;
        let found = self_test(vm, "--quick").map(|test| {
            let failed = test["checks"].as_array().into_iter().flatten().filter(|check| check["outcome"] == "failed");
            failed.filter_map(|check| check["name"].as_str()).collect::<Vec<_>>().join(" ")
        });
        // What the report says to do.
        vm.ssh("os slot mark good")?;
        vm.ssh(&format!("cmp {file} {}", file.trim_end_matches(".copy")))?;
        equal(&found?, "slots.counters")
    });
    checks.check("identifiers of the boot partition and of the kernel slot differ", || {
        let ids = vm.ssh("blkid -p -o value -s UUID /dev/disk/os/os-boot /dev/disk/os/os-kernelA | sort -u | wc -l")?;
        equal(&ids, "2")
    });
    checks.check("the kernel knows the iptables of before nftables, which a container cannot load", || {
        vm.ssh("cat /proc/net/ip_tables_names /proc/net/ip6_tables_names").map(drop)
    });
    checks.check("os status calls an empty slot empty", || {
        let text = vm.ssh("os status")?;
        ensure!(text.contains("Slot       A booted     good") && text.contains("Slot       B empty"), "{text}");
        Ok(())
    });
    const SHIPPED: &str = "apps of the system are made once, and again after a wipe";
    const NAMED: &str = "os status names what cannot be started, which is tried again, and what writes to RAM";
    match demo {
        Some(demo) => {
            checks.check(SHIPPED, || shipped(vm, demo));
            checks.check(NAMED, || named(vm, demo));
        }
        None => [SHIPPED, NAMED].into_iter().for_each(|name| checks.skip(name, NO_DEMO)),
    }
}

fn named(vm: &Vm, demo: &Demo) -> Result<()> {
    let image = &demo.image;
    vm.ssh(&format!(
        "docker run -d --name e2e-late --restart always --device /dev/e2e-late {image} >/dev/null 2>&1; \
         docker create --name e2e-ram -v /var/lib/e2e:/d -v /var/run/docker.sock:/s -v /mnt/data/apps/e2e:/e {image} >/dev/null"
    ))?;
    let tried = (|| {
        let said = vm.ssh("os status")?;
        let wrong: Vec<&str> = said.lines().filter(|line| line.contains("container e2e-")).collect();
        ensure!(wrong.len() == 2, "{said}");
        ensure!(wrong[0].contains("! container e2e-late ") && wrong[0].contains("/dev/e2e-late"), "{said}");
        ensure!(wrong[1].contains("! container e2e-ram writes to /var/lib/e2e,"), "{said}");
        vm.ssh("mknod /dev/e2e-late c 1 3 && systemctl start os-retry")?;
        vm.wait_for("docker inspect -f '{{.State.Running}}' e2e-late | grep true", Duration::from_secs(60)).map(drop)
    })();
    vm.ssh("docker rm -f e2e-late e2e-ram >/dev/null; rm -rf /dev/e2e-late /var/lib/e2e")?;
    tried
}

fn is_quiet(vm: &Vm) -> Result<()> {
    let text = vm.ssh("journalctl -b -p warning -o cat --no-pager")?;
    let said: Vec<&str> =
        text.lines().filter(|line| !EXCUSED.iter().any(|(start, _)| line.starts_with(start))).collect();
    ensure!(said.is_empty(), "{}", said.join("\n"));
    Ok(())
}

/// The image that is tested ships none: one is put where they lie, for as long as this takes.
fn shipped(vm: &Vm, demo: &Demo) -> Result<()> {
    let image = &demo.image;
    vm.ssh(&format!(
        "cp -a /usr/lib/os /run/os-copy && mkdir /run/os-copy/preload && docker save {image} -o /run/os-copy/preload/till.tar && \
         echo '{{\"name\": \"till\", \"image\": \"{image}\"}}' > /run/os-copy/preload/till.json && \
         mount --bind /run/os-copy /usr/lib/os"
    ))?;
    let again = || -> Result<String> {
        vm.ssh("systemctl restart os-preload")?;
        vm.wait_for("systemctl is-active os-preload", Duration::from_secs(60))?;
        vm.ssh("docker ps -a --filter name=till --format '{{.Names}} {{.State}}'; docker rm -f till >/dev/null 2>&1 || true")
    };
    let tried = (|| {
        equal(&again()?, "till running")?;
        equal(&again()?, "")?;
        // As a wipe of apps does.
        vm.ssh("rm -r /mnt/data/os/preloaded")?;
        equal(&again()?, "till running")
    })();
    vm.ssh("umount /usr/lib/os && rm -r /run/os-copy /mnt/data/os/preloaded")?;
    tried
}
