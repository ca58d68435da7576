//! What is so on every device, whoever asks: what the initramfs found, what the device is, where things are.
//!
//! The floor that the applets stand on, so that none of them stands on another.
//!
//! - [`report`] is what the initramfs found and did, with the [`protection`] of data in it
//! - [`slot`] is one of the two that the system is in, [`board`] what this board is, [`wipe_scope`] what may be erased
//! - [`identity`] names the device, [`hostname`] is what people call it, [`clock`] is the least that its clock may be
//! - [`trial`] says whether this boot is one, [`selftest`] is what a self test found
//! - [`role`] is what a partition is for, [`place`] where those that are written are mounted

pub mod board;
pub mod clock;
pub mod hostname;
pub mod identity;
pub mod place;
pub mod protection;
pub mod report;
pub mod role;
pub mod selftest;
pub mod slot;
pub mod trial;
mod update;
pub mod wipe_scope;

pub use role::Role;
pub use slot::Slot;
pub use wipe_scope::WipeScope;
