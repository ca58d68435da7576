//! dm-verity: the hash tree behind a root filesystem.

use crate::SlotError;
use os_sys::cmd::Cmd;
use std::fs::File;
use std::path::Path;

/// Identifier of every hash tree.
const ID: &str = "6f732d76-6572-4000-8000-000000000001";
/// Size of a block of data and of hashes, in bytes.
const BLOCK: u64 = 4096;

/// dm-verity parameters of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verity {
    /// Hash of the tree, hex.
    pub root_hash: String,
    /// Bytes before the tree.
    pub data_size: u64,
}

impl Verity {
    /// The kernel arguments from which the initramfs opens the root.
    pub fn arguments(&self) -> String {
        format!("os.roothash={} os.rootsize={}", self.root_hash, self.data_size)
    }
}

/// Appends the hash tree to an image.
///
/// # Errors
/// When the image cannot be written or veritysetup fails.
pub fn append_tree(image: &Path) -> Result<Verity, SlotError> {
    let failed = || SlotError::file("write", image);
    let file = File::options().write(true).open(image).map_err(failed())?;
    // The tree starts on a block of its own.
    let data_size = file.metadata().map_err(failed())?.len().next_multiple_of(BLOCK);
    file.set_len(data_size).map_err(failed())?;
    let text = Cmd::new("veritysetup")
        .arg("format")
        .arg(image)
        .arg(image)
        .arg(format!("--hash-offset={data_size}"))
        // A fixed salt and identifier: the same filesystem gives the same hash. The salt is no secret.
        .args([format!("--salt={}", "0".repeat(64)), format!("--uuid={ID}")])
        .read()?;
    let root_hash = text.lines().find_map(|line| line.strip_prefix("Root hash:")).map(str::trim);
    let root_hash = root_hash.filter(|hash| !hash.is_empty()).ok_or_else(|| SlotError::NoHash(image.to_owned()))?;
    Ok(Verity { root_hash: root_hash.to_owned(), data_size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_have_the_same_hash() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("root");
        std::fs::write(&image, [1; 10_000]).unwrap();
        let verity = append_tree(&image).unwrap();
        let hash = "74fc38e84487b408882c0e3a0be375e24b6e2e5b9ba4b867b4cecfcf3fd30d32";
        assert_eq!(verity.arguments(), format!("os.roothash={hash} os.rootsize=12288"));
        // Superblock and one block of hashes.
        assert_eq!(std::fs::metadata(&image).unwrap().len(), 12288 + 2 * BLOCK);
        assert!(append_tree(&dir.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
