//! What the server of a channel may try.

use crate::harness::checks::Checks;
use crate::harness::device::update_status;
use crate::harness::release::{Maker, NOISE};
use crate::harness::site::Site;
use crate::harness::vm::{LIAR, Vm};
use anyhow::{Context, Result, ensure};
use os_channel::{Channel, Envelope};
use os_sys::cmd::Cmd;
use osctl::channel::keys::SecretKey;
use osctl::channel::{Directory, Publish};
use serde_json::json;
use std::path::{Path, PathBuf};

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
pub(crate) const AFTER_LIES: u64 = 100_000;

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
pub(crate) fn bad_servers(vm: &Vm, checks: &mut Checks) {
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
pub(crate) fn lies(maker: &Maker<'_>, site: &Site, vm: &Vm, checks: &mut Checks) -> Result<()> {
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
