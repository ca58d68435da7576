//! `config.json`: the one file a person edits to configure the device.
//!
//! - [`model`] is what may stand in it, and how it is checked
//! - [`decide`] picks what is in force: the file, or the last good copy when the file is refused
//! - [`status`] is the result per key that `os config status` shows
//! - [`apply`] brings the decision into force, doing only what changed
//! - [`connections`] takes NetworkManager profiles over from the boot partition
//! - [`cli`] is the applet behind `os-config.service`

pub mod apply;
pub mod cli;
pub mod connections;
pub mod decide;
pub mod model;
pub mod status;

/// The file a person edits, on the running device.
pub const CONFIG: &str = "/mnt/boot/config.json";

/// The last copy that was accepted.
pub const LAST_GOOD: &str = "/mnt/state/os/config/last-good.json";

/// Result of the last application.
pub const STATUS: &str = "/run/os/config-status.json";

/// A larger file is refused unread, in bytes. Real ones have a few hundred; certificates make some tens of thousands.
pub const MAX_SIZE: u64 = 256 << 10;
