//! The two partition images of a slot: root with its verity tree, and kernel with the hash of that tree.

use crate::image::keys::Keys;
use crate::image::{Options, as_root, compose};
use crate::repo::{self, Repo};
use crate::step::{Inputs, Output, Steps};
use crate::tools_tree;
use anyhow::{Context, Result, bail, ensure};
use os_disk::vars::Vars;
use os_sys::cmd::Cmd;
use std::fs::{self, File};
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
    let mut inputs = Inputs::new()
        .text(&options.variant)
        .text(&epoch.to_string())
        .text(&repo::need(vars, "OS_KERNEL_ARGS")?)
        .text(&repo::need(vars, "OS_VERSION")?)
        .text(&repo::need(vars, "OS_ROOT_COMPRESSION")?)
        .text(&base.identity)
        .text(&tools_tree::identity()?)
        .path(&tools.join("os-tools"))?
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
        let verity = seal(&root)?;
        fits(&root, vars, "OS_ROOT_SIZE")?;
        let config = slot_cfg(vars, &verity)?;
        fs::write(dir.join("slot.cfg"), config)?;
        let kernel = dir.join(repo::need(vars, "OS_KERNEL_IMAGE")?);
        kernel_image(dir, &kernel, vars, epoch)
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

/// Identifier of every hash tree.
pub const VERITY_ID: &str = "6f732d76-6572-4000-8000-000000000001";
/// Volume id of every kernel partition.
pub const VOLUME_ID: &str = "6f73006b";

/// dm-verity parameters of an image.
#[derive(Debug)]
pub struct Verity {
    root_hash: String,
    data_size: u64,
}

impl Verity {
    /// The kernel arguments from which the initramfs opens the root.
    pub fn arguments(&self) -> String {
        format!("os.roothash={} os.rootsize={}", self.root_hash, self.data_size)
    }
}

/// Appends the verity hash tree to an image.
///
/// # Errors
/// When the image cannot be written or veritysetup fails.
pub fn seal(image: &Path) -> Result<Verity> {
    let file = File::options().write(true).open(image)?;
    // The tree starts on a block of its own.
    let data_size = file.metadata()?.len().next_multiple_of(4096);
    file.set_len(data_size)?;
    let text = Cmd::new("veritysetup")
        .arg("format")
        .arg(image)
        .arg(image)
        .arg(format!("--hash-offset={data_size}"))
        // A fixed salt and identifier: the same filesystem gives the same hash. The salt is no secret.
        .args([format!("--salt={}", "0".repeat(64)), format!("--uuid={VERITY_ID}")])
        .read()?;
    let root_hash = text
        .lines()
        .find_map(|l| l.strip_prefix("Root hash:"))
        .map(|h| h.trim().to_owned())
        .context("veritysetup said no root hash")?;
    Ok(Verity { root_hash, data_size })
}

/// What GRUB runs for this slot; `$os_kernel` and `$os_args` come from grub.cfg.
fn slot_cfg(vars: &Vars, verity: &Verity) -> Result<String> {
    let args = [verity.arguments(), repo::need(vars, "OS_CONSOLES")?, repo::need(vars, "OS_KERNEL_ARGS")?];
    Ok(format!(
        "linux \"$os_kernel/vmlinuz\" $os_args {}\ninitrd \"$os_kernel/initramfs\"\n",
        args.join(" ").split_ascii_whitespace().collect::<Vec<_>>().join(" ")
    ))
}

fn kernel_image(dir: &Path, image: &Path, vars: &Vars, epoch: u64) -> Result<()> {
    let size = super::disk::bytes(&repo::need(vars, "OS_KERNEL_SIZE")?)?;
    File::create(image)?.set_len(size)?;
    // A fixed volume id, and the name that a person sees with a card reader.
    Cmd::new("mkfs.vfat").args(["--invariant", "-n", "OS-KERNEL", "-i", VOLUME_ID]).arg(image).run()?;
    for name in ["vmlinuz", "initramfs", "slot.cfg"] {
        Cmd::new("touch").arg("-d").arg(format!("@{epoch}")).arg(dir.join(name)).run()?;
        Cmd::new("mcopy")
            .arg("-m")
            .env("TZ", "UTC")
            .arg("-i")
            .arg(image)
            .arg(dir.join(name))
            .arg(format!("::{name}"))
            .run()
            .with_context(|| format!("{name} does not fit; OS_KERNEL_SIZE in os-layout.inc is too small"))?;
    }
    Ok(())
}

fn fits(image: &Path, vars: &Vars, variable: &str) -> Result<()> {
    let (size, limit) = (fs::metadata(image)?.len(), super::disk::bytes(&repo::need(vars, variable)?)?);
    if size > limit {
        bail!("{} has {} KiB and {variable} (os-layout.inc) allows {}", image.display(), size >> 10, limit >> 10);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_says_its_hash() {
        let mut vars = Vars::default();
        vars.parse("t", "OS_CONSOLES = \"console=tty0  console=ttyS0\"\nOS_KERNEL_ARGS = \"quiet\"\n").unwrap();
        let verity = Verity { root_hash: "ab".to_owned(), data_size: 4096 };
        assert_eq!(
            slot_cfg(&vars, &verity).unwrap(),
            "linux \"$os_kernel/vmlinuz\" $os_args os.roothash=ab os.rootsize=4096 console=tty0 console=ttyS0 quiet\n\
             initrd \"$os_kernel/initramfs\"\n"
        );
    }
}
