//! A signed RAUC bundle of the built slot.

use crate::lab::keys;
use crate::repo::{self, Repo};
use anyhow::{Context, Result};
use os_sys::cmd::Cmd;
use std::path::PathBuf;

/// Makes `os-bundle-<variant>-<machine>.raucb` and returns its path.
///
/// # Errors
/// When the slot is not built or rauc fails.
pub fn build(repo: &Repo, variant: &str) -> Result<PathBuf> {
    let vars = repo.vars()?;
    let keys = keys::ensure(repo)?;
    let slot = repo.lab().join(variant).join("slot");
    let dir = repo.lab().join(variant).join("bundle");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir)?;
    let mut manifest = format!(
        "[update]\ncompatible={}\nversion={}\n\n[bundle]\nformat=verity\n",
        repo::need(&vars, "OS_COMPATIBLE")?,
        repo::need(&vars, "OS_VERSION")?
    );
    for (class, variable, name) in
        [("kernel", "OS_KERNEL_IMAGE", "kernel.vfat"), ("rootfs", "OS_ROOT_IMAGE", "rootfs.img")]
    {
        let source = slot.join(repo::need(&vars, variable)?);
        std::fs::hard_link(&source, dir.join(name))
            .with_context(|| format!("there is no {}; make image builds it", source.display()))?;
        manifest.push_str(&format!("\n[image.{class}]\nfilename={name}\n"));
    }
    std::fs::write(dir.join("manifest.raucm"), manifest)?;
    let bundle = repo.build.join(format!("os-bundle-{variant}-{}.raucb", repo::MACHINE));
    let _ = std::fs::remove_file(&bundle);
    Cmd::new("rauc")
        .arg("bundle")
        .arg(format!("--cert={}", keys.bundle_cert.display()))
        .arg(format!("--key={}", keys.bundle_key.display()))
        .arg(&dir)
        .arg(&bundle)
        .run()
        .context("rauc makes no bundle; install it with: sudo apt-get install rauc squashfs-tools")?;
    std::fs::remove_dir_all(&dir)?;
    println!("{}\n  {} MiB", bundle.display(), std::fs::metadata(&bundle)?.len() >> 20);
    Ok(bundle)
}
