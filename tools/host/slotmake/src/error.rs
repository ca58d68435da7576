//! What can go wrong.

use crate::size::{Room, kib};
use os_sys::cmd::CmdError;
use std::io;
use std::path::{Path, PathBuf};

/// Why an image was not made.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// A variable that is no size.
    #[error("{variable} is '{text}', which is no size; allowed is a number with K, M or G, such as 64M")]
    Size {
        /// Name of the variable.
        variable: &'static str,
        /// Its value.
        text: String,
    },
    /// An image that is larger than its partition, or than its builder wants.
    #[error("{} has {} KiB, and {room}: {} KiB too much. Make it smaller, or {} larger", .path.display(), kib(*.size), kib(.size.saturating_sub(.room.bytes)), .room.variable)]
    TooLarge {
        /// The image.
        path: PathBuf,
        /// Bytes that it has.
        size: u64,
        /// Bytes that there are.
        room: Room,
    },
    /// A file that a filesystem did not take.
    #[error("cannot put {what} into {}, {} KiB in all, and {room}: {cause}", .image.display(), kib(*.size))]
    Full {
        /// The file.
        what: String,
        /// Image with the filesystem.
        image: PathBuf,
        /// Bytes of all that is to go into it.
        size: u64,
        /// Bytes that there are.
        room: Room,
        /// What the program said.
        cause: Box<CmdError>,
    },
    /// veritysetup ended well and said no hash.
    #[error("veritysetup gave no root hash for {}", .0.display())]
    NoHash(PathBuf),
    /// A file that cannot be read or written.
    #[error("cannot {doing} {}: {cause}", .path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel answered.
        cause: io::Error,
    },
    /// A program that is missing or failed.
    #[error(transparent)]
    Program(#[from] CmdError),
}

impl SlotError {
    /// For `map_err`: a file on which something failed.
    pub(crate) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::File { doing, path, cause }
    }
}
