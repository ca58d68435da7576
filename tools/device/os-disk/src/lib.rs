//! Partition tables, the template they are made from, and how to tell what is in a partition.
//!
//! - [`kickstart`] parses the subset of wic's kickstart format that `meta-os/files/wic/*.wks.in` uses
//! - [`vars`] reads the BitBake assignments that give the template its sizes
//! - [`layout`] turns the two into byte offsets, checks them, and writes a GPT
//! - [`ext4`] is what a partition of ours holds, or held
//! - [`gpt`] reads, makes, grows and re-identifies a GPT; [`guid`] are its identifiers

pub mod ext4;
pub mod gpt;
pub mod guid;
pub mod kickstart;
pub mod layout;
pub mod vars;

/// Every partition starts and ends on a multiple of this, in bytes, unless the template asks for more.
pub const MIN_ALIGN: u64 = 1024 * 1024;

/// Logical sector size that images are made for, in bytes.
pub const SECTOR: u64 = 512;
