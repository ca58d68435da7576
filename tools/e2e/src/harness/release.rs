//! Makes releases of the built slot, good ones and bad ones.

use crate::harness::lab::{Lab, VARIANT};
use crate::harness::random::Random;
use anyhow::{Context, Result};
use os_sys::cmd::Cmd;
use osctl::channel::keys::SecretKey;
use osctl::channel::{Directory, Publish};
use osctl::lab::bundle::{self, Images};
use osctl::lab::slot;
use osctl::repo;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Bytes that a release has and no other, and the release whose installation is interrupted.
pub(crate) const NOISE: u64 = 8 << 20;
pub(crate) const MUCH_NOISE: u64 = 48 << 20;
/// The time that a bad release gives its health check, in seconds: nothing that is masked comes up later.
pub(crate) const HEALTH: &str = "os.health=15";

/// Makes releases of the built slot.
pub(crate) struct Maker<'a> {
    lab: &'a Lab,
    dir: PathBuf,
    pub(crate) compatible: String,
    pub(crate) images: Images,
    pub(crate) key: SecretKey,
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
    pub(crate) fn bundle_with(
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

/// Replaces a file of a slot by noise that begins as the file does.
pub(crate) fn broken(name: &'static str) -> impl Fn(&Path) -> Result<()> {
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

/// A release that may be in a slot.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) version: &'static str,
    /// Kernel partition, as in the bundle.
    pub(crate) kernel: PathBuf,
    /// Root partition, as in the bundle.
    pub(crate) root: PathBuf,
}
