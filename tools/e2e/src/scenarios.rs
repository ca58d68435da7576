//! The boots.

use crate::checks::Checks;
use crate::configuration;
use crate::crash::dump;
use crate::disk::Disk;
use crate::mdns::{self, Wire};
use crate::updates;
use crate::vm::{LIAR, PATIENCE, Restart, Start, Vm, WEB};
use anyhow::{Context, Result, anyhow, ensure};
use os_sys::cmd::Cmd;
use osctl::lab::keys::{self, Keys};
use osctl::qemu::{self, Accel};
use osctl::repo::{self, Repo};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Variant under test.
pub(crate) const VARIANT: &str = "development";

/// Address of the device on the second card.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

/// Address of a device that is not there.
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 9);

/// Prints the name that the device announces.
pub(crate) const AVAHI_NAME: &str = "busctl call org.freedesktop.Avahi / org.freedesktop.Avahi.Server GetHostNameFqdn";

/// What the scenarios work on.
pub(crate) struct Lab {
    pub(crate) repo: Repo,
    pub(crate) dir: PathBuf,
    pub(crate) keys: Keys,
    stranger: PathBuf,
    accel: Accel,
    pub(crate) disk: Disk,
    /// Moments at which a recorded update is cut.
    pub(crate) points: usize,
}

impl Lab {
    pub(crate) fn new(repo: &Repo, dir: PathBuf, keys: Keys, accel: Accel, points: usize) -> Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let stranger = dir.join("stranger");
        if !stranger.exists() {
            Cmd::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&stranger).run()?;
        }
        let disk = Disk::flash(repo, &repo.image(VARIANT), &dir)?;
        Ok(Self { repo: repo.clone(), dir, keys, stranger, accel, disk, points })
    }

    pub(crate) fn boot(&self, extra: Vec<String>) -> Result<Vm> {
        Vm::start(&Start { extra, ..self.machine() })
    }

    /// A machine that finds a web server.
    pub(crate) fn boot_with_web(&self, port: u16, restart: Restart) -> Result<Vm> {
        Vm::start(&Start { web: vec![(WEB, port)], restart, ..self.machine() })
    }

    /// The same, from where a machine was frozen.
    pub(crate) fn thaw(&self, frozen: &Path, port: u16, restart: Restart) -> Result<Vm> {
        Vm::start(&Start { web: vec![(WEB, port)], restart, frozen: Some(frozen), ..self.machine() })
    }

    /// A machine that may restart, without any web server.
    pub(crate) fn boot_to_restart(&self) -> Result<Vm> {
        Vm::start(&Start { restart: Restart::Restarts, ..self.machine() })
    }

    /// The same, with a log of every write to the disk.
    pub(crate) fn boot_traced(&self, port: u16, liar: u16, extra: Vec<String>) -> Result<Vm> {
        let web = vec![(WEB, port), (LIAR, liar)];
        Vm::start(&Start { web, restart: Restart::Restarts, trace: true, extra, ..self.machine() })
    }

    fn machine(&self) -> Start<'_> {
        Start {
            disk: &self.disk,
            dir: &self.dir,
            key: &self.keys.ssh,
            accel: self.accel,
            extra: Vec::new(),
            web: Vec::new(),
            trace: false,
            restart: Restart::Ends,
            frozen: None,
        }
    }

    pub(crate) fn config(&self, more: Value) -> Result<Vec<u8>> {
        let mut config = json!({ "os": { "sshKeys": [self.keys.ssh_public()?] } });
        os_config::edit::merge(&mut config, &more);
        Ok(serde_json::to_vec_pretty(&config)?)
    }
}

type Scenario = fn(&Lab, &mut Checks) -> Result<()>;

/// Scenarios on one disk, in this order: later ones stand on what earlier ones left there.
struct Chain {
    name: &'static str,
    scenarios: &'static [(&'static str, Scenario)],
    /// Runs only when asked for by name: it takes half an hour more.
    long: bool,
}

const CHAINS: &[Chain] = &[
    Chain {
        name: "config",
        scenarios: &[
            ("first boot", first_boot),
            ("every key", configuration::every_key),
            ("next boot", configuration::next_boot),
            ("lost state, broken configuration", lost),
            ("rescue, wipe", rescue_and_wipe),
        ],
        long: false,
    },
    Chain { name: "update", scenarios: &[("update", updates::good_and_bad)], long: false },
    Chain { name: "hand", scenarios: &[("by hand", updates::by_hand)], long: true },
    Chain { name: "bad", scenarios: &[("bad releases", updates::bad_releases)], long: true },
    Chain { name: "jump", scenarios: &[("a jump", updates::jump)], long: true },
    Chain { name: "cut", scenarios: &[("a cut after a jump", updates::cut_after_jump)], long: true },
];

/// What stands for all chains that are left out otherwise.
const LONG: &str = "long";

/// An emulated machine has one processor, so two keep two of ours busy; a third would only make time limits pass.
const AT_ONCE: usize = 2;

/// Runs the chain `only`, or every scenario whose name contains it, or the chains that are [`LONG`], with so many power
/// cuts replayed.
pub(crate) fn run(repo: &Repo, only: &str, points: usize) -> Result<Vec<Checks>> {
    let keys = keys::ensure(repo)?;
    let accel = qemu::accel(repo, VARIANT)?;
    println!("Processor: {accel:?}");
    // The name of a chain is no part of the names of others' scenarios.
    let by_chain = CHAINS.iter().any(|c| c.name == only);
    let is_asked = |chain: &Chain, name: &str| match only {
        "" => !chain.long,
        LONG => chain.long,
        _ if by_chain => chain.name == only,
        _ => name.contains(only),
    };
    let chosen = |chain: &Chain| -> Vec<(&'static str, Scenario)> {
        chain.scenarios.iter().filter(|(name, _)| is_asked(chain, name)).copied().collect()
    };
    let start = |name: &'static str, scenarios: &[(&'static str, Scenario)]| -> Checks {
        let mut checks = Checks::new(name);
        let lab = match Lab::new(repo, repo.build.join("e2e").join(name), keys.clone(), accel, points) {
            Ok(lab) => lab,
            Err(err) => {
                checks.check("a disk and its keys", || Err(err));
                return checks;
            }
        };
        for (scenario, run) in scenarios {
            checks.scenario(scenario);
            if let Err(err) = run(&lab, &mut checks) {
                // Those after it stand on it.
                checks.check(&format!("{scenario}: runs to its end, and the chain with it"), || Err(err));
                break;
            }
        }
        checks.end();
        checks
    };
    let chains: Vec<_> =
        CHAINS.iter().map(|c| (c.name, chosen(c))).filter(|(_, scenarios)| !scenarios.is_empty()).collect();
    let next = AtomicUsize::new(0);
    let work = || -> Vec<Checks> {
        let mine = std::iter::from_fn(|| chains.get(next.fetch_add(1, Ordering::Relaxed)));
        mine.map(|(name, scenarios)| start(name, scenarios)).collect()
    };
    let done = std::thread::scope(|scope| {
        let running: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        running
            .into_iter()
            .map(|worker| worker.join().map_err(|_| anyhow!("a chain panicked")))
            .collect::<Result<Vec<_>>>()
    })?;
    if only.is_empty() {
        let long: Vec<&str> = CHAINS.iter().filter(|chain| chain.long).map(|chain| chain.name).collect();
        println!("\nNot run here: {}; make test-long runs them", long.join(", "));
    }
    Ok(done.into_iter().flatten().collect())
}

pub(crate) fn equal(found: &str, wanted: &str) -> Result<()> {
    ensure!(found.trim() == wanted, "found '{}', wanted '{wanted}'", found.trim());
    Ok(())
}

fn first_boot(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let config = json!({ "hostname": "e2e-one", "ntpServers": "192.0.2.1", "os": { "encryption": { "data": "key" } } });
    lab.disk.write("config.json", &lab.config(config)?)?;
    let mut vm = lab.boot(Vec::new())?;
    checks.check("the data partition is encrypted in place, and the plug is pulled while it is", || {
        vm.wait_console("encrypting os-data", Duration::from_secs(120))?;
        std::thread::sleep(Duration::from_secs(2));
        ensure!(!vm.console().contains("os-data grew"), "it was over before");
        Ok(())
    });
    drop(vm);
    lab.disk.make_dir("system-connections")?;
    lab.disk.write("system-connections/wire.nmconnection", mdns::profile(ADDRESS).as_bytes())?;
    let wire = Wire::new()?;
    let mut vm = lab.boot(wire.arguments(mdns::MAC)?)?;
    vm.wait_ssh()?;
    checks.say(&format!("login after {:.0} s", vm.started.elapsed().as_secs_f64()));
    let settled = vm.wait_for(
        "systemctl is-system-running --wait >/dev/null; systemctl is-system-running",
        Duration::from_secs(240),
    );

    checks.check("every unit came up", || {
        let failed = vm.ssh("systemctl --failed --no-legend --plain")?;
        ensure!(failed.trim().is_empty(), "{}", failed.trim());
        settled.map(drop)
    });
    checks.check("no ordering cycle, no kernel taint", || {
        let cycles = vm.ssh("journalctl -b --no-pager -o cat | grep -c 'ordering cycle' || true")?;
        equal(&cycles, "0")?;
        equal(&vm.ssh("cat /proc/sys/kernel/tainted")?, "0")
    });
    checks
        .check("host name from config.json", || equal(&vm.ssh("hostname; hostnamectl --static")?, "e2e-one\ne2e-one"));
    checks.check("avahi announces it", || {
        // Avahi may have taken its own voice for another device; os-hostname.timer looks after that.
        is_announced(&vm, "e2e-one", Duration::from_secs(200))
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
        is_announced(&vm, "e2e-one", Duration::from_secs(60))
    });
    checks.check("ssh by another key is refused", || vm.ssh_refused(&lab.stranger));
    checks.check("sshd takes keys only, root only", || {
        let config = vm.ssh("mkdir -p /run/sshd; /usr/sbin/sshd -T")?;
        for line in ["passwordauthentication no", "permitrootlogin without-password", "allowusers root"] {
            ensure!(config.lines().any(|l| l == line), "no line '{line}'");
        }
        Ok(())
    });
    checks.check("no account has a password", || equal(&vm.ssh("awk -F: '$2 !~ /^[!*]/' /etc/shadow")?, ""));
    checks.check("the preloaded container runs, without any network", || {
        equal(&vm.ssh("docker ps --format '{{.Names}} {{.Image}}'")?, "hello hello:1")?;
        let page = vm.http()?;
        ensure!(page.contains("It runs"), "{page}");
        Ok(())
    });
    checks.check("its archive is gone from the data partition", || equal(&vm.ssh("ls /mnt/data/preload")?, ""));
    checks.check("the root is read-only and verified", || {
        let (code, _) = vm.ssh_code("touch /usr/x 2>/dev/null")?;
        ensure!(code != 0, "/usr can be written");
        let mount = vm.ssh("findmnt -n -o SOURCE,FSTYPE,OPTIONS /")?;
        ensure!(mount.starts_with("/dev/mapper/os-root erofs ro"), "{mount}");
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
        equal(
            &vm.ssh("cd /dev/disk/os && ls -1 | sort | tr '\\n' ' '")?,
            "disk os-boot os-data os-kernelA os-kernelB os-rootA os-rootB os-state",
        )
    });
    checks.check("zram holds /var, /tmp and swap, compressed with lz4", || {
        let text = vm.ssh("zramctl -n -o ALGORITHM,MOUNTPOINT | sort | awk '{print $1,$2}' | tr '\\n' ' '")?;
        equal(&text, "lz4 /tmp lz4 /var lz4 [SWAP]")
    });
    checks.check("the journal lives in at most 8 MB of RAM", || {
        equal(&vm.ssh("ls -d /var/log/journal/* 2>/dev/null | wc -l")?, "0")?;
        let bytes = vm.ssh("du -sb /run/log/journal | cut -f1")?;
        ensure!(bytes.trim().parse::<u64>()? <= 9 << 20, "{bytes}");
        Ok(())
    });
    checks.check("the hardware watchdog is armed", || {
        let text = vm.ssh("journalctl -b --no-pager -o cat | grep -i 'using hardware watchdog' | tail -1")?;
        ensure!(text.contains("i6300ESB"), "{text}");
        Ok(())
    });
    checks.check("AppArmor is on", || equal(&vm.ssh("cat /sys/module/apparmor/parameters/enabled")?, "Y"));
    checks.check("the time server is config.json's", || {
        equal(&vm.ssh("timedatectl show-timesync --property=SystemNTPServers --value")?, "192.0.2.1")
    });
    checks.check("names resolve for the host through os-dns", || {
        equal(&vm.ssh("systemctl is-active os-dns; getent hosts e2e-one.local | grep -c e2e-one")?, "active\n1")
    });
    checks.check("nothing of ours is resident, and RAUC rests", || {
        equal(&vm.ssh("ls -l /proc/[0-9]*/exe 2>/dev/null | grep -c os-tools || true")?, "0")?;
        equal(&vm.ssh("pgrep -c rauc || true")?, "0")
    });
    checks.check("RAUC: both slots known, the booted one good", || {
        let slots: Value = serde_json::from_str(&vm.ssh("rauc status --output-format=json")?)?;
        ensure!(slots["booted"] == "A" && slots["boot_primary"] == "kernel.0", "{slots}");
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
        equal(&vm.ssh(updates::COUNTERS)?, "A_OK=1 A_TRY=0 B_OK=0 B_TRY=0 ORDER=A B")
    });
    checks.check("os slot leaves the bootloader something to start", || {
        let (code, text) = vm.ssh_code("os slot mark bad 2>&1")?;
        ensure!(code == 1 && text.contains("slot B is not good either"), "exit code {code}: {text}");
        let (code, text) = vm.ssh_code("os slot switch --yes 2>&1")?;
        ensure!(code == 1 && text.contains("slot B holds nothing"), "exit code {code}: {text}");
        equal(&vm.ssh("os slot mark good && os slot status | grep -c 'A.*good'")?, "slot A is marked\n1")?;
        equal(&vm.ssh("pgrep -c rauc || true")?, "0")
    });
    checks.check("os.Update1: the bus starts it, anybody may look, only root may ask, and it goes", || {
        let object = "os.Update1 /os/Update1 os.Update1";
        let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
        equal(&vm.ssh(&format!("{nobody} busctl get-property {object} Phase Percent"))?, "s \"idle\"\ni -1")?;
        let (code, text) = vm.ssh_code(&format!("{nobody} busctl call {object} Check s '' 2>&1"))?;
        ensure!(code != 0 && text.contains("Access denied"), "{text}");
        let (code, text) = vm.ssh_code(&format!("busctl --timeout=60 call {object} Check s '' 2>&1"))?;
        ensure!(code != 0 && text.contains("no channel is set"), "{text}");
        vm.wait_for("! systemctl is-active os-update-bus", Duration::from_secs(90))?;
        equal(&vm.ssh("systemctl is-failed os-update-bus || true")?, "inactive")
    });
    checks.check("os status --json says that all is well", || {
        let (code, text) = vm.ssh_code("os status --json")?;
        let status: Value = serde_json::from_str(&text)?;
        ensure!(code == 0 && status["health"]["system"] == "running", "exit code {code}: {text}");
        ensure!(
            status["boot"]["slot"] == "A" && status["boot"]["verity"] == true && status["boot"]["firstBoot"] == true,
            "{text}"
        );
        ensure!(status["engine"]["running"] == 1 && status["config"]["source"] == "file", "{text}");
        ensure!(status["network"]["addresses"].as_object().is_some_and(|a| a.len() == 2), "{text}");
        ensure!(status["os"]["variant"] == VARIANT && status["hostname"] == "e2e-one", "{text}");
        Ok(())
    });
    checks.check("our units are sandboxed", || {
        for unit in [
            "os-config",
            "os-country",
            "os-import@x",
            "os-mqtt",
            "os-health",
            "os-commit",
            "os-update",
            "os-update-bus",
            "os-kexec@B",
            "os-update-stick@x",
            "os-splash",
            "os-deadline",
            "os-rescue",
            "os-hostname",
            "os-preload",
            "os-dns",
        ] {
            let text = vm.ssh(&format!("systemd-analyze security --no-pager {unit}.service | tail -1"))?;
            let level: f64 =
                text.split("service: ").nth(1).and_then(|t| t.split(' ').next()).context("no level")?.parse()?;
            ensure!(level < 5.0, "{unit}: {level}");
        }
        Ok(())
    });
    checks.check("development mode: root on the serial console, Docker API on 2375", || {
        equal(&vm.ssh("systemctl is-active serial-getty@ttyS0 os-docker-tcp.socket")?, "active\nactive")?;
        let answer =
            vm.ssh("exec 3<>/dev/tcp/127.0.0.1/2375; printf 'GET /_ping HTTP/1.0\\r\\n\\r\\n' >&3; tail -1 <&3")?;
        ensure!(answer.contains("OK"), "{answer}");
        vm.wait_console("e2e-one login: root (automatic login)", Duration::from_secs(30))
    });
    live_changes(&vm, lab, checks);
    checks.check("os wipe asks first, and takes --yes", || {
        let (code, text) = vm.ssh_code("os wipe data </dev/null 2>&1")?;
        ensure!(code == 1 && text.contains("--yes"), "exit code {code}: {text}");
        vm.ssh("os wipe data --yes").map(drop)
    });
    remember_identity(lab, &vm)?;
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}

fn is_announced(vm: &Vm, name: &str, limit: Duration) -> Result<()> {
    vm.wait_for(&format!("{AVAHI_NAME} | grep -x 's \"{name}.local\"'"), limit).map(drop)
}

/// What must survive a reboot.
const IDENTITY: &str = "cat /etc/machine-id /mnt/state/os/device-id /mnt/state/os/ssh/ssh_host_ed25519_key.pub; \
     blkid -p -o value -s PTUUID /dev/disk/os/disk; blkid -o value -s UUID /dev/disk/os/os-state";

/// For the scenarios that come back to it.
fn remember_identity(lab: &Lab, vm: &Vm) -> Result<()> {
    Ok(std::fs::write(lab.dir.join("identity"), vm.ssh(IDENTITY)?)?)
}

fn live_changes(vm: &Vm, lab: &Lab, checks: &mut Checks) {
    let put = |config: &[u8]| -> Result<()> {
        // As an editor saves: a new file under the old name.
        let text = String::from_utf8_lossy(config);
        vm.ssh(&format!(
            "cat > /mnt/boot/config.new <<'EOF'\n{text}\nEOF\nmv /mnt/boot/config.new /mnt/boot/config.json"
        ))?;
        Ok(())
    };
    checks.check("a change is applied at once and restarts no container", || {
        let before = vm.ssh("docker inspect -f '{{.State.StartedAt}}' hello")?;
        put(&lab.config(json!({ "hostname": "e2e-two", "persistentLogging": true }))?)?;
        vm.wait_for("test $(hostname) = e2e-two", Duration::from_secs(30))?;
        equal(&vm.ssh("docker inspect -f '{{.State.StartedAt}}' hello")?, before.trim())?;
        vm.wait_for("ls /var/log/journal/$(cat /etc/machine-id)/system.journal", Duration::from_secs(30))?;
        vm.wait_for("os config status >/dev/null", Duration::from_secs(10))?;
        equal(&vm.ssh("timedatectl show-timesync --property=SystemNTPServers --value")?, "")
    });
    checks.check("a refused file keeps the last good one in force and says why", || {
        put(br#"{"hostname": 7, "os": {"sshKeys": "none"}}"#)?;
        vm.wait_for("os config status --json | grep -q last-good", Duration::from_secs(30))?;
        let (code, text) = vm.ssh_code("os config status")?;
        ensure!(code == 1 && text.contains("/hostname") && text.contains("/os/sshKeys"), "exit code {code}: {text}");
        equal(&vm.ssh("hostname")?, "e2e-two")
    });
    checks.check("developmentMode false closes consoles and the Docker API, at once", || {
        put(&lab.config(json!({ "hostname": "e2e-two", "developmentMode": false }))?)?;
        vm.wait_for("! systemctl is-active serial-getty@ttyS0 os-docker-tcp.socket", Duration::from_secs(40))?;
        let (code, _) = vm.ssh_code("(exec 3<>/dev/tcp/127.0.0.1/2375) 2>/dev/null")?;
        ensure!(code != 0, "port 2375 is still open");
        equal(&vm.ssh("test -e /mnt/boot/system-connections && docker ps --format '{{.Names}}'")?, "hello")?;
        configuration::journal_on_data(vm, false)
    });
}

/// What a wipe of data leaves, in the boot that carries it out.
pub(crate) fn data_is_wiped(lab: &Lab, vm: &Vm, checks: &mut Checks) {
    checks.check("identity and host key survived, and are this device's own", || {
        equal(&vm.ssh(IDENTITY)?, std::fs::read_to_string(lab.dir.join("identity"))?.trim())
    });
    checks.check("data was wiped, once, and grown again", || {
        let status = vm.wait_for("os status --json", Duration::from_secs(120))?;
        let status: Value = serde_json::from_str(&status)?;
        ensure!(status["boot"]["data"] == "formatted" && status["boot"]["firstBoot"] == false, "{}", status["boot"]);
        equal(&vm.ssh("docker ps -aq; ls /mnt/boot/wipe* 2>/dev/null || true")?, "")?;
        let size: u64 = vm.ssh("findmnt -bn -o SIZE /mnt/data")?.trim().parse()?;
        ensure!(size > 3 << 30, "{size} bytes");
        Ok(())
    });
}

/// Colour of the picture of the test.
const LOGO: [u8; 3] = [10, 160, 220];

fn picture(colour: [u8; 3]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 64, 48);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&colour.repeat(64 * 48))?;
    Ok(bytes)
}

/// Two pixels of a screenshot in QEMU's form, netpbm's P6.
fn middle_and_corner(ppm: &[u8]) -> Result<([u8; 3], [u8; 3])> {
    let mut words = ppm.splitn(4, |b| b.is_ascii_whitespace());
    ensure!(words.next() == Some(b"P6"), "no screenshot");
    let mut number = || -> Result<usize> { Ok(std::str::from_utf8(words.next().context("no size")?)?.parse()?) };
    let (width, height) = (number()?, number()?);
    let body = ppm.get(ppm.len().saturating_sub(width * height * 3)..).unwrap_or_default();
    let at =
        |x: usize, y: usize| body.get((y * width + x) * 3..).and_then(|b| b.first_chunk().copied()).context("short");
    Ok((at(width / 2, height / 2)?, at(width - 1, height - 1)?))
}

/// An archive of an image, and what says which container to make of it.
const PRELOADED: [&str; 2] = ["hello.tar", "hello.json"];

/// A file of the flashed image's preload directory.
fn preloaded(lab: &Lab, file: &str) -> Result<Vec<u8>> {
    let image = repo::need(&lab.repo.vars()?, "OS_DATA_IMAGE")?;
    let volume = lab.repo.lab().join(VARIANT).join("data").join(image);
    dump(&volume, &format!("/preload/{file}"), &lab.dir.join(file))
}

/// Broken configurations, one after the other, on a device that runs; the last one before them stays in force.
fn broken(lab: &Lab, vm: &Vm, checks: &mut Checks) -> Result<()> {
    let good = good(lab)?;
    let unknown = lab.config(json!({ "hostname": "e2e-good", "developmentMode": false, "hostnmae": "typo" }))?;
    let half = good.get(..good.len() / 2).unwrap_or_default();
    // Name, how it is written, still in force from the file, what console and status must say.
    let put = |content: &[u8]| format!("printf %s '{}'", String::from_utf8_lossy(content));
    let live = [
        ("unknown keys", put(&unknown), true, "config.json /hostnmae: unknown key, no effect"),
        ("truncated JSON", put(half), false, "config.json: not valid JSON: EOF while parsing"),
        (
            "wrong types",
            put(br#"{"hostname": ["x"], "persistentLogging": "yes", "os": 7}"#),
            false,
            "config.json /persistentLogging: is a string; allowed is true or false",
        ),
        ("10 MB of noise", "head -c 10485760 /dev/urandom".to_owned(), false, "is larger than"),
    ];
    for (name, write, in_force, message) in live {
        checks.check(
            &format!("{name}: the last good configuration stays in force, console and status say why"),
            || {
                vm.ssh(&format!("{write} > /mnt/boot/config.json"))?;
                says(vm, if in_force { "file" } else { "last-good" }, message)
            },
        );
    }
    // What a person does next: put a good one back.
    put_good(vm, &good)
}

fn good(lab: &Lab) -> Result<Vec<u8>> {
    lab.config(json!({ "hostname": "e2e-good", "developmentMode": false }))
}

fn put_good(vm: &Vm, good: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(good);
    vm.ssh(&format!("printf %s '{text}' > /mnt/boot/config.json"))?;
    vm.wait_for("test $(hostname) = e2e-good && os config status", Duration::from_secs(60)).map(drop)
}

/// [`good`] is in force, and console and status say why it is not the file, or what is wrong with that.
fn says(vm: &Vm, source: &str, message: &str) -> Result<()> {
    vm.wait_for(&format!("os config status | grep -qF '{message}'"), Duration::from_secs(30))?;
    let status: Value = serde_json::from_str(&vm.ssh_code("os config status --json")?.1)?;
    ensure!(status["source"] == source, "{status}");
    ensure!(vm.console().contains(message), "the console does not say '{message}'");
    equal(&vm.ssh("hostname")?, "e2e-good")
}

/// State is gone, the configuration is broken in many ways, then it is gone, too.
fn lost(lab: &Lab, checks: &mut Checks) -> Result<()> {
    lab.disk.write("config.json", &good(lab)?)?;
    lab.disk.write("wipe", b"state")?;
    // What the flashed image has in /mnt/data/preload, which is long used up.
    for file in PRELOADED {
        lab.disk.write(file, &preloaded(lab, file)?)?;
    }
    lab.disk.make_dir("CONFIG")?;
    lab.disk.write("CONFIG/timesyncd.conf", b"[Time]\r\nNTP=192.0.2.88\r\n")?;
    lab.disk.make_dir("splash")?;
    lab.disk.write("splash/logo.png", &picture(LOGO)?)?;
    let mut vm = lab.boot(vec!["-device".to_owned(), "VGA".to_owned()])?;
    vm.wait_ssh()?;
    checks.check("the picture of splash/ is on the screen", || {
        let shot = lab.dir.join("screen.ppm");
        vm.qmp_with("screendump", json!({ "filename": shot }))?;
        let (middle, corner) = middle_and_corner(&std::fs::read(&shot)?)?;
        ensure!(middle == LOGO && corner == [0; 3], "in the middle {middle:?}, in the lower right corner {corner:?}");
        equal(&vm.ssh("systemctl is-failed os-splash || true")?, "inactive")
    });
    checks.check("CONFIG/ on the boot partition is taken over, reported, and not taken again", || {
        vm.wait_for("test -d /mnt/boot/CONFIG.done && ! test -e /mnt/boot/CONFIG", Duration::from_secs(60))?;
        equal(&vm.ssh("timedatectl show-timesync --property=SystemNTPServers --value")?, "192.0.2.88")?;
        let report = vm.ssh("cat /mnt/boot/CONFIG.done/report-*.txt")?;
        ensure!(report.contains("taken over") && report.contains("time servers"), "{report}");
        Ok(())
    });
    vm.wait_for("test $(hostname) = e2e-good && os config status", Duration::from_secs(60))?;
    checks.check("no console login outside development mode", || {
        let (code, _) = vm.ssh_code("systemctl is-active 'getty@*' 'serial-getty@*' >/dev/null")?;
        ensure!(code != 0 && !vm.console().contains("automatic login"), "a getty runs");
        Ok(())
    });
    checks.check("a wipe of state leaves data and its key", || {
        let status: Value = serde_json::from_str(&vm.wait_for("os status --json || true", Duration::from_secs(60))?)?;
        let boot = &status["boot"];
        ensure!(boot["state"] == "formatted" && boot["firstBoot"] == true && boot["data"] == "ok", "{boot}");
        equal(
            &vm.ssh("os disk encryption; cat /mnt/data/mark; ls /mnt/boot/data.key 2>/dev/null || true")?,
            "key\nkept",
        )
    });
    broken(lab, &vm, checks)?;
    updates::settled(&vm)?;
    // The plug is pulled: that must not matter, nor to a container that is just being started. Without the sync the
    // engine would not know it at all.
    checks.check("a preloaded container is made, and the plug is pulled while it is started", || {
        let put = PRELOADED.map(|file| format!("cp /mnt/boot/{file} /mnt/data/preload/")).join(" && ");
        vm.ssh(&format!(
            "mkdir -p /mnt/data/preload && {put} && docker load -q < /mnt/boot/hello.tar && \
             docker create --name hello --restart unless-stopped -p 80:8080 hello:1 && sync && docker start hello"
        ))
        .map(drop)
    });
    drop(vm);
    lab.disk.remove("config.json")?;
    let mut vm = lab.boot(Vec::new())?;
    checks.check("a missing file: the device boots and lets its owner in", || vm.wait_ssh());
    checks.check("a missing file: the last good configuration is in force, console and status say why", || {
        says(&vm, "last-good", "config.json: the file is missing")
    });
    checks.check("the container whose start was cut off runs", || {
        vm.wait_for("systemctl is-active os-preload", Duration::from_secs(180))?;
        equal(&vm.ssh("docker ps --format '{{.Names}}'; ls /mnt/data/preload")?, "hello")
    });
    put_good(&vm, &good(lab)?)?;
    // For the wipe that comes next.
    remember_identity(lab, &vm)?;
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}

/// Has the rescue system do what it does after 15 minutes in which nobody comes.
pub(crate) fn leave_rescue(vm: &mut Vm) -> Result<()> {
    // Nobody typed at the consoles, where this variant logs in by itself, but not for long enough.
    vm.ssh("touch -a -d '15 minutes ago' /dev/ttyS0 /dev/tty1")?;
    // Again, should this login not be over by then.
    let timer = "systemd-run --quiet --on-active=15 --on-unit-inactive=15 --timer-property=AccuracySec=1s";
    vm.ssh(&format!("{timer} systemctl start os-rescue.service"))?;
    // A login that asks whether it did would keep it from it.
    vm.forget_connection();
    vm.wait_next_start(Duration::from_secs(100))
}

/// Both slots have used up their tries; then everything is erased, and the plug is pulled while it is.
fn rescue_and_wipe(lab: &Lab, checks: &mut Checks) -> Result<()> {
    lab.disk.set_grub(&["A_TRY=3", "B_TRY=3"])?;
    let mut vm = lab.boot_to_restart()?;
    checks.check("after three failed tries of both slots, the rescue entry starts", || {
        vm.wait_ssh()?;
        vm.wait_for("systemctl is-active os-rescue.target", Duration::from_secs(60))?;
        let (code, _) = vm.ssh_code("systemctl is-active docker multi-user.target >/dev/null")?;
        ensure!(code != 0, "containers run in rescue");
        Ok(())
    });
    checks.check("the counters stay as they are", || {
        let text = vm.ssh("grep -a TRY /mnt/boot/EFI/BOOT/grubenv")?;
        ensure!(text.contains("A_TRY=3") && text.contains("B_TRY=3"), "{text}");
        Ok(())
    });
    checks.check("it stays while somebody is logged in", || {
        vm.ssh("systemctl start os-rescue.service")?;
        let said =
            vm.ssh("journalctl -b -u os-rescue.service -o cat --no-pager; grep -a TRY /mnt/boot/EFI/BOOT/grubenv")?;
        ensure!(said.contains("root is logged in") && said.contains("A_TRY=3"), "{said}");
        vm.ssh("systemctl is-active os-rescue.timer").map(drop)
    });
    checks.check("when nobody comes, the slots are tried again, and a wipe of everything begins", || {
        vm.ssh("printf 'all\\r\\n' > /mnt/boot/wipe; sync /mnt/boot/wipe")?;
        leave_rescue(&mut vm)?;
        vm.wait_console("wiping os-state, as asked", Duration::from_secs(120))
    });
    // In the middle of it.
    drop(vm);
    checks.check("a slot has tries again", || {
        let text = String::from_utf8_lossy(&lab.disk.read("EFI/BOOT/grubenv")?).into_owned();
        ensure!(text.contains("A_TRY=") && !text.contains("A_TRY=3"), "{text}");
        Ok(())
    });
    configuration::wiped(lab, checks)
}
