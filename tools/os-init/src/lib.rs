//! PID 1 of the initramfs, and the two helpers that come from the same knowledge.
//!
//! - [`boot`] is the flow: find the disk, verify the root, check and mount state and data, switch root
//! - [`cmdline`], [`disk`], [`modules`], [`storage`], [`superblock`], [`encryption`], [`wipe`], [`identity`], [`zram`], [`persist`] are its steps
//! - [`report`] is what it found, kept in `/run/os/init.json` for `os status`
//! - [`logins`] links a login for each serial console, [`nodes`] makes device nodes of drivers that are not loaded yet
//! - [`clock`] knows the least that the clock may be
//! - [`console`] tells a person at the console what happens

pub mod boot;
pub mod clock;
pub mod cmdline;
pub mod console;
pub mod disk;
pub mod encryption;
pub mod identity;
pub mod logins;
pub mod modules;
pub mod nodes;
pub mod persist;
pub mod report;
pub mod reserve;
pub mod storage;
pub mod superblock;
pub mod trial;
pub mod wipe;
pub mod zram;
