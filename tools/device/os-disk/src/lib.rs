//! Partition tables, and how to tell what is in a partition.
//!
//! - [`ext4`] is what a partition of ours holds, or held
//! - [`luks`] is what an encrypted one says of itself
//! - [`table`] is the partition table of a disk that the OS lies on, of whatever kind it is
//! - [`gpt`] and [`mbr`] read, make, grow and re-identify one of each kind; [`guid`] are identifiers of the first

mod error;
pub mod ext4;
pub mod gpt;
pub mod guid;
pub mod luks;
pub mod mbr;
pub mod table;
#[cfg(test)]
mod test_disks;

pub use error::TableError;

/// Every partition starts and ends on a multiple of this, in bytes, unless the template asks for more.
pub const MIN_ALIGN: u64 = 1024 * 1024;

/// Logical sector size that images are made for, in bytes.
pub const SECTOR: u64 = 512;

/// A disk whose writes can be ordered.
pub trait Barrier {
    /// Returns when everything that was written is on the medium.
    ///
    /// # Errors
    /// When the medium does not take it.
    fn barrier(&mut self) -> std::io::Result<()>;
}

impl Barrier for std::fs::File {
    fn barrier(&mut self) -> std::io::Result<()> {
        self.sync_data()
    }
}

impl Barrier for &std::fs::File {
    fn barrier(&mut self) -> std::io::Result<()> {
        self.sync_data()
    }
}

impl<T> Barrier for std::io::Cursor<T> {
    fn barrier(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
