//! The two partition images of a slot, of the composed root, its kernel and its initramfs.

use crate::image::keys::Keys;
use crate::image::{Options, as_root, compose};
use crate::repo::{self, Repo, room};
use crate::step::{Inputs, Output, Steps};
use crate::tools_tree;
use anyhow::{Context, Result, ensure};
use os_boot::Bootloader;
use os_layout::vars::Vars;
use os_slotmake::slot::Slot;
use std::fs;
use std::path::{Path, PathBuf};

/// Builds the slot and returns the directory with its images, named as the kickstart template names them.
///
/// # Errors
/// When a part cannot be built or does not fit its partition.
pub fn build(
    repo: &Repo,
    vars: &Vars,
    options: &Options,
    keys: &Keys,
    tools: &Path,
    base: &Output,
    steps: &Steps,
) -> Result<Output> {
    // Timestamp of everything in a slot, and the floor of the device's clock.
    let epoch: u64 = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.parse().context("SOURCE_DATE_EPOCH is no number")?,
        Err(_) => repo::need(vars, "OS_CLOCK_FLOOR")?.parse().context("OS_CLOCK_FLOOR is no number")?,
    };
    let loader = Bootloader::named(&repo::need(vars, "OS_BOOTLOADER")?)?;
    let config = repo.meta_os().join("recipes-bsp/rpi-tryboot/files/config.txt");
    let mut inputs = Inputs::new()
        .text(loader.word())
        .path(&config)?
        .text(&options.variant)
        .text(&epoch.to_string())
        .text(&repo::need(vars, "OS_KERNEL_ARGS")?)
        .text(&repo::need(vars, "OS_VERSION")?)
        .text(&repo::need(vars, "OS_ROOT_COMPRESSION")?)
        .text(&base.identity)
        .text(&tools_tree::identity()?)
        .path(&tools.join("os-tools"))?
        .text(&String::from_utf8_lossy(&os_cli::manual::completion()))
        .text(&vars.get("OS_UPDATE_CHANNEL")?.unwrap_or_default())
        .path(&channel_root(vars, keys)?)?
        .path(&keys.bundle_cert)?;
    for file in preloads(&options.preload)? {
        inputs = inputs.path(&file)?;
    }
    let out = repo.lab().join(&options.variant).join("slot");
    let identity = steps.run("system slot", compose::inputs(repo, inputs)?, &out, |dir| {
        as_root(std::env::current_exe()?)
            .args(["compose", "--variant", &options.variant, "--epoch", &epoch.to_string(), "--base"])
            .arg(&base.path)
            .arg("--tools")
            .arg(tools)
            .arg("--keyring")
            .arg(&keys.bundle_cert)
            .arg("--channel-root")
            .arg(channel_root(vars, keys)?)
            .args(options.preload.iter().flat_map(|archive| [Path::new("--preload"), archive]))
            .arg("--out")
            .arg(dir)
            .run()?;
        let root = dir.join(repo::need(vars, "OS_ROOT_IMAGE")?);
        fs::rename(dir.join("root.erofs"), &root)?;
        let more = dir.join("more");
        fs::create_dir(&more)?;
        if loader == Bootloader::RpiTryboot {
            fs::copy(&config, more.join("config.txt"))?;
        }
        let slot = Slot {
            root,
            root_room: room(vars, "OS_ROOT_SIZE")?,
            // Debian's packages are larger than those that ship.
            root_max: None,
            kernel: dir.join("vmlinuz"),
            initramfs: dir.join("initramfs"),
            // QEMU brings the device tree of its machine.
            more: Some(more),
            arguments: [repo::need(vars, "OS_CONSOLES")?, repo::need(vars, "OS_KERNEL_ARGS")?].join(" "),
            config: dir.join("slot.cfg"),
            image: dir.join(repo::need(vars, "OS_KERNEL_IMAGE")?),
            room: room(vars, "OS_KERNEL_SIZE")?,
            epoch,
        };
        Ok(slot.make()?)
    })?;
    Ok(Output { path: out, identity })
}

/// The files of archives that come with the system: each, and beside it what describes its container.
///
/// # Errors
/// When an archive is missing or is none.
pub fn preloads(archives: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for archive in archives {
        let is_archive = archive.extension().is_some_and(|ending| ending == "tar");
        ensure!(is_archive, "{} is no .tar, as docker save writes them", archive.display());
        ensure!(archive.is_file(), "there is no {}", archive.display());
        files.push(archive.clone());
        files.extend(Some(archive.with_extension("json")).filter(|described| described.is_file()));
    }
    Ok(files)
}

/// The root of the channel that devices believe: the builder's, or the one of the developer's keys.
fn channel_root(vars: &Vars, keys: &Keys) -> Result<PathBuf> {
    let given = vars.get("OS_CHANNEL_ROOT")?.filter(|path| !path.is_empty());
    Ok(given.map_or_else(|| keys.channel_root.clone(), Into::into))
}
