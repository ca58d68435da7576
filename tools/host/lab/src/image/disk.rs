//! Puts the partition images into one disk image, laid out by the kickstart template that wic reads too.

use crate::image::Options;
use crate::repo::{self, Repo};
use crate::step::{Inputs, Output, Steps};
use crate::tools_tree;
use anyhow::{Context, Result, bail};
use os_layout::kickstart::{self, FsType, Source};
use os_layout::layout::{Layout, Placed};
use os_layout::vars::Vars;
use os_sys::cmd::Cmd;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Partition images.
#[derive(Debug)]
pub struct Parts {
    /// Directory with the slot images.
    pub slot: Output,
    /// Boot partition image.
    pub boot: Output,
    /// Data partition image.
    pub data: Output,
}

/// Reads the kickstart template of the machine with every variable filled in.
///
/// # Errors
/// When the template or a variable is not understood.
pub fn layout(repo: &Repo, vars: &Vars) -> Result<Layout> {
    template(repo, vars, &repo::need(vars, "OS_WKS_FILE")?)
}

/// The same for a template of another name than the machine's.
///
/// # Errors
/// As [`layout`].
pub fn template(repo: &Repo, vars: &Vars, name: &str) -> Result<Layout> {
    let path = repo.meta_os().join("files/wic").join(name);
    let name = path.strip_prefix(&repo.root).unwrap_or(&path).display().to_string();
    let text = vars.expand(&name, &os_sys::files::read_text(&path)?)?;
    Ok(Layout::plan(&kickstart::parse(&name, &text)?)?)
}

/// Builds the disk image and returns its path.
///
/// # Errors
/// When a partition image is missing or too large.
pub fn build(repo: &Repo, vars: &Vars, options: &Options, parts: &Parts, steps: &Steps) -> Result<PathBuf> {
    let layout = layout(repo, vars)?;
    let inputs = Inputs::new()
        .text(&format!("{layout:?}"))
        .text(&tools_tree::identity()?)
        .text(&parts.slot.identity)
        .text(&parts.boot.identity)
        .text(&parts.data.identity);
    let out = repo.lab().join(&options.variant).join("disk");
    steps.run("disk image", inputs, &out, |dir| {
        let path = dir.join("disk.img");
        let mut disk = File::options().read(true).write(true).create_new(true).open(&path)?;
        disk.set_len(layout.disk_size)?;
        layout.write_table(&mut disk)?;
        for placed in &layout.parts {
            place(&mut disk, placed, parts, dir).with_context(|| format!("partition {}", placed.name()))?;
        }
        Ok(disk.sync_all()?)
    })?;
    let image = repo.image(&options.variant);
    // A link would break when the image is copied away; a second name for the same file does not.
    if image.exists() {
        std::fs::remove_file(&image)?;
    }
    std::fs::hard_link(out.join("disk.img"), &image)?;
    Ok(image)
}

fn place(disk: &mut File, placed: &Placed, parts: &Parts, dir: &Path) -> Result<()> {
    let part = &placed.part;
    let source = match &part.source {
        Source::Empty => return Ok(()),
        Source::BootFiles => parts.boot.path.clone(),
        Source::RawCopy { file } => {
            let candidates = [parts.slot.path.join(file), parts.data.path.clone()];
            let found =
                candidates.into_iter().find(|p| p.file_name().is_some_and(|n| n == file.as_str()) && p.exists());
            found.with_context(|| format!("nothing builds {file}"))?
        }
        Source::EmptyFs => {
            let image = dir.join("empty.img");
            File::create(&image)?.set_len(part.size)?;
            let label = part.label.as_deref().unwrap_or_default();
            match part.fstype {
                FsType::Ext4 => {
                    Cmd::new("mke2fs")
                        .args(["-q", "-t", "ext4", "-E", "root_owner=0:0", "-L", label])
                        .args(&part.mkfs_options)
                        .arg(&image)
                        .run()?;
                }
                FsType::Vfat => Cmd::new("mkfs.vfat").args(["-n", label]).args(&part.mkfs_options).arg(&image).run()?,
                FsType::None => return Ok(()),
            }
            image
        }
    };
    let size = std::fs::metadata(&source)?.len();
    if size > part.size {
        bail!("{} has {} KiB and the partition {} KiB", source.display(), size >> 10, part.size >> 10);
    }
    copy_sparse(&mut File::open(&source)?, disk, placed.start)?;
    if part.source == Source::EmptyFs {
        std::fs::remove_file(&source)?;
    }
    Ok(())
}

/// Copies a file to an offset, leaving out blocks of zeros so that the image stays sparse.
///
/// # Errors
/// When one of the files fails.
pub fn copy_sparse(from: &mut File, to: &mut File, offset: u64) -> std::io::Result<()> {
    const BLOCK: usize = 64 << 10;
    let mut buffer = vec![0; BLOCK];
    let mut at = offset;
    loop {
        let mut got = 0;
        while let Some(rest) = buffer.get_mut(got..).filter(|r| !r.is_empty()) {
            match from.read(rest)? {
                0 => break,
                n => got += n,
            }
        }
        let Some(block) = buffer.get(..got).filter(|b| !b.is_empty()) else { return Ok(()) };
        if block.iter().any(|b| *b != 0) {
            to.seek(SeekFrom::Start(at))?;
            to.write_all(block)?;
        }
        at += got as u64;
    }
}
