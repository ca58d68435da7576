//! The first boot, of a device whose data partition was being encrypted when the plug was pulled.

use super::healthy::healthy;
use super::live::live_changes;
use crate::harness::artifacts::{Demo, NO_DEMO};
use crate::harness::checks::Checks;
use crate::harness::device::{
    AVAHI_NAME, COUNTERS, counters, equal, every_unit_came_up, remember_identity, time_servers,
};
use crate::harness::lab::Lab;
use crate::harness::mdns::{self, Wire};
use crate::harness::vm::{PATIENCE, Vm};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Address of the device on the second card.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

/// Address of a device that is not there.
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 9);

pub(super) fn first_boot(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let config = json!({ "hostname": "e2e-one", "ntpServers": "192.0.2.1", "os": { "encryption": { "data": "key" } } });
    lab.disk.fat.write("config.json", &lab.config(config)?)?;
    let mut vm = lab.boot(Vec::new())?;
    checks.check("the data partition is encrypted in place, and the plug is pulled while it is", || {
        vm.wait_console("encrypting os-data", Duration::from_secs(120))?;
        std::thread::sleep(Duration::from_secs(2));
        ensure!(!vm.console().contains("os-data grew"), "it was over before");
        Ok(())
    });
    drop(vm);
    lab.disk.fat.make_dir("system-connections")?;
    lab.disk.fat.write("system-connections/wire.nmconnection", mdns::profile(ADDRESS).as_bytes())?;
    let wire = Wire::new()?;
    let mut vm = lab.boot(wire.arguments(mdns::MAC)?)?;
    vm.wait_ssh()?;
    checks.say(&format!("login after {:.0} s", vm.started.elapsed().as_secs_f64()));
    checks.check("every unit came up", || every_unit_came_up(&vm));
    checks.check("os status says that the boot before was cut", || {
        let status: Value = serde_json::from_str(&vm.ssh_code("os status --json")?.1)?;
        equal(status["lastRun"].as_str().unwrap_or_default(), "unclean")
    });
    checks.check("no ordering cycle, no kernel taint", || {
        let cycles = vm.ssh("journalctl -b --no-pager -o cat | grep -c 'ordering cycle' || true")?;
        equal(&cycles, "0")?;
        equal(&vm.ssh("cat /proc/sys/kernel/tainted")?, "0")
    });
    healthy(&vm, lab.artifacts.demo.as_ref(), checks);
    name(&vm, &wire, checks);
    access(&vm, lab, checks);
    match &lab.artifacts.demo {
        Some(demo) => preloaded(&vm, demo, checks),
        None => checks.skip("the preloaded container runs, without any network", NO_DEMO),
    }
    storage(&vm, lab, checks);
    system(&vm, checks);
    slots(&vm, lab, checks);
    ours(&vm, lab, checks);
    let name = "development mode: root on the serial console, Docker API on 2375";
    match lab.artifacts.no_console() {
        Some(why) => checks.skip(name, why),
        None => checks.check(name, || {
            let console = &lab.artifacts.console;
            equal(
                &vm.ssh(&format!("systemctl is-active serial-getty@{console} os-docker-tcp.socket"))?,
                "active\nactive",
            )?;
            let answer =
                vm.ssh("exec 3<>/dev/tcp/127.0.0.1/2375; printf 'GET /_ping HTTP/1.0\\r\\n\\r\\n' >&3; tail -1 <&3")?;
            ensure!(answer.contains("OK"), "{answer}");
            vm.wait_console("e2e-one login: root (automatic login)", Duration::from_secs(30))
        }),
    }
    live_changes(&vm, lab, checks);
    // Asked for long ago, and it takes its time.
    checks.check("os.Update1 goes when nobody asks", || {
        vm.wait_for("! systemctl is-active os-update-bus", Duration::from_secs(90))?;
        equal(&vm.ssh("systemctl is-failed os-update-bus || true")?, "inactive")
    });
    checks.check("os wipe asks first, and takes --yes", || {
        let (code, text) = vm.ssh_code("os wipe data </dev/null 2>&1")?;
        ensure!(code == 1 && text.contains("--yes"), "exit code {code}: {text}");
        vm.ssh("os wipe data --yes").map(drop)
    });
    remember_identity(lab, &vm)?;
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}

/// The name of the device on its network.
fn name(vm: &Vm, wire: &Wire, checks: &mut Checks) {
    checks
        .check("host name from config.json", || equal(&vm.ssh("hostname; hostnamectl --static")?, "e2e-one\ne2e-one"));
    checks.check("avahi announces it", || {
        // Avahi may have taken its own voice for another device; os-hostname.timer looks after that.
        is_announced(vm, "e2e-one", Duration::from_secs(200))
            .with_context(|| vm.ssh("journalctl -b -u avahi-daemon -u os-hostname --no-pager").unwrap_or_default())
    });
    checks.check("the name is answered on the wire (profile from system-connections/)", || {
        wire.resolve("e2e-one.local", ADDRESS, Duration::from_secs(40))
    });
    checks.check("a name that another device took comes back when that one is gone", || {
        let start = Instant::now();
        while vm.ssh(AVAHI_NAME)?.trim() == "s \"e2e-one.local\"" {
            ensure!(start.elapsed() < Duration::from_secs(60) * PATIENCE, "avahi keeps the name");
            // Avahi asks before it gives a name up, and three times before it takes one.
            for _ in 0..20 {
                wire.claim("e2e-one.local", STRANGER, 120)?;
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        // What was a conflict Avahi does not remember; what it does not claim itself it does.
        wire.claim("e2e-one.local", STRANGER, 120)?;
        std::thread::sleep(Duration::from_secs(1));
        vm.ssh("systemctl start os-hostname.service")?;
        let said = vm.ssh("journalctl -b -u os-hostname.service -o cat --no-pager")?;
        ensure!(said.contains(&format!("e2e-one.local is {STRANGER}")), "{said}");
        wire.claim("e2e-one.local", STRANGER, 0)?;
        std::thread::sleep(Duration::from_secs(3));
        vm.ssh("systemctl start os-hostname.service")?;
        is_announced(vm, "e2e-one", Duration::from_secs(60))
    });
}

/// Who gets in.
fn access(vm: &Vm, lab: &Lab, checks: &mut Checks) {
    checks.check("ssh by another key is refused", || vm.ssh_refused(&lab.stranger));
    checks.check("sshd takes keys only, root only", || {
        let config = vm.ssh("mkdir -p /run/sshd; /usr/sbin/sshd -T")?;
        for line in ["passwordauthentication no", "permitrootlogin without-password", "allowusers root"] {
            ensure!(config.lines().any(|l| l == line), "no line '{line}'");
        }
        Ok(())
    });
    checks.check("no account has a password", || equal(&vm.ssh("awk -F: '$2 !~ /^[!*]/' /etc/shadow")?, ""));
}

/// The container that came with the image.
fn preloaded(vm: &Vm, demo: &Demo, checks: &mut Checks) {
    checks.check("the preloaded container runs, without any network", || {
        equal(&vm.ssh("docker ps --format '{{.Names}} {{.Image}}'")?, &format!("{} {}", demo.name, demo.image))?;
        let page = vm.page()?;
        ensure!(page.contains("It runs"), "{page}");
        Ok(())
    });
    checks.check("its archive is gone from the data partition", || equal(&vm.ssh("ls /mnt/data/preload")?, ""));
}

fn storage(vm: &Vm, lab: &Lab, checks: &mut Checks) {
    checks.check("the root is read-only and verified", || {
        let (code, _) = vm.ssh_code("touch /usr/x 2>/dev/null")?;
        ensure!(code != 0, "/usr can be written");
        let mount = vm.ssh("findmnt -n -o SOURCE,FSTYPE,OPTIONS /")?;
        ensure!(mount.starts_with(&format!("/dev/mapper/os-root {} ro", lab.artifacts.root_type)), "{mount}");
        equal(&vm.ssh("veritysetup status os-root | sed -n 's/^ *status: *//p'")?, "verified")
    });
    checks.check("data has grown to the end of the disk", || {
        let size: u64 = vm.ssh("findmnt -bn -o SIZE /mnt/data")?.trim().parse()?;
        ensure!(size > 3 << 30, "{size} bytes");
        let backup = vm.ssh("sfdisk --verify /dev/disk/os/disk 2>&1 || true")?;
        ensure!(backup.contains("No errors detected"), "{backup}");
        Ok(())
    });
    checks.check("data is encrypted from its first byte to its last, and all of it is there", || {
        let text = vm.ssh("os disk encryption; blkid -p -o value -s TYPE /dev/disk/os/os-data; findmnt -n -o SOURCE /mnt/data")?;
        equal(&text, "key\ncrypto_LUKS\n/dev/mapper/os-data")?;
        equal(&vm.ssh("cryptsetup luksDump /dev/disk/os/os-data | grep -c reencrypt || true; ls /mnt/state/os/encryption 2>/dev/null || true")?, "0")?;
        equal(&vm.ssh("stat -c %a /mnt/state/os/data.key; cryptsetup status os-data | grep -c 'mode: *read/write'")?, "400\n1")
    });
    checks.check("partitions have names below /dev/disk/os", || {
        let mut names: Vec<&str> = lab.artifacts.parts.iter().map(|part| part.name.as_str()).collect();
        names.push("disk");
        names.sort_unstable();
        equal(&vm.ssh("cd /dev/disk/os && ls -1 | sort | tr '\\n' ' '")?, &names.join(" "))
    });
    checks.check("zram holds /var, /tmp and swap, compressed with lz4", || {
        let text = vm.ssh("zramctl -n -o ALGORITHM,MOUNTPOINT | sort | awk '{print $1,$2}' | tr '\\n' ' '")?;
        equal(&text, "lz4 /tmp lz4 /var lz4 [SWAP]")
    });
}

fn system(vm: &Vm, checks: &mut Checks) {
    checks.check("the journal lives in at most 8 MB of RAM", || {
        equal(&vm.ssh("ls -d /var/log/journal/* 2>/dev/null | wc -l")?, "0")?;
        let bytes = vm.ssh("du -sb /run/log/journal | cut -f1")?;
        ensure!(bytes.trim().parse::<u64>()? <= 9 << 20, "{bytes}");
        Ok(())
    });
    checks.check("the hardware watchdog is armed", || {
        let text = vm.ssh("journalctl -b --no-pager -o cat | grep -i 'using hardware watchdog' | tail -1")?;
        let name = vm.ssh("cat /sys/class/watchdog/watchdog0/identity")?;
        let in_software = name.to_lowercase().contains("soft");
        ensure!(!name.trim().is_empty() && text.contains(name.trim()) && !in_software, "{text}, {name}");
        Ok(())
    });
    checks.check("AppArmor is on", || equal(&vm.ssh("cat /sys/module/apparmor/parameters/enabled")?, "Y"));
    checks.check("the time server is config.json's", || time_servers(vm, "192.0.2.1"));
    checks.check("names resolve for the host through os-dns", || {
        equal(&vm.ssh("systemctl is-active os-dns; getent hosts e2e-one.local | grep -c e2e-one")?, "active\n1")
    });
    checks.check("nothing of ours is resident, and RAUC rests", || {
        equal(&vm.ssh("ls -l /proc/[0-9]*/exe 2>/dev/null | grep -c os-tools || true")?, "0")?;
        equal(&vm.ssh("pgrep -c rauc || true")?, "0")
    });
}

/// What RAUC, the bootloader and `os slot` know of the slots.
fn slots(vm: &Vm, lab: &Lab, checks: &mut Checks) {
    let [first, second] = lab.artifacts.slots.as_slice() else { return };
    checks.check("RAUC: both slots known, the booted one good", || {
        let slots: Value = serde_json::from_str(&vm.ssh("rauc status --output-format=json")?)?;
        ensure!(slots["booted"] == *first && slots["boot_primary"] == "kernel.0", "{slots}");
        let list = slots["slots"].as_array().context("no slots")?;
        ensure!(list.len() == 4, "{} slots", list.len());
        ensure!(list.iter().any(|s| s["kernel.0"]["boot_status"] == "good"), "{slots}");
        Ok(())
    });
    checks.check("only root may ask RAUC", || {
        let ask = "busctl call de.pengutronix.rauc / de.pengutronix.rauc.Installer GetPrimary";
        let (code, text) = vm.ssh_code(&format!("setpriv --reuid=65534 --regid=65534 --clear-groups {ask} 2>&1"))?;
        ensure!(code != 0 && text.contains("Access denied"), "{text}");
        vm.ssh(ask).map(drop)
    });
    checks.check("the boot counter was reset", || {
        equal(&vm.ssh(COUNTERS)?, &counters(&lab.artifacts.slots, &[first], first))
    });
    checks.check("os slot leaves the bootloader something to start", || {
        let (code, text) = vm.ssh_code("os slot mark bad 2>&1")?;
        ensure!(code == 1 && text.contains(&format!("slot {second} is not good either")), "exit code {code}: {text}");
        let (code, text) = vm.ssh_code("os slot switch --yes 2>&1")?;
        ensure!(code == 1 && text.contains(&format!("slot {second} holds nothing")), "exit code {code}: {text}");
        let good = vm.ssh(&format!("os slot mark good && os slot status | grep -c '{first}.*good'"))?;
        equal(&good, &format!("Slot {first} is marked good.\n1"))?;
        equal(&vm.ssh("pgrep -c rauc || true")?, "0")
    });
}

fn ours(vm: &Vm, lab: &Lab, checks: &mut Checks) {
    checks.check("os.Update1: the bus starts it, anybody may look, only root may ask", || {
        let object = "os.Update1 /os/Update1 os.Update1";
        let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
        equal(&vm.ssh(&format!("{nobody} busctl get-property {object} Phase Percent"))?, "s \"idle\"\ni -1")?;
        let (code, text) = vm.ssh_code(&format!("{nobody} busctl call {object} Check s '' 2>&1"))?;
        ensure!(code != 0 && text.contains("Access denied"), "{text}");
        let (code, text) = vm.ssh_code(&format!("busctl --timeout=60 call {object} Check s '' 2>&1"))?;
        ensure!(code != 0 && text.contains("no channel is set"), "{text}");
        Ok(())
    });
    checks.check("os status --json says that all is well", || {
        let (code, text) = vm.ssh_code("os status --json")?;
        let status: Value = serde_json::from_str(&text)?;
        ensure!(code == 0 && status["health"]["system"] == "running", "exit code {code}: {text}");
        ensure!(
            lab.artifacts.slots.first().is_some_and(|slot| status["boot"]["slot"] == *slot)
                && status["boot"]["verity"] == true
                && status["boot"]["firstBoot"] == true,
            "{text}"
        );
        ensure!(
            status["engine"]["running"] == lab.artifacts.containers().len() && status["config"]["source"] == "file",
            "{text}"
        );
        ensure!(status["network"]["addresses"].as_object().is_some_and(|a| a.len() == 2), "{text}");
        ensure!(status["os"]["variant"] == lab.artifacts.variant && status["hostname"] == "e2e-one", "{text}");
        Ok(())
    });
    checks.check("our units are sandboxed", || are_sandboxed(vm));
}

/// Root shells by purpose: a login, and the owner's own script.
const NOT_SANDBOXED: [&str; 2] = ["os-ssh@.service", "os-first-boot.service"];

/// How exposed a unit may be (`systemd-analyze security`).
const EXPOSED: f64 = 2.0;
/// It mounts what anybody may have prepared, and hands RAUC a bundle over loopback.
const MORE_EXPOSED: (&str, f64) = ("os-update-stick@x.service", 2.5);

/// Every other one is.
fn are_sandboxed(vm: &Vm) -> Result<()> {
    let text = vm.ssh("cd / && ls {usr/lib,etc}/systemd/system/os-*.service | sed 's,.*/,,' | sort -u")?;
    let units: Vec<String> =
        text.lines().filter(|unit| !NOT_SANDBOXED.contains(unit)).map(|unit| unit.replace("@.", "@x.")).collect();
    ensure!(units.len() > 10, "there are only {text}");
    let text = vm.ssh(&format!("systemd-analyze security --no-pager {} | grep 'exposure level'", units.join(" ")))?;
    for unit in units {
        let level = text.split_once(&format!("for {unit}: ")).and_then(|(_, rest)| rest.split(' ').next());
        let level: f64 = level.with_context(|| format!("nothing is said of {unit}: {text}"))?.parse()?;
        let limit = if unit == MORE_EXPOSED.0 { MORE_EXPOSED.1 } else { EXPOSED };
        ensure!(level <= limit, "{unit}: {level}");
    }
    Ok(())
}

fn is_announced(vm: &Vm, name: &str, limit: Duration) -> Result<()> {
    vm.wait_for(&format!("{AVAHI_NAME} | grep -x 's \"{name}.local\"'"), limit).map(drop)
}
