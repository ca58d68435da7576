//! What board this is: `/usr/lib/os/board.conf`, which the build writes from the variables that the disk was made with.
//!
//! The initramfs has the same file, so that both know before any disk is mounted.

use std::path::{Path, PathBuf};

/// Where the file lies, in the root and in the initramfs.
pub const PATH: &str = "/usr/lib/os/board.conf";

/// A larger file is none of ours, in bytes.
const MAX: u64 = 64 << 10;

/// The board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// What starts the kernel (`OS_BOOTLOADER`), by the name that `os-boot` knows it by.
    pub bootloader: String,
}

/// Nothing says what board this is.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] os_sys::files::ReadError),
    /// A line that has to be there is not, or has no value.
    #[error("{path} names no {name}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// The name.
        name: &'static str,
    },
}

impl Board {
    /// This board.
    ///
    /// # Errors
    /// When its file cannot be read or does not say what it has to.
    pub fn of_this_device() -> Result<Self, BoardError> {
        Self::load(Path::new(PATH))
    }

    /// Reads a file: a `NAME=VALUE` in each line. Names that this release does not know are passed over.
    ///
    /// # Errors
    /// As [`Board::of_this_device`].
    pub fn load(path: &Path) -> Result<Self, BoardError> {
        let text = String::from_utf8_lossy(&os_sys::files::read_limited(path, MAX)?).into_owned();
        let value = |name: &'static str| {
            let found = os_sys::release::field_of(&text, name).filter(|value| !value.is_empty());
            found.ok_or_else(|| BoardError::Missing { path: path.to_owned(), name })
        };
        Ok(Self { bootloader: value("BOOTLOADER")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Board, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Board::load(file.path()).map_err(|err| err.to_string().replace(&*file.path().to_string_lossy(), "board.conf"))
    }

    #[test]
    fn a_board_says_its_bootloader() {
        let board = Board { bootloader: "grub".to_owned() };
        assert_eq!(load("# Written by the build.\nLATER=1\nBOOTLOADER=grub\n"), Ok(board));
        for (text, said) in [
            ("", "board.conf names no BOOTLOADER"),
            ("BOOTLOADER=\n", "board.conf names no BOOTLOADER"),
            ("XBOOTLOADER=grub\n", "board.conf names no BOOTLOADER"),
        ] {
            assert_eq!(load(text), Err(said.to_owned()));
        }
        assert!(Board::load(Path::new("/nonexistent")).is_err());
    }
}
