//! Makes releases of the image, good ones and bad ones.

use crate::harness::artifacts::Artifacts;
use crate::harness::fat::Fat;
use crate::harness::random::Random;
use anyhow::{Context, Result};
use lab::image::bundle::{self, Images};
use os_slotmake::verity;
use os_sys::cmd::Cmd;
use osctl::channel::keys::SecretKey;
use osctl::channel::{Directory, Publish};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that a release has and no other, and the release whose installation is interrupted.
pub(crate) const NOISE: u64 = 8 << 20;
pub(crate) const MUCH_NOISE: u64 = 48 << 20;
/// The time that a bad release gives its health check, in seconds: nothing that is masked comes up later.
pub(crate) const HEALTH: &str = "os.health=15";

/// What makes a release another one: it edits the kernel partition.
pub(crate) type Change<'a> = &'a dyn Fn(&Fat) -> Result<()>;

/// Makes releases of the image.
pub(crate) struct Maker {
    artifacts: Arc<Artifacts>,
    dir: PathBuf,
    pub(crate) key: SecretKey,
}

impl Maker {
    /// One that works in a directory of its own.
    pub(crate) fn new(artifacts: &Arc<Artifacts>, dir: PathBuf) -> Result<Self> {
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        let key = SecretKey::load(&artifacts.keys.channel_key)?;
        Ok(Self { artifacts: Arc::clone(artifacts), dir, key })
    }

    /// What its bundles are for.
    pub(crate) fn compatible(&self) -> &str {
        &self.artifacts.compatible
    }

    /// A channel that the device believes.
    pub(crate) fn channel(&self, path: &Path) -> Result<Directory> {
        Directory::init(path, &std::fs::read(&self.artifacts.keys.channel_root)?, &self.key)
    }

    /// A bundle whose kernel partition was changed, with a root of its own.
    pub(crate) fn bundle(&self, version: &str, change: Change<'_>) -> Result<PathBuf> {
        self.bundle_with(version, NOISE, change)
    }

    /// `noise`: bytes in the root that no other release has.
    pub(crate) fn bundle_with(&self, version: &str, noise: u64, change: Change<'_>) -> Result<PathBuf> {
        let images = self.of(version);
        Cmd::new("cp").arg("--sparse=always").arg(&self.artifacts.slot.kernel).arg(&images.kernel).run()?;
        let kernel = Fat::new(&images.kernel, 0);
        self.make_root(version, noise, &images.root, &kernel)?;
        change(&kernel)?;
        self.pack(self.compatible(), version, &images)
    }

    /// A bundle whose root lacks these files.
    pub(crate) fn bundle_without(&self, version: &str, files: &[&str], change: Change<'_>) -> Result<PathBuf> {
        let images = self.of(version);
        Cmd::new("cp").arg("--sparse=always").arg(&self.artifacts.slot.kernel).arg(&images.kernel).run()?;
        let kernel = Fat::new(&images.kernel, 0);
        let tree = self.dir.join("tree");
        let extract = format!("--extract={}", tree.display());
        Cmd::new("fsck.erofs").arg(extract).arg("--preserve").arg(&self.artifacts.slot.root).run()?;
        for file in files {
            std::fs::remove_file(tree.join(file)).with_context(|| format!("the image has no {file}"))?;
        }
        Cmd::new("mkfs.erofs").args(["-zlz4", "-C16384"]).arg(&images.root).arg(&tree).run()?;
        std::fs::remove_dir_all(&tree)?;
        seal(&images.root, &kernel)?;
        change(&kernel)?;
        self.pack(self.compatible(), version, &images)
    }

    /// A bundle that nobody is to start: nothing is in its root but noise.
    pub(crate) fn hollow(&self, compatible: &str, version: &str) -> Result<PathBuf> {
        let images = self.of(version);
        Cmd::new("cp").arg("--sparse=always").arg(&self.artifacts.slot.kernel).arg(&images.kernel).run()?;
        std::fs::write(&images.root, noise(version, NOISE))?;
        self.pack(compatible, version, &images)
    }

    fn pack(&self, compatible: &str, version: &str, images: &Images) -> Result<PathBuf> {
        let path = self.dir.join(format!("{version}.raucb"));
        bundle::make(&self.artifacts.keys, compatible, version, images, &path)?;
        Ok(path)
    }

    /// The image's filesystem with noise behind it, sealed anew.
    fn make_root(&self, version: &str, size: u64, root: &Path, kernel: &Fat) -> Result<()> {
        let mut from = File::open(&self.artifacts.slot.root)?.take(self.artifacts.root_size);
        let mut file = File::create(root)?;
        std::io::copy(&mut from, &mut file)?;
        file.write_all(&noise(version, size))?;
        drop(file);
        seal(root, kernel)
    }

    /// The partitions of a bundle that is made.
    fn of(&self, version: &str) -> Images {
        let at = |what: &str| self.dir.join(format!("{what}-{version}.img"));
        Images { kernel: at("kernel"), root: at("root") }
    }

    /// What may be in a slot: the image's own release, and those that were made.
    pub(crate) fn known(&self, made: &[&str]) -> Vec<Known> {
        let known = |version: &str, Images { kernel, root }| Known { version: version.to_owned(), kernel, root };
        let made = made.iter().map(|version| known(version, self.of(version)));
        std::iter::once(known(&self.artifacts.version, self.artifacts.slot.clone())).chain(made).collect()
    }

    /// Publishes a bundle to everybody. There is one copy of it afterwards, under both names.
    pub(crate) fn publish(&self, channel: &mut Directory, bundle: &Path) -> Result<()> {
        let published = channel.publish(bundle, &Publish { rollout: 100, ..Publish::default() })?.bundle.path.clone();
        std::fs::remove_file(bundle)?;
        std::fs::hard_link(channel.path.join(published), bundle)?;
        channel.save(&self.key)
    }
}

/// Gives a root its hash tree; the kernel partition names its hash.
fn seal(root: &Path, kernel: &Fat) -> Result<()> {
    let arguments = verity::append_tree(root)?.arguments();
    configure(kernel, &|text| sealed_with(text, &arguments).context("it names no hash of the root"))
}

/// The same text with another hash and size of the root; they stand beside each other.
fn sealed_with(text: &str, arguments: &str) -> Option<String> {
    let (before, rest) = text.split_at_checked(text.find("os.roothash=")?)?;
    let size = rest.get(rest.find("os.rootsize=")?..)?;
    let after = size.get(size.find([' ', '\n'])?..)?;
    Some(format!("{before}{arguments}{after}"))
}

/// Bytes that only this version has, and has every time.
fn noise(version: &str, size: u64) -> Vec<u8> {
    let mut random = Random(version.bytes().fold(0, |seed, byte| seed * 31 + u64::from(byte)));
    (0..size / 8).flat_map(|_| random.next().to_le_bytes()).collect()
}

/// Changes what the bootloader reads of a slot.
fn configure(kernel: &Fat, change: &dyn Fn(&str) -> Result<String>) -> Result<()> {
    for name in ["slot.cfg", "slot.env", "cmdline.txt"] {
        let text = change(&kernel.read_text(name)?).context(name)?;
        kernel.write(name, text.as_bytes())?;
    }
    Ok(())
}

/// Adds kernel arguments to a slot.
pub(crate) fn arguments(more: String) -> impl Fn(&Fat) -> Result<()> {
    move |kernel: &Fat| {
        configure(kernel, &|text| {
            let text = text.replace("$os_args ", &format!("$os_args {more} "));
            let text = text.replace("os_slot_args=", &format!("os_slot_args={more} "));
            Ok(if text.starts_with("os.roothash=") { format!("{more} {text}") } else { text })
        })
    }
}

/// Leaves the engine out of a release.
pub(crate) fn no_engine() -> impl Fn(&Fat) -> Result<()> {
    arguments(format!("systemd.mask=docker.service systemd.mask=docker.socket {HEALTH}"))
}

/// Replaces a file of a slot by noise that begins as the file does.
pub(crate) fn broken(name: &'static str) -> impl Fn(&Fat) -> Result<()> {
    move |kernel: &Fat| {
        let mut bytes = kernel.read(name)?;
        let keep = bytes.len().min(64 << 10);
        bytes.iter_mut().skip(keep).for_each(|byte| *byte = byte.wrapping_mul(7).wrapping_add(13));
        kernel.write(name, &bytes)
    }
}

/// A release that may be in a slot.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) version: String,
    /// Kernel partition, as in the bundle.
    pub(crate) kernel: PathBuf,
    /// Root partition, as in the bundle.
    pub(crate) root: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_that_was_changed_is_named_anew() {
        let new = "os.roothash=cd os.rootsize=8192";
        for (text, wanted) in [
            (
                "linux \"k\" $os_args os.roothash=ab os.rootsize=1 quiet\ninitrd\n",
                "linux \"k\" $os_args os.roothash=cd os.rootsize=8192 quiet\ninitrd\n",
            ),
            ("os_slot_args=os.roothash=ab os.rootsize=1\n", "os_slot_args=os.roothash=cd os.rootsize=8192\n"),
            ("os.roothash=ab os.rootsize=1 quiet\n", "os.roothash=cd os.rootsize=8192 quiet\n"),
        ] {
            assert_eq!(sealed_with(text, new).as_deref(), Some(wanted));
        }
        assert_eq!(sealed_with("nothing of it\n", new), None);
    }
}
