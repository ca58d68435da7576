//! Puts the directories of the persist lists into their places.

use super::{SYSROOT, note};
use crate::persist::{self, Entry};
use anyhow::{Context, Result};
use os_facts::place::{self, under};
use os_facts::report::{Report, Volume};
use rustix::mount::mount_bind;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Makes the directories behind the persist lists, with what the image has in their place as first content; returns those
/// that are there.
pub(super) fn prepare(sysroot: &Path, report: &mut Report) -> Vec<Entry> {
    let inside = |path: &Path| under(sysroot, path);
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
        for partition in [place::STATE, place::DATA] {
            synced = synced.and(File::open(under(sysroot, partition)).and_then(|dir| Ok(rustix::fs::syncfs(dir)?)));
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
    let inside = |path: &Path| under(Path::new(SYSROOT), path);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A root with the partitions below it, and a list that keeps two directories.
    fn root() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let make = |path: &str, text: &str| {
            let path = under(dir.path(), path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        make(
            "/usr/lib/os/persist.d/test.conf",
            &format!("/var/lib/bluetooth state 0700 {uid}:{gid}\n/var/lib/docker data 0711 {uid}:{gid}\n"),
        );
        make("/var/lib/bluetooth/pairs/one", "as the image has it");
        make("/var/lib/docker/empty", "");
        for partition in [place::STATE, place::DATA] {
            fs::create_dir_all(under(dir.path(), partition)).unwrap();
        }
        dir
    }

    fn paths(found: &[Entry]) -> Vec<&str> {
        let mut found: Vec<_> = found.iter().map(|entry| entry.path.to_str().unwrap()).collect();
        found.sort_unstable();
        found
    }

    fn working() -> Report {
        Report { state: Volume::Ok, data: Volume::Ok, ..Report::default() }
    }

    #[test]
    fn what_is_kept_begins_as_the_image_has_it_and_is_never_begun_again() {
        let dir = root();
        let mut report = working();
        let found = prepare(dir.path(), &mut report);
        assert_eq!(report.messages, [""; 0]);
        assert_eq!(paths(&found), ["/var/lib/bluetooth", "/var/lib/docker"]);
        let bluetooth = found.iter().find(|entry| entry.path.ends_with("bluetooth")).unwrap();
        let source = under(dir.path(), bluetooth.source());
        assert_eq!(source.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
        let pair = source.join("pairs/one");
        assert_eq!(fs::read_to_string(&pair).unwrap(), "as the image has it");
        fs::write(&pair, "as it was left").unwrap();
        assert_eq!(prepare(dir.path(), &mut report).len(), 2);
        assert_eq!(fs::read_to_string(&pair).unwrap(), "as it was left");
    }

    #[test]
    fn what_a_power_cut_left_half_copied_does_not_count() {
        let dir = root();
        let mut report = working();
        let source = under(dir.path(), prepare(dir.path(), &mut report).first().unwrap().source());
        let half = source.with_extension("os-new");
        fs::rename(&source, &half).unwrap();
        fs::write(half.join("half"), "").unwrap();
        prepare(dir.path(), &mut report);
        assert!(source.is_dir() && !source.join("half").exists() && !half.exists());
        assert_eq!(report.messages, [""; 0]);
    }

    #[test]
    fn what_cannot_be_kept_is_said_and_holds_nothing_else_back() {
        let dir = root();
        let mut report = Report { data: Volume::Unusable, ..working() };
        assert_eq!(paths(&prepare(dir.path(), &mut report)), ["/var/lib/bluetooth"]);
        assert_eq!(report.messages, [""; 0], "that data cannot be used is said already");
        let dir = root();
        // What is in the way of the state partition's directories.
        let mut report = working();
        let state = under(dir.path(), place::STATE);
        fs::remove_dir(&state).unwrap();
        fs::write(&state, "").unwrap();
        assert_eq!(paths(&prepare(dir.path(), &mut report)), ["/var/lib/docker"]);
        assert!(report.messages.iter().any(|text| text.starts_with("/var/lib/bluetooth is not persistent")));
    }
}
