//! Puts the directories of the persist lists into their places.

use super::{DATA, STATE, SYSROOT, note};
use crate::persist::{self, Entry};
use anyhow::{Context, Result};
use os_facts::report::{Report, Volume};
use rustix::mount::mount_bind;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Makes the directories behind the persist lists, with what the image has in their place as first content; returns those
/// that are there.
pub(super) fn prepare(report: &mut Report) -> Vec<Entry> {
    let sysroot = Path::new(SYSROOT);
    let inside = |path: &Path| sysroot.join(path.strip_prefix("/").unwrap_or(path));
    let (entries, complaints) = persist::load(sysroot);
    for complaint in complaints {
        note(report, format!("persist list: {complaint}"));
    }
    let usable = |entry: &Entry| entry.partition != persist::Partition::Data || report.data != Volume::Unusable;
    let (mut there, missing): (Vec<_>, Vec<_>) =
        entries.into_iter().filter(usable).partition(|entry| inside(&entry.source()).exists());
    let (mut made, mut failed) = (Vec::new(), Vec::new());
    for entry in missing {
        match make_persistent(&entry, &inside(&entry.path), &inside(&entry.source())) {
            Ok(new) => made.push((new, entry)),
            Err(err) => failed.push((entry, err)),
        }
    }
    // Renamed when all of it is on the medium: a power cut leaves no half-filled directory that counts as there.
    let mut synced = Ok(());
    if !made.is_empty() {
        for partition in [STATE, DATA] {
            synced = synced.and(File::open(partition).and_then(|dir| Ok(rustix::fs::syncfs(dir)?)));
        }
    }
    for (new, entry) in made {
        match &synced {
            Ok(()) => match std::fs::rename(&new, inside(&entry.source())) {
                Ok(()) => there.push(entry),
                Err(err) => failed.push((entry, err.into())),
            },
            Err(err) => failed.push((entry, anyhow::anyhow!("{err}"))),
        }
    }
    for (entry, err) in failed {
        note(report, format!("{} is not persistent in this boot: {err:#}", entry.path.display()));
    }
    there
}

/// Makes what is to become the directory behind an entry, beside it.
fn make_persistent(entry: &Entry, template: &Path, source: &Path) -> Result<PathBuf> {
    let new = source.with_extension("os-new");
    let _ = std::fs::remove_dir_all(&new);
    std::fs::create_dir_all(&new)?;
    if template.is_dir() {
        copy_tree(template, &new)?;
    }
    chown(&new, Some(entry.uid), Some(entry.gid))?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(entry.mode))?;
    Ok(new)
}

/// Puts a directory of the persist lists into its place. A mount unit for each would have systemd start a program for each,
/// all of them before the first service.
pub(super) fn bind(entry: &Entry) -> Result<()> {
    let inside = |path: &Path| Path::new(SYSROOT).join(path.strip_prefix("/").unwrap_or(path));
    let target = inside(&entry.path);
    if !target.is_dir() {
        std::fs::create_dir_all(&target).context("the image has no such directory")?;
    }
    mount_bind(inside(&entry.source()), &target).context("cannot bind it")
}

/// Copies directories, files and links with owner and mode. Device nodes and sockets are left out.
pub(super) fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    for item in std::fs::read_dir(from)? {
        let item = item?;
        let (source, target) = (item.path(), to.join(item.file_name()));
        let meta = item.metadata()?;
        let kind = meta.file_type();
        if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(&source)?, &target)?;
        } else if kind.is_dir() {
            std::fs::create_dir_all(&target)?;
            copy_tree(&source, &target)?;
        } else if kind.is_file() {
            std::fs::copy(&source, &target)?;
        } else {
            continue;
        }
        std::os::unix::fs::lchown(&target, Some(meta.uid()), Some(meta.gid()))?;
        if !kind.is_symlink() {
            std::fs::set_permissions(&target, meta.permissions())?;
        }
    }
    Ok(())
}
