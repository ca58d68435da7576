//! A person's own kernel arguments: an environment block beside the counters, in a file that RAUC does not write.

use crate::block::{Block, BlockError};
use os_sys::files::{self, FileError, Written};
use std::path::Path;

/// The file.
pub const FILE: &str = "argsenv";
/// The variable in it.
pub const VARIABLE: &str = "os_user_args";

/// The arguments are not where the bootloader reads them.
#[derive(Debug, thiserror::Error)]
pub enum ArgumentsError {
    /// There is no directory of its own on the boot partition, or nothing that passes arguments on.
    #[error("the bootloader of this board takes no further arguments")]
    Unsupported,
    /// They do not fit.
    #[error("the arguments have {0} bytes too many")]
    TooLong(usize),
    /// The block cannot be made.
    #[error(transparent)]
    Block(BlockError),
    /// The boot partition does not take them.
    #[error(transparent)]
    Write(#[from] FileError),
}

/// None where there is no file, or one that the bootloader would not read.
pub(crate) fn read(directory: &Path) -> Option<String> {
    let block = Block::parse(&std::fs::read(directory.join(FILE)).ok()?).ok()?;
    block.get(VARIABLE).map(str::to_owned)
}

/// Nothing is written where there is no file and there are no arguments.
pub(crate) fn write(directory: &Path, text: &str) -> Result<Written, ArgumentsError> {
    let path = directory.join(FILE);
    if text.is_empty() && !path.exists() {
        return Ok(Written::Unchanged);
    }
    if !directory.is_dir() {
        return Err(ArgumentsError::Unsupported);
    }
    let mut block = Block::default();
    block.set(VARIABLE, text);
    let bytes = block.bytes().map_err(|err| match err {
        BlockError::Full(more) => ArgumentsError::TooLong(more),
        other => ArgumentsError::Block(other),
    })?;
    Ok(files::write_if_changed(&path, &bytes, 0o644)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_lie_in_a_block_of_grubs_size_and_signature() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), None);
        assert_eq!(write(dir.path(), "").unwrap(), Written::Unchanged);
        assert_eq!(write(dir.path(), "quiet a=b").unwrap(), Written::Changed);
        let bytes = std::fs::read(dir.path().join(FILE)).unwrap();
        assert_eq!(bytes.len(), 1024);
        assert!(bytes.starts_with(b"# GRUB Environment Block\nos_user_args=quiet a=b\n##"));
        assert_eq!(read(dir.path()).as_deref(), Some("quiet a=b"));
        assert_eq!(write(dir.path(), "quiet a=b").unwrap(), Written::Unchanged);
        assert!(matches!(write(dir.path(), &"x".repeat(1000)), Err(ArgumentsError::TooLong(_))));
        assert_eq!(read(dir.path()).as_deref(), Some("quiet a=b"), "what did not fit replaced nothing");
        assert_eq!(write(dir.path(), "").unwrap(), Written::Changed);
        let nowhere = dir.path().join("none");
        assert!(matches!(write(&nowhere, "quiet"), Err(ArgumentsError::Unsupported)));
    }
}
