//! `config.json`: the one file a person edits to configure the device.
//!
//! - [`json`] reads JSON strictly, [`shape`] says what a value may look like, [`formats`] what a string may hold
//! - [`keys`] is the table of everything that can be configured, [`types`] the same as Rust types
//! - [`model`] turns a file into those types, or into everything that is wrong with it; `lenient` understands what can mean one thing
//!   only, `advice` is what an owner should know
//! - [`store`] reads and writes the file so that a power cut loses nothing, and keeps what was accepted
//! - [`decide`] picks what is in force: the file, or the last good copy when the file is refused
//! - [`apply`] brings the decision into force, doing only what changed; [`status`] is the result per key
//! - [`engine`] is what the container engine reads of it, [`daemon`] the part of that which the engine alone understands,
//!   [`proxy`] the proxy in it, [`redsocks`] the form that balenaOS has for one
//! - [`sysctl`] are settings of the kernel
//! - [`edit`] changes a configuration as JSON, [`seal`] moves secrets out of it, [`import`] takes one from a USB stick
//! - [`name_server`] is one of `dnsServers`, [`follow`] what the networks say of names beside it
//! - [`links`] are the interfaces that are up, the engine's and others
//! - [`lock`] is held for all of that by one at a time
//! - [`connections`] takes NetworkManager profiles over from the boot partition, [`profile`] knows what they lack
//! - [`udev`] is what udev says of rules
//! - [`window`] is a time of the week, [`zones`] the time zones, `country` the countries
//! - [`boot_log`] keeps the beginning of a boot's log
//! - [`wipe`] is how a request to erase travels to the initramfs
//! - [`cli`] is the applet behind `os-config.service`

mod advice;
pub mod apply;
pub mod boot_log;
pub mod cli;
pub mod connections;
mod country;
pub mod daemon;
pub mod decide;
pub mod edit;
pub mod engine;
pub mod follow;
pub mod formats;
pub mod import;
pub mod json;
pub mod keys;
mod lenient;
pub mod links;
pub mod lock;
pub mod model;
pub mod name_server;
pub mod profile;
pub mod proxy;
pub mod redsocks;
pub mod seal;
pub mod shape;
pub mod ssh_key;
pub mod status;
pub mod store;
pub mod sysctl;
pub mod text;
pub mod types;
pub mod udev;
pub mod window;
pub mod wipe;
pub mod zones;

/// The file a person edits, on the running device.
pub const CONFIG: &str = "/mnt/boot/config.json";

/// Result of the last application.
pub const STATUS: &str = "/run/os/config-status.json";

/// A larger file is refused unread, in bytes. Real ones have a few hundred; certificates make some tens of thousands.
pub const MAX_SIZE: u64 = 256 << 10;

/// There once the script of the first boot has ended well.
pub const FIRST_BOOT_DONE: &str = "/mnt/state/os/first-boot.done";

/// What signs updates, and configurations for a device that takes only signed ones.
pub const KEYRING: &str = "/etc/rauc/keyring.pem";

/// Every variant but production is for developers.
fn is_production() -> bool {
    !matches!(os_sys::release::field("VARIANT_ID").as_deref(), Some("development" | "standalone"))
}
