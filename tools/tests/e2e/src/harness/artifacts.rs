//! What is tested: a disk image, the images of its slot, and the keys that belong to it.
//!
//! They come from the lab's build directory or from a deploy directory of BitBake; whoever works with them does not know
//! which. What they are is read from them: the partition table, `slot.cfg`, os-release(5), the preloaded container.

use crate::harness::fat::Fat;
use crate::harness::settled::Settled;
use crate::harness::volume;
use anyhow::{Context, Result, bail, ensure};
use lab::arch::Arch;
use lab::image::bundle::Images;
use lab::image::keys::{self, Keys};
use lab::qemu::{self, Accel};
use lab::repo::Repo;
use os_boot::{Bootloader, counters};
use os_disk::table::{Partition, Table};
use os_sys::cmd::Cmd;
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Variant of the lab's image that is tested when nobody names one.
pub(crate) const VARIANT: &str = "development";

/// Why there is no container.
pub(crate) const NO_DEMO: &str = "no container comes with the image";

/// What to test.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Source {
    /// Test the image in this deploy directory of BitBake, not the lab's
    #[arg(long, value_name = "DIR")]
    artifacts: Option<PathBuf>,
    /// Variant of the lab's image
    #[arg(long, default_value = VARIANT, conflicts_with = "artifacts")]
    variant: String,
    /// SSH private key to log in with [default: the one in build/keys, as for all keys]
    #[arg(long, value_name = "FILE")]
    ssh_key: Option<PathBuf>,
    /// Private key that signs bundles
    #[arg(long, value_name = "FILE")]
    bundle_key: Option<PathBuf>,
    /// Its certificate, in the keyring of the image
    #[arg(long, value_name = "FILE")]
    bundle_cert: Option<PathBuf>,
    /// Private key that signs lists of releases
    #[arg(long, value_name = "FILE")]
    channel_key: Option<PathBuf>,
    /// root.json of the channel that the image trusts
    #[arg(long, value_name = "FILE")]
    channel_root: Option<PathBuf>,
}

impl Source {
    /// Finds everything.
    pub(crate) fn find(&self, repo: &Repo) -> Result<Artifacts> {
        let own = keys::ensure(repo)?;
        let or = |given: &Option<PathBuf>, own: PathBuf| given.clone().unwrap_or(own);
        let keys = Keys {
            ssh: or(&self.ssh_key, own.ssh),
            bundle_key: or(&self.bundle_key, own.bundle_key),
            bundle_cert: or(&self.bundle_cert, own.bundle_cert),
            channel_key: or(&self.channel_key, own.channel_key),
            channel_root: or(&self.channel_root, own.channel_root),
        };
        match &self.artifacts {
            None => Artifacts::lab_with(repo, &self.variant, keys),
            Some(deploy) => Artifacts::deployed(deploy, &repo.build.join("e2e"), keys),
        }
    }
}

/// A container that comes with the image.
#[derive(Debug, Clone)]
pub(crate) struct Demo {
    pub(crate) name: String,
    /// Reference of its image.
    pub(crate) image: String,
    /// Port of the device with a page of it.
    pub(crate) port: u16,
    /// Files in `preload/` of the data partition: the archive, and what says which container to make of it.
    pub(crate) files: Vec<String>,
}

/// What is tested.
#[derive(Debug)]
pub(crate) struct Artifacts {
    /// The disk image, raw.
    pub(crate) image: PathBuf,
    /// Its partitions.
    pub(crate) parts: Vec<Partition>,
    /// What a bundle of it holds.
    pub(crate) slot: Images,
    pub(crate) keys: Keys,
    pub(crate) version: String,
    pub(crate) variant: String,
    pub(crate) machine: String,
    pub(crate) compatible: String,
    /// The serial console.
    pub(crate) console: String,
    /// Filesystem of the root.
    pub(crate) root_type: &'static str,
    /// Bytes of the root, without the tree of hashes behind it.
    pub(crate) root_size: u64,
    /// Hash of that tree: another root has another.
    pub(crate) root_hash: String,
    /// Names of the slots, the first one first.
    pub(crate) slots: Vec<String>,
    pub(crate) demo: Option<Demo>,
    pub(crate) arch: Arch,
    /// Where the bootloader has its files, from the top of the boot partition.
    pub(crate) loader_dir: &'static str,
    pub(crate) accel: Accel,
    /// Where chains have their directories.
    pub(crate) work: PathBuf,
    /// A running device with it.
    pub(crate) settled: Settled,
}

impl Artifacts {
    /// What the lab built.
    pub(crate) fn lab(repo: &Repo, variant: &str) -> Result<Self> {
        Self::lab_with(repo, variant, keys::ensure(repo)?)
    }

    fn lab_with(repo: &Repo, variant: &str, keys: Keys) -> Result<Self> {
        let accel = qemu::accel(repo, variant)?;
        let work = repo.of_arch("e2e");
        Self::new(repo.image(variant), Images::built(repo, variant)?, keys, accel, work)
    }

    /// What BitBake deployed; the names are those of os-layout.inc and of the image class.
    fn deployed(deploy: &Path, work: &Path, keys: Keys) -> Result<Self> {
        let names: Vec<String> = std::fs::read_dir(deploy)
            .with_context(|| format!("cannot read {}", deploy.display()))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        let machine = machine(&names).with_context(|| format!("in {}", deploy.display()))?;
        let slot = Images {
            kernel: deploy.join(format!("os-kernel-{machine}.vfat")),
            root: deploy.join(format!("os-root-{machine}.verity")),
        };
        let packed = deploy.join(disk_image(&names, &machine).with_context(|| format!("in {}", deploy.display()))?);
        let work = work.join(&machine);
        std::fs::create_dir_all(&work)?;
        let image = if packed.extension().is_some_and(|e| e == "zst") {
            let image = work.join("image.wic");
            let modified = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
            if modified(&packed) > modified(&image) {
                Cmd::new("zstd").args(["-d", "-q", "-f", "--sparse"]).arg(&packed).arg("-o").arg(&image).run()?;
            }
            image
        } else {
            packed
        };
        let may_probe = Path::new("/dev/kvm").exists() && arch(&machine) == Arch::X86_64;
        let accel = if may_probe { probe(&slot.kernel, &work)? } else { Accel::Tcg };
        Self::new(image, slot, keys, accel, work)
    }

    fn new(image: PathBuf, slot: Images, keys: Keys, accel: Accel, work: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&work)?;
        let mut disk = File::open(&image)
            .with_context(|| format!("there is no {}; make image or kas build makes it", image.display()))?;
        let parts = Table::read(&mut disk)?.partitions()?;
        let slots = slots(&parts)?;
        let cfg = Fat::new(&slot.kernel, 0).read_text("slot.cfg")?;
        let word = |name: &str| cfg.split_ascii_whitespace().rev().find_map(|word| word.strip_prefix(name));
        let root_hash = word("os.roothash=").context("slot.cfg names no os.roothash")?.to_owned();
        let root_size = word("os.rootsize=").context("slot.cfg names no os.rootsize")?.parse()?;
        let console = word("console=").context("slot.cfg names no console")?;
        let root_type = root_type(&slot.root)?;
        let release = os_release(&slot.root, root_type, &root_hash, &work)?;
        let field = |name: &str| {
            os_sys::release::field_of(&release, name).with_context(|| format!("os-release of the image has no {name}"))
        };
        let machine = field("OS_MACHINE")?;
        let demo = demo(&image, part(&parts, "os-data")?, &work)?;
        Ok(Self {
            version: field("VERSION_ID")?,
            variant: field("VARIANT_ID")?,
            loader_dir: loader_dir(&image, part(&parts, "os-boot")?)?,
            arch: arch(&machine),
            machine,
            compatible: field("OS_COMPATIBLE")?,
            console: console.split(',').next().unwrap_or_default().to_owned(),
            image,
            parts,
            slot,
            keys,
            root_type,
            root_size,
            root_hash,
            slots,
            demo,
            accel,
            settled: Settled::new(work.join("settled")),
            work,
        })
    }

    /// A partition of the image.
    pub(crate) fn part(&self, name: &str) -> Result<&Partition> {
        part(&self.parts, name)
    }

    /// A later version than that of the image.
    pub(crate) fn later(&self, minor: u64, patch: u64) -> Result<String> {
        later(&self.version, minor, patch)
    }

    /// The slot beside this one.
    pub(crate) fn other(&self, slot: &str) -> Result<&str> {
        let other = self.slots.iter().find(|s| *s != slot).context("there is one slot only")?;
        Ok(other)
    }

    /// Why the consoles let nobody in, if they do not.
    pub(crate) fn no_console(&self) -> Option<&'static str> {
        (self.variant == "production").then_some("production has no login on the consoles")
    }

    /// Why there is no container, if none came with the image.
    pub(crate) fn no_demo(&self) -> Option<&'static str> {
        self.demo.is_none().then_some(NO_DEMO)
    }

    /// Names of the containers that run when none was added.
    pub(crate) fn containers(&self) -> Vec<String> {
        self.demo.iter().map(|demo| demo.name.clone()).collect()
    }
}

fn part<'a>(parts: &'a [Partition], name: &str) -> Result<&'a Partition> {
    parts.iter().find(|p| p.name == name).with_context(|| format!("the image has no partition {name}"))
}

/// What a machine is emulated as; one that the lab does not know is a PC.
fn arch(machine: &str) -> Arch {
    Arch::of_machine(machine).unwrap_or_default()
}

/// The directory of the bootloader whose counters are on the boot partition.
fn loader_dir(image: &Path, boot: &Partition) -> Result<&'static str> {
    let fat = Fat::new(image, boot.start);
    let mut dirs = Bootloader::ALL.into_iter().map(Bootloader::directory);
    let found = dirs.find(|dir| fat.read(&format!("{dir}/{}", counters::FILE)).is_ok());
    found.with_context(|| format!("os-boot has the counters ({}) of no bootloader", counters::FILE))
}

/// Names of the slots, from those of their partitions.
fn slots(parts: &[Partition]) -> Result<Vec<String>> {
    let mut slots: Vec<String> =
        parts.iter().filter_map(|p| p.name.strip_prefix("os-kernel")).map(str::to_owned).collect();
    slots.sort();
    ensure!(slots.len() == 2, "the image has {} partitions os-kernel*, not two", slots.len());
    Ok(slots)
}

/// The machine that a deploy directory is for.
fn machine(names: &[String]) -> Result<String> {
    let mut machines = names.iter().filter_map(|n| n.strip_prefix("os-kernel-")?.strip_suffix(".vfat"));
    match (machines.next(), machines.next()) {
        (Some(machine), None) => Ok(machine.to_owned()),
        (None, _) => bail!("there is no os-kernel-<machine>.vfat, which os_disk.bbclass makes"),
        (Some(one), Some(other)) => bail!("there are images for {one} and {other}; name a directory with one"),
    }
}

/// The disk image for a machine.
fn disk_image<'a>(names: &'a [String], machine: &str) -> Result<&'a str> {
    let is_one = |name: &&String| {
        let stem = name.split('.').next().unwrap_or_default();
        let is_ours = stem.starts_with("os-image") && stem.ends_with(&format!("-{machine}"));
        is_ours && (name.ends_with(".wic.zst") || name.ends_with(".wic"))
    };
    let mut found: Vec<&String> = names.iter().filter(is_one).collect();
    // The same image: the one that is unpacked is sooner there.
    found.sort_by_key(|name| (name.ends_with(".zst"), name.len()));
    let found = found.first();
    found.map(|name| name.as_str()).with_context(|| format!("there is no os-image*-{machine}*.wic or .wic.zst"))
}

fn later(version: &str, minor: u64, patch: u64) -> Result<String> {
    let numbers: Vec<&str> = version.split(['-', '+']).next().unwrap_or_default().split('.').collect();
    let [major, own, _] = numbers.as_slice() else { bail!("'{version}' is no version of three numbers") };
    let (major, own): (u64, u64) = (major.parse()?, own.parse()?);
    Ok(format!("{major}.{}.{patch}", own + minor))
}

/// From the magic number in the superblock.
fn root_type(root: &Path) -> Result<&'static str> {
    let file = File::open(root).with_context(|| format!("there is no {}", root.display()))?;
    let (mut start, mut erofs) = ([0; 4], [0; 4]);
    file.read_exact_at(&mut start, 0)?;
    file.read_exact_at(&mut erofs, 1024)?;
    match (&start, erofs) {
        (b"hsqs", _) => Ok("squashfs"),
        (_, [0xe2, 0xe1, 0xf5, 0xe0]) => Ok("erofs"),
        _ => bail!("{} is neither erofs nor squashfs", root.display()),
    }
}

/// os-release(5) of a root filesystem.
fn os_release(root: &Path, root_type: &str, root_hash: &str, work: &Path) -> Result<String> {
    const FILE: &str = "usr/lib/os-release";
    if root_type == "squashfs" {
        return Ok(Cmd::new("unsquashfs").arg("-cat").arg(root).arg(FILE).read()?);
    }
    // The tools for erofs take all or nothing: done once for each root.
    let record = work.join("os-release");
    if let Ok(text) = std::fs::read_to_string(&record)
        && let Some(release) = text.strip_prefix(&format!("# {root_hash}\n"))
    {
        return Ok(release.to_owned());
    }
    let tree = work.join("root");
    let _ = std::fs::remove_dir_all(&tree);
    Cmd::new("fsck.erofs").arg(format!("--extract={}", tree.display())).arg(root).run()?;
    let text = os_sys::files::read_text(&tree.join(FILE));
    std::fs::remove_dir_all(&tree)?;
    let text = text?;
    std::fs::write(&record, format!("# {root_hash}\n{text}"))?;
    Ok(text)
}

/// What lies in `preload/` of the data partition.
fn demo(image: &Path, data: &Partition, work: &Path) -> Result<Option<Demo>> {
    let names = volume::list(&volume::at(image, data.start), "/preload")?;
    let Some(spec) = names.iter().find(|name| name.ends_with(".json")) else { return Ok(None) };
    let archive = spec.replace(".json", ".tar");
    ensure!(names.contains(&archive), "preload/ of the data partition has {spec} and no {archive}");
    let bytes = volume::dump(&volume::at(image, data.start), &format!("/preload/{spec}"), &work.join("demo.json"))?;
    let value: Value = serde_json::from_slice(&bytes)?;
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let port = value.get("ports").and_then(Value::as_object).and_then(|ports| ports.keys().next());
    let port = port.and_then(|port| port.parse().ok());
    let (Some(name), Some(image), Some(port)) = (text("name"), text("image"), port) else {
        bail!("preload/{spec} names no container, image and port: {value}")
    };
    Ok(Some(Demo { name, image, port, files: vec![archive, spec.clone()] }))
}

/// KVM, if it boots this kernel.
fn probe(kernel: &Path, work: &Path) -> Result<Accel> {
    let fat = Fat::new(kernel, 0);
    let [kernel, initramfs] = ["vmlinuz", "initramfs"].map(|name| {
        let path = work.join(name);
        fat.read(name).and_then(|bytes| Ok(std::fs::write(&path, bytes)?)).map(|()| path)
    });
    Ok(if qemu::kvm_boots(&kernel?, &initramfs?)? { Accel::Kvm } else { Accel::Tcg })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_that_are_made_are_later_than_the_image() {
        assert_eq!(later("0.1.0", 1, 0).unwrap(), "0.2.0");
        assert_eq!(later("2.9.4-rc.1+build", 1, 3).unwrap(), "2.10.3");
        assert!(later("7", 1, 0).is_err() && later("a.b.c", 1, 0).is_err());
    }

    #[test]
    fn a_deploy_directory_is_understood() {
        let names = [
            "os-image-qemux86-64.rootfs.wic.zst",
            "os-image-qemux86-64.rootfs.wic.bmap",
            "os-initramfs-qemux86-64.cpio.zst",
            "os-kernel-qemux86-64.vfat",
            "os-root-qemux86-64.verity",
        ]
        .map(str::to_owned);
        let machine = machine(&names).unwrap();
        assert_eq!(machine, "qemux86-64");
        assert_eq!(disk_image(&names, &machine).unwrap(), "os-image-qemux86-64.rootfs.wic.zst");
        let unpacked = [&names[..], &["os-image-qemux86-64.rootfs.wic".to_owned()]].concat();
        assert_eq!(disk_image(&unpacked, &machine).unwrap(), "os-image-qemux86-64.rootfs.wic");
    }

    #[test]
    fn a_deploy_directory_for_none_or_two_machines_is_refused() {
        assert!(machine(&[]).is_err());
        assert!(machine(&["os-kernel-a.vfat".to_owned(), "os-kernel-b.vfat".to_owned()]).is_err());
        assert!(disk_image(&["os-image-b.wic".to_owned()], "a").is_err());
    }
}
