//! The one room that knows bootloaders: which slot is started, how often it was tried, with which arguments, and how its
//! kernel is loaded for a jump. Everybody else asks a [`Loader`].
//!
//! RAUC's own backend for GRUB calls `grub-editenv`, which empties the file before it writes it anew. A power cut in
//! between takes the counters away, and the bootloader starts a slot that may be half written. Here the one sector that
//! holds them is written in place, as GRUB itself does it, and a copy is kept beside it.
//!
//! - [`loader`] is the bootloader of a disk
//! - [`counters`] are the order and the tries of the slots, in GRUB's environment [`block`]
//! - [`tryboot`] is the Raspberry Pi's firmware, for which the initramfs counts
//! - [`arguments`] are those that a person adds to the kernel's
//! - [`start`] is what a slot says of how it is started, [`kexec`] does that
//! - [`applet`] is what RAUC calls

pub mod applet;
pub mod arguments;
pub mod block;
pub mod counters;
pub mod kexec;
pub mod loader;
pub mod start;
pub mod tryboot;

pub use counters::{Counters, CountersError, Fate, State, Tries};
pub use loader::{Bootloader, Loader, LoaderError};
