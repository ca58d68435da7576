//! The partitions that are written, as they are mounted.

/// The boot partition.
pub const BOOT: &str = "/mnt/boot";
/// The state partition: identity and host configuration.
pub const STATE: &str = "/mnt/state";
/// The data partition: what the engine keeps, and what its owner puts there.
pub const DATA: &str = "/mnt/data";
/// Space on the state partition, below it, that `os-update` gives up when what becomes of an update finds none.
pub const STATE_RESERVE: &str = "os/update/reserve";
