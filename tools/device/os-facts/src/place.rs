//! The partitions that are written, as they are mounted, and what is where on every device.

use std::path::{Path, PathBuf};

/// A path of the device, with its root somewhere else: in the initramfs, or in a test.
pub fn under(root: &Path, path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The boot partition.
pub const BOOT: &str = "/mnt/boot";
/// The state partition: identity and host configuration.
pub const STATE: &str = "/mnt/state";
/// The data partition: what the engine keeps, and what its owner puts there.
pub const DATA: &str = "/mnt/data";
/// `/etc` as the image has it; what stands in `/etc` is that and what this boot wrote over it.
pub const IMAGE_ETC: &str = "/run/os/image-etc";
/// Space on the state partition, below it, that `os-update` gives up when what becomes of an update finds none.
pub const STATE_RESERVE: &str = "os/update/reserve";
