//! The partitions that are written, as they are mounted, and what is where on every device.

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
