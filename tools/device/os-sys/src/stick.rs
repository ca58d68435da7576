//! A USB stick for a moment: mounted so that nothing on it is run, followed or made a device, only read until there is
//! something to write, and let go again.
//!
//! Whoever prepared it is not trusted. A link on it leads nowhere (`nosymfollow`), not even to another file of the stick; a
//! damaged filesystem becomes read-only instead of what its superblock asks for, which may be the end of the kernel.

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use rustix::path::Arg;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Filesystems a stick may have. The kernel reads what anybody may have prepared: the list is short on purpose.
const FILESYSTEMS: &[&str] = &["vfat", "exfat", "ext4"];
/// What each of them does about its own errors.
const ON_ERRORS: &CStr = c"errors=remount-ro";
/// How every stick is mounted.
const FLAGS: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC)
    .union(MountFlags::NOATIME)
    .union(MountFlags::NOSYMFOLLOW);

/// A mounted stick. Dropping it lets go of it, silently.
#[derive(Debug)]
pub struct Stick {
    at: PathBuf,
    mounted: bool,
}

/// A stick that may be written for as long as this is there.
#[derive(Debug)]
pub struct Writing<'a>(&'a Stick);

/// A stick that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StickError {
    /// There is nowhere to mount it.
    #[error("cannot create {path}: {cause}")]
    Place {
        /// Where it was to be.
        path: PathBuf,
        /// What the kernel answered.
        cause: io::Error,
    },
    /// It is formatted in another way.
    #[error("{0} has none of the filesystems vfat, exfat, ext4")]
    Filesystem(PathBuf),
    /// It takes no files.
    #[error("the stick cannot be written: {0}")]
    ReadOnly(io::Error),
    /// It may not be complete.
    #[error("cannot let go of the stick: {0}")]
    Busy(io::Error),
}

impl Stick {
    /// Mounts the partition `device` on the directory `at`, which is made.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn mount(device: &Path, at: &Path) -> Result<Self, StickError> {
        let place = |cause| StickError::Place { path: at.to_owned(), cause };
        std::fs::create_dir_all(at).map_err(place)?;
        let flags = FLAGS | MountFlags::RDONLY;
        if FILESYSTEMS.iter().any(|kind| mount(device, at, *kind, flags, ON_ERRORS).is_ok()) {
            Ok(Self { at: at.to_owned(), mounted: true })
        } else {
            Err(StickError::Filesystem(device.to_owned()))
        }
    }

    /// Makes it writable, for a report.
    ///
    /// # Errors
    /// When the stick is write-protected or damaged.
    pub fn write(&self) -> Result<Writing<'_>, StickError> {
        mount_remount(&self.at, FLAGS, ON_ERRORS).map_err(|cause| StickError::ReadOnly(cause.into()))?;
        Ok(Writing(self))
    }

    /// Its root directory.
    pub fn dir(&self) -> &Path {
        &self.at
    }

    /// Lets go of it; everything is written when this returns.
    ///
    /// # Errors
    /// When somebody still uses it.
    pub fn release(mut self) -> Result<(), StickError> {
        self.mounted = false;
        unmount(&self.at, UnmountFlags::empty()).map_err(|cause| StickError::Busy(cause.into()))
    }
}

impl Drop for Stick {
    fn drop(&mut self) {
        if self.mounted {
            let _ = unmount(&self.at, UnmountFlags::DETACH);
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        // What was written is on the stick then; one that stays writable is let go of soon.
        let _ = mount_remount(&self.0.at, FLAGS | MountFlags::RDONLY, ON_ERRORS);
    }
}

/// Opens a file that somebody else may have prepared: no link, and nothing that waits, such as a pipe. (Not openat2(2): a
/// unit with RestrictSUIDSGID may not call it.)
fn open(dir: impl AsFd, name: impl Arg, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644)).map_err(io::Error::from);
    let file = File::from(opened.map_err(|err| io::Error::new(err.kind(), format!("cannot be opened: {err}")))?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("no plain file")) }
}

/// Reads a file of at most `limit` bytes that somebody else may have prepared.
///
/// # Errors
/// When it is not there, no plain file, or larger.
pub fn read(dir: impl AsFd, name: impl Arg, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(dir, name, OFlags::RDONLY)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("larger than {} KiB", limit >> 10)));
    }
    Ok(bytes)
}

/// Adds lines to a file beside what somebody else may have prepared. What is in it is not read.
///
/// # Errors
/// When there is something of this name that is no plain file, or the medium takes nothing.
pub fn append(path: &Path, text: &str) -> io::Result<()> {
    let mut file = open(CWD, path, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Writes a file beside what somebody else may have prepared, in place of what had its name. That is not read.
///
/// # Errors
/// When there is a directory of this name, or the medium takes nothing.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let mut file = open(CWD, path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_on_a_stick_is_followed_waited_for_or_read_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let (secret, link, pipe) = (dir.path().join("secret"), dir.path().join("link"), dir.path().join("pipe"));
        std::fs::write(&secret, "x").unwrap();
        symlink(&secret, &link).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [&link, &pipe, &dir.path().to_owned()] {
            assert!(read(CWD, path, 10).is_err(), "{}", path.display());
            assert!(append(path, "more").is_err(), "{}", path.display());
        }
        assert_eq!(read(CWD, &secret, 1).unwrap(), b"x");
        append(&secret, "y").unwrap();
        assert!(read(CWD, &secret, 1).is_err());
        assert_eq!(std::fs::read(&secret).unwrap(), b"xy");
        // In place of the link, not through it.
        replace(&link, b"report").unwrap();
        replace(&pipe, b"report").unwrap();
        assert_eq!(
            (std::fs::read(&secret).unwrap(), std::fs::read(&link).unwrap()),
            (b"xy".to_vec(), b"report".to_vec())
        );
    }
}
