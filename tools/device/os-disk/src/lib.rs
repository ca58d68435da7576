//! Partition tables, and how to tell what is in a partition.
//!
//! - [`ext4`] is what a partition of ours holds, or held
//! - [`luks`] is what an encrypted one says of itself
//! - [`gpt`] reads, makes, grows and re-identifies a GPT; [`guid`] are its identifiers

pub mod ext4;
pub mod gpt;
pub mod guid;
pub mod luks;

/// Every partition starts and ends on a multiple of this, in bytes, unless the template asks for more.
pub const MIN_ALIGN: u64 = 1024 * 1024;

/// Logical sector size that images are made for, in bytes.
pub const SECTOR: u64 = 512;
