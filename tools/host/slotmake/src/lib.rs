//! Makes the partition images that are written whole: the two of a slot, and data as it is flashed. Both build lanes call this, so
//! the same files give the same bytes in both: the lab as a library, `os_disk.bbclass` as a program.
//!
//! - [`slot`] makes the two images of a slot
//! - [`verity`] appends the hash tree to the root, [`kernel`] makes the kernel's partition with the hash of that tree
//! - [`data`] makes the data partition
//! - [`size`] knows how large a partition is, and says what does not fit

pub mod data;
mod error;
pub mod kernel;
pub mod size;
pub mod slot;
pub mod verity;

pub use error::SlotError;
