//! PID 1 of the initramfs, and the two helpers that come from the same knowledge.
//!
//! - [`boot`] is the flow: find the disk, verify the root, check and mount state and data, switch root
//! - [`cmdline`], [`disk`], [`modules`], [`storage`], [`encryption`], [`wipe`], [`zram`], [`persist`] are its steps
//! - [`restart`] tells the firmware which slot to try
//! - [`needs`] is what the OS needs of a kernel
//! - what it found is kept for `os status` as [`os_facts::report`]
//! - [`logins`] links a login for each serial console, [`nodes`] makes device nodes of drivers that are not loaded yet
//! - [`console`] tells a person at the console what happens

pub mod boot;
pub mod cmdline;
pub mod console;
pub mod disk;
pub mod encryption;
pub mod logins;
pub mod modules;
pub mod needs;
pub mod nodes;
pub mod persist;
pub mod reserve;
pub mod restart;
pub mod storage;
pub mod wipe;
pub mod zram;
