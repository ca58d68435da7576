//! Brings `config.json` into force on the running system. What may stand in it is `os-config-model`.
//!
//! - [`apply`] brings the decision into force, doing only what changed; [`status`] is the result per key
//! - [`import`] takes a configuration from a USB stick
//! - [`follow`] is what the networks say of names and of the time beside it
//! - [`links`] are the interfaces that are up, the engine's and others
//! - [`lock`] is held for all of that by one at a time
//! - [`udev`] is what udev says of rules
//! - [`boot_log`] keeps the beginning of a boot's log
//! - [`cli`] is the applet behind `os-config.service`

pub mod apply;
pub mod boot_log;
pub mod cli;
pub mod follow;
pub mod import;
pub mod links;
pub mod lock;
pub mod status;
pub mod udev;

/// Result of the last application.
pub const STATUS: &str = "/run/os/config-status.json";

/// There once the script of the first boot has ended well.
pub const FIRST_BOOT_DONE: &str = "/mnt/state/os/first-boot.done";

/// What signs updates, and configurations for a device that takes only signed ones.
pub const KEYRING: &str = "/etc/rauc/keyring.pem";

/// Every variant but production is for developers.
fn is_production() -> bool {
    !matches!(os_sys::release::field("VARIANT_ID").as_deref(), Some("development" | "standalone"))
}
