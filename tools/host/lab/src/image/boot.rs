//! The boot partition: the bootloader and its counters, and `config.json`.

use crate::image::Options;
use crate::image::keys::Keys;
use crate::repo::{self, Repo};
use crate::step::{Inputs, Output, Steps};
use crate::{tools_tree, uboot};
use anyhow::{Context, Result, bail};
use os_boot::{Bootloader, counters};
use os_layout::vars::Vars;
use os_sys::cmd::Cmd;
use osctl::image::listed;
use std::fs::{self, File};
use std::path::Path;

/// Builds `os-boot.vfat` and returns its path.
///
/// # Errors
/// When GRUB or the filesystem cannot be made.
pub fn build(repo: &Repo, vars: &Vars, options: &Options, keys: &Keys, steps: &Steps) -> Result<Output> {
    let config = match &options.config {
        Some(path) => fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => default_config(&keys.ssh_public()?)?,
    };
    let loader = Bootloader::named(&repo::need(vars, "OS_BOOTLOADER")?)?;
    let grub_cfg = repo.meta_os().join("recipes-bsp/grub/files/grub.cfg");
    let script = repo.meta_os().join("recipes-bsp/u-boot/files/boot.cmd");
    let autoboot = repo.meta_os().join("recipes-bsp/rpi-tryboot/files/autoboot.txt");
    let files = repo::need(vars, "OS_BOOT_FILES")?;
    let modules = repo::need(vars, "OS_GRUB_MODULES")?;
    let size = repo::room(vars, "OS_BOOT_SIZE")?.bytes;
    let inputs = Inputs::new()
        .text(&config)
        .text(&files)
        .text(&modules)
        .text(&size.to_string())
        .text(&tools_tree::identity()?)
        .text(&String::from_utf8_lossy(&counters::fresh()))
        .text(loader.word())
        .path(&grub_cfg)?
        .path(&script)?
        .path(&autoboot)?;
    let out = repo.lab().join(&options.variant).join("boot");
    let identity = steps.run("boot partition", inputs, &out, |dir| {
        match loader {
            Bootloader::Grub => {
                Cmd::new("grub-mkimage")
                    .args(["-O", "x86_64-efi", "-p", "/EFI/BOOT", "-o"])
                    .arg(dir.join("grub-efi-bootx64.efi"))
                    .args(modules.split_ascii_whitespace())
                    .run()?;
                fs::copy(&grub_cfg, dir.join("grub.cfg"))?;
            }
            Bootloader::UBoot => uboot::script(&script, &dir.join("boot.scr"))?,
            Bootloader::RpiTryboot => {
                fs::copy(&autoboot, dir.join("autoboot.txt"))?;
            }
        }
        fs::write(dir.join("grubenv"), counters::fresh())?;
        fs::write(dir.join("config.json"), &config)?;
        image(dir, &files, size)
    })?;
    Ok(Output { path: out.join("os-boot.vfat"), identity })
}

/// Says what a device would say against a configuration.
///
/// # Errors
/// When it cannot be read, or would be refused.
pub fn check(config: &Path) -> Result<()> {
    let bytes = os_sys::files::read_limited(config, os_config_model::MAX_SIZE)?;
    match os_config_model::model::parse(&bytes) {
        Ok(accepted) => {
            accepted.warnings.iter().for_each(|warning| eprintln!("lab: warning: {warning}"));
            Ok(())
        }
        Err(problems) => bail!("a device would refuse {}:\n{}", config.display(), listed(&problems)),
    }
}

/// A configuration that lets the developer in, and says where the rest is described.
fn default_config(key: &str) -> Result<String> {
    Ok(serde_json::to_string_pretty(&serde_json::json!({ "os": { "sshKeys": [key] } }))? + "\n")
}

fn image(dir: &Path, files: &str, size: u64) -> Result<()> {
    let image = dir.join("os-boot.vfat");
    File::create(&image)?.set_len(size)?;
    Cmd::new("mkfs.vfat").args(["--invariant", "-n", "OS-BOOT", "-i", "6f730062"]).arg(&image).run()?;
    let mut made = std::collections::BTreeSet::new();
    for entry in files.split_ascii_whitespace() {
        let (source, target) = entry.split_once(';').unwrap_or((entry, entry));
        let mut parent = String::new();
        for part in target.split('/').rev().skip(1).collect::<Vec<_>>().into_iter().rev() {
            parent = format!("{parent}/{part}");
            if made.insert(parent.clone()) {
                Cmd::new("mmd").arg("-i").arg(&image).arg(format!("::{parent}")).run()?;
            }
        }
        Cmd::new("mcopy")
            .arg("-i")
            .arg(&image)
            .arg(dir.join(source))
            .arg(format!("::{target}"))
            .run()
            .with_context(|| format!("{target} (OS_BOOT_FILES) cannot be put on the boot partition"))?;
    }
    Ok(())
}
