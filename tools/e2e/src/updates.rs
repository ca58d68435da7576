//! Releases from a web server of this machine: good ones, bad ones, and lies.

use crate::campaign::FLICKER;
use crate::checks::Checks;
use crate::crash::{Crash, Known, Random};
use crate::disk::Disk;
use crate::liar::Liar;
use crate::scenarios::{Lab, VARIANT, equal};
use crate::trace::Trace;
use crate::vm::{BOOT_ID, BOOT_LIMIT, LIAR, PATIENCE, Restart, Vm, WEB};
use anyhow::{Context, Result, ensure};
use os_channel::{Channel, Envelope};
use os_sys::cmd::Cmd;
use osctl::channel::keys::SecretKey;
use osctl::channel::{Directory, Publish};
use osctl::lab::bundle::{self, Images};
use osctl::lab::disk::layout;
use osctl::lab::slot;
use osctl::repo;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Which moments are tried; another seed tries others.
const SEED: u64 = 1;
/// How long RAUC may take to write a slot under software emulation.
const INSTALL_LIMIT: Duration = Duration::from_secs(240);
/// How long a device may take to come back from a release that does not boot: three tries and a boot of the old one.
const RETURN_LIMIT: Duration = Duration::from_secs(400);
/// Bytes that a release has and no other, and the release whose installation is interrupted.
const NOISE: u64 = 8 << 20;
const MUCH_NOISE: u64 = 48 << 20;
/// Prints what the bootloader knows of the slots.
pub(crate) const COUNTERS: &str =
    r"grep -ao '^[AB]_[A-Z]*=.*\|^ORDER=.*' /mnt/boot/EFI/BOOT/grubenv | sort | tr '\n' ' '";
/// The time that a bad release gives its health check, in seconds: nothing that is masked comes up later.
const HEALTH: &str = "os.health=15";

/// A directory with channels, served over HTTP.
#[derive(Debug)]
pub(crate) struct Site {
    dir: PathBuf,
    pub(crate) port: u16,
    server: Child,
}

impl Site {
    pub(crate) fn start(dir: &Path) -> Result<Self> {
        let _ = std::fs::remove_dir_all(dir);
        std::fs::create_dir_all(dir)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let server = Command::new("busybox")
            .args(["httpd", "-f", "-p", &format!("127.0.0.1:{port}"), "-h"])
            .arg(dir)
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start a web server; install it with: sudo apt-get install busybox")?;
        Ok(Self { dir: dir.to_owned(), port, server })
    }

    /// Where a channel lies on this machine.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where the guest finds it.
    pub(crate) fn url(name: &str) -> String {
        format!("http://{WEB}/{name}")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Makes releases of the built slot.
pub(crate) struct Maker<'a> {
    lab: &'a Lab,
    dir: PathBuf,
    compatible: String,
    pub(crate) images: Images,
    key: SecretKey,
}

impl<'a> Maker<'a> {
    pub(crate) fn new(lab: &'a Lab) -> Result<Self> {
        let vars = lab.repo.vars()?;
        let dir = lab.dir.join("releases");
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        Ok(Self {
            lab,
            dir,
            compatible: repo::need(&vars, "OS_COMPATIBLE")?,
            images: Images::built(&lab.repo, VARIANT)?,
            key: SecretKey::load(&lab.keys.channel_key)?,
        })
    }

    /// A channel that the device believes.
    pub(crate) fn channel(&self, path: &Path) -> Result<Directory> {
        Directory::init(path, &std::fs::read(&self.lab.keys.channel_root)?, &self.key)
    }

    /// A bundle whose kernel partition was changed, with a root of its own.
    pub(crate) fn bundle(&self, version: &str, change: &dyn Fn(&Path) -> Result<()>) -> Result<PathBuf> {
        self.bundle_with(&self.compatible, version, NOISE, change)
    }

    /// `noise`: bytes in the root that no other release has.
    fn bundle_with(
        &self,
        compatible: &str,
        version: &str,
        noise: u64,
        change: &dyn Fn(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let Images { kernel, root } = self.of(version);
        Cmd::new("cp").args(["--sparse=always"]).arg(&self.images.kernel).arg(&kernel).run()?;
        self.make_root(version, noise, &root, &kernel)?;
        change(&kernel)?;
        let path = self.dir.join(format!("{version}.raucb"));
        bundle::make(&self.lab.keys, compatible, version, &Images { kernel, root }, &path)?;
        Ok(path)
    }

    /// The built filesystem with noise behind it, sealed anew; the kernel partition names its hash.
    fn make_root(&self, version: &str, noise: u64, root: &Path, kernel: &Path) -> Result<()> {
        let mut from = File::open(&self.images.root)?.take(self.data_size()?);
        let mut file = File::create(root)?;
        std::io::copy(&mut from, &mut file)?;
        let mut random = Random(version.bytes().fold(0, |seed, byte| seed * 31 + u64::from(byte)));
        let noise: Vec<u8> = (0..noise / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        file.write_all(&noise)?;
        drop(file);
        let arguments = slot::seal(root)?.arguments();
        configure(kernel, &|text| {
            let other = text.split(' ').filter(|word| !word.starts_with("os.roothash="));
            let words = other.map(|word| if word.starts_with("os.rootsize=") { &arguments } else { word });
            words.collect::<Vec<_>>().join(" ")
        })
    }

    /// Bytes of the built filesystem, without the tree behind it.
    fn data_size(&self) -> Result<u64> {
        let text = os_sys::files::read_text(&self.images.kernel.with_file_name("slot.cfg"))?;
        let size = text.split_ascii_whitespace().find_map(|word| word.strip_prefix("os.rootsize="));
        Ok(size.context("slot.cfg names no os.rootsize")?.parse()?)
    }

    /// The partitions of a bundle that is made.
    pub(crate) fn of(&self, version: &str) -> Images {
        let at = |what: &str| self.dir.join(format!("{what}-{version}.img"));
        Images { kernel: at("kernel"), root: at("root") }
    }

    /// What may be in a slot: the built release, and those that were made.
    pub(crate) fn known(&self, made: &[&'static str]) -> Vec<Known> {
        let known = |version, Images { kernel, root }| Known { version, kernel, root };
        let made = made.iter().map(|version| known(version, self.of(version)));
        std::iter::once(known("0.1.0", self.images.clone())).chain(made).collect()
    }

    /// Publishes a bundle to everybody.
    pub(crate) fn publish(&self, channel: &mut Directory, bundle: &Path) -> Result<()> {
        channel.publish(bundle, &Publish { rollout: 100, ..Publish::default() })?;
        channel.save(&self.key)
    }
}

/// Changes what GRUB runs for a slot.
fn configure(image: &Path, change: &dyn Fn(&str) -> String) -> Result<()> {
    let file = image.with_extension("cfg");
    Cmd::new("mcopy").arg("-n").arg("-o").arg("-i").arg(image).arg("::slot.cfg").arg(&file).run()?;
    std::fs::write(&file, change(&os_sys::files::read_text(&file)?))?;
    Cmd::new("mcopy").arg("-o").arg("-i").arg(image).arg(&file).arg("::slot.cfg").run()?;
    Ok(std::fs::remove_file(file)?)
}

/// Adds kernel arguments to a slot.
pub(crate) fn arguments(more: String) -> impl Fn(&Path) -> Result<()> {
    move |image: &Path| configure(image, &|text| text.replace("$os_args ", &format!("$os_args {more} ")))
}

/// Leaves the engine out of a release.
pub(crate) fn no_engine() -> impl Fn(&Path) -> Result<()> {
    arguments(format!("systemd.mask=docker.service systemd.mask=docker.socket {HEALTH}"))
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

/// Replaces a file of a slot by noise that begins as the file does.
fn broken(name: &'static str) -> impl Fn(&Path) -> Result<()> {
    move |image: &Path| {
        let file = image.with_extension("part");
        Cmd::new("mcopy").arg("-n").arg("-o").arg("-i").arg(image).arg(format!("::{name}")).arg(&file).run()?;
        let mut bytes = std::fs::read(&file)?;
        let keep = bytes.len().min(64 << 10);
        bytes.iter_mut().skip(keep).for_each(|byte| *byte = byte.wrapping_mul(7).wrapping_add(13));
        std::fs::write(&file, bytes)?;
        Cmd::new("mcopy").arg("-o").arg("-i").arg(image).arg(&file).arg(format!("::{name}")).run()?;
        Ok(std::fs::remove_file(file)?)
    }
}

pub(crate) fn update_status(vm: &Vm) -> Result<Value> {
    Ok(serde_json::from_str(&vm.ssh("os update status --json")?)?)
}

/// Runs `os update apply` and waits for the restart that follows; returns the new boot.
fn apply(vm: &mut Vm, boot: &str, limit: Duration) -> Result<String> {
    // In a unit of its own: the restart ends the login.
    vm.ssh("systemd-run --quiet --unit=apply --collect os update apply")?;
    vm.wait_restart_by("apply", boot, INSTALL_LIMIT + limit)
}

/// What every installation from a channel fetched, in MiB, oldest first.
fn came(vm: &Vm) -> Result<Vec<u64>> {
    let text = vm.ssh("os update log")?;
    let before = text.lines().filter_map(|line| line.split_once(" MiB came from the channel"));
    before.map(|(before, _)| Ok(before.rsplit(' ').next().unwrap_or_default().parse()?)).collect()
}

fn slot(vm: &Vm) -> Result<String> {
    let status: Value = serde_json::from_str(&vm.wait_for("os status --json || true", Duration::from_secs(60))?)?;
    Ok(status["boot"]["slot"].as_str().unwrap_or_default().to_owned())
}

pub(crate) fn settled(vm: &Vm) -> Result<()> {
    vm.wait_for("systemctl is-active os-commit >/dev/null", Duration::from_secs(150)).map(drop)
}

/// A channel on the site that lies in one way.
struct Lie<'a> {
    maker: &'a Maker<'a>,
    /// Its directory.
    path: PathBuf,
    /// Where the guest finds it.
    url: String,
    /// What to add to the serial: a list that is believed makes the ones before it old, and each lie has to stand or
    /// fall by itself.
    later: u64,
}

/// More than the lies add.
const AFTER_LIES: u64 = 100_000;

impl<'a> Lie<'a> {
    /// A copy of the honest channel. Bundles are copies too, where one is to be changed.
    fn new(maker: &'a Maker<'a>, site: &Site, name: &str, later: u64) -> Result<Self> {
        let path = site.path(&format!("lies/{name}/stable"));
        let parent = path.parent().context("no directory")?;
        std::fs::create_dir_all(parent)?;
        Cmd::new("cp").args(["-a", "--reflink=auto"]).arg(site.path("stable")).arg(parent).run()?;
        Ok(Self { maker, path, url: Site::url(&format!("lies/{name}/stable")), later })
    }

    fn open(&self) -> Result<Directory> {
        let mut directory = Directory::open(&self.path)?;
        directory.list.serial += self.later;
        Ok(directory)
    }

    /// Changes the list and signs it again, with the channel's key or another one.
    fn list(&self, key: &SecretKey, change: impl FnOnce(&mut Channel)) -> Result<()> {
        let mut directory = self.open()?;
        change(&mut directory.list);
        let signed = serde_json::to_string(&directory.list)?;
        let envelope = Envelope { signatures: vec![key.sign(&signed)?], signed };
        Ok(std::fs::write(self.path.join("channel.json"), serde_json::to_vec(&envelope)?)?)
    }

    /// Publishes a bundle, then changes its bytes.
    fn bundle(&self, bundle: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let mut directory = self.open()?;
        let name = directory.publish(bundle, &Publish { rollout: 100, ..Publish::default() })?.bundle.path.clone();
        directory.save(&self.maker.key)?;
        let mut bytes = std::fs::read(self.path.join(&name))?;
        change(&mut bytes);
        Ok(std::fs::write(self.path.join(&name), bytes)?)
    }
}

/// What a server may do to a connection.
fn bad_servers(vm: &Vm, checks: &mut Checks) {
    for (how, name, says) in [
        ("error", "a server that has an error", "500"),
        ("redirect", "a server that redirects forever", "redirects"),
        ("stall", "a server that stalls", "too slow"),
        ("cut", "a server that closes in the middle", "(18)"),
        ("cut", "a server that closes somewhere else", "(18)"),
    ] {
        checks.check(&format!("never fooled: {name}"), || {
            let (code, text) = vm.ssh_code(&format!("os update check --from http://{LIAR}/{how}/stable 2>&1"))?;
            ensure!(code == 1 && text.contains(says), "exit code {code}, and it does not say '{says}': {text}");
            Ok(())
        });
    }
}

/// What a server may try. Nothing of it changes the device, and each is named.
fn lies(maker: &Maker<'_>, site: &Site, vm: &Vm, checks: &mut Checks) -> Result<()> {
    checks.check("a clock in 1970 believes what is signed, and takes its date for the least that is", || {
        let text = vm.ssh("now=$(date +%s); date -s @86400 >/dev/null; os update check; date -s @$now >/dev/null")?;
        ensure!(text.contains("nothing newer"), "{text}");
        Ok(())
    });
    checks.check("a full state partition is said, and nothing is lost", || {
        let before = update_status(vm)?;
        let (_, text) = vm.ssh_code(
            "dd if=/dev/zero of=/mnt/state/fill bs=1M 2>/dev/null; dd if=/dev/zero of=/mnt/state/fill2 bs=1k 2>/dev/null; \
             os update check 2>&1; rm /mnt/state/fill /mnt/state/fill2",
        )?;
        ensure!(text.contains("No space left"), "{text}");
        ensure!(update_status(vm)?["running"] == before["running"], "the state was damaged");
        Ok(())
    });
    let stranger = SecretKey::generate()?;
    let mut later = 0;
    let mut refused = |name: &str, verb: &str, says: &str, make: &dyn Fn(&Lie<'_>) -> Result<()>| -> Result<()> {
        later += 100;
        let lie = Lie::new(maker, site, &name.replace(' ', "-"), later)?;
        make(&lie)?;
        checks.check(&format!("never fooled: {name}"), || {
            let (code, text) = vm.ssh_code(&format!("os update {verb} --from {} 2>&1", lie.url))?;
            ensure!(code == 1 && text.contains(says), "exit code {code}, and it does not say '{says}': {text}");
            let status = update_status(vm)?;
            ensure!(status["phase"] == "idle" && status["refused"] == json!([]), "{status}");
            Ok(())
        });
        // Copies of a bundle are large.
        Ok(std::fs::remove_dir_all(&lie.path)?)
    };
    let key = &maker.key;
    refused("a list with one letter changed", "check", "signed by 0 of the keys", &|lie| {
        let file = lie.path.join("channel.json");
        let text = std::fs::read_to_string(&file)?.replace("0.2.0", "0.2.9");
        Ok(std::fs::write(file, text)?)
    })?;
    refused("a list signed by a stranger", "check", "signed by 0 of the keys", &|lie| lie.list(&stranger, |_| {}))?;
    refused("an expired list", "check", "it expired", &|lie| {
        lie.list(key, |list| (list.issued, list.expires) = (list.issued - 30 * 86_400, list.issued - 86_400))
    })?;
    refused("an older list", "check", "it is older than what was seen before", &|lie| {
        lie.list(key, |list| list.serial = 1)
    })?;
    refused("the list of another channel", "check", "channel 'beta'", &|lie| {
        lie.list(key, |list| list.name = "beta".to_owned())
    })?;
    refused(
        "new keys that the old ones did not sign",
        "check",
        "roots/2.json of the channel is not believed",
        &|lie| {
            let mut other = Directory::open(&lie.path)?;
            other.root.version = 2;
            let signed = serde_json::to_string(&other.root)?;
            let envelope = Envelope { signatures: vec![stranger.sign(&signed)?], signed };
            Ok(std::fs::write(lie.path.join("roots/2.json"), serde_json::to_vec(&envelope)?)?)
        },
    )?;
    refused("a list without end", "check", "larger than it may be", &|lie| {
        Ok(std::fs::write(lie.path.join("channel.json"), vec![b' '; 4 << 20])?)
    })?;
    refused("no list at all", "check", "there is no channel.json", &|lie| {
        Ok(std::fs::remove_file(lie.path.join("channel.json"))?)
    })?;
    let bundle = maker.bundle("0.9.0", &|_| Ok(()))?;
    refused("a bundle with another signature", "apply", "RAUC refuses the bundle", &|lie| {
        lie.bundle(&bundle, |bytes| {
            let at = bytes.len() - 200;
            bytes.iter_mut().skip(at).take(8).for_each(|b| *b ^= 0x55);
        })
    })?;
    refused("a bundle with one block changed", "apply", "was not installed", &|lie| {
        lie.bundle(&bundle, |bytes| bytes.iter_mut().skip(4096).take(8).for_each(|b| *b ^= 0x55))
    })?;
    refused("a bundle cut in half", "apply", "was not installed", &|lie| {
        lie.bundle(&bundle, |bytes| bytes.truncate(bytes.len() / 2))
    })?;
    let older = site.path("stable/bundles").join(format!("{}-0.2.0.raucb", maker.compatible));
    refused("an old bundle under a new name", "apply", "another bundle than the one its list names", &|lie| {
        let mut directory = lie.open()?;
        let name = directory.publish(&bundle, &Publish { rollout: 100, ..Publish::default() })?.bundle.path.clone();
        // As if both were of the same size, which a liar may wait for.
        let size = std::fs::copy(&older, lie.path.join(&name))?;
        directory.list.releases.iter_mut().filter(|r| r.bundle.path == name).for_each(|r| r.bundle.size = size);
        directory.save(key)
    })?;
    let foreign = maker.bundle_with("os-something-else", "0.9.1", NOISE, &|_| Ok(()))?;
    refused("a bundle for other devices", "apply", "Compatible mismatch", &|lie| {
        let mut directory = lie.open()?;
        directory.publish(&foreign, &Publish { rollout: 100, ..Publish::default() })?;
        directory.list.releases.iter_mut().for_each(|r| r.compatible.clone_from(&maker.compatible));
        directory.save(key)
    })?;
    Ok(())
}

/// One good release, one whose engine is broken, and a server that lies.
pub(crate) fn good_and_bad(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let no_engine = no_engine();
    let bad: &[Bad<'_>] = &[("0.3.2", "a broken engine", &no_engine, "the container engine does not answer")];
    releases(lab, checks, bad, true)
}

/// Releases that are broken in other ways, and the good one after them.
pub(crate) fn bad_releases(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let no_network = arguments(format!("systemd.mask=NetworkManager.service {HEALTH}"));
    let (no_kernel, no_init) = (broken("vmlinuz"), broken("initramfs"));
    let bad: &[Bad<'_>] = &[
        ("0.3.0", "a broken kernel", &no_kernel, "did not get to its health check"),
        ("0.3.1", "a broken init", &no_init, "did not get to its health check"),
        ("0.3.3", "no network", &no_network, "NetworkManager.service"),
    ];
    releases(lab, checks, bad, false)
}

/// Version, what is wrong, how it is made, what the device has to say.
type Bad<'a> = (&'a str, &'a str, &'a dyn Fn(&Path) -> Result<()>, &'a str);

fn releases(lab: &Lab, checks: &mut Checks, bad: &[Bad<'_>], thorough: bool) -> Result<()> {
    let maker = Maker::new(lab)?;
    let site = Site::start(&lab.dir.join("site"))?;
    let mut channel = maker.channel(&site.path("stable"))?;
    let config =
        json!({ "hostname": "e2e-update", "os": { "update": { "channel": Site::url("stable"), "mode": "manual" } } });
    lab.disk.write("config.json", &lab.config(config)?)?;
    let stick = Disk::stick(&lab.dir, "UPDATE", 1024)?;
    let liar = Liar::start(std::fs::read(site.path("stable/channel.json"))?)?;
    let mut vm = if thorough {
        Cmd::new("cp").arg("--sparse=always").arg(&lab.disk.path).arg(lab.dir.join("replayed.raw")).run()?;
        lab.boot_traced(site.port, liar.port, stick.stick_arguments())?
    } else {
        lab.boot_with_web(site.port, Restart::Restarts)?
    };
    vm.wait_ssh()?;
    settled(&vm)?;
    let kept = keep(&vm)?;
    let settled_at = Trace::read(vm.traces())?.entries.len();
    checks.check("a channel without releases offers none", || {
        let text = vm.ssh("os update check")?;
        ensure!(text.contains("nothing newer"), "{text}");
        Ok(())
    });
    if thorough {
        bad_servers(&vm, checks);
    }
    maker.publish(&mut channel, &maker.bundle("0.2.0", &arguments("e2e.release=2".to_owned()))?)?;
    checks.check("a new release is offered, and the timer leaves it to a person in manual mode", || {
        let found: Value = serde_json::from_str(&vm.ssh("os update check --json")?)?;
        ensure!(found["offered"] == "0.2.0" && found["running"] == "0.1.0", "{found}");
        vm.ssh("systemctl start os-update")?;
        equal(&vm.ssh("os update status --json | grep -o '\"phase\": \"[a-z]*\"'")?, "\"phase\": \"idle\"")
    });
    let mut boot = vm.ssh(BOOT_ID)?;
    let mut took = Duration::ZERO;
    checks.check("1 to 2: it is installed, started in the other slot, found healthy, and stays", || {
        let start = std::time::Instant::now();
        boot = apply(&mut vm, &boot, BOOT_LIMIT)?;
        took = start.elapsed();
        settled(&vm)?;
        equal(&slot(&vm)?, "B")?;
        equal(
            &vm.ssh("grep -o e2e.release=2 /proc/cmdline; docker ps --format '{{.Names}}'")?,
            "e2e.release=2\nhello",
        )?;
        let status = update_status(&vm)?;
        ensure!(status["phase"] == "idle" && status["running"]["version"] == "0.2.0", "{status}");
        equal(&vm.ssh(COUNTERS)?, "A_OK=1 A_TRY=0 B_OK=1 B_TRY=0 ORDER=B A")
    });
    checks.say(&format!("back after {:.0} s", took.as_secs_f64()));
    let layout = layout(&lab.repo, &lab.repo.vars()?)?;
    let work = lab.dir.join("replay");
    std::fs::create_dir_all(&work)?;
    if thorough {
        checks.check(
            "wherever the power fails in all this, a whole slot starts, and nothing is lost or refused",
            || {
                let known = maker.known(&["0.2.0"]);
                let crash = Crash { layout: &layout, known: &known, work: &work, settled: settled_at, kept: &kept };
                let trace = Trace::read(vm.traces())?;
                let outcome = crash.replay(&trace, &lab.dir.join("replayed.raw"), lab.points, SEED)?;
                print!("{outcome}");
                ensure!(outcome.wrong.is_empty(), "{} of {} disks", outcome.wrong.len(), outcome.disks);
                Ok(())
            },
        );
        lies(&maker, &site, &vm, checks)?;
        channel.list.serial += AFTER_LIES;
    }
    for (version, what, change, reason) in bad {
        maker.publish(&mut channel, &maker.bundle(version, change)?)?;
        if thorough {
            checks.check(&format!("2 to 3 with {what}, from a stick: it is found, installed, and told"), || {
                stick.copy_in(&site.path("stable"))?;
                vm.plug()?;
                vm.wait_for("systemctl is-active 'os-update-stick@*' | grep activ", Duration::from_secs(60))?;
                vm.wait_restart_by("'os-update-stick@*'", &boot, INSTALL_LIMIT + BOOT_LIMIT)?;
                let report = String::from_utf8(stick.read("update-e2e-update.txt")?)?;
                ensure!(report.contains(&format!("{version} is installed; restarting into it")), "{report}");
                Ok(())
            });
        }
        checks.check(
            &format!("2 to 3 with {what}: the device comes back by itself, says why, and does not try again"),
            || {
                let start = std::time::Instant::now();
                if !thorough {
                    apply(&mut vm, &boot, RETURN_LIMIT)?;
                }
                // A trial that fails late lets people in before.
                let back = "grep -q rauc.slot=B /proc/cmdline && systemctl is-active os-commit >/dev/null";
                vm.wait_through_restarts(back, RETURN_LIMIT)?;
                took = start.elapsed();
                boot = vm.ssh(BOOT_ID)?;
                let status = update_status(&vm)?;
                let refused = status["refused"].as_array().and_then(|r| r.last()).context("nothing is refused")?;
                ensure!(status["phase"] == "idle" && refused["version"] == *version, "{status}");
                ensure!(refused["reason"].as_str().is_some_and(|r| r.contains(reason)), "{refused}");
                let text = vm.ssh("os update check")?;
                ensure!(text.contains("failed on this device"), "{text}");
                equal(&vm.ssh("docker ps --format '{{.Names}}'")?, "hello")
            },
        );
        checks.say(&format!("back after {:.0} s", took.as_secs_f64()));
    }
    if thorough {
        checks.check("os update log has the journal of the boot that failed", || {
            let text = vm.ssh("os update log")?;
            ensure!(text.contains("failed here and is not tried again") && text.contains("os-health"), "{text:.600}");
            Ok(())
        });
    }
    let noise = if thorough { MUCH_NOISE } else { NOISE };
    let next = maker.bundle_with(&maker.compatible, "0.4.0", noise, &arguments("e2e.release=4".to_owned()))?;
    maker.publish(&mut channel, &next)?;
    // What comes without the noise: the kernel, and the tree behind the root.
    let others = came(&vm)?.first().context("nothing says what came")?.saturating_sub(NOISE >> 20);
    if thorough {
        let mut random = Random(SEED);
        checks.check("2 to 4: the plug is pulled in the middle of the installation", || {
            vm.ssh("os config set /os/update/rateLimit 1024")?;
            // What is written is on the medium soon, as it is where bytes come slowly.
            vm.ssh("sysctl -qw vm.dirty_bytes=8388608 vm.dirty_background_bytes=1048576")?;
            vm.ssh("systemd-run --quiet --unit=apply --collect os update apply")?;
            let enough = (others << 20) + noise / 2 + random.below(noise / 8);
            let fetched = "os update status --json | sed -n 's/.*\"fetched\": \\([0-9]*\\).*/\\1/p'";
            vm.wait_for(&format!("test $({fetched}) -gt {enough}"), INSTALL_LIMIT)?;
            equal(update_status(&vm)?["phase"].as_str().unwrap_or_default(), "installing")
        });
        drop(vm);
        let known = maker.known(&["0.2.0", "0.4.0"]);
        let crash = Crash { layout: &layout, known: &known, work: &work, settled: 0, kept: &kept };
        let mut look = |what: &str| {
            let mut left = String::new();
            checks.check(&format!("what {what} left: a whole slot starts, nothing is lost or refused"), || {
                left = crash.look(&lab.disk.path, true, true)?;
                ensure!(left.starts_with("starts 0.2.0 from slot B"), "{left}");
                Ok(())
            });
            checks.say(&left);
        };
        look("the cut");
        // Power that comes back badly goes again.
        let after = Duration::from_millis(random.below(u64::try_from(FLICKER.as_millis())?));
        lab.boot_with_web(site.port, Restart::Restarts)?.watch(after)?;
        look(&format!("another cut {:.0} s after power came back", after.as_secs_f64()));
        vm = lab.boot_with_web(site.port, Restart::Restarts)?;
        vm.wait_ssh()?;
        settled(&vm)?;
        is_kept(&vm, &kept)?;
        vm.ssh("os config unset /os/update/rateLimit")?;
        boot = vm.ssh(BOOT_ID)?;
    }
    checks.check("2 to 4: the next good release is taken", || {
        boot = apply(&mut vm, &boot, BOOT_LIMIT)?;
        settled(&vm)?;
        equal(&slot(&vm)?, "A")?;
        equal(&vm.ssh("grep -o e2e.release=4 /proc/cmdline")?, "e2e.release=4")
    });
    if thorough {
        checks.check("what was written before the plug was pulled was not fetched again", || {
            ensure!(vm.ssh("os update log")?.contains("installing 0.4.0 was interrupted"), "no word of it");
            let fetched = came(&vm)?.pop().context("nothing says what came")?;
            let all = others + (noise >> 20);
            println!("{fetched} of {all} MiB came");
            ensure!(fetched + (noise >> 22) < all, "{fetched} MiB came, {all} would be all");
            Ok(())
        });
    }
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}

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

/// A device that starts releases by kexec.
fn jumping(lab: &Lab) -> Result<()> {
    let config = json!({ "hostname": "e2e-jump", "os": { "update": { "trial": "kexec" } } });
    lab.disk.write("config.json", &lab.config(config)?)
}

/// A trial that begins with a jump, and passes.
pub(crate) fn jump(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let maker = Maker::new(lab)?;
    let bundle = maker.bundle("0.2.0", &arguments("e2e.release=2".to_owned()))?;
    jumping(lab)?;
    let mut vm = lab.boot_to_restart()?;
    vm.wait_ssh()?;
    settled(&vm)?;
    let login = vm.login();
    checks.check("the kernel is jumped into, and the bootloader told after the trial", || {
        // A health check of the owner's, which looks at what the bootloader would start while the trial is not over.
        vm.ssh(&format!(
            "mkdir -p /mnt/state/os/health.d && cd /mnt/state/os/health.d && cat > look <<'EOF'\n#!/bin/sh\n{COUNTERS} \
             > /mnt/state/in-trial\nEOF\nchmod +x look"
        ))?;
        let said = vm.through_restarts(|| osctl::device::update("127.0.0.1", &bundle, &login))?;
        ensure!(said.contains("0.2.0") && said.contains("stays"), "{said}");
        settled(&vm)?;
        equal(&slot(&vm)?, "B")?;
        // GRUB would have put BOOT_IMAGE= in front.
        equal(&vm.ssh("grep -o 'e2e.release=.\\|BOOT_IMAGE=' /proc/cmdline")?, "e2e.release=2")?;
        equal(&vm.ssh("cat /mnt/state/in-trial")?, "A_OK=1 A_TRY=0 B_OK=0 B_TRY=0 ORDER=A B")?;
        equal(&vm.ssh(COUNTERS)?, "A_OK=1 A_TRY=0 B_OK=1 B_TRY=0 ORDER=B A")
    });
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}

/// The plug is pulled in a trial that began with a jump: the bootloader knows nothing of it.
pub(crate) fn cut_after_jump(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let maker = Maker::new(lab)?;
    let site = Site::start(&lab.dir.join("site"))?;
    let bundle = maker.bundle("0.2.0", &arguments("e2e.release=2".to_owned()))?;
    Cmd::new("cp").arg(&bundle).arg(site.path("one.raucb")).run()?;
    jumping(lab)?;
    let mut vm = lab.boot_with_web(site.port, Restart::Restarts)?;
    vm.wait_ssh()?;
    settled(&vm)?;
    let kept = keep(&vm)?;
    checks.check("the plug is pulled in a trial that began with a jump, before its health check is over", || {
        vm.ssh(&format!("systemd-run --quiet --collect os update install {}", Site::url("one.raucb")))?;
        let start = std::time::Instant::now();
        // A machine that restarts begins a new console: two logins on one are a jump.
        while vm.console().matches("login: root").count() < 2 {
            ensure!(start.elapsed() < (INSTALL_LIMIT + BOOT_LIMIT) * PATIENCE, "no second login on the console");
            let said = vm.console();
            vm.watch(Duration::from_secs(1))?;
            ensure!(vm.console().len() >= said.len(), "the machine restarted; before, its console said: {said}");
        }
        Ok(())
    });
    drop(vm);
    let mut vm = lab.boot_with_web(site.port, Restart::Restarts)?;
    checks.check("the old slot starts, has the bootloader start the new one, and nothing is refused", || {
        vm.wait_console("Start (slot A)", Duration::from_secs(120))?;
        let kept_new = "grep -q e2e.release=2 /proc/cmdline && systemctl is-active os-commit >/dev/null";
        vm.wait_through_restarts(kept_new, RETURN_LIMIT)?;
        let status = update_status(&vm)?;
        ensure!(status["phase"] == "idle" && status["refused"] == json!([]), "{status}");
        ensure!(vm.ssh("os update log")?.contains("did not come up after the jump"), "{status}");
        equal(&vm.ssh("grep -o BOOT_IMAGE= /proc/cmdline; docker ps --format '{{.Names}}'")?, "BOOT_IMAGE=\nhello")?;
        is_kept(&vm, &kept)
    });
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}
