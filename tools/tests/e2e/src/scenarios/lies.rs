//! What the server of a channel may try.

use crate::harness::checks::Checks;
use crate::harness::device::update_status;
use crate::harness::lab::Lab;
use crate::harness::release::Maker;
use crate::harness::rig::Rig;
use crate::harness::site::Site;
use crate::harness::vm::{LIAR, Vm};
use anyhow::{Context, Result, ensure};
use os_channel::{Channel, Envelope};
use os_sys::cmd::Cmd;
use osctl::channel::keys::SecretKey;
use osctl::channel::{Directory, Publish};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A channel on the site that lies in one way.
struct Lie<'a> {
    maker: &'a Maker,
    /// Its directory.
    path: PathBuf,
    /// Where the guest finds it.
    url: String,
    /// What to add to the serial: a list that is believed makes the ones before it old, and each lie has to stand or
    /// fall by itself.
    later: u64,
}

impl<'a> Lie<'a> {
    /// A copy of the honest channel. Bundles are copies too, where one is to be changed.
    fn new(maker: &'a Maker, site: &Site, name: &str, later: u64) -> Result<Self> {
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

/// More than the lies add to a serial.
const AFTER_LIES: u64 = 100_000;

pub(super) fn lies(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let vm = rig.settled()?;
    bad_servers(&vm, checks);
    on_the_device(&vm, checks);
    let release = lab.artifacts.later(1, 0)?;
    let bundle = rig.maker.hollow(rig.maker.compatible(), &release)?;
    rig.maker.publish(&mut rig.channel, &bundle)?;
    checks.check("a server that does not lie is believed", || is_offered(&vm, &release));
    let mut lies = Lies { rig: &rig, vm: &vm, checks, release: &release, later: 0 };
    lies.lists()?;
    lies.bundles()?;
    // Those that only the bundle gave away were believed up to there.
    rig.channel.list.serial += AFTER_LIES;
    let later = lab.artifacts.later(10, 0)?;
    let bundle = rig.maker.hollow(rig.maker.compatible(), &later)?;
    rig.maker.publish(&mut rig.channel, &bundle)?;
    checks.check("after all of it, the server that does not lie is believed, and what it has is installed", || {
        is_offered(&vm, &later)?;
        vm.ssh("os config set /os/update/mode download && systemctl start os-update")?;
        let status = update_status(&vm)?;
        ensure!(status["phase"] == "installed" && status["refused"] == json!([]), "{status}");
        rig.containers_run(&vm)
    });
    checks.check("what an operator installs past all that is noticed, and goes by its own name", || {
        let older = Site::url(&format!("stable/bundles/{}-{release}.raucb", rig.maker.compatible()));
        // From a file: RAUC itself fetches in small pieces, each through a program of this host.
        let bundle = "/mnt/data/by-hand.raucb";
        vm.ssh(&format!(
            "curl -sf -o {bundle} {older} && {{ rauc install {bundle} || rauc install {bundle}; }}; rm {bundle}"
        ))?;
        let said = vm.ssh("os update check && os update log")?;
        ensure!(said.contains(&format!("{release}, which was installed by hand in place of {later}")), "{said}");
        let status = update_status(&vm)?;
        ensure!(status["phase"] == "installed" && status["byHand"] == true, "{status}");
        ensure!(status["release"]["version"] == release && status["refused"] == json!([]), "{status}");
        Ok(())
    });
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}

fn is_offered(vm: &Vm, release: &str) -> Result<()> {
    let found: Value = serde_json::from_str(&vm.ssh("os update check --json")?)?;
    ensure!(found["offered"] == release, "{found}");
    Ok(())
}

/// What a device has to bear from its own side.
fn on_the_device(vm: &Vm, checks: &mut Checks) {
    checks.check("a clock in 1970 believes what is signed, and takes its date for the least that is", || {
        let text = vm.ssh(
            "now=$(date +%s); date -s @86400 >/dev/null; os update check; date +year=%Y; date -s @$now >/dev/null; \
             test $(stat -c %Y /usr/lib/clock-epoch) -ge 1767225600",
        )?;
        ensure!(text.contains("nothing newer") && !text.contains("year=1970"), "{text}");
        Ok(())
    });
    checks.check("a full state partition is said, and nothing is lost", || {
        let before = update_status(vm)?;
        let (_, text) = vm.ssh_code(
            "dd if=/dev/zero of=/mnt/state/fill bs=1M 2>/dev/null; dd if=/dev/zero of=/mnt/state/fill2 bs=1k 2>/dev/null; \
             os update check 2>&1; rm /mnt/state/fill /mnt/state/fill2",
        )?;
        ensure!(text.contains("No space left"), "{text}");
        // What is set aside is for what becomes of an update.
        vm.ssh("test -s /mnt/state/os/update/reserve")?;
        ensure!(update_status(vm)?["running"] == before["running"], "the state was damaged");
        Ok(())
    });
}

/// What a server may try. Nothing of it changes the device, and each is named.
struct Lies<'a> {
    rig: &'a Rig<'a>,
    vm: &'a Vm,
    checks: &'a mut Checks,
    /// What the channel has.
    release: &'a str,
    later: u64,
}

impl Lies<'_> {
    /// Has the device `check` or `apply` what a liar has, which it must refuse with a word that says why.
    fn refused(&mut self, name: &str, verb: &str, says: &str, make: impl FnOnce(&Lie<'_>) -> Result<()>) -> Result<()> {
        self.later += 100;
        let lie = Lie::new(&self.rig.maker, &self.rig.site, &name.replace(' ', "-"), self.later)?;
        make(&lie)?;
        let vm = self.vm;
        self.checks.check(&format!("never fooled: {name}"), || {
            let (code, text) = vm.ssh_code(&format!("os update {verb} --from {} 2>&1", lie.url))?;
            ensure!(code == 1 && text.contains(says), "exit code {code}, and it does not say '{says}': {text}");
            let status = update_status(vm)?;
            ensure!(status["phase"] == "idle" && status["refused"] == json!([]), "{status}");
            Ok(())
        });
        // Copies of a bundle are large.
        Ok(std::fs::remove_dir_all(&lie.path)?)
    }

    fn lists(&mut self) -> Result<()> {
        let (key, stranger, release) = (&self.rig.maker.key, SecretKey::generate()?, self.release);
        self.refused("a list with one letter changed", "check", "it has 0 of 1 required signatures", |lie| {
            let file = lie.path.join("channel.json");
            let text = std::fs::read_to_string(&file)?;
            let other = format!("{}9", release.strip_suffix('0').context("no release ends with 0")?);
            ensure!(text.contains(release), "the list does not name {release}");
            Ok(std::fs::write(file, text.replace(release, &other))?)
        })?;
        self.refused("a list signed by a stranger", "check", "it has 0 of 1 required signatures", |lie| {
            lie.list(&stranger, |_| {})
        })?;
        self.refused("an expired list", "check", "it expired", |lie| {
            lie.list(key, |list| (list.issued, list.expires) = (list.issued - 30 * 86_400, list.issued - 86_400))
        })?;
        self.refused("an older list", "check", "it is older than the last one seen", |lie| {
            lie.list(key, |list| list.serial = 1)
        })?;
        self.refused("the list of another channel", "check", "channel 'beta'", |lie| {
            lie.list(key, |list| list.name = "beta".to_owned())
        })?;
        let unsigned = "roots/2.json was passed over";
        self.refused("new keys that the old ones did not sign", "check", unsigned, |lie| {
            let mut other = Directory::open(&lie.path)?;
            lie.list(&stranger, |_| {})?;
            other.root.version = 2;
            let signed = serde_json::to_string(&other.root)?;
            let envelope = Envelope { signatures: vec![stranger.sign(&signed)?], signed };
            Ok(std::fs::write(lie.path.join("roots/2.json"), serde_json::to_vec(&envelope)?)?)
        })?;
        self.refused("a list without end", "check", "larger than it may be", |lie| {
            Ok(std::fs::write(lie.path.join("channel.json"), vec![b' '; 4 << 20])?)
        })?;
        self.refused("no list at all", "check", "there is no channel.json", |lie| {
            Ok(std::fs::remove_file(lie.path.join("channel.json"))?)
        })
    }

    fn bundles(&mut self) -> Result<()> {
        let (maker, artifacts) = (&self.rig.maker, &self.rig.lab.artifacts);
        let bundle = maker.hollow(maker.compatible(), &artifacts.later(8, 0)?)?;
        self.refused("a bundle with another signature", "apply", "RAUC refuses the bundle", |lie| {
            lie.bundle(&bundle, |bytes| {
                let at = bytes.len() - 200;
                bytes.iter_mut().skip(at).take(8).for_each(|b| *b ^= 0x55);
            })
        })?;
        self.refused("a bundle with one block changed", "apply", "was not installed", |lie| {
            lie.bundle(&bundle, |bytes| bytes.iter_mut().skip(4096).take(8).for_each(|b| *b ^= 0x55))
        })?;
        self.refused("a bundle cut in half", "apply", "was not installed", |lie| {
            lie.bundle(&bundle, |bytes| bytes.truncate(bytes.len() / 2))
        })?;
        let older = format!("stable/bundles/{}-{}.raucb", maker.compatible(), self.release);
        let older = self.rig.site.path(&older);
        let another = "another bundle than the one its list names";
        self.refused("an old bundle under a new name", "apply", another, |lie| {
            let mut directory = lie.open()?;
            let name = directory.publish(&bundle, &Publish { rollout: 100, ..Publish::default() })?.bundle.path.clone();
            // As if both were of the same size, which a liar may wait for.
            let size = std::fs::copy(&older, lie.path.join(&name))?;
            directory.list.releases.iter_mut().filter(|r| r.bundle.path == name).for_each(|r| r.bundle.size = size);
            directory.save(&maker.key)
        })?;
        let foreign = maker.hollow("os-something-else", &artifacts.later(8, 1)?)?;
        self.refused("a bundle for other devices", "apply", "Compatible mismatch", |lie| {
            let mut directory = lie.open()?;
            directory.publish(&foreign, &Publish { rollout: 100, ..Publish::default() })?;
            directory.list.releases.iter_mut().for_each(|r| maker.compatible().clone_into(&mut r.compatible));
            directory.save(&maker.key)
        })
    }
}
