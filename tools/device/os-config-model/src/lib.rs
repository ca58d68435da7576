//! `config.json`: the one file a person edits to configure the device. What may stand in it, what it means, and which of it is in
//! force.
//!
//! Nothing here asks a service: PID 1 and the workstation read the same model. `os-config` brings it into force.
//!
//! - [`json`] reads JSON strictly, [`shape`] says what a value may look like, [`formats`] what a string may hold
//! - [`keys`] is the table of everything that can be configured, [`types`] the same as Rust types
//! - [`model`] turns a file into those types, or into everything that is wrong with it; `lenient` understands what can mean one thing
//!   only, `advice` is what an owner should know
//! - [`store`] reads and writes the file so that a power cut loses nothing, and keeps what was accepted
//! - [`decide`] picks what is in force: the file, or the last good copy when the file is refused
//! - [`edit`] changes a configuration as JSON, [`seal`] moves secrets out of it, [`text`] reads what people save as text
//! - [`engine`] is what the container engine reads of it, [`daemon`] the part of that which the engine alone understands,
//!   [`proxy`] the proxy in it, [`redsocks`] the form that balenaOS has for one
//! - [`names`] is who is asked for which name, [`name_server`] one of `dnsServers`
//! - [`sysctl`] are settings of the kernel
//! - [`connections`] takes NetworkManager profiles over from the boot partition, [`profile`] knows what they lack
//! - [`window`] is a time of the week, [`zones`] the time zones, [`country`] the countries, [`ssh_key`] a key for ssh
//! - [`wipe`] is how a request to erase travels to the initramfs

mod advice;
pub mod connections;
pub mod country;
pub mod daemon;
pub mod decide;
pub mod edit;
pub mod engine;
pub mod formats;
pub mod json;
pub mod keys;
mod lenient;
pub mod model;
pub mod name_server;
pub mod names;
pub mod profile;
pub mod proxy;
pub mod redsocks;
pub mod seal;
pub mod shape;
pub mod ssh_key;
pub mod store;
pub mod sysctl;
pub mod text;
pub mod types;
pub mod window;
pub mod wipe;
pub mod zones;

/// The file a person edits, on the running device.
pub const CONFIG: &str = "/mnt/boot/config.json";

/// A larger file is refused unread, in bytes. Real ones have a few hundred; certificates make some tens of thousands.
pub const MAX_SIZE: u64 = 256 << 10;
