//! A signed RAUC bundle of the built slot.

use crate::image::keys::{self, Keys};
use crate::repo::{self, Repo};
use anyhow::{Context, Result};
use os_sys::cmd::Cmd;
use std::path::{Path, PathBuf};

/// Makes `os-bundle-<variant>-<machine>.raucb` and returns its path.
///
/// # Errors
/// When the slot is not built or rauc fails.
pub fn build(repo: &Repo, variant: &str) -> Result<PathBuf> {
    let vars = repo.vars()?;
    let version = repo::need(&vars, "OS_VERSION")?;
    let images = Images::built(repo, variant)?;
    let bundle = repo.build.join(format!("os-bundle-{variant}-{}.raucb", repo.arch.machine()));
    make(&keys::ensure(repo)?, &repo::need(&vars, "OS_COMPATIBLE")?, &version, &images, &bundle)?;
    os_sys::say!("{}\n  {} MiB", bundle.display(), std::fs::metadata(&bundle)?.len() >> 20);
    Ok(bundle)
}

/// RAUC's method of taking from the slots of the device what they have already.
pub const ADAPTIVE: &str = "block-hash-index";
/// How the squashfs of a bundle is cut: what a device needs of it, it reads by the block.
pub const BLOCK: &str = "16k";

/// The images of a slot.
#[derive(Debug, Clone)]
pub struct Images {
    /// Kernel partition.
    pub kernel: PathBuf,
    /// Root partition.
    pub root: PathBuf,
}

impl Images {
    /// Those of the slot that is built for a variant.
    ///
    /// # Errors
    /// When the fragments of the distro do not name them.
    pub fn built(repo: &Repo, variant: &str) -> Result<Self> {
        let (vars, slot) = (repo.vars()?, repo.lab().join(variant).join("slot"));
        let at = |variable| -> Result<PathBuf> { Ok(slot.join(repo::need(&vars, variable)?)) };
        Ok(Self { kernel: at("OS_KERNEL_IMAGE")?, root: at("OS_ROOT_IMAGE")? })
    }
}

/// Makes a bundle of a slot's images, signed by the developer's key.
///
/// # Errors
/// When an image is missing or rauc fails.
pub fn make(keys: &Keys, compatible: &str, version: &str, images: &Images, bundle: &Path) -> Result<()> {
    make_with(keys, compatible, version, images, bundle, Some(ADAPTIVE))
}

/// The same, with another method for the root, or none.
///
/// # Errors
/// When an image is missing or rauc fails.
pub fn make_with(
    keys: &Keys,
    compatible: &str,
    version: &str,
    images: &Images,
    bundle: &Path,
    adaptive: Option<&str>,
) -> Result<()> {
    let dir = bundle.with_extension("d");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir)?;
    let mut manifest = format!("[update]\ncompatible={compatible}\nversion={version}\n\n[bundle]\nformat=verity\n");
    let adaptive = adaptive.map(|method| format!("adaptive={method}\n")).unwrap_or_default();
    let images = [("kernel", &images.kernel, "kernel.vfat", ""), ("rootfs", &images.root, "rootfs.img", &adaptive)];
    for (class, source, name, adaptive) in images {
        let linked = std::fs::hard_link(source, dir.join(name));
        linked.with_context(|| format!("there is no {}; make image builds it", source.display()))?;
        manifest.push_str(&format!("\n[image.{class}]\nfilename={name}\n{adaptive}"));
    }
    std::fs::write(dir.join("manifest.raucm"), manifest)?;
    let _ = std::fs::remove_file(bundle);
    Cmd::new("rauc")
        .arg("bundle")
        // The root is compressed already; trying harder costs minutes and gains nothing.
        .arg(format!("--mksquashfs-args=-comp zstd -Xcompression-level 1 -b {BLOCK}"))
        .arg(format!("--cert={}", keys.bundle_cert.display()))
        .arg(format!("--key={}", keys.bundle_key.display()))
        .arg(&dir)
        .arg(bundle)
        .run()
        .context("rauc makes no bundle; install it with: sudo apt-get install rauc squashfs-tools")?;
    Ok(std::fs::remove_dir_all(&dir)?)
}
