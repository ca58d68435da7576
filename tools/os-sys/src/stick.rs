//! A USB stick for a moment: mounted without programs, devices and set-uid files, and let go again.

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::io;
use std::path::{Path, PathBuf};

/// Filesystems a stick may have. The kernel reads what anybody may have prepared: the list is short on purpose.
const FILESYSTEMS: &[&str] = &["vfat", "exfat", "ext4"];

/// A mounted stick. Dropping it lets go of it, silently.
#[derive(Debug)]
pub struct Stick {
    at: PathBuf,
    mounted: bool,
}

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
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
        if FILESYSTEMS.iter().any(|kind| mount(device, at, *kind, flags, None).is_ok()) {
            Ok(Self { at: at.to_owned(), mounted: true })
        } else {
            Err(StickError::Filesystem(device.to_owned()))
        }
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
