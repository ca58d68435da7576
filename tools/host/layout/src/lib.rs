//! The layout of the disk, which both lanes make from one template.
//!
//! - [`kickstart`] parses the subset of wic's kickstart format that `meta-os/files/wic/*.wks.in` uses
//! - [`vars`] reads the BitBake assignments that give the template its sizes
//! - [`layout`] turns the two into byte offsets, checks them, and writes the partition table

pub mod kickstart;
pub mod layout;
pub mod vars;
